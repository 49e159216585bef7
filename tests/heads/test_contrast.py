import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.heads import Contrast, Meeting, Remembers
from distill.heads.contrast import mixed, others, uniform
from distill.losses import CRD

CLASSES = 4
ROWS = 20
BANK = Contrast(examples=ROWS, width=8, negatives=50)
QUEUE = Contrast(examples=None, width=8, negatives=10)
both = pytest.mark.parametrize("head", [BANK, QUEUE], ids=["bank", "queue"])


def module(head: Contrast) -> Any:
    torch.manual_seed(0)
    return head(torch.Size((4, 6)), torch.Size((4, 10)))


def label_of(index: Tensor) -> Tensor:
    return index * 7 % CLASSES


def examples(*index: int) -> tuple[Tensor, Tensor, Batch]:
    """Embeddings of both models that depend on the example's number alone, and its batch."""
    numbers = torch.tensor(index, dtype=torch.int64)
    place = torch.arange(16) * (numbers[:, None] + 1)
    features = torch.sin(place.float())
    return features[:, :6], features[:, 6:], Batch(features, label_of(numbers), numbers)


def alone(rows: Tensor) -> Tensor:
    return rows


def seen_by(head: nn.Module, *index: int) -> None:
    """One update with these examples."""
    head(*examples(*index))
    head.remember(alone)  # type: ignore[operator]


def gathered(processes: list[Any]) -> Iterator[Callable[[Tensor], Tensor]]:
    """For each process, a gather that joins what all of them would send, in their order."""
    sent: list[list[Tensor]] = []
    for process in processes:
        one: list[Tensor] = []
        copy.deepcopy(process).remember(lambda rows, one=one: one.append(rows) or rows)
        sent.append(one)
    for _ in processes:
        columns = iter([torch.cat(column) for column in zip(*sent, strict=True)])
        yield lambda rows, columns=columns: next(columns)


def state(head: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in head.named_buffers()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0, msg=name)


@both
def test_its_values_are_what_crd_takes_and_gradient_reaches_both_maps_but_no_teacher(head: Contrast) -> None:
    mapped = module(head)
    student, teacher, batch = examples(3, 1, 2)
    student.requires_grad_()
    (v_s, v_t), (bank_s, bank_t, chosen) = mapped(student, teacher, batch)
    assert isinstance(head, Meeting) and isinstance(mapped, Remembers)
    for v in (v_s, v_t):
        torch.testing.assert_close(v.norm(dim=1), torch.ones(3))
    assert bank_s.shape == bank_t.shape == (head.examples or head.negatives, 8)
    assert chosen.shape == (3, 1 + head.negatives)
    CRD()((v_s, v_t), (bank_s, bank_t, chosen), batch).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in mapped.parameters())
    assert student.grad is not None and not bank_s.requires_grad


def test_the_memory_starts_uniform_with_rows_near_unit_norm() -> None:
    mapped = Contrast(examples=2000)(torch.Size((4, 6)), torch.Size((4, 10)))
    bound = (3 / 128) ** 0.5
    for bank in (mapped.memory.bank_student, mapped.memory.bank_teacher):
        assert bank.min() >= -bound and bank.max() <= bound
        assert bank.square().sum(1).mean() == pytest.approx(1, abs=0.01)
    assert not torch.equal(mapped.memory.bank_student, mapped.memory.bank_teacher)


def test_splitmix64_gives_its_published_numbers() -> None:
    # The first three for the seed 1234567: https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    first, second, third = 6457827717110365317, 3203168211198807973, 9817491932198370423
    assert mixed(torch.tensor(1234567)).item() == first
    drawn = uniform(torch.tensor([1234567]), 3, torch.tensor([1000]))
    assert drawn.tolist() == [[(x >> 32) * 1000 >> 32 for x in (first, second, third)]]


def test_draws_are_even() -> None:
    # 60000 draws of 30: 2000 each, deviation 44.
    counts = uniform(torch.arange(60), 1000, torch.full((60,), 30)).flatten().bincount(minlength=30)
    assert len(counts) == 30
    assert (counts - 2000).abs().max() < 5 * 44


def test_what_is_left_of_the_rows_is_all_but_the_example_and_its_class() -> None:
    torch.manual_seed(0)
    for _ in range(50):
        labels = torch.randint(-1, 4, (9,))
        index, own = torch.randperm(9)[:5], torch.randint(-1, 5, (5,))
        order, skipped, free = others(labels, index, own)
        for i in range(5):
            places = torch.arange(int(free[i]))
            for start, length in skipped:
                places = places + (places >= start[i]) * length[i]
            allowed = [r for r in range(9) if r != index[i] and (own[i] < 0 or labels[r] != own[i])]
            assert sorted(order[places].tolist()) == allowed


