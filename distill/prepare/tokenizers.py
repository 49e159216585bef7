"""Which tokenizer each model of a recipe has."""

from collections.abc import Sequence
from pathlib import Path

from distill.models import student_folder
from distill.prepare.models import under_root
from distill.recipe import Model, Recipe
from distill.tokenize import Tokenizer, load_tokenizer


def tokenizers_of(recipe: Recipe, texts: Sequence[str], root: Path) -> dict[str, Tokenizer]:
    """{side: tokenizer}, see `TokensView`. A student without a tokenizer of its own takes the teacher's."""
    teacher = None if recipe.teacher is None else _tokenizer(recipe.teacher, texts, root)
    student = _tokenizer(recipe.student, texts, root) or teacher
    if student is None or (recipe.teacher is not None and teacher is None):
        model = recipe.student if student is None else recipe.teacher
        assert model is not None
        raise ValueError(
            f"{model.source} has no tokenizer of its own. Give it one: Model(..., tokenizer=WordPiece()) is trained on "
            "the training texts, and a folder or a name is loaded."
        )
    if teacher is None or teacher.fingerprint == student.fingerprint:
        return {"": student}
    return {"student": student, "teacher": teacher}


def _tokenizer(model: Model, texts: Sequence[str], root: Path) -> Tokenizer | None:
    """The tokenizer that a model names, or brings; None where it does neither."""
    weights = None if model.weights is None else Path(under_root(model.weights, root)).expanduser()
    folder = None if weights is None else student_folder(weights)
    if folder is not None:
        if model.tokenizer is not None:
            raise ValueError(
                f"tokenizer={model.tokenizer!r} has no effect on {model.source}: {model.weights} has the one that it "
                "was trained with. Leave it out."
            )
        return load_tokenizer(str(folder))
    if isinstance(model.tokenizer, str):
        return load_tokenizer(under_root(model.tokenizer, root))
    if model.tokenizer is not None:
        return model.tokenizer.train(texts)
    kind, _, name = model.source.partition(":")
    return load_tokenizer(name) if kind == "transformers" and model.weights == "pretrained" else None
