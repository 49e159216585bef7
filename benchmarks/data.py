"""Images per second from the data to normalised batches, and the share of a training that waits for them, as JSON.

python benchmarks/data.py [--rounds 7] [--out benchmarks/results/data.json]

Every side goes through a DataLoader, without workers and with two, and ends with a float batch, normalised: the
literature's code image by image, ours by the view, as the trainer does. 32x32: 1,024 images of CIFAR-10 in memory,
cropped out of a border of four pixels and mirrored. 64x64: random resized crops, mirrored, out of drawn JPEG files of
500x375. Sides take turns, each on the same images; medians, and the median of the ratios within a turn. torch has one
thread: on a busy machine its threads wait for each other, which hides everything else. Waiting: steps of a student
alone, which wait more than those with a teacher; the loader with the setting `workers`.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from distill.build import stage_trainer, training_feed
from distill.data import Batches, Cifar10, Data, ImageFolder, Splits, collate
from distill.data.draws import Key
from distill.losses import CrossEntropy
from distill.measure import file_size, machine, versions
from distill.plan import Term
from distill.prepare import prepare
from distill.recipe import SGD, Model, Recipe
from distill.view import View

Rows = dict[str, dict[str, float]]
LITERATURE = "PIL and torchvision, image by image"
SMALL, PHOTOS, PACKED, CROP = 1024, 1024, 96, 64
WIDTH, HEIGHT = 500, 375


@dataclass(frozen=True)
class Side:
    """A data set, what makes a batch of its items, and what the trainer does to the batch before the model."""

    items: Dataset[Any]
    collate: Callable[[Any], Any]
    finish: Callable[[Any], Tensor]

    def loader(self, batches: Batches, workers: int) -> DataLoader[Any]:
        """Gives the batches as the trainer's own loader does."""
        return DataLoader(
            self.items,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
        )


@dataclass(frozen=True, eq=False)
class OneByOne(Dataset[Any]):
    """Items that a loader has to ask for one by one."""

    item: Callable[[Key], Any]

    def __getitem__(self, key: Key) -> Any:
        return self.item(key)


def literature(read: Callable[[int], Image.Image], crop: object, view: View) -> Side:
    """What RepDistiller, mdistiller and torchvision's references do for each image."""
    transform = transforms.Compose(
        [
            crop,
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(view.mean, view.std),
        ]
    )
    return Side(OneByOne(lambda key: transform(read(key[1]))), torch.stack, lambda batch: batch)


def ours(splits: Splits) -> dict[str, Side]:
    view = splits.view.module()
    return {
        "one by one": Side(OneByOne(splits.train.__getitem__), collate, lambda batch: view(batch.inputs)),
        "by the batch": Side(splits.train, collate, lambda batch: view(batch.inputs)),
    }


