"""Models as ONNX files: their answers, for other numbers and lengths than those they were written with."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distill.models.cifar import resnet8x4
from distill.onnx_file import Logits, OnnxModel, positional, write_onnx
from distill.taps import Inputs

pytest.importorskip("onnxruntime")


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**size, vocab_size=100))


def densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=8, block_config=(2, 2), num_init_features=16, num_classes=5)


def texts(count: int, length: int) -> dict[str, torch.Tensor]:
    mask = (torch.arange(length) < torch.arange(count)[:, None] % length + 1).long()
    return {"input_ids": torch.randint(0, 100, (count, length)), "attention_mask": mask}


CASES: dict[str, tuple[object, Inputs, Inputs]] = {
    "a CNN": (lambda: resnet8x4(num_classes=10), torch.randn(4, 3, 32, 32), torch.randn(9, 3, 32, 32)),
    "a DenseNet": (densenet, torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64)),
    "a BERT": (bert, texts(3, 7), texts(5, 12)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_answers_as_the_model(name: str, tmp_path: Path) -> None:
    build, given, others = CASES[name]
    torch.manual_seed(0)
    model = build().eval()  # type: ignore[operator]
    write_onnx(model, given, tmp_path / "model.onnx", longest=512 if name == "a BERT" else None, metadata={"a": "b"})
    found = OnnxModel(tmp_path / "model.onnx")
    for inputs in (given, others):
        names, tensors = positional(inputs)
        with torch.no_grad():
            expected = Logits(model, names)(*tensors)
        torch.testing.assert_close(found(inputs), expected, rtol=0, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
