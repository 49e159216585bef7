"""ChestX-ray14: a DenseNet-121 with ImageNet's weights, fine-tuned on the official training list.

On the official test list a DenseNet-121 has about 80 to 82 % mean AUROC in the literature; higher published numbers are
of other splits, see README.md beside this file. Epochs are chosen by the mean AUROC of validation patients. The grey
films are shown as three equal channels, since that is what the weights know. This recipe was not run on the whole
release by its authors. The first start writes 112,120 images of 224x224 into the cache, 5.6 GB, once.
"""

from distill import AdamW, BinaryCrossEntropy, ChestXray, Cosine, Model, Recipe, Term, main

recipe = Recipe(
    name="chestxray14-teacher",
    data=ChestXray(),
    student=Model("torchvision:densenet121", weights="IMAGENET1K_V1"),
    plan={"task": Term(BinaryCrossEntropy())},
    optimizer=AdamW(lr=1e-4, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=8,
    patience=3,
    batch_size=64,
    workers=8,
)

if __name__ == "__main__":
    main(recipe)
