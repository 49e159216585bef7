"""The teacher of cifar100.py in the literature's setting: a ResNet-32x4, 79.42 % published, 240 epochs; for a GPU."""

from distill import SGD, Cifar100, CrossEntropy, Model, Recipe, Steps, Term, main

recipe = Recipe(
    name="cifar100-teacher",
    data=Cifar100(),
    student=Model("distill.models.cifar:resnet32x4"),
    plan={"task": Term(CrossEntropy())},
    optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
    schedule=Steps(milestones=(150, 180, 210)),
    epochs=240,
    batch_size=64,
    workers=4,
)

if __name__ == "__main__":
    main(recipe)
