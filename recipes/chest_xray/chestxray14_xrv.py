"""ChestX-ray14: a DenseNet-121 of torchxrayvision into MobileNetV3-small; its weights are a file of yours.

Give the teacher's file with --teacher.weights FILE. The recipe names PadChest's weights ("pc"), which have an output
for each of the 14 findings. The weights "nih", "all" and "rsna" were trained on images of this very release, test
images among them: such a teacher knows the test set, and no figure that a student has from it may stand beside one on
the official split. "chex", "mimic_nb" and "mimic_ch" know half of the findings: the run stops by their names, and
--data.labels leaves them out. This recipe was not run with any of these files by its authors.
"""

from distill import (
    AdamW,
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
    name="chestxray14-xrv",
    data=ChestXray(),
    teacher=Model("xrv:densenet121-res224-pc", weights="weights/pc-densenet121.pt"),
    student=Model("torchvision:mobilenet_v3_small", weights="IMAGENET1K_V1"),
    plan={
        "task": Term(BinaryCrossEntropy()),
        "kd": Term(MultiLabelKD(temperature=2.0), weight=1.0),
        "samples": Term(SimilarityPreserving(), 300.0, student="embedding", teacher="embedding"),
    },
    optimizer=AdamW(lr=3e-4, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=12,
    batch_size=64,
    workers=8,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
