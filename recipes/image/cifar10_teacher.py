"""The teacher of cifar10.py: a ResNet-20 on CIFAR-10, 92 % in the literature; hours on a CPU, minutes on a GPU."""

from distill import SGD, Cifar10, Cosine, CrossEntropy, Model, Recipe, Term, main

recipe = Recipe(
    name="cifar10-teacher",
    data=Cifar10(),
    student=Model("distill.models.cifar:resnet20"),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=100,
    batch_size=128,
)

if __name__ == "__main__":
    main(recipe)
