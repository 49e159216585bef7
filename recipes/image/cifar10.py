"""CIFAR-10: a ResNet-20 into a ResNet-8 of a quarter of its size. Train cifar10_teacher.py first."""

from distill import KD, SGD, Cifar10, Cosine, CrossEntropy, Model, Recipe, Term, main

recipe = Recipe(
    name="cifar10",
    data=Cifar10(),
    teacher=Model("distill.models.cifar:resnet20", weights="runs/cifar10-teacher"),
    student=Model("distill.models.cifar:resnet8"),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
    },
    optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=100,
    batch_size=128,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
