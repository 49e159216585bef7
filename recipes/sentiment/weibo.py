"""Weibo: bert-base-chinese into three of its layers. Train weibo_teacher.py first, which says where the file lies."""

from distill import (
    KD,
    AdamW,
    CrossEntropy,
    LinearDecay,
    Model,
    Recipe,
    SkipLayers,
    Term,
    TextTable,
    main,
    minilmv2_terms,
)

recipe = Recipe(
    name="weibo",
    data=TextTable(
        folder="weibo", train="weibo_senti_100k.csv", classes={"0": "negative", "1": "positive"}, max_length=140
    ),
    teacher=Model("transformers:bert-base-chinese", weights="runs/weibo-teacher"),
    student=Model("transformers:bert-base-chinese", arguments={"num_hidden_layers": 3}),
    initialize=SkipLayers(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=2.0), weight=0.9),
        **minilmv2_terms(12, 3),
    },
    optimizer=AdamW(lr=5e-5),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=64,
    clip=1.0,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
