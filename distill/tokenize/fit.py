"""Whether a tokenizer fits a model: enough embeddings for its tokens, enough positions for the longest text."""

from torch import nn

from distill.tokenize.kinds import Tokenizer
from distill.tokenize.places import import_transformers

_POSITIONS = "position_embeddings"


def check_fit(tokenizer: Tokenizer, model: nn.Module, name: str, *, max_length: int) -> None:
    """Refuse a tokenizer whose tokens, or whose longest text, the model has no embedding for.

    name: how the user named the model. max_length: tokens of the longest text.

    Raises:
        ValueError: it does not fit; both are named.
    """
    rows = _word_rows(model)
    if rows is not None and tokenizer.size > rows:
        raise ValueError(
            f"The tokenizer {tokenizer.name} does not fit {name}: it has tokens up to {tokenizer.size - 1}, and the "
            f"model embeds {rows}. Take the model's own, or give the model vocab_size={tokenizer.size}."
        )
    positions = _positions(model)
    if positions is None:
        return
    first = 0
    if positions.padding_idx is not None:
        # RoBERTa counts positions from behind its padding token, and takes every such token for padding.
        first = positions.padding_idx + 1
        padding = tokenizer.encode([""], max_length).padding
        if padding != positions.padding_idx:
            raise ValueError(
                f"The tokenizer {tokenizer.name} does not fit {name}: it pads with token {padding}, and the model "
                f"takes {positions.padding_idx} for padding. Take the model's own, or give the model "
                f"pad_token_id={padding}."
            )
    if max_length > positions.num_embeddings - first:
        raise ValueError(
            f"Texts of {max_length} tokens by {tokenizer.name} do not fit {name}, which has "
            f"{positions.num_embeddings - first} positions. Lower max_length."
        )


def _word_rows(model: nn.Module) -> int | None:
    """How many tokens the model embeds: of transformers as it says, else by its largest table; None without one."""
    if isinstance(model, import_transformers("A tokenizer").PreTrainedModel):
        words = model.get_input_embeddings()
        return words.num_embeddings if isinstance(words, nn.Embedding) else None
    return max((each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding)), default=None)


def _positions(model: nn.Module) -> nn.Embedding | None:
    return next(
        (
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding) and name.rpartition(".")[2] == _POSITIONS
        ),
        None,
    )
