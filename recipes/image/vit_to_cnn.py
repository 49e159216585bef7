"""Cats and dogs: what an ImageNet vision transformer sees goes into a ResNet-18, which then learns the 37 breeds.

As in pets.py the teacher answers other classes, so its layers teach. Its 14x14 patches, without the class token, meet
the ResNet's map of 14x14 positions, and its class token the embedding.
"""

from distill import (
    SGD,
    Cosine,
    CrossEntropy,
    Grid,
    Hint,
    Linear,
    Model,
    Pets,
    Recipe,
    SimilarityPreserving,
    Stage,
    Term,
    main,
)

recipe = Recipe(
    name="vit-to-cnn",
    data=Pets(by="breed"),
    teacher=Model("torchvision:vit_b_16", weights="IMAGENET1K_V1"),
    student=Model("torchvision:resnet18"),
    stages=(
        Stage(
            name="transfer",
            plan={
                "positions": Term(
                    Hint(), weight=1.0, student="layer3", teacher="encoder.layers.encoder_layer_8", head=Grid()
                ),
                "embedding": Term(Hint(), weight=1.0, student="embedding", teacher="embedding", head=Linear()),
                "samples": Term(SimilarityPreserving(), weight=3000.0, student="embedding", teacher="embedding"),
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
