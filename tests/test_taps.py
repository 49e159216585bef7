"""What can be tapped, and what is refused by name."""

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.taps import TapError, Tapped, tappable


class Net(nn.Module):
    """One module of each kind: changed in place, called twice, never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.inplace = nn.ReLU(inplace=True)
        self.shared = nn.Tanh()
        self.unused = nn.Linear(2, 2)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inplace(self.first(x))
        return self.classifier(self.shared(self.shared(x)))


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def test_logits_embedding_and_modules_are_read() -> None:
    net = Net()
    out = Tapped(net, ["logits", "embedding", "inplace"])(X)
    relu = F.relu(net.first(X))
    assert torch.equal(out["inplace"], relu)
    assert torch.equal(out["embedding"], relu.tanh().tanh())
    assert torch.equal(out["logits"], net(X))


def test_the_input_of_a_module_is_read() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.relu, self.fc = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.relu(self.linear(x) + x))

    block = Block()
    out = Tapped(block, ["relu:input", "relu"], stop=True)(X)
    assert torch.equal(out["relu:input"], block.linear(X) + X)
    assert torch.equal(out["relu"], out["relu:input"].relu())
    alone = Tapped(block, ["relu:input"], stop=True)
    for _ in range(2):  # the second pass ends at the tap
        assert torch.equal(alone(X)["relu:input"], out["relu:input"])


def test_the_input_of_a_module_that_changes_it_in_place_is_refused() -> None:
    with pytest.raises(TapError, match="The input of 'inplace' of Net is changed in place after it was read"):
        Tapped(Net(), ["inplace:input"])(X)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("classifer", "Net has no module 'classifer'. Nearest: classifier."),
        ("first", "The output of 'first' of Net is changed in place after it was read. Next that is safe: inplace."),
        ("shared", "Module 'shared' of Net is called 2 times in one forward pass"),
        ("unused", "Module 'unused' of Net was not reached by the forward pass."),
        ("logits:1", "Tap 'logits:1' has no item '1': it gives one tensor. Name it 'logits'."),
    ],
)
def test_bad_taps_are_refused_by_name_with_the_nearest_good_one(tap: str, message: str) -> None:
    with pytest.raises(TapError) as error:
        Tapped(Net(), [tap])(X)
    assert message in str(error.value)


def test_torchvision_batch_norm_before_the_residual_addition_is_refused() -> None:
    from torchvision.models import resnet18

    model = resnet18().eval()
    with pytest.raises(TapError, match=r"'layer1.0.bn1' of ResNet is changed in place .* safe: layer1.0.conv2"):
        Tapped(model, ["layer1.0.bn1"])(torch.randn(1, 3, 32, 32))
    out = Tapped(model, ["layer1", "embedding"])(torch.randn(1, 3, 32, 32))
    shapes = {tap: tuple(tensor.shape) for tap, tensor in out.items()}
    assert shapes == {"layer1": (1, 64, 8, 8), "embedding": (1, 512)}


Pair = namedtuple("Pair", "logits extra")


class Gives(nn.Module):
    """A model whose answer has the shape that a test asks for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        y, z = self.inner(x), x + 1
        return {
            "mapping": lambda: OrderedDict(loss=z, logits=y),
            "named": lambda: Pair(y, z),
            "single": lambda: (y,),
            "pair": lambda: (y, [z, z + 1]),
        }[self.kind]()


@pytest.mark.parametrize(
    ("kind", "tap"), [("mapping", "logits"), ("named", "logits"), ("single", "logits"), ("pair", "logits:0")]
)
def test_tuples_and_mappings_give_their_tensor(kind: str, tap: str) -> None:
    assert torch.equal(Tapped(Gives(kind), [tap])(X)[tap], X)


def test_a_pair_without_an_item_names_the_choices() -> None:
    with pytest.raises(TapError, match=r"gives 2 values\. Name one: 'logits:0', 'logits:1'"):
        Tapped(Gives("pair"), ["logits"])(X)
    with pytest.raises(TapError, match="is 2 values, not a tensor"):
        Tapped(Gives("pair"), ["logits:1"])(X)


def test_a_model_output_of_transformers_style_and_signature() -> None:
    class Text(nn.Module):
        def forward(self, ids: Tensor) -> Any:
            return {"logits": ids.float()}

    out = Tapped(Text(), ["logits"])({"ids": torch.ones(2, 3), "token_type_ids": torch.zeros(2, 3)})
    assert out["logits"].shape == (2, 3)


def test_nothing_is_kept_after_the_call_and_a_direct_call_captures_nothing() -> None:
    tapped = Tapped(Net(), ["inplace", "embedding"])
    tapped(X)
    tapped.model(X)
    assert not tapped._outputs and not tapped._calls and tapped._linear is None


def test_close_takes_the_hooks_off() -> None:
    net = Net()
    Tapped(net, ["inplace", "embedding"]).close()
    assert not any(module._forward_hooks for module in net.modules())


def test_a_frozen_model_stops_behind_its_last_tap() -> None:
    net, calls = Net(), []
    net.classifier.register_forward_hook(lambda *_: calls.append(1))
    tapped = Tapped(net, ["inplace"], stop=True)
    first, second = tapped(X)["inplace"], tapped(X)["inplace"]
    assert torch.equal(first, second)
    assert len(calls) == 1


def test_tappable_lists_only_what_is_safe() -> None:
    assert tappable(Net(), X) == ["inplace", "classifier"]


def test_embedding_without_a_linear_end_is_refused() -> None:
    with pytest.raises(TapError, match="does not end in a linear layer"):
        Tapped(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), ["embedding"])(X)
