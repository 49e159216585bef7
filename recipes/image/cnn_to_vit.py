"""Digits: a ResNet-8x4 into a small vision transformer of another kind. Train digits_teacher.py first.

The transformer cuts an image into 4x4 patches of 2x2 pixels. Its tokens meet the teacher's map of 4x4 positions through
`Grid`, and a classifier on its first block learns the teacher's answers, as in OFA.
"""

from distill import (
    KD,
    OFA,
    AdamW,
    Cosine,
    CrossEntropy,
    Digits,
    Grid,
    Hint,
    Model,
    Recipe,
    StageClassifier,
    Term,
    View,
    main,
)

recipe = Recipe(
    name="cnn-to-vit",
    data=Digits(validation=0.3, test=0.5),
    teacher=Model("distill.models.cifar:resnet8x4", weights="runs/digits-teacher"),
    student=Model(
        "torchvision.models:VisionTransformer",
        arguments={
            "image_size": 8,
            "patch_size": 2,
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 64,
            "mlp_dim": 128,
        },
        view=View(mean=(0.3053, 0.3053, 0.3053), std=(0.3759, 0.3759, 0.3759)),  # grey, as the three channels it takes
    ),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
        "stage": Term(
            OFA(),
            weight=0.5,
            student="encoder.layers.encoder_layer_0",
            teacher="logits",
            head=StageClassifier(),
        ),
        "positions": Term(
            Hint(),
            weight=0.5,
            student="encoder.layers.encoder_layer_1",
            teacher="layer2",
            head=Grid(),
        ),
    },
    optimizer=AdamW(lr=0.002, weight_decay=0.05),
    schedule=Cosine(warmup_epochs=2.0),
    epochs=60,
    batch_size=64,
    repeats=3,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
