"""How a batch is cut, into micro-batches or over processes, does not change the update; the teacher never changes."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Linear
from distill.losses import KD, CrossEntropy, Hint, RKDAngle, RKDDistance, SimilarityPreserving
from distill.plan import Plan, Term, connect
from distill.trainer import Average, NotFinite, Trainer
from distill.trainer.lines import SHARES
from tests.processes import run_processes

PLAN: Plan = {
    "task": Term(CrossEntropy(), weight=0.3),
    "kd": Term(KD(), weight=0.7),
    "hint": Term(Hint(), weight=2.0, student="hidden", teacher="hidden", head=Linear()),
    "distance": Term(RKDDistance(), weight=5.0, student="hidden", teacher="hidden"),
    "angle": Term(RKDAngle(), weight=5.0, student="hidden", teacher="hidden"),
    "similarity": Term(SimilarityPreserving(), weight=30.0, student="hidden", teacher="hidden"),
}


class Net(nn.Module):
    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.hidden(x).tanh()))


def batch_of(count: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(
        torch.randn(count, 6, generator=generator),
        torch.randint(0, 3, (count,), generator=generator),
        torch.arange(count),
    )


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [batch.rows(slice(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


def trainer(plan: Plan = PLAN, *, clip: float | None = None, dropout: float = 0.0) -> Trainer:
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    student, teacher = Net(4, dropout), Net(8)
    guide, learner = connect(teacher, student, plan, batch_of(4))
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    return Trainer(accelerator, guide, learner, plan, optimizer, clip=clip)


def weights(one: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.accelerator.unwrap_model(one.learner).parameters()])


def after_two_steps(sizes: Sequence[int], **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    one = trainer(**settings)
    torch.manual_seed(5)
    for _ in range(2):
        means = one.step(cut(batch_of(8), sizes))
    return weights(one), means


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (1, 6, 1)])
def test_micro_batches_make_the_same_update_as_the_whole_batch(sizes: tuple[int, ...]) -> None:
    whole, whole_means = after_two_steps((8,))
    parts, part_means = after_two_steps(sizes)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    for name, mean in whole_means.items():
        torch.testing.assert_close(part_means[name], mean, rtol=1e-5, atol=1e-6)


def test_the_two_passes_over_micro_batches_see_the_same_dropout() -> None:
    one = trainer(dropout=0.5)
    seen: list[Tensor] = []
    one.accelerator.unwrap_model(one.learner).student.model.dropout.register_forward_hook(
        lambda module, args, output: seen.append(output.detach())
    )
    one.step(cut(batch_of(8), (4, 4)))
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0] == 0, seen[1] == 0)


def in_process(shares: tuple[tuple[int, ...], ...]) -> Tensor:
    one = trainer(clip=1.0)
    start = sum(sum(share) for share in shares[: one.accelerator.process_index])
    own = shares[one.accelerator.process_index]
    whole = batch_of(sum(map(sum, shares)))
    for _ in range(2):
        one.step(cut(whole.rows(slice(start, start + sum(own))), own))
    return weights(one)


@pytest.mark.parametrize("shares", [((5,), (3,)), ((3, 2), (1, 2))])
def test_two_processes_make_the_same_update_as_one(shares: tuple[tuple[int, ...], ...], tmp_path: Path) -> None:
    one, _ = after_two_steps((8,), clip=1.0)
    first, second = run_processes(in_process, 2, tmp_path, shares)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one, rtol=1e-5, atol=1e-6)


def test_a_ragged_window_weighs_each_example_the_same() -> None:
    """By hand: two examples of loss 3 and one of 0 have the mean 2, however they are cut; a mean of means gives 1.5."""

    class Given:
        def __call__(self, student: Tensor, teacher: Tensor | None, batch: Batch) -> Tensor:
            return student.sum(1) * 0 + torch.tensor([3.0, 3.0, 0.0, 0.0])[batch.index]

    plan: Plan = {"given": Term(Given())}
    means = trainer(plan).step(cut(batch_of(3), (2, 1)))
    assert float(means["given"]) == pytest.approx(2.0)


def test_the_teacher_is_equal_to_the_bit_after_training() -> None:
    one = trainer()
    assert one.teacher is not None
    before = copy.deepcopy(one.teacher.state_dict())
    for _ in range(5):
        one.step([batch_of(8)])
    assert all(torch.equal(before[name], tensor) for name, tensor in one.teacher.state_dict().items())


def test_clipping_bounds_the_update() -> None:
    one = trainer(clip=0.01)
    before = weights(one)
    means = one.step([batch_of(8)])
    assert float(means["gradient_norm"]) > 0.01
    # One SGD step of rate 0.1 from rest moves by 0.1 times the clipped gradient.
    assert float((weights(one) - before).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_nan_names_the_term_and_the_step() -> None:
    class Breaks:
        def __call__(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
            return student.sum(1) * (float("nan") if int(batch.index[0]) == 2 else 1.0)

    one = trainer({"fine": Term(CrossEntropy()), "breaks": Term(Breaks())})
    batches = [batch_of(8), batch_of(8), batch_of(8).rows(torch.tensor([2, 3])), batch_of(8)]
    with pytest.raises(NotFinite, match="The loss of term 'breaks' is nan at step 3"):
        one.fit(
            lambda epoch, start: ((epoch + step / 4, [batch]) for step, batch in enumerate(batches)),
            epochs=range(1),
            after_epoch=lambda epoch: False,
            log=lambda line: None,
        )


def test_the_log_holds_each_term_raw_and_weighted() -> None:
    one, lines = trainer(), []
    one.fit(
        lambda epoch, start: ((epoch + step / 2, [batch_of(8)]) for step in range(2)),
        epochs=range(2),
        after_epoch=lambda epoch: False,
        log=lines.append,
        log_every=1,
    )
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["weighted"]["kd"] == pytest.approx(0.7 * lines[0]["raw"]["kd"])
    assert lines[0]["loss"] == pytest.approx(sum(lines[0]["weighted"].values()))
    assert all(sum(line[name] for name in SHARES) == pytest.approx(1.0) for line in lines)


def test_the_learning_rate_follows_the_progress_in_epochs() -> None:
    one = trainer()
    one.learning_rate = lambda epoch: 1 - epoch / 2
    one.step([batch_of(8)], epoch=0.5)
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.075)


def test_the_average_moves_by_one_minus_decay_and_swaps_back() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = Average(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)
    average.update()
    # The first update uses min(0.5, 2 / 11): 2/11 * 1 + 9/11 * 3 = 29/11.
    assert float(average.shadow["weight"]) == pytest.approx(29 / 11)
    average.swap()
    assert float(model.weight.detach()) == pytest.approx(29 / 11)
    average.swap()
    assert float(model.weight.detach()) == pytest.approx(3.0)