def test_negatives_are_of_other_classes_once_the_classes_are_known() -> None:
    mapped = module(BANK)
    seen_by(mapped, *range(ROWS))
    _, (_, _, chosen) = mapped(*examples(*range(ROWS)))
    assert torch.equal(chosen[:, 0], torch.arange(ROWS))
    assert (label_of(chosen[:, 1:]) != label_of(chosen[:, :1])).all()
    for label in range(CLASSES):  # 250 draws of 15 rows meet each
        assert len(chosen[label_of(chosen[:, 0]) == label, 1:].unique()) == ROWS * 3 // 4


def test_negatives_are_never_the_example_itself_even_when_unseen() -> None:
    mapped = module(BANK)
    _, (_, _, chosen) = mapped(*examples(*range(ROWS)))
    assert (chosen[:, 1:] != chosen[:, :1]).all()
    for label in range(CLASSES):  # whose rows are drawn too, since nothing is known of them
        assert len(chosen[label_of(chosen[:, 0]) == label, 1:].unique()) == ROWS


def test_negatives_do_not_depend_on_how_the_batch_is_cut_nor_on_torchs_generator() -> None:
    mapped = module(BANK)
    seen_by(mapped, 0, 1, 2, 3)
    _, (_, _, whole) = mapped(*examples(5, 0, 7, 9, 2))
    torch.manual_seed(1)
    parts = [mapped(*examples(*part))[1][2] for part in ((5,), (0, 7), (9, 2))]
    assert torch.equal(torch.cat(parts), whole)


def test_negatives_differ_between_updates_and_between_seeds() -> None:
    mapped = module(BANK)
    draws = []
    for _ in range(3):
        draws.append(mapped(*examples(5, 0))[1][2])
        mapped.memory.updates += 1
    other = copy.deepcopy(mapped)
    other.memory.seed += 1
    draws.append(other(*examples(5, 0))[1][2])
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4


def test_with_one_class_only_no_negative_is_left() -> None:
    mapped = module(BANK)
    mapped.memory.labels.fill_(1)
    student, teacher, batch = examples(3, 7)  # labels 1 and 1
    _, (_, _, chosen) = mapped(student, teacher, batch)
    assert (chosen[:, 1:] == -1).all()


def test_a_row_becomes_the_mean_of_old_and_new_at_unit_norm() -> None:
    # Momentum 1/4: (1, 0) and the new (0, 1) give (1/4, 3/4) over √10 / 4.
    mapped = Contrast(examples=3, width=2, negatives=1, momentum=0.25)(torch.Size((4, 2)), torch.Size((4, 2)))
    for layer in (mapped.student, mapped.teacher):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    mapped.memory.bank_student[1] = torch.tensor([1.0, 0.0])
    before = state(mapped)
    batch = Batch(torch.zeros(1), torch.tensor([5]), torch.tensor([1]))
    mapped(torch.tensor([[0.0, 2.0]]), torch.tensor([[-3.0, 0.0]]), batch)
    mapped.remember(alone)
    torch.testing.assert_close(mapped.memory.bank_student[1], torch.tensor([1.0, 3.0]) / 10**0.5)
    assert mapped.memory.labels.tolist() == [-1, 5, -1]
    assert mapped.memory.updates == 1
    for name in ("memory.bank_student", "memory.bank_teacher"):
        assert torch.equal(mapped.get_buffer(name)[[0, 2]], before[name][[0, 2]])


def test_written_rows_keep_unit_norm() -> None:
    mapped = module(BANK)
    for _ in range(4):
        seen_by(mapped, 1, 5, 7, 19)
    for bank in (mapped.memory.bank_student, mapped.memory.bank_teacher):
        torch.testing.assert_close(bank[[1, 5, 7, 19]].norm(dim=1), torch.ones(4))


@both
def test_two_processes_remember_what_one_does_with_the_whole_batch(head: Contrast) -> None:
    whole = module(head)
    first, second = copy.deepcopy(whole), copy.deepcopy(whole)
    for _ in range(2):
        seen_by(whole, 4, 8, 3, 11, 0)
        first(*examples(4, 8))
        first(*examples(3))
        second(*examples(11, 0))
        for process, gather in zip((first, second), list(gathered([first, second])), strict=True):
            process.remember(gather)
    assert_same(state(first), state(whole))
    assert_same(state(second), state(whole))


def test_the_order_of_micro_batches_does_not_decide_what_a_queue_forgets() -> None:
    one, other = module(QUEUE), module(QUEUE)
    for _ in range(2):
        seen_by(one, 4, 8, 3, 11, 0, 2, 9)
        other(*examples(0, 2, 9))
        other(*examples(11, 3, 8, 4))
        other.remember(alone)
    assert_same(state(one), state(other))


def test_a_process_without_examples_still_takes_part() -> None:
    busy, idle = module(BANK), module(BANK)
    busy(*examples(1, 2))
    for process, gather in zip((busy, idle), list(gathered([busy, idle])), strict=True):
        process.remember(gather)
    assert_same(state(busy), state(idle))


