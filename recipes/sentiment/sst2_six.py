"""SST-2: BERT-base into its every second layer, as DistilBERT does it. Train sst2_teacher.py first."""

from distill import AdamW, CrossEntropy, LinearDecay, Model, Recipe, SkipLayers, Sst2, Term, distilbert_terms, main

recipe = Recipe(
    name="sst2-six",
    data=Sst2(max_length=64),
    teacher=Model("transformers:bert-base-uncased", weights="runs/sst2-teacher"),
    student=Model("transformers:bert-base-uncased", arguments={"num_hidden_layers": 6}),
    initialize=SkipLayers(),
    plan={"task": Term(CrossEntropy(), weight=2.0), **distilbert_terms(12, 6)},
    optimizer=AdamW(lr=5e-5),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=32,
    clip=1.0,
    repeats=3,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
