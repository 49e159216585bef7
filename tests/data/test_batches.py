import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data import Batches

Key = tuple[int, int]


def by_step(batches: Batches, start: int = 0) -> list[list[list[Key]]]:
    """Micro-batches of each step, from the one stream that the sampler gives."""
    stream = iter(batches)
    steps = [[next(stream) for _ in range(batches.cuts(step))] for step in range(start, batches.steps)]
    assert next(stream, None) is None
    return steps


@settings(max_examples=150, deadline=None)
@given(
    num_examples=st.integers(1, 70),
    batch_size=st.integers(1, 30),
    micro_batch_size=st.none() | st.integers(1, 12),
    processes=st.integers(1, 5),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_however_it_is_cut_the_union_is_the_global_batch(
    num_examples, batch_size, micro_batch_size, processes, epoch, shuffle
):
    if batch_size < processes or num_examples < processes:
        with pytest.raises(ValueError, match="processes"):
            Batches(num_examples, batch_size=batch_size, processes=processes)
        return
    whole = Batches(num_examples, batch_size=batch_size, seed=3, shuffle=shuffle)
    whole.set_epoch(epoch)
    order = [index for micro_batch in whole for _, index in micro_batch]
    ranks = [
        Batches(
            num_examples,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            processes=processes,
            seed=3,
            shuffle=shuffle,
        )
        for rank in range(processes)
    ]
    for batches in ranks:
        batches.set_epoch(epoch)
    steps = [by_step(batches) for batches in ranks]
    position = 0
    for step in range(ranks[0].steps):
        shares = [steps[rank][step] for rank in range(processes)]
        assert len({len(share) for share in shares}) == 1
        assert all(share and all(share) for share in shares)
        sizes = [sum(map(len, share)) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == ranks[0].size(step)
        if micro_batch_size is not None:
            bound = 2 if micro_batch_size == 1 and max(sizes) > min(sizes) else micro_batch_size
            assert max(len(micro_batch) for share in shares for micro_batch in share) <= bound
        got = [key for share in shares for micro_batch in share for key in micro_batch]
        assert got == [(epoch, index) for index in order[position : position + len(got)]]
        position += len(got)
    assert position + ranks[0].left_out == num_examples
    assert ranks[0].left_out < processes
    assert len(ranks[0]) == sum(map(len, steps[0]))


def test_the_example_of_a_ragged_step_by_hand():
    # 10 examples in fours over 2 processes with at most 1 each: shares of 2 and 2, 2 and 2, then 1 and 1.
    first = Batches(10, batch_size=4, micro_batch_size=1, rank=0, processes=2, shuffle=False)
    second = Batches(10, batch_size=4, micro_batch_size=1, rank=1, processes=2, shuffle=False)
    assert [[index for _, index in micro] for micro in first] == [[0], [1], [4], [5], [8]]
    assert [[index for _, index in micro] for micro in second] == [[2], [3], [6], [7], [9]]


def test_a_share_is_cut_evenly_within_the_bound():
    batches = Batches(8, batch_size=8, micro_batch_size=5, shuffle=False)
    assert [len(micro) for micro in batches] == [4, 4]
    uneven = [Batches(7, batch_size=7, micro_batch_size=2, rank=rank, processes=2, shuffle=False) for rank in (0, 1)]
    assert [[len(micro) for micro in batches] for batches in uneven] == [[2, 2], [2, 1]]


def test_a_last_batch_smaller_than_the_processes_is_left_out_of_training_but_not_of_evaluation():
    training = [Batches(9, batch_size=8, rank=rank, processes=2) for rank in (0, 1)]
    assert [batches.steps for batches in training] == [1, 1]
    assert [batches.left_out for batches in training] == [1, 1]
    evaluation = [Batches(9, batch_size=8, rank=rank, processes=2, shuffle=False) for rank in (0, 1)]
    assert [batches.left_out for batches in evaluation] == [0, 0]
    assert sorted(index for batches in evaluation for micro in batches for _, index in micro) == list(range(9))


def test_an_epoch_is_a_permutation_of_its_own():
    batches = Batches(100, batch_size=30, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        keys = [key for micro in batches for key in micro]
        assert {key[0] for key in keys} == {epoch}
        assert sorted(index for _, index in keys) == list(range(100))
        orders.append([index for _, index in keys])
    assert orders[0] == orders[2] != orders[1]
    assert [index for micro in Batches(100, batch_size=30, seed=1) for _, index in micro] != orders[0]


def test_the_order_ignores_the_state_of_torch():
    torch.manual_seed(0)
    first = list(Batches(50, batch_size=8))
    torch.rand(7)
    assert list(Batches(50, batch_size=8)) == first


@pytest.mark.parametrize("start_step", range(6))
def test_starting_at_a_step_gives_exactly_the_rest(start_step):
    batches = Batches(52, batch_size=12, micro_batch_size=2, rank=1, processes=3)
    batches.set_epoch(4)
    whole = by_step(batches)
    batches.set_epoch(4, start_step=start_step)
    assert by_step(batches, start_step) == whole[start_step:]
    assert len(batches) == sum(map(len, whole[start_step:]))
    assert len(whole) == batches.steps == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_examples": 10, "batch_size": 0}, "batch_size=0"),
        ({"num_examples": 10, "batch_size": 3, "processes": 4}, "4 processes"),
        ({"num_examples": 3, "batch_size": 8, "processes": 4}, "3 examples"),
        ({"num_examples": 10, "batch_size": 8, "micro_batch_size": 0}, "micro_batch_size"),
    ],
)
def test_sizes_without_sense_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Batches(**arguments)


def test_a_step_past_the_end_is_refused():
    with pytest.raises(ValueError, match="start_step"):
        Batches(10, batch_size=5).set_epoch(0, start_step=3)
