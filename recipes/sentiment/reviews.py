"""Synthetic reviews: a 4-layer BERT into two of its layers. Train reviews_teacher.py first.

The student starts from the teacher's first and last layer, learns its soft answers, and how the tokens of its last
layer relate (MiniLMv2). The reviews are drawn from a grammar (see `Reviews`): they show a run that works, and are no
evidence for real texts; sst2_minilm.py and imdb.py read real ones.
"""

from distill import (
    KD,
    AdamW,
    CrossEntropy,
    LinearDecay,
    Model,
    Recipe,
    Reviews,
    SkipLayers,
    Term,
    main,
    minilmv2_terms,
)

SIZE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 64}

recipe = Recipe(
    name="reviews",
    data=Reviews(max_length=64),
    teacher=Model("transformers:bert", arguments={**SIZE, "num_hidden_layers": 4}, weights="runs/reviews-teacher"),
    student=Model("transformers:bert", arguments={**SIZE, "num_hidden_layers": 2}),
    initialize=SkipLayers(),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=2.0), weight=0.9),
        **minilmv2_terms(4, 2, heads=4),
    },
    optimizer=AdamW(lr=1e-3),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=32,
    clip=1.0,
    repeats=3,
    controls=("plain", "initialized"),
)

if __name__ == "__main__":
    main(recipe)
