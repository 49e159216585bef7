import pytest
import torch

from distill.data.split import check_labels, cut


def test_each_class_gives_its_share():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    kept, taken = cut(labels, 10, seed=0, name="validation")
    assert torch.bincount(labels[taken]).tolist() == [5, 3, 2]
    assert torch.equal(torch.cat([kept, taken]).sort().values, torch.arange(100))


def test_shares_that_are_no_whole_number_go_to_the_largest_remainders():
    # 7 of 5, 4, 3: quotas 35/12 = 2 + 11/12, 28/12 = 2 + 4/12, 21/12 = 1 + 9/12; two are left, for classes 0 and 2.
    labels = torch.tensor([0] * 5 + [1] * 4 + [2] * 3)
    _, taken = cut(labels, 7, seed=0, name="validation")
    assert torch.bincount(labels[taken]).tolist() == [3, 2, 2]


def test_the_cut_repeats_for_its_seed_and_differs_for_another():
    labels = torch.arange(200) % 4
    cuts = [cut(labels, 40, seed=seed, name="validation")[1].tolist() for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert cut(labels, 40, seed=0, name="test")[1].tolist() != cuts[0]


@pytest.mark.parametrize("size", [0, -3, 12, 20])
def test_a_cut_takes_something_and_leaves_something(size):
    with pytest.raises(ValueError, match=f"validation cuts {size} of 12 examples"):
        cut(torch.arange(12) % 3, size, seed=0, name="validation")


def test_labels_name_classes():
    check_labels(torch.tensor([0, 2]), 3, "The test split")
    with pytest.raises(ValueError, match="The test split has no examples"):
        check_labels(torch.tensor([], dtype=torch.int64), 3, "The test split")
    for wrong in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="numbered 0 to 2"):
            check_labels(torch.tensor(wrong), 3, "The test split")
