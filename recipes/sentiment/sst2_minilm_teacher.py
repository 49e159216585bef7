"""The teacher of sst2_minilm.py: a 6-layer MiniLM of 384, fine-tuned on SST-2.

Any BERT of six layers will do: give its folder or its name by
`--student.source transformers:PLACE --student.tokenizer PLACE`.
"""

from distill import AdamW, CrossEntropy, LinearDecay, Model, Recipe, Sst2, Term, main

recipe = Recipe(
    name="sst2-minilm-teacher",
    data=Sst2(max_length=64),
    student=Model("transformers:sentence-transformers/all-MiniLM-L6-v2", weights="pretrained"),
    plan={"task": Term(CrossEntropy())},
    optimizer=AdamW(lr=1e-4),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=32,
    clip=1.0,
)

if __name__ == "__main__":
    main(recipe)
