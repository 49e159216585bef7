import pytest
import torch

from distill.recipe import SGD, AdamW


def test_sgd_builds_the_optimizer_of_its_settings() -> None:
    # One step without history: p - lr * (gradient + weight_decay * p) = 2 - 0.1 * (1 + 0.5 * 2) = 1.8.
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD(lr=0.1, momentum=0.5, weight_decay=0.5, nesterov=False).build([parameter])
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == pytest.approx(1.8)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert SGD(lr=0.1, nesterov=True).build([parameter]).param_groups[0]["nesterov"]


def test_adamw_builds_the_optimizer_of_its_settings() -> None:
    # The first step is lr in the gradient's direction after decay: 2 * (1 - 0.1 * 0.5) - 0.1 = 1.8.
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW(lr=0.1, betas=(0.8, 0.9), weight_decay=0.5, eps=1e-9).build([parameter])
    parameter.grad = torch.full((1,), 7.0)
    optimizer.step()
    assert parameter.item() == pytest.approx(1.8)
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["eps"]) == ((0.8, 0.9), 1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr=0), "lr must be above zero, got 0"),
        (lambda: SGD(lr=float("inf")), "lr: expected a number, got inf"),
        (lambda: SGD(lr=True), "lr: expected a number, got True"),
        (lambda: SGD(lr=0.1, momentum=1.0), r"momentum lies in \[0, 1\), got 1.0"),
        (lambda: SGD(lr=0.1, weight_decay=-1e-4), "weight_decay must not be negative"),
        (
            lambda: SGD(lr=0.1, momentum=0.0, nesterov=True),
            "nesterov looks ahead along the momentum, and momentum is 0",
        ),
        (lambda: SGD(lr=0.1, nesterov=1), "nesterov: expected true or false, got 1"),
        (lambda: AdamW(lr=-0.1), "lr must be above zero"),
        (lambda: AdamW(lr=0.1, betas=(0.9, 1.0)), r"betas lie in \[0, 1\)"),
        (lambda: AdamW(lr=0.1, betas=(0.9,)), r"betas: expected a tuple \(a number, a number\), got \(0.9,\)"),
        (lambda: AdamW(lr=0.1, eps=0.0), "eps must be above zero"),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
