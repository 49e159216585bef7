"""Digits: a ResNet-8x4 into a ResNet-8 of half width, a sixtieth of its size. Train digits_teacher.py first.

There are 360 images to train on, few enough that what the teacher knows of them is worth something. The student starts
from evenly chosen weights of the teacher and learns its soft answers. All was chosen on the validation images, under
seeds that are not used here: the learning rate is the one that suits the plain student best, and the epochs are enough
for it (with twice as many it gains 0.3 points).
"""

from distill import KD, SGD, Cosine, CrossEntropy, Digits, Model, Recipe, SelectWeights, Term, main

recipe = Recipe(
    name="digits",
    data=Digits(validation=0.3, test=0.5),
    teacher=Model("distill.models.cifar:resnet8x4", weights="runs/digits-teacher"),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 8}),
    initialize=SelectWeights(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
    },
    optimizer=SGD(lr=0.2, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=16,
    batch_size=64,
    repeats=5,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