def test_of_an_example_that_came_twice_the_last_is_kept() -> None:
    twice, once = module(BANK), module(BANK)
    (student, teacher, _), (last_student, last_teacher, batch) = examples(7, 2), examples(3, 2)
    twice(student, teacher, batch)
    twice(last_student, last_teacher, batch)
    once(last_student, last_teacher, batch)
    twice.remember(alone)
    once.remember(alone)
    assert_same(state(twice), state(once))


@both
def test_passes_that_do_not_train_leave_nothing(head: Contrast) -> None:
    mapped = module(head)
    before = state(mapped)
    with torch.no_grad():
        mapped(*examples(1, 2))
    mapped.eval()
    mapped(*examples(3, 4))
    mapped.train()
    mapped.remember(alone)
    after = state(mapped)
    for name in ("memory.bank_student", "memory.bank_teacher", "memory.labels"):
        assert torch.equal(after[name], before[name])


def test_a_queue_wraps_around_and_leaves_out_the_examples_class() -> None:
    mapped = module(QUEUE)
    for start in (0, 6, 12):  # 18 written into 10 rows: the rows 0 to 7 are of 10 to 17, the rows 8 and 9 of 8 and 9
        seen_by(mapped, *range(start, start + 6))
    held = torch.tensor([*range(10, 18), 8, 9])
    assert torch.equal(mapped.memory.labels, label_of(held))
    student, teacher, batch = examples(*held.tolist())
    (v_s, v_t), (bank_s, bank_t, chosen) = mapped(student, teacher, batch)
    torch.testing.assert_close(bank_s, v_s.detach())
    torch.testing.assert_close(bank_t, v_t.detach())
    same = batch.labels[:, None] == mapped.memory.labels
    assert (chosen[:, 0] == -1).all()
    assert torch.equal(chosen[:, 1:], torch.where(same, -1, torch.arange(10)))


def test_an_update_longer_than_the_queue_fills_it_with_its_last_examples() -> None:
    mapped = module(QUEUE)
    seen_by(mapped, *range(13))
    assert torch.equal(mapped.memory.labels, label_of(torch.arange(3, 13)))


@both
def test_a_saved_head_goes_on_as_if_it_had_not_stopped(head: Contrast) -> None:
    straight = module(head)
    seen_by(straight, 1, 2, 3)
    torch.manual_seed(9)
    resumed: Any = head(torch.Size((4, 6)), torch.Size((4, 10)))
    resumed.load_state_dict(straight.state_dict())
    for mapped in (straight, resumed):
        seen_by(mapped, 4, 2)
    assert_same(state(straight), state(resumed))
    assert torch.equal(straight(*examples(5, 6))[1][2], resumed(*examples(5, 6))[1][2])


@both
def test_embeddings_learn_to_tell_examples_apart(head: Contrast) -> None:
    mapped = module(head)
    optimizer = torch.optim.SGD(mapped.parameters(), lr=0.1)
    values = []
    for _ in range(150):
        student, teacher, batch = examples(*range(ROWS))
        loss = CRD(temperature=0.2)(*mapped(student, teacher, batch), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mapped.remember(alone)
        values.append(loss.item())
    assert sum(values[-5:]) < 0.8 * sum(values[2:7])


@both
def test_under_autocast_the_embeddings_stay_wide_and_the_memory_as_it_was(head: Contrast) -> None:
    mapped = module(head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (v_s, v_t), _ = mapped(*examples(1, 2))
        mapped.remember(alone)
    assert v_s.dtype == v_t.dtype == mapped.memory.bank_student.dtype == torch.float32


@both
@pytest.mark.parametrize("labels", [torch.zeros(2, CLASSES), torch.zeros(2), torch.zeros(2, CLASSES).long()])
def test_labels_that_are_not_one_class_each_are_refused(head: Contrast, labels: Tensor) -> None:
    student, teacher, batch = examples(1, 2)
    with pytest.raises(ValueError, match=r"^Contrast takes one class for each example, .* Leave out mixup"):
        module(head)(student, teacher, Batch(batch.inputs, labels, batch.index))


def test_a_number_beyond_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Contrast\.examples must be above .*, got 20 and the number 20\. Give the"):
        module(BANK)(*examples(1, ROWS))


@pytest.mark.parametrize("shapes", [((4, 6, 2), (4, 6)), ((4, 6), (4, 6, 3, 3))])
def test_shapes_that_are_not_embeddings_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"^Contrast maps embeddings \(B, D\), got student .*\. Tap \"embedding\"\.$"):
        BANK(*map(torch.Size, shapes))


@pytest.mark.parametrize(
    "settings", [{"examples": 1}, {"width": 0}, {"negatives": 0}, {"momentum": 1.0}, {"momentum": float("nan")}]
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^Contrast\.{next(iter(settings))} must be .*, got "):
        Contrast(**{"examples": 10, **settings})
