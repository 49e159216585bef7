"""Terms weighed against each other, and their gradients compared: right however a batch is cut, one backward a step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Linear
from distill.losses import KD, CrossEntropy, Hint, RKDDistance
from distill.plan import Plan, Term, compare, connect
from distill.trainer import Trainer, shared_layer
from distill.weighting import GradNorm, NormFactors, Uncertainty
from tests.processes import run_processes
from tests.trainer.test_step import Net, batch_of, cut

PLAN: Plan = {
    "task": Term(CrossEntropy(), weight=0.3),
    "kd": Term(KD(), weight=0.7),
    "hint": Term(Hint(), weight=2.0, student="hidden", teacher="hidden", head=Linear()),
    "distance": Term(RKDDistance(), weight=5.0, student="hidden", teacher="hidden"),
}
BALANCES = {"uncertainty": Uncertainty(), "gradnorm": GradNorm(lr=0.1), "fixed": None}


def trainer(balance: str, *, every: int | None = None, plan: Plan = PLAN) -> Trainer:
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    student, teacher = Net(4), Net(8)
    kind = BALANCES[balance]
    module = None if kind is None else kind.build(tuple(plan))
    guide, learner = connect(teacher, student, plan, batch_of(4), balance=module)
    shared = shared_layer(guide, learner, plan, batch_of(4))
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9)
    prepared, optimizer = accelerator.prepare(learner, optimizer)
    return Trainer(accelerator, guide, prepared, plan, optimizer, shared=shared, gradients_every=every)


def state(one: Trainer) -> Tensor:
    """All that is learned, and the factors of GradNorm."""
    model = one.accelerator.unwrap_model(one.learner)
    tensors = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def after_three_steps(balance: str, sizes: Sequence[int], every: int | None = None) -> tuple[Tensor, Trainer]:
    one = trainer(balance, every=every)
    for _ in range(3):
        one.step(cut(batch_of(8), sizes))
    return state(one), one


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("sizes", [(4, 4), (1, 6, 1)])
def test_how_a_batch_is_cut_does_not_change_the_balance(balance: str, sizes: tuple[int, ...]) -> None:
    torch.testing.assert_close(
        after_three_steps(balance, sizes, every=1)[0],
        after_three_steps(balance, (8,), every=1)[0],
        rtol=1e-5,
        atol=1e-6,
        equal_nan=True,
    )


@pytest.mark.parametrize("balance", ["uncertainty", "gradnorm"])
def test_the_factors_move(balance: str) -> None:
    _, one = after_three_steps(balance, (8,))
    model = one.accelerator.unwrap_model(one.learner)
    factors = model.balance()[0].detach()
    assert not torch.allclose(factors, torch.ones(4))
    if isinstance(model.balance, NormFactors):
        assert float(factors.mean()) == pytest.approx(1.0, abs=1e-6)


def test_comparing_gradients_leaves_the_update_as_it_is() -> None:
    watched, one = after_three_steps("fixed", (5, 3), every=1)
    alone, _ = after_three_steps("fixed", (5, 3), every=None)
    assert torch.equal(watched, alone)
    assert one.shared is not None and one.shared.layer == "hidden"


def expected_gradients() -> Tensor:
    """Each weighted term's gradient at `hidden`, of the whole batch at once, by plain autograd."""
    one = trainer("fixed")
    assert one.teacher is not None
    batch = batch_of(8)
    learner = one.accelerator.unwrap_model(one.learner)
    losses = compare(PLAN, learner(batch.inputs), one.teacher(batch.inputs), batch)
    parameters = list(learner.student.model.hidden.parameters())
    rows = [
        torch.autograd.grad(PLAN[name].weight * loss.mean(), parameters, retain_graph=True)
        for name, loss in losses.items()
    ]
    return torch.stack([torch.cat([x.flatten() for x in row]) for row in rows])


def line_of(shares: tuple[tuple[int, ...], ...] | None = None) -> dict[str, Any]:
    one, lines = trainer("fixed", every=1), []
    whole, rank = batch_of(8), one.accelerator.process_index
    own = (8,) if shares is None else shares[rank]
    start = 0 if shares is None else sum(sum(share) for share in shares[:rank])
    window = cut(whole.rows(slice(start, start + sum(own))), own)
    one.fit(
        lambda epoch, start: iter([(0.0, window)]),
        epochs=range(1),
        after_epoch=lambda epoch: False,
        log=lines.append,
        log_every=1,
    )
    return dict(lines[0])