def compare(sides: dict[str, Side], *, images: int, batch: int, workers: int, rounds: int) -> Rows:
    """{side: images per second, and how many times those of the literature}."""
    batches = Batches(images, batch_size=batch)
    loaders = {name: side.loader(batches, workers) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        batches.set_epoch(turn)
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            for loaded in loaders[name]:
                sides[name].finish(loaded)
            # The first turn warms up.
            if turn:
                seconds[name].append(time.perf_counter() - start)
    base = seconds[LITERATURE]
    return {
        name: {
            "images_per_second": images / statistics.median(spent),
            "times": statistics.median(one / own for one, own in zip(base, spent, strict=True)),
            "times_lowest": min(one / own for one, own in zip(base, spent, strict=True)),
        }
        for name, spent in seconds.items()
    }


def small_sides(splits: Splits) -> dict[str, Side]:
    assert isinstance(splits.train.images, Tensor)
    arrays = splits.train.images.permute(0, 2, 3, 1).contiguous().numpy()
    crop = transforms.RandomCrop(32, padding=4)
    return {
        LITERATURE: literature(lambda index: Image.fromarray(arrays[index]), crop, splits.view),
        **{f"ours, {how}": side for how, side in ours(splits).items()},
    }


def photo_sides(decoded: Splits, packed: Splits) -> dict[str, Side]:
    files = decoded.train.images

    def read(index: int) -> Image.Image:
        with Image.open(files.path(index)) as image:
            return image.convert("RGB")

    return {
        LITERATURE: literature(read, transforms.RandomResizedCrop(CROP), decoded.view),
        "ours, decoded, by the batch": ours(decoded)["by the batch"],
        **{f"ours, packed at {PACKED}, {how}": side for how, side in ours(packed).items()},
    }


def draw(rng: np.random.Generator) -> Image.Image:
    """Soft shapes in three colours under noise: files of some 50 kB at quality 90, as photographs of this size are."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / HEIGHT
    pixels = np.full((HEIGHT, WIDTH, 3), 110, dtype=np.float32)
    for _ in range(6):
        across, down, radius = rng.uniform((0, 0, 0.05), (4 / 3, 1, 0.4))
        shape = np.exp(-(((x - across) ** 2 + (y - down) ** 2) / radius**2))
        pixels += shape[..., None] * rng.uniform(-90, 90, 3).astype(np.float32)
    pixels += rng.normal(0, 7, (HEIGHT, WIDTH, 1)).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(root: Path, images: Sequence[Image.Image], *, quality: int) -> Path:
    """A folder of two classes: all but 64 images to train on, and 32 each in validation and test."""
    for number, image in enumerate(images):
        split = "test" if number < 32 else "validation" if number < 64 else "train"
        place = root / split / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:05}.jpg", quality=quality)
    return root


def waiting(data: Data, *, workers: int, epochs: int = 2) -> dict[str, float]:
    """Of a ResNet-20's steps at batch 64, behind the first epoch: their milliseconds, and the share that waits."""
    recipe = Recipe(
        name="waiting",
        data=data,
        student=Model("distill.models.cifar:resnet20"),
        plan={"task": Term(CrossEntropy())},
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
        epochs=epochs,
        batch_size=64,
        workers=workers,
    )
    parts = prepare(recipe, data.load(0, None), 0, Path("runs"))
    accelerator = Accelerator(cpu=True)
    trainer, _ = stage_trainer(parts, recipe.all_stages()[0], accelerator, 0)
    trainer.learner.train()
    feed = training_feed(parts, accelerator, 0)
    waited, stepped = [], []
    for epoch in range(epochs):
        steps = iter(feed(epoch))
        while True:
            start = time.perf_counter()
            item = next(steps, None)
            arrived = time.perf_counter()
            if item is None:
                break
            trainer.step(item[1], item[0])
            if epoch:
                waited.append(arrived - start)
                stepped.append(time.perf_counter() - arrived)
    return {
        "workers": workers,
        "step_ms": 1000 * statistics.median(stepped),
        "wait_ms_mean": 1000 * statistics.fmean(waited),
        "wait_share": sum(waited) / (sum(waited) + sum(stepped)),
    }


def show(title: str, rows: Rows) -> None:
    table = Table(title=title)
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column.replace("_", " "), justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in values.values()))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    result: dict[str, object] = {"machine": machine(), "versions": versions(), "rounds": options.rounds}
    cifar = Cifar10(subset=SMALL)
    splits = cifar.load(0, None)
    small = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in splits.validation.images[: SMALL + 64]]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DISTILL_CACHE"] = str(Path(folder) / "cache")
        tiny_files = write(Path(folder) / "small", small, quality=95)
        files = write(Path(folder) / "photos", [draw(rng) for _ in range(PHOTOS + 64)], quality=90)
        result["photo_bytes"] = file_size(files) // (PHOTOS + 64)
        decoding = ImageFolder(str(files), size=CROP, verify=False)
        packing = ImageFolder(str(files), size=CROP, packed=PACKED)
        decoded = decoding.load(0, None)
        start = time.perf_counter()
        packed = packing.load(0, None)
        result["packing_images_per_second"] = (PHOTOS + 64) / (time.perf_counter() - start)
        rates = {}
        for workers in (0, 2):
            for title, sides, images, batch in (
                (f"32x32, batch 64, {workers} workers", small_sides(splits), SMALL, 64),
                (f"64x64 from JPEG, batch 16, {workers} workers", photo_sides(decoded, packed), 256, 16),
            ):
                rates[title] = compare(sides, images=images, batch=batch, workers=workers, rounds=options.rounds)
                show(title, rates[title])
        result["rates"] = rates
        sets: dict[str, Data] = {
            "CIFAR-10 in memory": cifar,
            "CIFAR-10 as JPEG files, decoded": ImageFolder(str(tiny_files), size=32),
            "CIFAR-10 as JPEG files, packed at 32": ImageFolder(str(tiny_files), size=32, packed=32),
            f"{CROP}x{CROP} from {WIDTH}x{HEIGHT} JPEG files, decoded": decoding,
            f"{CROP}x{CROP} from {WIDTH}x{HEIGHT} JPEG files, packed at {PACKED}": packing,
        }
        result["waiting"] = {
            f"{name}, {workers} workers": waiting(data, workers=workers)
            for name, data in sets.items()
            for workers in (0, 1)
        }
        show("Waiting", result["waiting"])
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
