"""The teacher of sst2.py and sst2_bilstm.py: bert-base-uncased, fine-tuned on SST-2. Its weights come from the hub."""

from distill import AdamW, CrossEntropy, LinearDecay, Model, Recipe, Sst2, Term, main

recipe = Recipe(
    name="sst2-teacher",
    data=Sst2(max_length=64),
    student=Model("transformers:bert-base-uncased", weights="pretrained"),
    plan={"task": Term(CrossEntropy())},
    optimizer=AdamW(lr=2e-5),
    schedule=LinearDecay(warmup_epochs=0.3),
    epochs=3,
    batch_size=32,
    clip=1.0,
)

if __name__ == "__main__":
    main(recipe)
