"""A recipe's models, and what they see of its data."""

from pathlib import Path

from distill.data import Splits, TextSplits
from distill.models import Loaded, load_model
from distill.recipe import Model
from distill.taps import accepted_names
from distill.tokenize import check_fit
from distill.view import Sees, TokensView


def load(model: Model, splits: Splits | TextSplits, classes: int | None, root: Path, role: str) -> tuple[Loaded, Sees]:
    """The model of a role, "student" or "teacher", and what it sees of an example.

    classes: how many it answers; None for as many as its weights have, or where it guesses tokens.

    Raises:
        ValueError: it can't be had, its tokenizer does not fit it, or it is of other data than these; by name.
    """
    tokenizer = splits.tokenizer(role) if isinstance(splits, TextSplits) else None
    loaded = load_model(
        model.source,
        num_classes=classes,
        in_channels=splits.train[(0, 0)].image.shape[0] if isinstance(splits, Splits) else None,
        vocab_size=None if tokenizer is None else tokenizer.size,
        weights=None if model.weights is None else under_root(model.weights, root),
        arguments=model.arguments,
        trust=model.trust,
        answers="tokens" if isinstance(splits, TextSplits) and splits.masked else "classes",
        labels=tuple(splits.classes),
    )
    accepted = accepted_names(loaded.model)
    of_texts = accepted is not None and "input_ids" in accepted
    if accepted is not None and of_texts != isinstance(splits, TextSplits):
        kinds = ("images", "texts") if of_texts else ("texts", "images")
        raise ValueError(f"The data are {kinds[0]}, and {model.source} is a model of {kinds[1]}. Take another model.")
    if isinstance(splits, Splits):
        return loaded, model.view or loaded.view or splits.view
    if model.view is not None:
        raise ValueError(f"view of {model.source} is of images, and the data are texts. Leave it out.")
    assert tokenizer is not None
    check_fit(tokenizer, loaded.model, name=model.source, max_length=splits.max_length)
    return loaded, TokensView("" if "" in splits.tokenizers else role, splits.max_length)


def under_root(weights: str, root: Path) -> str:
    """`runs/NAME` names a run: it lies in the folder of runs, wherever the user put that."""
    first, _, rest = weights.partition("/")
    return str(root / rest) if first == "runs" and rest else weights
