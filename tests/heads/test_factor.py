import pytest
import torch
from torch import nn

from distill.batch import Batch
from distill.heads import Factors, Meeting, Paraphraser
from distill.losses import FactorTransfer, Hint

STUDENT, TEACHER = torch.Size((4, 6, 8, 8)), torch.Size((4, 10, 4, 4))
BATCH = Batch(torch.zeros(4), torch.zeros(4).long(), torch.arange(4))


def train(head: nn.Module, loss: Hint | FactorTransfer, steps: int = 1) -> list[float]:
    """A few steps on one batch; the losses before each."""
    torch.manual_seed(0)
    student, teacher = torch.randn(STUDENT), torch.randn(TEACHER).relu()
    optimizer = torch.optim.Adam([parameter for parameter in head.parameters() if parameter.requires_grad], lr=0.01)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(*head(student, teacher, BATCH), BATCH).mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def test_both_meet_the_teachers_map() -> None:
    assert isinstance(Paraphraser(), Meeting)
    assert isinstance(Factors(), Meeting)


def test_the_paraphraser_learns_to_give_the_teachers_map_back() -> None:
    head, teacher = Paraphraser()(STUDENT, TEACHER), torch.randn(TEACHER)
    reconstruction, target = head(torch.randn(STUDENT), teacher, BATCH)
    assert target is teacher
    assert reconstruction.shape == TEACHER
    losses = train(head, Hint(), steps=20)
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_layers_of_paraphraser_and_translator() -> None:
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    # 3 x 3 convolutions and two numbers a channel for the norm; the factor has 10 / 2 channels.
    encoder = 9 * (10 * 10 + 10 * 5 + 5 * 5) + 2 * (10 + 5 + 5)
    decoder = 9 * (5 * 5 + 5 * 10 + 10 * 10) + 2 * (5 + 10 + 10)
    translator = 9 * (6 * 6 + 6 * 5 + 5 * 5) + 2 * (6 + 5 + 5)
    assert count(Paraphraser()(STUDENT, TEACHER)) == encoder + decoder
    assert count(Factors()(STUDENT, TEACHER)) == encoder + decoder + translator


@pytest.mark.parametrize(("rate", "channels"), [(0.5, 5), (0.75, 8), (1.5, 15), (0.01, 1)])
def test_the_factors_channels_are_a_share_of_the_teachers(rate: float, channels: int) -> None:
    for factor in Factors(rate)(STUDENT, TEACHER)(torch.randn(STUDENT), torch.randn(TEACHER), BATCH):
        assert factor.shape == (4, channels, 4, 4)


def test_the_larger_factor_is_averaged_to_the_smaller_size_whichever_it_is() -> None:
    sizes = {(8, 4): (4, 4), (4, 8): (4, 4), (4, 4): (4, 4)}
    for (student, teacher), expected in sizes.items():
        shapes = torch.Size((4, 6, student, student)), torch.Size((4, 10, teacher, teacher))
        factors = Factors()(*shapes)(torch.randn(shapes[0]), torch.randn(shapes[1]), BATCH)
        assert [factor.shape[2:] for factor in factors] == [expected, expected]


def test_the_second_stage_takes_over_the_paraphraser_and_leaves_it_as_it_is() -> None:
    first = Paraphraser()(STUDENT, TEACHER)
    train(first, Hint(), steps=3)
    second = Factors()(STUDENT, TEACHER)
    keys = second.load_state_dict(first.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert all(key.startswith("translator.") for key in keys.missing_keys)
    second.train()
    losses = train(second, FactorTransfer(), steps=10)
    assert losses[-1] < losses[0]
    for name, tensor in first.state_dict().items():  # weights, and the running statistics of the norms
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=0, atol=0)
    teacher = torch.randn(TEACHER)
    expected = first.eval().paraphraser.encoder(teacher)
    torch.testing.assert_close(second(torch.randn(STUDENT), teacher, BATCH)[1], expected)


def test_the_translator_alone_is_trained() -> None:
    head = Factors()(STUDENT, TEACHER)
    train(head, FactorTransfer())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.translator.parameters())
    assert all(not parameter.requires_grad for parameter in head.paraphraser.parameters())
    assert head.train().translator.training
    assert not any(module.training for module in head.paraphraser.modules())


@pytest.mark.parametrize("head", [Paraphraser(), Factors()])
def test_what_are_not_maps_is_refused_with_both_shapes(head: Paraphraser | Factors) -> None:
    with pytest.raises(
        ValueError, match=rf"^{type(head).__name__} maps .*, got student \(4, 6\) and teacher \(4, 10\)"
    ):
        head(torch.Size((4, 6)), torch.Size((4, 10)))


@pytest.mark.parametrize("kind", [Paraphraser, Factors])
@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_the_rate_is_checked(kind: type[Paraphraser] | type[Factors], rate: float) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.rate must be .*, got {rate}\.$"):
        kind(rate)
