"""IMDB: BERT-base into its every second layer. Train imdb_teacher.py first."""

from distill import KD, AdamW, CrossEntropy, Imdb, LinearDecay, Model, Recipe, SkipLayers, Term, main, minilmv2_terms

recipe = Recipe(
    name="imdb",
    data=Imdb(max_length=256),
    teacher=Model("transformers:bert-base-uncased", weights="runs/imdb-teacher"),
    student=Model("transformers:bert-base-uncased", arguments={"num_hidden_layers": 6}),
    initialize=SkipLayers(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=2.0), weight=0.9),
        **minilmv2_terms(12, 6),
    },
    optimizer=AdamW(lr=5e-5),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=32,
    clip=1.0,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
