"""The same network for another task: a ResNet-50 starts from an ImageNet ResNet-50's weights and learns pets."""

from distill import SGD, CopyWeights, Cosine, CrossEntropy, Model, Pets, Recipe, Term, main

recipe = Recipe(
    name="same-architecture",
    data=Pets(by="breed"),
    teacher=Model("torchvision:resnet50", weights="IMAGENET1K_V2"),
    student=Model("torchvision:resnet50"),
    initialize=CopyWeights(),
    plan={"task": Term(CrossEntropy(label_smoothing=0.1))},
    optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=20,
    batch_size=32,
    workers=4,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
