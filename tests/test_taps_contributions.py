"""Contributions of a classifier's inputs to its logits, as label-wise embeddings."""

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.losses import BinaryCrossEntropy, LabelEmbedding
from distill.pair import Teacher
from distill.plan import Term, compare, connect
from distill.taps import TapError, Tapped

LABELS = 5


class Net(nn.Module):
    def __init__(self, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.fc = nn.Linear(width, LABELS, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class OverPositions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x[:, 0]).mean(1)


def net(width: int, *, bias: bool = True, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(width, bias=bias)


IMAGES = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_contributions_are_weight_times_input_for_each_label() -> None:
    # Weights (1, 2) and (3, 4), input (5, 6): 1·5, 2·6 to the first label, 3·5, 4·6 to the second.
    layer = nn.Linear(2, 2, bias=False)
    layer.load_state_dict({"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
    read = Tapped(nn.Sequential(layer), ["0:contributions"])(torch.tensor([[5.0, 6.0]]))
    assert read["0:contributions"].tolist() == [[[5.0, 12.0], [15.0, 24.0]]]


@pytest.mark.parametrize("bias", [True, False])
def test_contributions_and_bias_sum_to_the_logits(bias: bool) -> None:
    model = net(8, bias=bias)
    read = Tapped(model, ["fc:contributions", "logits", "embedding", "fc:input"])(IMAGES)
    assert read["fc:contributions"].shape == (4, LABELS, 8)
    total = read["fc:contributions"].sum(2) + (model.fc.bias if bias else 0)
    torch.testing.assert_close(total, read["logits"])
    assert read["fc:input"] is read["embedding"]


def test_a_frozen_teacher_gives_the_same_contributions_and_stops_before_its_classifier() -> None:
    model = net(8)
    expected = Tapped(model, ["fc:contributions"])(IMAGES)["fc:contributions"].detach()
    reached: list[nn.Module] = []
    teacher = Teacher(model, ["fc:contributions"])
    first = teacher(IMAGES)["fc:contributions"]
    model.fc.register_forward_hook(lambda module, args, output: reached.append(module))
    assert torch.equal(teacher(IMAGES)["fc:contributions"], expected)
    assert torch.equal(first, expected) and not first.requires_grad
    assert reached == []


def test_the_gradient_reaches_the_classifier_and_what_lies_before_it() -> None:
    # The sum of all contributions is that of the logits without bias, and so are its gradients.
    ours, theirs = net(8), net(8)
    Tapped(ours, ["fc:contributions"])(IMAGES)["fc:contributions"].sum().backward()
    theirs(IMAGES).sum().backward()
    assert ours.fc.bias.grad is None
    for name in ("fc.weight", "conv.weight", "conv.bias"):
        torch.testing.assert_close(ours.get_parameter(name).grad, theirs.get_parameter(name).grad)


def test_contributions_follow_the_weights_that_the_classifier_has_now() -> None:
    model = net(8)
    tapped = Tapped(model, ["fc:contributions"])
    before = tapped(IMAGES)["fc:contributions"]
    with torch.no_grad():
        model.fc.weight.mul_(2)
    torch.testing.assert_close(tapped(IMAGES)["fc:contributions"], 2 * before)


def test_label_embeddings_train_through_contributions_of_models_of_two_widths() -> None:
    labels = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [0, 1, 1, 1, 0], [1, 0, 0, 0, 1]], dtype=torch.float32)
    batch = Batch(IMAGES, labels, torch.arange(4))
    plan = {
        "task": Term(BinaryCrossEntropy()),
        "embeddings": Term(LabelEmbedding(), student="fc:contributions", teacher="fc:contributions"),
    }
    teacher, learner = connect(net(8, seed=1), net(3, seed=2), plan, batch)
    assert teacher is not None
    assert learner.unreached == ()
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    costs = []
    for _ in range(30):
        losses = compare(plan, learner(IMAGES), teacher(IMAGES), batch)
        costs.append(losses["embeddings"].mean().item())
        optimizer.zero_grad()
        losses["embeddings"].mean().backward()
        optimizer.step()
    assert costs[0] > 0.01
    assert costs[-1] < 0.2 * costs[0]


def test_only_a_linear_layer_has_contributions() -> None:
    with pytest.raises(TapError, match=r"'conv' is a Conv2d, and only a linear layer .* Nearest: fc:contributions\."):
        Tapped(net(8), ["conv:contributions"])
    with pytest.raises(TapError, match=r"has no module 'fx'\. Nearest: fc"):
        Tapped(net(8), ["fx:contributions"])


def test_a_linear_layer_over_positions_has_no_label_wise_embeddings() -> None:
    with pytest.raises(TapError, match=r"'fc:contributions' is of a layer with one input .* given \(4, 6, 6\)"):
        Tapped(OverPositions(), ["fc:contributions"])(IMAGES)
