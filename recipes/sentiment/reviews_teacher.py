"""The teacher of reviews.py: a 4-layer BERT on synthetic reviews. Needs no download; two minutes on two cores.

The reviews are drawn from a grammar (see `Reviews`): they show a run that works, and are no evidence for real texts.
"""

from distill import AdamW, CrossEntropy, LinearDecay, Model, Recipe, Reviews, Term, WordPiece, main

recipe = Recipe(
    name="reviews-teacher",
    data=Reviews(max_length=64),
    student=Model(
        "transformers:bert",
        arguments={
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": 64,
        },
        tokenizer=WordPiece(size=1000),
    ),
    plan={"task": Term(CrossEntropy())},
    optimizer=AdamW(lr=1.5e-3),
    schedule=LinearDecay(warmup_epochs=1),
    epochs=12,
    batch_size=32,
    clip=1.0,
)

if __name__ == "__main__":
    main(recipe)
