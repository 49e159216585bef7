import pytest
import torch
from torch import Size

from distill.initialize.indices import MisfitError, blocks, grouped, heads, is_whole, outer, plain, uniform


def test_uniform_positions_by_hand():
    assert uniform(5, 3).tolist() == [0, 2, 4]  # linspace(0, 4, 3) = 0, 2, 4
    assert uniform(4, 3).tolist() == [0, 2, 3]  # 0, 1.5, 3: torch rounds halves to the even neighbour
    assert uniform(6, 4).tolist() == [0, 2, 3, 5]  # 0, 5/3, 10/3, 5
    assert uniform(7, 1).tolist() == [0]
    assert uniform(3, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", range(1, 130))
def test_uniform_positions_are_distinct_and_keep_both_ends(size):
    for kept in range(2, size + 1):
        positions = uniform(size, kept)
        assert bool((positions.diff() > 0).all())
        assert (positions[0], positions[-1], len(positions)) == (0, size - 1, kept)


def test_heads_are_taken_whole_by_hand():
    # Four heads of two: heads 0 and 3 of uniform(4, 2), each with both of its dimensions.
    assert heads(8, 4, 4, 2).tolist() == [0, 1, 6, 7]
    # Two heads of four to two of two: both heads, of each the first and last dimension.
    assert heads(8, 4, 2, 2).tolist() == [0, 3, 4, 7]


def test_blocks_repeat_positions_in_each_block():
    assert blocks(torch.tensor([0, 3]), 4, 3).tolist() == [0, 3, 4, 7, 8, 11]


def test_plain_index_by_hand():
    wide = torch.arange(15).view(3, 5)
    assert wide[plain(Size((3, 5)), Size((2, 3)))].tolist() == [[0, 2, 4], [10, 12, 14]]


def test_grouped_index_follows_the_channels_by_hand():
    # Four channels in two groups keep channels 0 and 3, one of each group: channel 3 is the second input of the second
    # group, so its row takes column 1, where plain positions would take column 0.
    rows, columns, *kernel = grouped(Size((4, 2, 3, 3)), Size((2, 1, 3, 3)), 2, 2)
    assert rows.flatten().tolist() == [0, 3]
    assert columns.flatten().tolist() == [0, 1]
    assert [each.shape for each in kernel] == [(1, 1, 3, 1), (1, 1, 1, 3)]


@pytest.mark.parametrize(("groups", "wide", "narrow"), [(1, 6, 4), (2, 5, 3), (3, 7, 2), (8, 4, 3), (32, 8, 4)])
def test_grouped_index_is_the_plain_one_of_the_dense_matrix(groups, wide, narrow):
    weight = torch.arange(1, groups * wide * wide + 1).view(groups * wide, wide)
    dense = torch.block_diag(*weight.chunk(groups))
    selected = weight[grouped(weight.shape, Size((groups * narrow, narrow)), groups, groups)]
    assert torch.equal(
        torch.block_diag(*selected.chunk(groups)) > 0, torch.block_diag(*torch.ones_like(selected).chunk(groups)) > 0
    )
    assert torch.equal(
        torch.block_diag(*selected.chunk(groups)), dense[plain(dense.shape, Size((groups * narrow,) * 2))]
    )


def test_depthwise_keeps_each_channels_own_filter():
    index = grouped(Size((6, 1, 3)), Size((4, 1, 3)), 6, 4)
    wide = torch.arange(18).view(6, 1, 3)
    assert torch.equal(wide[index], wide[[0, 2, 3, 5]])


def test_dense_to_grouped_drops_the_connections_between_groups():
    # The dense weight has every connection; of its four rows and columns each group keeps its own square.
    index = grouped(Size((4, 4)), Size((4, 2)), 1, 2)
    assert torch.arange(16).view(4, 4)[index].tolist() == [[0, 1], [4, 5], [10, 11], [14, 15]]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: uniform(3, 4), "4 cannot be taken from the teacher's 3"),
        (lambda: heads(8, 8, 2, 4), "4 heads of 2 cannot be taken from the teacher's 2 of 4"),
        (lambda: heads(8, 8, 4, 2), "2 heads of 4 cannot be taken from the teacher's 4 of 2"),
        (lambda: plain(Size((3, 3)), Size((3,))), "the teacher's has 2 dimensions"),
        (
            lambda: grouped(Size((4, 2)), Size((4, 4)), 2, 1),
            "1 groups join channels that the teacher's 2 groups keep apart",
        ),
    ],
)
def test_what_cannot_be_taken_is_said(attempt, message):
    with pytest.raises(MisfitError, match=message):
        attempt()


def test_whole_means_every_element_in_its_place():
    size = Size((2, 3))
    assert is_whole(plain(size, size), size, size)
    assert is_whole(grouped(Size((4, 2, 3)), Size((4, 2, 3)), 2, 2), Size((4, 2, 3)), Size((4, 2, 3)))
    assert is_whole((), Size(()), Size(()))
    assert not is_whole(outer([torch.tensor([1, 0]), torch.arange(3)]), size, size)
    assert not is_whole(plain(size, Size((2, 2))), size, Size((2, 2)))
