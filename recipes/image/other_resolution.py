"""CIFAR-10: a ResNet-20 that sees 32x32 pixels into a student that sees 16x16, at a quarter of the cost.

Both see the same crop. The teacher's last map has 8x8 positions and the student's 4x4; `Grid` brings them together.
Train cifar10_teacher.py first.
"""

from distill import KD, SGD, Cifar10, Cosine, CrossEntropy, Grid, Hint, Model, Recipe, Term, View, main

recipe = Recipe(
    name="other-resolution",
    data=Cifar10(),
    teacher=Model("distill.models.cifar:resnet20", weights="runs/cifar10-teacher"),
    student=Model(
        "distill.models.cifar:resnet20", view=View(size=16, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    ),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "positions": Term(Hint(), weight=0.1, student="layer3", teacher="layer3", head=Grid()),
    },
    optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=100,
    batch_size=128,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
