"""Reading grey 1024x1024 PNGs through the cache of decoded images against decoding them each epoch, as JSON.

python benchmarks/image_cache.py [--images 200] [--epochs 5] [--out benchmarks/results/image_cache.json]

The images are drawn: smooth shapes under a little noise, which makes files of about 440 kB, much like radiographs'.
Both sides read every image once an epoch, in the same shuffled order, on one thread, and give the same pixels. Epochs
of both sides take turns; medians. All files fit the memory, so both sides are spared the disk.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from distill.data.examples import Images
from distill.data.image_cache import cached
from distill.data.images import Files, GreyFiles
from distill.measure import file_size, machine, versions

SIDE = 1024
SIZES = (1024, 224)


def draw(rng: np.random.Generator) -> Image.Image:
    """Ten soft shapes on a gradient, under noise of a standard deviation of one and a half steps of grey."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    grey = 60 + 80 * y
    for _ in range(10):
        across, down, width, height = rng.uniform((0, 0, 0.05, 0.05), (1, 1, 0.3, 0.3))
        grey += rng.uniform(-50, 70) * np.exp(-(((x - across) / width) ** 2) - ((y - down) / height) ** 2)
    grey += rng.normal(0, 1.5, grey.shape)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def epoch(images: Images, order: Sequence[int]) -> float:
    """Seconds to read every image."""
    start = time.perf_counter()
    for index in order:
        images[index]
    return time.perf_counter() - start


def compare(files: Files, size: int, epochs: int) -> dict[str, float]:
    decoding = GreyFiles(files, size)
    start = time.perf_counter()
    reading = cached(decoding, size=size, name="benchmark")
    built = time.perf_counter() - start
    start = time.perf_counter()
    reading = cached(decoding, size=size, name="benchmark")
    opened = time.perf_counter() - start
    assert all(torch.equal(reading[index], decoding[index]) for index in range(0, len(files), 10))
    rng = np.random.default_rng(size)
    seconds: dict[Images, list[float]] = {decoding: [], reading: []}
    for turn in range(epochs):
        order = rng.permutation(len(files)).tolist()
        for images in (decoding, reading) if turn % 2 else (reading, decoding):
            seconds[images].append(epoch(images, order))
    rates = {images: len(files) / statistics.median(times) for images, times in seconds.items()}
    return {
        "size": size,
        "decoding_images_per_second": rates[decoding],
        "cache_images_per_second": rates[reading],
        "ratio_median": statistics.median(
            decoded / read for decoded, read in zip(seconds[decoding], seconds[reading], strict=True)
        ),
        "ratio_lowest": min(decoded / read for decoded, read in zip(seconds[decoding], seconds[reading], strict=True)),
        "build_seconds": built,
        "open_seconds": opened,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "image_cache.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    names = [f"{number:04}.png" for number in range(options.images)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        os.environ["DISTILL_CACHE"] = str(Path(folder) / "cache")
        for name in names:
            draw(rng).save(data / name)
        png_bytes = file_size(data) // len(names)
        rows = [compare(Files(data, names), size, options.epochs) for size in SIZES]
    table = Table(title=f"{options.images} grey PNGs of {SIDE}x{SIDE}, {png_bytes / 1e3:.0f} kB each")
    for column in ("size", "decoding, images/s", "cache, images/s", "cache over decoding", "build, s", "open, s"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["size"]),
            f"{row['decoding_images_per_second']:.0f}",
            f"{row['cache_images_per_second']:.0f}",
            f"{row['ratio_median']:.1f}",
            f"{row['build_seconds']:.1f}",
            f"{row['open_seconds']:.3f}",
        )
    Console().print(table)
    result = {"images": options.images, "side": SIDE, "png_bytes": png_bytes, "epochs": options.epochs, "threads": 1}
    result |= {"rows": rows, "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
