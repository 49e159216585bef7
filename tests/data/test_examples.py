import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from distill.batch import Batch
from distill.data import (
    Arrays,
    Batches,
    CenterCrop,
    Crop,
    Data,
    Digits,
    Examples,
    Flip,
    Mix,
    Part,
    RandomResizedCrop,
    Splits,
    collate,
    make_splits,
)
from distill.view import View


def arrays(count: int = 60, **values: object) -> Arrays:
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Arrays(images, torch.arange(count) % 3, ("a", "b", "c"), **values)


def loaded(splits: Splits, workers: int, epochs: tuple[int, ...] = (0, 1)) -> list[Batch]:
    batches = Batches(len(splits.train), batch_size=7)
    loader = DataLoader(splits.train, batch_sampler=batches, collate_fn=collate, num_workers=workers)
    found = []
    for epoch in epochs:
        batches.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.parametrize("mix", [None, Mix(mixup=0.4, cutmix=1.0)])
def test_workers_do_not_change_an_example(mix):
    splits = arrays(augment=(Crop(2), Flip())).load(0, mix)
    alone = loaded(splits, 0)
    for own, other in zip(alone, loaded(splits, 2), strict=True):
        assert torch.equal(own.inputs, other.inputs)
        assert torch.equal(own.labels, other.labels)
        assert torch.equal(own.index, other.index)


@pytest.mark.parametrize("mix", [None, Mix(mixup=0.4, cutmix=1.0)])
def test_an_example_depends_on_seed_epoch_and_index_alone(mix):
    data = arrays(augment=(Crop(2), Flip()))
    first, second, reseeded = data.load(0, mix).train, data.load(0, mix).train, data.load(1, mix).train
    forward = [first[4, index].image for index in range(len(first))]
    backward = [second[4, index].image for index in reversed(range(len(first)))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(forward, backward, strict=True))
    other_epoch = [first[5, index].image for index in range(len(first))]
    assert sum(torch.equal(one, other) for one, other in zip(forward, other_epoch, strict=True)) < len(first) / 3
    other_seed = [reseeded[4, index].image for index in range(len(first))]
    assert sum(torch.equal(one, other) for one, other in zip(forward, other_seed, strict=True)) < len(first) / 3


TRANSFORMS = [Crop(2), Flip(0.4), RandomResizedCrop(8), RandomResizedCrop(5), v2.RandomVerticalFlip(), CenterCrop(6)]
MIXES = [None, Mix(mixup=0.4), Mix(cutmix=1.0), Mix(mixup=1.0, cutmix=1.0, probability=0.6)]


