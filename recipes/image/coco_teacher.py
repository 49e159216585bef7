"""The teacher of coco.py: an ImageNet ResNet-50, fine-tuned to name all objects of an image; for a GPU.

Never run on COCO itself, only on a few small images of the same form. Batch, optimizer and rate are those of Yang et
al., 2023, arXiv:2308.06453, whose teacher is a ResNet-101 with a decoder behind it, and whose images are also hidden in
part and changed at random.
"""

from distill import AdamW, BinaryCrossEntropy, Coco, Cosine, Model, Recipe, Term, main

recipe = Recipe(
    name="coco-teacher",
    data=Coco(),
    student=Model("torchvision:resnet50", weights="IMAGENET1K_V2"),
    plan={"task": Term(BinaryCrossEntropy())},
    optimizer=AdamW(lr=1e-4, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=6.0),
    epochs=30,
    batch_size=64,
    workers=4,
)

if __name__ == "__main__":
    main(recipe)
