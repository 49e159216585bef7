"""Rates by depth and the pull to the start, by hand and whatever way a batch is cut."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.heads import Linear
from distill.losses import CrossEntropy, Hint
from distill.pair import Learner
from distill.plan import Plan, Term, connect
from distill.trainer import Start, Trainer, parameter_groups
from tests.processes import run_processes
from tests.trainer.test_step import batch_of, cut

PLAN: Plan = {"task": Term(CrossEntropy()), "hint": Term(Hint(), student="stem", teacher="stem", head=Linear())}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).tanh()


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 5)
        self.blocks = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)))


def learner_of(plan: Plan = PLAN) -> tuple[nn.Module | None, Learner]:
    torch.manual_seed(0)
    return connect(Deep(), Deep(), plan, batch_of(4))


def named_rates(groups: Sequence[dict[str, object]], learner: Learner) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_rates_by_hand() -> None:
    """Two blocks have depths 1 and 2 of 3: the stem gets 1/8, the blocks 1/4 and 1/2, classifier and head the whole."""
    _, learner = learner_of()
    groups = parameter_groups(learner, layer_decay=0.5)
    assert [group.rate for group in groups] == [1.0, 0.5, 0.25, 0.125]
    names = {id(parameter): name for name, parameter in learner.named_parameters()}
    found = [{names[id(parameter)].rpartition(".")[0] for parameter in group.parameters} for group in groups]
    student = "student.model"
    assert found == [
        {f"{student}.fc", *(name.rpartition(".")[0] for name in names.values() if name.startswith("heads"))},
        {f"{student}.blocks.1.inner"},
        {f"{student}.blocks.0.inner"},
        {f"{student}.stem"},
    ]
    assert all(group.decays for group in groups)


def test_without_settings_there_is_one_group_in_the_learner_s_order() -> None:
    _, learner = learner_of()
    (group,) = parameter_groups(learner)
    assert list(map(id, group.parameters)) == [id(p) for p in learner.parameters() if p.requires_grad]


def test_what_is_drawn_to_its_start_is_not_drawn_to_zero() -> None:
    _, learner = learner_of()
    groups = parameter_groups(learner, layer_decay=0.5, undecayed={"stem.weight", "stem.bias", "fc.weight"})
    assert [(group.rate, group.decays) for group in groups] == [
        (1.0, True),
        (1.0, False),
        (0.5, True),
        (0.25, True),
        (0.125, False),
    ]
    assert [tuple(p.shape) for p in groups[1].parameters] == [(3, 5)]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_the_schedule_multiplies_each_group_s_own_rate(kind: type[torch.optim.Optimizer]) -> None:
    """Adam's first step is the rate times the gradient's sign, so that of a block is its rate, halved here."""
    guide, learner = learner_of()
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    groups = parameter_groups(learner, layer_decay=0.5)
    optimizer = kind([{"params": group.parameters, "lr": 0.1 * group.rate} for group in groups], weight_decay=0.0)
    accelerator = Accelerator(cpu=True)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    one = Trainer(accelerator, guide, prepared, PLAN, prepared_optimizer, learning_rate=lambda epoch: 0.5)
    for _ in range(2):
        one.step([batch_of(8)])
    rates = named_rates(one.optimizer.param_groups, learner)
    assert rates["student.model.stem.weight"] == pytest.approx(0.1 / 8 / 2)
    assert rates["student.model.fc.weight"] == pytest.approx(0.1 / 2)
    if kind is torch.optim.AdamW:
        moved = {name: (parameter - before[name]).abs().max() for name, parameter in learner.named_parameters()}
        assert float(moved["student.model.stem.weight"].detach()) == pytest.approx(2 * 0.1 / 8 / 2, rel=0.2)
        assert float(moved["student.model.fc.weight"].detach()) == pytest.approx(2 * 0.1 / 2, rel=0.2)


def test_the_pull_by_hand() -> None:
    """From 1 to 3 with weight 0.5: the gradient gets 0.5 * 2 = 1 more."""
    parameter, still = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    start = Start({"w": parameter, "still": still}, 0.5)
    with torch.no_grad():
        parameter.fill_(3.0)
    parameter.grad = torch.tensor([10.0])
    start.pull()
    assert float(parameter.grad) == 11.0 and still.grad is None
    start.restore({"w": torch.tensor([5.0]), "still": torch.ones(1)})
    start.pull()
    assert float(parameter.grad) == 10.0


def test_the_pull_is_the_gradient_of_the_penalty() -> None:
    """Against autograd, on the loss with weight / 2 ||w - w0||² in it."""
    torch.manual_seed(0)
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(layer.state_dict())
    start = Start(dict(layer.named_parameters()), 0.3)
    with torch.no_grad():
        for one, two in zip(layer.parameters(), other.parameters(), strict=True):
            two.copy_(one.add_(torch.randn_like(one)))
    x = torch.randn(4, 3)
    layer(x).square().mean().backward()
    start.pull()
    penalty = sum(((p - start.values[name]) ** 2).sum() for name, p in other.named_parameters())
    (other(x).square().mean() + 0.3 / 2 * penalty).backward()
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def drawn(clip: float | None = None) -> Trainer:
    accelerator = Accelerator(cpu=True)
    guide, learner = learner_of()
    start = Start(dict(learner.student.model.named_parameters()), 5.0)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05)
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    return Trainer(accelerator, guide, prepared, PLAN, prepared_optimizer, clip=clip, start=start)


def after_three_steps(windows: Sequence[int], share: slice | None = None, clip: float | None = 1.0) -> Tensor:
    one, batch = drawn(clip), batch_of(8)
    for _ in range(3):
        one.step(cut(batch if share is None else batch.rows(share), windows))
    learner = one.accelerator.unwrap_model(one.learner)
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])


@pytest.mark.parametrize("sizes", [(4, 4), (1, 6, 1)])
def test_the_pull_counts_once_however_a_batch_is_cut(sizes: tuple[int, ...]) -> None:
    torch.testing.assert_close(after_three_steps(sizes), after_three_steps((8,)), rtol=1e-5, atol=1e-6)


def in_process() -> Tensor:
    rank = Accelerator(cpu=True).process_index
    return after_three_steps((5,) if rank == 0 else (3,), slice(0, 5) if rank == 0 else slice(5, 8))


@pytest.mark.slow
def test_two_processes_are_drawn_as_one(tmp_path: Path) -> None:
    first, second = run_processes(in_process, 2, tmp_path)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, after_three_steps((8,)), rtol=1e-5, atol=1e-6)


def test_the_pull_is_part_of_the_clipped_gradient() -> None:
    """Far from its start with a great weight, the step is still no longer than rate times clip."""
    one = drawn(clip=0.01)
    learner = one.accelerator.unwrap_model(one.learner)
    with torch.no_grad():
        learner.student.model.fc.weight.add_(100.0)
    before = torch.cat([parameter.detach().clone().flatten() for parameter in learner.parameters()])
    assert float(one.step([batch_of(8)])["gradient_norm"]) > 100
    after = torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.05 * 0.01, rel=1e-2)
