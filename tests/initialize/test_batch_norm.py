"""BatchNorm's statistics are the plain average over batches; nothing else changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distill.initialize import reestimate_batchnorm


def feed(model: nn.Module, *batches: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    return run


BATCHES = torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [4.0]])


def test_statistics_by_hand() -> None:
    """Means 1 and 4, unbiased variances 2 and 0; whatever was there before has no part in it."""
    norm = nn.BatchNorm1d(1)
    norm(torch.randn(5, 1) * 100)
    assert reestimate_batchnorm(norm, feed(norm, *BATCHES)) == 1
    assert norm.running_mean is not None and norm.running_var is not None
    assert float(norm.running_mean) == pytest.approx(2.5) and float(norm.running_var) == pytest.approx(1.0)


def test_a_layer_is_measured_on_what_the_one_before_it_gives() -> None:
    """The first normalizes each batch to mean 0; with its old statistics it would give means of 1 and 4."""
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    assert reestimate_batchnorm(model, feed(model, *BATCHES)) == 2
    assert isinstance(model[1].running_mean, Tensor)
    assert float(model[1].running_mean) == pytest.approx(0.0, abs=1e-6)


def test_modes_momentum_parameters_and_random_state_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm1d(4))
    model[3].eval()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    examples, state = torch.randn(8, 3), torch.get_rng_state()
    reestimate_batchnorm(model, feed(model, examples))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, True, True, False] and model.training
    assert [model[1].momentum, model[3].momentum] == [0.3, 0.1]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_dropout_is_off_meanwhile() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1))
    reestimate_batchnorm(model, feed(model, *BATCHES))
    assert isinstance(model[1].running_mean, Tensor)
    assert float(model[1].running_mean) == pytest.approx(2.5)


def test_a_layer_that_is_not_reached_keeps_what_it_has() -> None:
    model = nn.ModuleDict({"used": nn.BatchNorm1d(1), "unused": nn.BatchNorm1d(1)})
    model["unused"](torch.randn(5, 1) + 3)
    before = {name: tensor.clone() for name, tensor in model["unused"].state_dict().items()}
    reestimate_batchnorm(model, feed(model["used"], *BATCHES))
    assert all(torch.equal(before[name], tensor) for name, tensor in model["unused"].state_dict().items())


@pytest.mark.parametrize("model", [nn.Linear(1, 1), nn.BatchNorm1d(1, track_running_stats=False)])
def test_a_model_without_running_statistics_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"reestimate_batchnorm has no effect: \w+ has no BatchNorm with running"):
        reestimate_batchnorm(model, feed(model))
