"""The teacher of digits.py: a ResNet-8x4 on 360 of scikit-learn's 8x8 digits. Needs no download; half a minute."""

from distill import SGD, Cosine, CrossEntropy, Digits, Model, Recipe, Term, main

recipe = Recipe(
    name="digits-teacher",
    data=Digits(validation=0.3, test=0.5),
    student=Model("distill.models.cifar:resnet8x4"),
    plan={"task": Term(CrossEntropy(label_smoothing=0.05))},
    optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=40,
    batch_size=64,
)

if __name__ == "__main__":
    main(recipe)
