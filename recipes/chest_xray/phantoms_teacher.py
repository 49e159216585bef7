"""Synthetic chest phantoms: the ResNet-20 that teaches phantoms.py. Needs no download.

The films are drawn by a program once, into the cache, in the files of ChestX-ray14; see README.md beside this file. A
stem of stride 2 makes of 64x64 pixels the maps that this network knows from 32x32.
"""

from distill import SGD, BinaryCrossEntropy, Cosine, Model, Phantoms, Recipe, Term, main

recipe = Recipe(
    name="phantoms-teacher",
    data=Phantoms(patients=450),
    student=Model("distill.models.cifar:resnet20", arguments={"stem_stride": 2}),
    plan={"task": Term(BinaryCrossEntropy())},
    optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=20,
    batch_size=32,
)

if __name__ == "__main__":
    main(recipe)
