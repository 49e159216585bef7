"""The teacher of weibo.py: bert-base-chinese, fine-tuned on weibo_senti_100k. Its weights come from the hub.

The file is `data/weibo/weibo_senti_100k.csv` with the columns label and review. Emoticons such as [抓狂] stand in many
posts and tell much of the label.
"""

from distill import AdamW, CrossEntropy, LinearDecay, Model, Recipe, Term, TextTable, main

recipe = Recipe(
    name="weibo-teacher",
    data=TextTable(
        folder="weibo", train="weibo_senti_100k.csv", classes={"0": "negative", "1": "positive"}, max_length=140
    ),
    student=Model("transformers:bert-base-chinese", weights="pretrained"),
    plan={"task": Term(CrossEntropy())},
    optimizer=AdamW(lr=2e-5),
    schedule=LinearDecay(warmup_epochs=0.1),
    epochs=2,
    batch_size=64,
    clip=1.0,
)

if __name__ == "__main__":
    main(recipe)
