"""Synthetic chest phantoms: a ResNet-20 into a ResNet-8, a quarter of its size. Train phantoms_teacher.py first.

The student starts from the teacher's first blocks of each stage, and learns the labels, the teacher's probability of
each finding, where its last map is active, and which films it takes for alike. The films are drawn by a program
(see `Phantoms`): they show a run that works, and are no evidence for radiographs.

All was chosen on the validation films under seeds that are not used here: the learning rate is the one that suits the
plain student best (0.2 of 0.1, 0.2 and 0.4), with 600 patients and 12 epochs, which were cut afterwards for time. The
plain student is not at its end after 10 epochs.
"""

from distill import (
    SGD,
    AttentionTransfer,
    BinaryCrossEntropy,
    Cosine,
    Model,
    MultiLabelKD,
    Phantoms,
    Recipe,
    SimilarityPreserving,
    SkipLayers,
    Term,
    main,
)

recipe = Recipe(
    name="phantoms",
    data=Phantoms(patients=450),
    teacher=Model("distill.models.cifar:resnet20", weights="runs/phantoms-teacher", arguments={"stem_stride": 2}),
    student=Model("distill.models.cifar:resnet8", arguments={"stem_stride": 2}),
    initialize=SkipLayers(),
    plan={
        "task": Term(BinaryCrossEntropy()),
        "kd": Term(MultiLabelKD(), weight=5.0),
        "attention": Term(AttentionTransfer(), weight=100.0, student="layer3", teacher="layer3"),
        "samples": Term(SimilarityPreserving(), weight=100.0, student="embedding", teacher="embedding"),
    },
    optimizer=SGD(lr=0.2, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=10,
    batch_size=32,
    repeats=3,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
