import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distill.batch import Batch
from distill.losses import DKD, NKD, OFA, BinaryCrossEntropy, CrossEntropy, Loss, MaskedLanguageModel

# softmax(0, ln 3) = (1/4, 3/4).
LOGITS = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
FIRST, SECOND = math.log(4), math.log(4 / 3)


def loss_of(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, None, Batch(logits, labels, torch.arange(len(logits))))


@pytest.mark.parametrize(("label", "expected"), [(0, FIRST), (1, SECOND)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_hard_label_costs_minus_the_log_of_its_probability(label: int, expected: float, dtype: torch.dtype) -> None:
    assert loss_of(CrossEntropy(), LOGITS, torch.tensor([label], dtype=dtype)).item() == pytest.approx(expected)


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    # ε = 0.2 over two classes: target (0.1, 0.9).
    value = loss_of(CrossEntropy(label_smoothing=0.2), LOGITS, torch.tensor([1])).item()
    assert value == pytest.approx(0.1 * FIRST + 0.9 * SECOND)


def test_soft_label_costs_the_mean_over_its_classes_and_can_be_smoothed_too() -> None:
    # (0.3, 0.7), smoothed by 0.2: 0.8 · (0.3, 0.7) + 0.1 = (0.34, 0.66).
    labels = torch.tensor([[0.3, 0.7]])
    assert loss_of(CrossEntropy(), LOGITS, labels).item() == pytest.approx(0.3 * FIRST + 0.7 * SECOND)
    value = loss_of(CrossEntropy(label_smoothing=0.2), LOGITS, labels).item()
    assert value == pytest.approx(0.34 * FIRST + 0.66 * SECOND)


def test_a_saturated_wrong_answer_costs_the_distance_of_the_logits() -> None:
    # −log softmax(80, −80)[1] = log(1 + e^160) = 160.
    assert loss_of(CrossEntropy(), torch.tensor([[80.0, -80.0]]), torch.tensor([1])).item() == pytest.approx(160)


@pytest.mark.parametrize("labels", [torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1), torch.zeros(1, 3)])
def test_labels_that_do_not_meet_the_logits_are_refused(labels: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"^CrossEntropy takes logits \(B, K\) .* got logits \(1, 2\) and labels torch"
    ):
        loss_of(CrossEntropy(), LOGITS, labels)


# σ(ln 3) = 3/4 and σ(0) = 1/2.
SEVERAL = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
NAN = math.nan


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1.0, 0.0], (math.log(4 / 3) + math.log(2)) / 2),
        ([0.0, 1.0], (math.log(4) + math.log(2)) / 2),
        # −1/4 ln (3/4) − 3/4 ln (1/4).
        ([0.25, NAN], 0.25 * math.log(4 / 3) + 0.75 * math.log(4)),
        ([1.0, NAN], math.log(4 / 3)),
        ([NAN, 1.0], math.log(2)),
        ([NAN, NAN], 0.0),
    ],
)
def test_binary_value_is_the_mean_over_the_known_labels(labels: list[float], expected: float) -> None:
    assert loss_of(BinaryCrossEntropy(), SEVERAL, torch.tensor([labels])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weight", "labels", "expected"),
    [
        (3.0, [1.0, 0.0], (3 * math.log(4 / 3) + math.log(2)) / 2),
        (3, [1.0, NAN], 3 * math.log(4 / 3)),
        ((3.0, 5.0), [1.0, 1.0], (3 * math.log(4 / 3) + 5 * math.log(2)) / 2),
        ((3.0, 5.0), [0.0, 0.0], (math.log(4) + math.log(2)) / 2),
        ((3.0, 5.0), [0.25, NAN], 3 * 0.25 * math.log(4 / 3) + 0.75 * math.log(4)),
    ],
)
def test_the_positive_weight_multiplies_the_positive_part_alone(
    weight: float | tuple[float, ...], labels: list[float], expected: float
) -> None:
    loss = BinaryCrossEntropy(positive_weight=weight)
    assert loss_of(loss, SEVERAL, torch.tensor([labels])).item() == pytest.approx(expected)


def test_binary_equals_the_plain_formula() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(8, 6, dtype=torch.float64), torch.rand(8, 6, dtype=torch.float64)
    labels[torch.rand(8, 6) < 0.4] = NAN
    weights = tuple(range(1, 7))
    p = logits.sigmoid()
    losses = -torch.tensor(weights) * labels * p.log() - (1 - labels) * (1 - p).log()
    loss = BinaryCrossEntropy(positive_weight=weights)
    torch.testing.assert_close(loss_of(loss, logits, labels), losses.nanmean(1))


def test_unknown_labels_give_no_gradient_and_no_nan() -> None:
    # σ(z) − y over the number of known labels.
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = loss_of(BinaryCrossEntropy(), logits, torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN]]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.log(2), 0.0])
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.0, 0.25], [0.0, 0.0, 0.0]]))


