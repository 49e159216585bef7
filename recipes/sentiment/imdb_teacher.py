"""The teacher of imdb.py: bert-base-uncased, fine-tuned on IMDB's long reviews. Its weights come from the hub."""

from distill import AdamW, CrossEntropy, Imdb, LinearDecay, Model, Recipe, Term, main

recipe = Recipe(
    name="imdb-teacher",
    data=Imdb(max_length=256),
    student=Model("transformers:bert-base-uncased", weights="pretrained"),
    plan={"task": Term(CrossEntropy())},
    optimizer=AdamW(lr=2e-5),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=2,
    batch_size=32,
    clip=1.0,
)

if __name__ == "__main__":
    main(recipe)
