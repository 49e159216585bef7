"""COCO, several labels an image: a ResNet-50 into a ResNet-18, label by label. Train coco_teacher.py first; for a GPU.

Multi-label knowledge distillation (Yang et al., 2023, arXiv:2308.06453): each label's probability follows the
teacher's, and the embeddings of an image's labels lie to each other as the teacher's do. The paper takes these from a
decoder with a query for each label; here they are what each feature adds to each logit of a plain classifier.

Never run on COCO itself, only on a few small images of the same form. Weights: 10 on probabilities is the paper's,
beside binary cross-entropy, both as means over the labels. 10 on embeddings is a guess between what the authors' sums,
with weights 100 and 1,000, come to in batches of 64 images with three labels: 3 over images and 24 over labels.
"""

from distill import AdamW, BinaryCrossEntropy, Coco, Cosine, LabelEmbedding, Model, MultiLabelKD, Recipe, Term, main

recipe = Recipe(
    name="coco",
    data=Coco(),
    teacher=Model("torchvision:resnet50", weights="runs/coco-teacher"),
    student=Model("torchvision:resnet18", weights="IMAGENET1K_V1"),
    plan={
        "task": Term(BinaryCrossEntropy()),
        "labels": Term(MultiLabelKD(), weight=10.0),
        "embeddings": Term(LabelEmbedding(), weight=10.0, student="fc:contributions", teacher="fc:contributions"),
    },
    optimizer=AdamW(lr=1e-4, weight_decay=1e-4),
    schedule=Cosine(warmup_epochs=16.0),
    epochs=80,
    batch_size=64,
    workers=4,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