def test_a_cut_batch_gives_each_example_the_same_binary_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 4, dtype=torch.float64), torch.rand(7, 4)
    labels[torch.rand(7, 4) < 0.6] = NAN
    loss = BinaryCrossEntropy(positive_weight=2.0)
    rows = [loss_of(loss, logits[i : i + 1], labels[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(torch.cat(rows), loss_of(loss, logits, labels))


def test_a_saturated_wrong_binary_answer_costs_the_logit() -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    loss = loss_of(BinaryCrossEntropy(), logits, torch.tensor([[0.0, 1.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(80)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([[1, 0]]), torch.zeros(1), torch.zeros(1, 3)])
def test_binary_labels_that_do_not_meet_the_logits_are_refused(labels: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"^BinaryCrossEntropy takes logits \(B, K\) .* got logits \(1, 2\) and labels torch"
    ):
        loss_of(BinaryCrossEntropy(), SEVERAL, labels)


@pytest.mark.parametrize("weights", [(2.0,), (1.0, 2.0, 3.0)])
def test_positive_weights_that_are_not_one_for_each_label_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^BinaryCrossEntropy takes .* got {len(weights)} of them and logits"):
        loss_of(BinaryCrossEntropy(positive_weight=weights), SEVERAL, torch.ones(1, 2))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_unknown_class_costs_nothing_and_gives_no_gradient(smoothing: float) -> None:
    logits = LOGITS.repeat(2, 1).requires_grad_()
    loss = loss_of(CrossEntropy(label_smoothing=smoothing), logits, torch.tensor([-1, 1]))
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[1] == loss_of(CrossEntropy(label_smoothing=smoothing), LOGITS, torch.tensor([1])).item()
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


@pytest.mark.parametrize("loss", [DKD(), NKD(), OFA()], ids=lambda loss: type(loss).__name__)
def test_losses_that_need_a_class_refuse_an_unknown_one(loss: Loss) -> None:
    logits = torch.zeros(3, 4)
    batch = Batch(logits, torch.tensor([0, -1, -1]), torch.arange(3))
    with pytest.raises(
        ValueError, match=rf"^{type(loss).__name__} takes a known class .*, got 2 labels below 0, .*\.$"
    ):
        loss(logits, logits, batch)


# At the tokens of two texts, softmax(0, ln 3) = (1/4, 3/4).
WORDS = LOGITS.expand(2, 3, 2)


def test_value_of_masked_words_is_the_mean_over_those_of_the_text() -> None:
    labels = torch.tensor([[0, -100, 1], [-100, -100, -100]])
    assert loss_of(MaskedLanguageModel(), WORDS, labels).tolist() == pytest.approx([(FIRST + SECOND) / 2, 0.0])
    assert loss_of(MaskedLanguageModel(), WORDS, labels.flip(0)).tolist() == pytest.approx([0.0, (FIRST + SECOND) / 2])


def test_masked_words_equal_cross_entropy_of_the_tokens_one_by_one() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 6, 9, dtype=torch.float64)
    labels = torch.randint(9, (5, 6)).masked_fill(torch.rand(5, 6) < 0.6, -100)
    labels[2] = -100
    losses = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none", ignore_index=-100)
    expected = losses.sum(1) / (labels != -100).sum(1).clamp_min(1)
    torch.testing.assert_close(loss_of(MaskedLanguageModel(), logits, labels), expected)


def test_words_that_are_not_masked_get_no_gradient_even_where_their_logits_are_not_finite() -> None:
    logits = WORDS.clone()
    logits[0, 1] = math.nan
    logits.requires_grad_()
    loss_of(MaskedLanguageModel(), logits, torch.tensor([[0, -100, -100], [-100, 1, -100]])).sum().backward()
    assert logits.grad is not None
    # p − label: (1/4 − 1, 3/4) and (1/4, 3/4 − 1).
    expected = torch.zeros(2, 3, 2, dtype=torch.float64)
    expected[0, 0], expected[1, 1] = torch.tensor([-0.75, 0.75]), torch.tensor([0.25, -0.25])
    torch.testing.assert_close(logits.grad, expected)


class Widest(TorchDispatchMode):
    """Entries of the largest float32 tensor that is made inside."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            self.entries = max(self.entries, result.numel())
        return result


def test_masked_words_in_bf16_are_widened_at_the_masked_tokens_alone() -> None:
    # 4 texts of 32 tokens over 1000 words, 2 of each text masked: 8 rows are made wide, and not 128.
    logits = torch.randn(4, 32, 1000).bfloat16().requires_grad_()
    labels = torch.full((4, 32), -100)
    labels[:, :2] = 7
    with Widest() as widest:
        loss = loss_of(MaskedLanguageModel(), logits, labels)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert widest.entries == 8 * 1000


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, 4).long(), torch.zeros(2, 3)])
def test_labels_that_are_no_tokens_are_refused(labels: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"^MaskedLanguageModel takes logits \(B, T, V\) .* got logits \(2, 3, 2\) and"
    ):
        loss_of(MaskedLanguageModel(), WORDS, labels)
