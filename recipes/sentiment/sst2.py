"""SST-2: BERT-base into a 4-layer BERT of 312 (TinyBERT's size), in TinyBERT's two stages. Train sst2_teacher.py first.

The student's first stage has no labels: embeddings, hidden states and attention scores of the fine-tuned teacher; the
second its softened predictions. The paper starts from a student that learned general hints before (see
wikipedia_general.py): `--student.weights runs/wikipedia-general` takes it.
"""

from distill import AdamW, LinearDecay, Model, Recipe, Sst2, Stage, main, tinybert_prediction_terms, tinybert_terms

recipe = Recipe(
    name="sst2",
    data=Sst2(max_length=64),
    teacher=Model("transformers:bert-base-uncased", weights="runs/sst2-teacher"),
    student=Model(
        "transformers:bert",
        arguments={
            "hidden_size": 312,
            "num_hidden_layers": 4,
            "num_attention_heads": 12,
            "intermediate_size": 1200,
        },
    ),
    stages=(
        Stage("hints", tinybert_terms(12, 4), 10, AdamW(lr=5e-5), LinearDecay(warmup_epochs=1)),
        Stage("prediction", tinybert_prediction_terms(), 3, AdamW(lr=3e-5), LinearDecay(warmup_epochs=0.3)),
    ),
    batch_size=32,
    clip=1.0,
    repeats=3,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
