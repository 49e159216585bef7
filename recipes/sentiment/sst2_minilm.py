"""SST-2: a 6-layer MiniLM into three of its layers. Train sst2_minilm_teacher.py first.

The student starts from every second layer and learns the soft answers and the relations of queries, keys and values.
"""

from distill import KD, AdamW, CrossEntropy, LinearDecay, Model, Recipe, SkipLayers, Sst2, Term, main, minilmv2_terms

MINILM = "transformers:sentence-transformers/all-MiniLM-L6-v2"

recipe = Recipe(
    name="sst2-minilm",
    data=Sst2(max_length=64),
    teacher=Model(MINILM, weights="runs/sst2-minilm-teacher"),
    student=Model(MINILM, arguments={"num_hidden_layers": 3}),
    initialize=SkipLayers(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=2.0), weight=0.9),
        **minilmv2_terms(6, 3, heads=12),
    },
    optimizer=AdamW(lr=2e-4),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=5,
    batch_size=32,
    clip=1.0,
    repeats=3,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
