"""Cats and dogs: what an ImageNet ResNet-50 sees goes into a ResNet-18, which then learns the 37 breeds.

Two stages. First the student's features are pulled to the teacher's, without labels: the teacher has ImageNet's 1,000
classes, so its answers are of no use here. Then the student is fine-tuned on the breeds, or on the two species with
--data.by species.
"""

from distill import (
    SGD,
    AttentionTransfer,
    Conv1x1,
    Cosine,
    CrossEntropy,
    Hint,
    Model,
    Pets,
    Recipe,
    SimilarityPreserving,
    Stage,
    Term,
    main,
)

recipe = Recipe(
    name="pets",
    data=Pets(by="breed"),
    teacher=Model("torchvision:resnet50", weights="IMAGENET1K_V2"),
    student=Model("torchvision:resnet18"),
    stages=(
        Stage(
            name="transfer",
            plan={
                "hint": Term(Hint(), weight=1.0, student="layer3", teacher="layer3", head=Conv1x1()),
                "attention": Term(AttentionTransfer(), weight=1000.0, student="layer4", teacher="layer4"),
                "samples": Term(SimilarityPreserving(), weight=3000.0, student="layer4", teacher="layer4"),
            },
            epochs=30,
            optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=1e-4),
            schedule=Cosine(warmup_epochs=0.5),
        ),
        Stage(
            name="fine-tune",
            plan={"task": Term(CrossEntropy(label_smoothing=0.1))},
            epochs=30,
            optimizer=SGD(lr=0.02, momentum=0.9, weight_decay=1e-4),
            schedule=Cosine(warmup_epochs=0.5),
        ),
    ),
    batch_size=64,
    workers=4,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
