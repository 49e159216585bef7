import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.heads import Head, StageClassifier
from distill.losses import KD
from distill.pair import answers_of
from distill.plan import Term, connect

FORMS = [(4, 6, 8, 8), (4, 6, 3, 5), (4, 6, 1, 1), (4, 7, 6), (4, 6)]


def module(head: Head, student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    return head(torch.Size(student), torch.Size(teacher))


def parameters(of: nn.Module) -> int:
    return sum(parameter.numel() for parameter in of.parameters())


@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("student", FORMS)
def test_features_of_any_form_become_logits_and_every_parameter_learns(
    student: tuple[int, ...], hidden: int | None
) -> None:
    torch.manual_seed(0)
    classifier = module(StageClassifier(hidden=hidden), student, (4, 10))
    logits = classifier(torch.randn(9, *student[1:]))
    assert logits.shape == (9, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in classifier.parameters())


@pytest.mark.parametrize(
    ("student", "hidden", "count"),
    [
        ((2, 6, 8, 8), None, 6 * 9 + 6 * 6 + 2 * 6 + 6 * 10 + 10),  # depthwise, pointwise, normalisation, linear
        ((2, 6, 8, 8), 5, 6 * 9 + 6 * 5 + 2 * 5 + 5 * 10 + 10),
        ((2, 7, 6), None, 2 * 6 + 6 * 10 + 10),  # normalisation, linear
        ((2, 6), None, 6 * 10 + 10),
        ((2, 6), 5, 6 * 5 + 5 + 5 * 10 + 10),
    ],
)
def test_parameters(student: tuple[int, ...], hidden: int | None, count: int) -> None:
    assert parameters(module(StageClassifier(hidden=hidden), student, (2, 10))) == count


@pytest.mark.parametrize(("side", "halved"), [(8, 4), (4, 2), (3, 3), (1, 1)])
def test_sides_of_at_least_four_are_halved(side: int, halved: int) -> None:
    classifier = module(StageClassifier(), (2, 6, side, 5), (2, 10))
    assert isinstance(classifier, nn.Sequential)
    assert classifier[0](torch.randn(2, 6, side, 5)).shape == (2, 6, halved, 3)


def test_the_order_of_tokens_does_not_matter() -> None:
    classifier = module(StageClassifier(), (2, 7, 6), (2, 10))
    tokens = torch.randn(2, 7, 6)
    torch.testing.assert_close(classifier(tokens.flip(1)), classifier(tokens))


@pytest.mark.parametrize(("student", "teacher"), [((8, 64, 8, 8), (8, 256, 8, 8)), ((8,), (8, 10))])
def test_other_than_features_to_logits_is_refused_with_both_shapes(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="StageClassifier maps") as error:
        module(StageClassifier(), student, teacher)
    assert str(error.value) == (
        "StageClassifier maps (B, C, H, W), (B, T, D) or (B, D) to logits (B, K), got student "
        f"{student} and teacher {teacher}. Tap the teacher's logits."
    )


@pytest.mark.parametrize("hidden", [0, -3])
def test_hidden_is_checked(hidden: int) -> None:
    with pytest.raises(ValueError, match=rf"^StageClassifier\.hidden must be .*, got {hidden}\.$"):
        StageClassifier(hidden=hidden)


def test_padding_is_no_content_and_its_length_changes_nothing() -> None:
    torch.manual_seed(0)
    classifier = module(StageClassifier(), (2, 7, 6), (2, 10))
    tokens, lengths = torch.randn(2, 7, 6), torch.tensor([3, 7])
    mask = torch.arange(7) < lengths[:, None]
    other = torch.where(mask[..., None], tokens, torch.full_like(tokens, float("nan")))
    logits = classifier(other, mask)
    torch.testing.assert_close(logits[:1], classifier(tokens[:1, :3]))
    torch.testing.assert_close(logits[1:], classifier(tokens[1:]))


def test_a_mask_of_other_positions_is_refused() -> None:
    classifier = module(StageClassifier(), (2, 7, 6), (2, 10))
    with pytest.raises(
        ValueError, match=r"StageClassifier takes a mask \(B, T\) of the tokens, \(2, 7\), got \(2, 5\)"
    ):
        classifier(torch.randn(2, 7, 6), torch.ones(2, 5, dtype=torch.bool))


def test_the_learner_gives_the_mask_to_the_head() -> None:
    torch.manual_seed(0)
    student, teacher = Texts(), Texts()
    plan = {"exit": Term(KD(), student="words", teacher="logits", head=StageClassifier())}
    lengths = torch.tensor([2, 5, 3])
    mask = torch.arange(5) < lengths[:, None]
    ids, numbers = torch.randint(0, 9, (3, 5)), torch.arange(3)
    batch, repadded = (
        Batch({"input_ids": torch.where(mask, ids, padding)}, numbers, numbers, mask) for padding in (0, 4)
    )
    guide, learner = connect(teacher, student, plan, batch)
    targets = answers_of(guide, batch.inputs)
    one, other = (learner(x.inputs, targets, x)["exit"] for x in (batch, repadded))
    torch.testing.assert_close(one, other)
    assert not torch.equal(learner(repadded.inputs, targets)["exit"], one)


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(input_ids).mean(1))
