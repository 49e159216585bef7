"""SST-2: BERT-base into a BiLSTM over words, of a fiftieth of its size. Train sst2_teacher.py first.

The student has a vocabulary of its own, so only the answers can be compared: Tang et al., 2019, arXiv:1903.12136, whose
loss is the squared distance of the logits. Their student gained most on further texts without labels, which
`TextTable(unlabelled=...)` reads.
"""

from distill import AdamW, CrossEntropy, LogitMSE, Model, Recipe, Sst2, Term, Words, main

recipe = Recipe(
    name="sst2-bilstm",
    data=Sst2(max_length=64),
    teacher=Model("transformers:bert-base-uncased", weights="runs/sst2-teacher"),
    student=Model("distill.models.text:bilstm", tokenizer=Words()),
    plan={"task": Term(CrossEntropy(), weight=0.5), "logits": Term(LogitMSE(), weight=0.5)},
    optimizer=AdamW(lr=1e-3),
    epochs=10,
    batch_size=64,
    clip=1.0,
    repeats=3,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
