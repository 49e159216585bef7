"""General text: BERT-base into a 4-layer BERT of 312 that knows no task yet, by masked words and token relations.

Put an extract of Wikipedia, JSON lines with a field "text" (as WikiExtractor's --json writes them; join its files by
`cat extracted/*/wiki_* > wikipedia.jsonl`), into the folder `wikipedia` of the data. Afterwards sst2.py starts from the
student: `--student.weights runs/wikipedia-general`. MiniLMv2 has the relations alone; the masked words train the layers
behind them too, and say on held-out text how good the student is.
"""

from distill import AdamW, Corpus, LinearDecay, MaskedLanguageModel, Model, Recipe, Term, main
from distill.terms import minilmv2_terms

recipe = Recipe(
    name="wikipedia-general",
    data=Corpus("wikipedia", "*.jsonl", validation=2000, test=2000, max_length=128),
    teacher=Model("transformers:bert-base-uncased", weights="pretrained"),
    student=Model(
        "transformers:bert",
        arguments={
            "hidden_size": 312,
            "num_hidden_layers": 4,
            "num_attention_heads": 12,
            "intermediate_size": 1200,
        },
    ),
    plan={"words": Term(MaskedLanguageModel()), **minilmv2_terms(12, 4, heads=24)},
    optimizer=AdamW(lr=6e-4),
    schedule=LinearDecay(warmup_epochs=0.05),
    epochs=3,
    batch_size=256,
    micro_batch_size=32,
    clip=1.0,
    workers=4,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