@settings(max_examples=150, deadline=None)
@given(
    keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), min_size=1, max_size=20),
    transforms=st.lists(st.sampled_from(TRANSFORMS), max_size=3),
    mix=st.sampled_from(MIXES),
    several=st.booleans(),
    kind=st.sampled_from(["tensor", "files", "unlike files"]),
    seed=st.integers(0, 5),
)
def test_examples_that_come_together_are_to_the_bit_those_that_come_one_by_one(
    keys, transforms, mix, several, kind, seed
):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 8, 9), dtype=torch.uint8, generator=draw)
    classes = torch.arange(12) % 4
    rows = torch.randint(0, 2, (12, 4), generator=draw).float()
    rows[rows.cumsum(1) == 3] = float("nan")
    if kind == "unlike files":
        transforms = [*transforms, RandomResizedCrop(7)]
        # Decoded files have their channels last; beside a file of another size they are not copied into one tensor.
        held = [
            image[:, : 8 - row % 2, : 9 - row % 3].permute(1, 2, 0).contiguous() for row, image in enumerate(images)
        ]
        held = [image.permute(2, 0, 1) for image in held]
    else:
        held = images if kind == "tensor" else list(images)
    train = Examples(Part(held, rows if several else classes), num_classes=4, transforms=transforms, seed=seed, mix=mix)
    state = torch.get_rng_state()
    batch = collate(train.__getitems__(keys))
    assert torch.equal(torch.get_rng_state(), state)
    alone = collate([train[key] for key in keys])
    assert batch.inputs.dtype == alone.inputs.dtype == (torch.uint8 if mix is None else torch.float32)
    assert torch.equal(batch.inputs, alone.inputs)
    torch.testing.assert_close(batch.labels, alone.labels, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(batch.index, alone.index)
    assert batch.index.tolist() == [index for _, index in keys]


def test_a_loader_asks_for_whole_batches(monkeypatch):
    splits = arrays(augment=(Crop(2), Flip())).load(0, Mix(mixup=0.4))
    expected = loaded(splits, 0)
    monkeypatch.delattr(Examples, "__getitem__")
    for own, other in zip(loaded(splits, 0), expected, strict=True):
        assert torch.equal(own.inputs, other.inputs)


def test_images_of_unlike_sizes_make_no_batch():
    sizes = [torch.zeros(3, 8, 8 + row, dtype=torch.uint8) for row in range(2)]
    examples = Examples(Part(sizes, torch.tensor([0, 1])), num_classes=2, transforms=(Flip(),))
    assert examples[0, 1].image.shape == (3, 8, 9)
    with pytest.raises(ValueError, match=r"one size, got \(3, 8, 8\) and \(3, 8, 9\). Give a transform that resizes"):
        examples.__getitems__([(0, 0), (0, 1)])


def test_examples_of_one_epoch_are_changed_each_in_its_own_way():
    same = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(60, 1, 8, 8).contiguous()
    data = Arrays(same, torch.arange(60) % 3, ("a", "b", "c"), augment=(Crop(2), Flip()))
    train = data.load(0, None).train
    seen = {train[0, index].image.contiguous().numpy().tobytes() for index in range(len(train))}
    # 50 forms, of which 36 draws should meet 50 * (1 - exp(-36/50)) = 26.
    assert len(seen) > 15


def test_the_run_s_seed_does_not_move_the_splits():
    data = arrays()
    for name in ("train", "validation", "test"):
        one, other = getattr(data.load(0, None), name), getattr(data.load(1, None), name)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert not torch.equal(arrays(split_seed=1).load(0, None).test.images, data.load(0, None).test.images)


def test_evaluation_ignores_the_epoch_and_the_mixing():
    splits = arrays(augment=(Crop(2), Flip())).load(0, Mix(mixup=1.0))
    for examples in (splits.validation, splits.test):
        for index in range(len(examples)):
            assert torch.equal(examples[0, index].image, examples[9, index].image)
            assert examples[0, index].label == examples.labels[index]
            assert torch.equal(examples[0, index].image, examples.images[index])


def test_augmenting_leaves_the_images_and_torch_s_state_alone():
    train = arrays(augment=(Crop(2), Flip())).load(0, Mix(cutmix=1.0)).train
    images, state = train.images.clone(), torch.get_rng_state()
    for index in range(len(train)):
        train[0, index]
    assert torch.equal(train.images, images)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_mixed_example_is_the_blend_of_two_crops():
    mix = Mix(mixup=1.0)
    train = arrays(augment=(Crop(2), Flip())).load(0, mix).train
    for index in range(len(train)):
        example = train[2, index]
        blend = mix.draw(0, 2, index, num_examples=len(train), height=8, width=8)
        own, other = train.crop(2, index).float() / 255, train.crop(2, blend.partner).float() / 255
        assert torch.allclose(example.image, blend.share * own + (1 - blend.share) * other, atol=1e-6)
        assert example.label.sum().item() == pytest.approx(1)
        assert example.label[train.labels[index]] >= blend.share - 1e-6
        assert example.image.dtype == torch.float32


def test_a_batch_holds_its_examples_in_order():
    train = arrays().load(0, None).train
    batch = collate([train[0, 5], train[0, 2]])
    assert batch.index.tolist() == [5, 2]
    assert torch.equal(batch.inputs, train.images[[5, 2]])
    assert torch.equal(batch.labels, train.labels[[5, 2]])
    assert batch.labels.dtype == torch.int64
    assert batch.inputs.dtype == torch.uint8


def test_splits_can_be_pickled_for_workers():
    splits = arrays(augment=(Crop(2),)).load(0, Mix(cutmix=1.0))
    again = pickle.loads(pickle.dumps(splits))
    assert torch.equal(again.train[1, 3].image, splits.train[1, 3].image)


def test_arrays_are_cut_into_their_shares_class_by_class():
    splits = arrays(60, validation=0.1, test=0.3).load(0, None)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 6, 18)
    assert torch.bincount(splits.test.labels).tolist() == [6, 6, 6]
    kept = torch.cat([splits.train.images, splits.validation.images, splits.test.images]).flatten(1).unique(dim=0)
    assert len(kept) == 60


def test_the_view_takes_its_statistics_from_the_training_images():
    splits = arrays().load(0, None)
    seen = splits.view.module()(splits.train.images)
    assert torch.allclose(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(seen.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    assert arrays(view=View()).load(0, None).view == View()


def test_data_sets_keep_the_protocol():
    assert isinstance(Digits(), Data)
    assert isinstance(arrays(), Data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(6, 1, 2, 2)}, "uint8"),
        ({"images": torch.zeros(6, 2, 2, dtype=torch.uint8)}, r"\(6, 2, 2\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "6 images"),
        ({"labels": torch.zeros(6)}, "float32"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, 2])}, "numbered 0 to 1"),
        ({"validation": 0.0}, "validation"),
        ({"test": 1.5}, "test"),
        ({"validation": 0.5, "test": 0.5}, r"validation \+ test"),
        ({"labels": torch.zeros(6, dtype=torch.int64)}, "No training example of class b"),
        ({"images": torch.zeros(6, 1, 2, 2, dtype=torch.uint8)}, "same value in channel 0"),
        ({"validation": 0.01}, "validation cuts 0"),
    ],
)
def test_wrong_arrays_are_refused(change, words):
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    values = {"images": images, "labels": torch.tensor([0, 1] * 3), "classes": ("a", "b"), **change}
    with pytest.raises(ValueError, match=words):
        Arrays(**values).load(0, None)


def test_an_empty_split_is_refused():
    part = Part(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]))
    empty = Part(part.images[:0], part.labels[:0])
    with pytest.raises(ValueError, match="The validation split has no examples"):
        make_splits(train=part, validation=empty, test=part, classes=("a", "b"), view=View(), seed=0)
    with pytest.raises(ValueError, match="2 images and 0 labels"):
        make_splits(
            train=part, validation=Part(part.images, empty.labels), test=part, classes="ab", view=View(), seed=0
        )
