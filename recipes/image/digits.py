"""Digits: a ResNet-8x4 into a ResNet-8 of half width."""

from distill import (
    KD, SGD, Conv1x1, Cosine, CrossEntropy, Digits, Hint, Model, Recipe, RKDDistance, SelectWeights, Term, main,
)

recipe = Recipe(
    name="digits",
    data=Digits(),
    teacher=Model("distill.models.cifar:resnet8x4", weights="runs/digits-teacher"),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 8}),
    initialize=SelectWeights(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "hint": Term(Hint(), weight=1.0, student="layer2", teacher="layer2", head=Conv1x1()),
        "samples": Term(RKDDistance(), weight=25.0, student="embedding", teacher="embedding"),
    },
    optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=1),
    epochs=6,
    batch_size=64,
    repeats=3,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
