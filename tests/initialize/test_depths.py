"""Blocks are counted through the whole model, with what lies before, between and behind them."""

import pytest
from torch import nn

from distill.initialize import depths
from distill.models.cifar import resnet8, resnet20
from tests.initialize.layouts import Bert


def test_a_resnet_counts_on_through_its_stages() -> None:
    found, deepest = depths(resnet20(10))
    assert deepest == 10
    stem = {name for name, depth in found.items() if depth == 0}
    assert stem and not any(name.startswith(("layer", "fc")) for name in stem)
    for stage in range(3):
        for block in range(3):
            inside = [depth for name, depth in found.items() if name.startswith(f"layer{stage + 1}.{block}.")]
            assert set(inside) == {3 * stage + block + 1}
    assert found["fc.weight"] == found["fc.bias"] == 10


def test_a_transformer_has_its_embeddings_below_and_its_classifier_above() -> None:
    found, deepest = depths(Bert(4, 2, 4, 3))
    assert deepest == 4
    assert {depth for name, depth in found.items() if "embeddings" in name} == {0}
    for layer in range(3):
        assert {depth for name, depth in found.items() if f"layer.{layer}." in name} == {layer + 1}
    assert found["classifier.weight"] == 4


def test_what_lies_between_two_lists_goes_with_the_block_before() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

    model = nn.Sequential()
    for name, module in (
        ("stem", nn.Linear(2, 2)),
        ("first", nn.ModuleList([Block(), Block()])),
        ("between", nn.Linear(2, 2)),
        ("second", nn.ModuleList([Block(), Block(), Block()])),
        ("behind", nn.Linear(2, 2)),
    ):
        model.add_module(name, module)
    found, deepest = depths(model)
    assert deepest == 6
    assert (found["stem.weight"], found["first.1.inner.weight"], found["between.weight"]) == (0, 2, 2)
    assert (found["second.0.inner.weight"], found["second.2.inner.bias"], found["behind.weight"]) == (3, 5, 6)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), resnet8(10)])
def test_a_model_without_repeated_blocks_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"layer_decay counts repeated blocks .* and \w+ has none\. Leave it out"):
        depths(model)