def assert_as_expected(line: dict[str, Any]) -> None:
    gradients = expected_gradients()
    norms = dict(zip(PLAN, gradients.norm(dim=1).tolist(), strict=True))
    assert line["gradient_layer"] == "hidden"
    assert line["gradient_norms"] == pytest.approx(norms, rel=1e-4)
    task, kd = gradients[0], gradients[1]
    cosine = float(task @ kd / (task.norm() * kd.norm()))
    assert line["gradient_cosines"]["task/kd"] == pytest.approx(cosine, abs=1e-4)
    assert len(line["gradient_cosines"]) == 6


def test_the_log_shows_the_norms_and_cosines_of_the_whole_batch() -> None:
    assert_as_expected(line_of())
    assert_as_expected(line_of(((3, 5),)))


def in_process(shares: tuple[tuple[int, ...], ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    line = line_of(shares)
    results = {}
    for balance in BALANCES:
        one = trainer(balance, every=1)
        start = sum(sum(share) for share in shares[: one.accelerator.process_index])
        own = shares[one.accelerator.process_index]
        for _ in range(3):
            one.step(cut(batch_of(8).rows(slice(start, start + sum(own))), own))
        results[balance] = state(one)
    return line, results


@pytest.mark.slow
def test_two_processes_see_the_gradients_and_balance_of_one(tmp_path: Path) -> None:
    (first, of_first), (second, of_second) = run_processes(in_process, 2, tmp_path, ((3, 2), (1, 2)))
    assert_as_expected(first)
    assert_as_expected(second)
    for balance in BALANCES:
        one, _ = after_three_steps(balance, (8,), every=1)
        torch.testing.assert_close(of_first[balance], one, rtol=1e-5, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(of_first[balance], of_second[balance], rtol=0, atol=0, equal_nan=True)


def test_the_log_holds_the_factors() -> None:
    one, lines = trainer("gradnorm"), []
    one.fit(
        lambda epoch, start: iter([(0.0, [batch_of(8)])]),
        epochs=range(2),
        after_epoch=lambda epoch: False,
        log=lines.append,
        log_every=1,
    )
    # The factors of a line are those of its last step, which were made before it.
    assert "balance" not in lines[0]
    factors = lines[1]["balance"]
    assert lines[1]["weighted"]["hint"] == pytest.approx(2.0 * factors["hint"] * lines[1]["raw"]["hint"])


def test_terms_that_do_not_reach_the_student_are_left_out_of_the_comparison() -> None:
    class Apart:
        def __call__(self, student: Tensor, teacher: Tensor | None, batch: Batch) -> Tensor:
            return student.detach().sum(1)

    plan: Plan = {"task": Term(CrossEntropy()), "kd": Term(KD()), "apart": Term(Apart())}
    one = trainer("fixed", every=1, plan=plan)
    assert one.shared is not None and one.shared.terms == ("task", "kd")
    assert one.shared.layer == "fc"
    with pytest.raises(ValueError, match="Gradients are compared between terms, and 1 of the plan reach the student"):
        guide, learner = connect(Net(8), Net(4), {"kd": Term(KD()), "apart": Term(Apart())}, batch_of(4))
        shared_layer(guide, learner, {"kd": Term(KD()), "apart": Term(Apart())}, batch_of(4))


def test_the_layer_is_the_deepest_that_all_terms_reach() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.b(self.a(x).tanh()).tanh())

    plan: Plan = {"kd": Term(KD()), "hint": Term(Hint(), student="a", teacher="a")}
    guide, learner = connect(Deep(), Deep(), plan, batch_of(4))
    assert shared_layer(guide, learner, plan, batch_of(4)).layer == "a"
    plan = {"kd": Term(KD()), "hint": Term(Hint(), student="b", teacher="b")}
    guide, learner = connect(Deep(), Deep(), plan, batch_of(4))
    assert shared_layer(guide, learner, plan, batch_of(4)).layer == "b"


def test_the_layer_is_the_last_that_is_called_and_has_a_matrix() -> None:
    """The shortcut's layer stands last in the module, and is called first; a norm has no matrix."""

    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.shortcut = nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(6, 4)
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            aside = self.shortcut(x)
            return self.fc(self.norm(self.a(x)) + aside)

    plan: Plan = {"kd": Term(KD()), "hint": Term(Hint(), student="fc:input", teacher="fc:input")}
    guide, learner = connect(Shortcut(), Shortcut(), plan, batch_of(4))
    assert shared_layer(guide, learner, plan, batch_of(4)).layer == "a"
