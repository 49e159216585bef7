"""ChestX-ray14: DenseNet-121 into MobileNetV3-small, a quarter of its parameters and a fiftieth of its arithmetic.

The student starts from ImageNet's weights, as the plain control beside it does, and learns the labels, the teacher's
probability of each finding, where its 14x14 and 7x7 maps are active, and which films it takes for alike. Train
chestxray14_teacher.py first. This recipe was not run on the whole release by its authors.
"""

from distill import (
    AdamW,
    AttentionTransfer,
    BinaryCrossEntropy,
    ChestXray,
    Cosine,
    Model,
    MultiLabelKD,
    Recipe,
    SimilarityPreserving,
    Term,
    main,
)

recipe = Recipe(
    name="chestxray14",
    data=ChestXray(),
    teacher=Model("torchvision:densenet121", weights="runs/chestxray14-teacher"),
    student=Model("torchvision:mobilenet_v3_small", weights="IMAGENET1K_V1"),
    plan={
        "task": Term(BinaryCrossEntropy()),
        "kd": Term(MultiLabelKD(), weight=5.0),
        "attention14": Term(AttentionTransfer(), 100.0, student="features.8", teacher="features.denseblock3"),
        "attention7": Term(AttentionTransfer(), 100.0, student="features.12", teacher="features.denseblock4"),
        "samples": Term(SimilarityPreserving(), 300.0, student="embedding", teacher="embedding"),
    },
    optimizer=AdamW(lr=3e-4, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=12,
    batch_size=64,
    workers=8,
    repeats=3,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
