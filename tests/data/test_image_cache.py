import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from distill.data import image_cache
from distill.data.image_cache import CachedImages, cache_place, cached
from distill.data.image_rows import RECORD, alone
from distill.data.images import Files, UnreadableImageError

SIZE = 4
needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")


class Counted:
    """Files of one number each, decoded to pixels that only this number makes; every decoding is noted."""

    def __init__(self, root: Path, names: list[str], *, channels: int = 1, before: Callable[[int], None] | None = None):
        self.root, self.names, self.channels, self.before = root, names, channels, before
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        if self.before is not None:
            self.before(index)
        self.decoded.append(index)
        text = self.path(index).read_text()
        if not text.isdigit():
            raise UnreadableImageError(f"Cannot read image {self.path(index)}: no number.")
        drawn = torch.Generator().manual_seed(int(text))
        return torch.randint(0, 256, (self.channels, SIZE, SIZE), dtype=torch.uint8, generator=drawn)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def names(tmp_path) -> list[str]:
    """Names of ten files under data/."""
    return write(tmp_path / "data", 10)


def write(root: Path, count: int) -> list[str]:
    root.mkdir()
    names = [f"{number:04}.txt" for number in range(count)]
    for number, name in enumerate(names):
        (root / name).write_text(str(number))
    return names


def same(images, files) -> bool:
    assert len(images) == len(files)
    return all(torch.equal(images[index], files[index]) for index in range(len(files)))


def folder_of(place: Path) -> Path:
    (folder,) = place.iterdir()
    return folder


def test_images_are_those_decoded_directly_and_the_second_epoch_decodes_nothing(tmp_path, names):
    files = Counted(tmp_path / "data", names, channels=3)
    images = cached(files, size=SIZE, name="set")
    assert images[0].shape == (3, SIZE, SIZE) and images[0].dtype == torch.uint8
    # Each once, and the first once more, since the cache must know how many channels there are.
    assert sorted(files.decoded) == [0, 0, *range(1, 10)]
    files.decoded.clear()
    for _ in range(2):
        for index in range(10):
            images[index]
    again = cached(files, size=SIZE, name="set")
    assert files.decoded == []
    assert same(images, files) and same(again, files)


def test_an_image_belongs_to_the_caller(tmp_path, names):
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set")
    images[3].zero_()
    assert torch.equal(images[3], files[3])


def test_other_splits_and_orders_use_the_same_rows(tmp_path, names):
    root = tmp_path / "data"
    cached(Counted(root, names[:6]), size=SIZE, name="set")
    files = Counted(root, [*reversed(names), names[2]])
    images = cached(files, size=SIZE, name="set")
    assert sorted(files.decoded) == [0, 1, 2, 3]
    assert same(images, files)
    chosen = images.rows(torch.tensor([7, 1])).rows(torch.tensor([1, 0, 1]))
    assert [torch.equal(image, files[index]) for image, index in zip(chosen, (1, 7, 1), strict=True)] == [True] * 3


def test_another_size_name_or_root_has_another_cache(tmp_path, names, place):
    cached(Counted(tmp_path / "data", names), size=SIZE, name="set")
    cached(Counted(tmp_path / "data", names), size=SIZE, name="../set 2")
    cached(Counted(tmp_path / "more", write(tmp_path / "more", 1)), size=SIZE, name="set")
    assert len(list(place.iterdir())) == 3
    assert {entry.name for entry in tmp_path.iterdir()} == {"data", "more", "cache"}
    with pytest.raises(ValueError, match=r"0000\.txt gives torch\.uint8 \(1, 4, 4\).*holds torch\.uint8 \(1, 5, 5\)"):
        cached(Counted(tmp_path / "data", names), size=SIZE + 1, name="set")


def test_a_changed_source_is_noticed_and_only_it_is_decoded_anew(tmp_path, names):
    root = tmp_path / "data"
    cached(Counted(root, names), size=SIZE, name="set")
    # Another length at the same time, and another time at the same length.
    for number, text, later in ((4, "77", 0), (6, "9", 1)):
        time_of_change = (root / names[number]).stat().st_mtime_ns + later
        (root / names[number]).write_text(text)
        os.utime(root / names[number], ns=(time_of_change, time_of_change))
    files = Counted(root, names)
    with pytest.warns(UserWarning, match=r"^2 of 10 images of set have changed .* decoded anew\.$"):
        images = cached(files, size=SIZE, name="set")
    assert sorted(files.decoded) == [4, 6]
    assert same(images, files)


def test_a_file_that_is_gone_is_named(tmp_path, names, write_image):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "photos" / name, width=SIZE, height=SIZE)
    files = Files(tmp_path / "photos", ["a.png", "b.png"])
    cached(files, size=SIZE, name="photos")
    files.path(1).unlink()
    with (
        pytest.warns(UserWarning, match="1 of 2 images of photos have changed"),
        pytest.raises(UnreadableImageError, match=r"b\.png"),
    ):
        cached(files, size=SIZE, name="photos")


def test_an_unreadable_file_is_named_and_what_came_before_it_stays(tmp_path, names):
    root = tmp_path / "data"
    (root / names[7]).write_text("x")
    with pytest.raises(UnreadableImageError, match=r"0007\.txt"):
        cached(Counted(root, names), size=SIZE, name="set")
    (root / names[7]).write_text("7")
    files = Counted(root, names)
    assert same(cached(files, size=SIZE, name="set"), Counted(root, names))
    assert files.decoded == [7, 8, 9]


def test_an_image_unlike_the_first_is_named(tmp_path, names):
    files = Counted(tmp_path / "data", names)

    def colour(index: int) -> None:
        files.channels = 3 if index == 5 else 1

    files.before = colour
    with pytest.raises(ValueError, match=r"0005\.txt gives torch\.uint8 \(3, 4, 4\)"):
        cached(files, size=SIZE, name="set")


def assert_soon(holds: Callable[[], bool]) -> None:
    patience = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < patience
        time.sleep(0.01)


def filled(place: Path) -> int:
    """How many rows of the only cache, if it is there yet, have a record."""
    return sum(int((np.fromfile(path, dtype=RECORD)["bytes"] > 0).sum()) for path in place.glob("*/records"))


def build_and_hang(root: Path, names: list[str]) -> None:
    """Decodes 160 images and no more."""

    def hang(index: int) -> None:
        if index >= 160:
            time.sleep(60)

    cached(Counted(root, names, before=hang), size=SIZE, name="set")


@needs_fork
def test_a_killed_build_goes_on_where_it_stopped_and_nothing_half_is_used(tmp_path, place):
    # Rows count in chunks of 64: of the 160 that are decoded, 128 count, and the 32 that lie there without records
    # do not. The folder is watched until that is so.
    root = tmp_path / "data"
    names = write(root, 192)
    child = multiprocessing.get_context("fork").Process(target=build_and_hang, args=(root, names))
    child.start()
    assert_soon(lambda: filled(place) == 128)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    # What a torn write may leave in a row without a record.
    with (folder_of(place) / "images.u8").open("r+b") as out:
        out.seek(130 * SIZE * SIZE)
        out.write(b"\xff" * 5)
    files = Counted(root, names)
    images = cached(files, size=SIZE, name="set")
    assert sorted(files.decoded) == list(range(128, 192))
    assert same(images, files)


def test_pixels_that_do_not_fit_their_checksum_are_named_and_written_anew(tmp_path, names, place):
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set")
    with (folder_of(place) / "images.u8").open("r+b") as out:
        out.seek(3 * SIZE * SIZE + 5)
        out.write(bytes([255 - int(images[3].flatten()[5])]))
    with pytest.warns(UserWarning, match=r"cache .* is damaged at .*0003\.txt, which is decoded anew\.$"):
        mended = images[3]
    assert torch.equal(mended, files[3])
    files.decoded.clear()
    images[3], cached(files, size=SIZE, name="set")[3]
    assert files.decoded == []
    assert same(images, files)


def test_a_damaged_row_that_cannot_be_written_is_decoded_each_time(tmp_path, names, place):
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set")
    folder = folder_of(place)
    with (folder / "images.u8").open("r+b") as out:
        out.write(bytes(SIZE * SIZE))
    (folder / "lock").unlink()
    (folder / "lock").mkdir()
    with pytest.warns(UserWarning, match=r"0000\.txt, which cannot be written anew \(.*\) and is decoded each time\.$"):
        assert torch.equal(images[0], files[0])


@pytest.mark.parametrize(("file", "kept"), [("images.u8", 6 * SIZE * SIZE + 1), ("records", 6 * RECORD.itemsize + 1)])
def test_a_cache_cut_short_is_noticed_and_keeps_what_is_whole(tmp_path, names, place, file, kept):
    cached(Counted(tmp_path / "data", names), size=SIZE, name="set")
    os.truncate(folder_of(place) / file, kept)
    files = Counted(tmp_path / "data", names)
    with pytest.warns(UserWarning, match="was cut short"):
        images = cached(files, size=SIZE, name="set")
    assert sorted(files.decoded) == [6, 7, 8, 9]
    assert same(images, files)


def test_a_cache_that_forgot_what_it_is_of_looks_at_one_image(tmp_path, names, place):
    cached(Counted(tmp_path / "data", names), size=SIZE, name="set")
    about = folder_of(place) / "about.json"
    told = json.loads(about.read_text())
    assert told == {"name": "set", "root": str(tmp_path / "data"), "size": SIZE, "channels": 1}
    about.write_text("{")
    files = Counted(tmp_path / "data", names)
    assert same(cached(files, size=SIZE, name="set"), Counted(tmp_path / "data", names))
    assert files.decoded == [0]
    assert json.loads(about.read_text()) == told


def test_a_row_of_another_name_is_never_given(tmp_path, names, place):
    # Whatever happens to the folder under a running process, such as its removal and another build in another order.
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set")
    folder = folder_of(place)
    swapped = np.fromfile(folder / "records", dtype=RECORD)[[1, 0, *range(2, 10)]]
    pixels = np.fromfile(folder / "images.u8", dtype=np.uint8).reshape(10, -1)[[1, 0, *range(2, 10)]]
    (folder / "records").write_bytes(swapped.tobytes())
    (folder / "images.u8").write_bytes(pixels.tobytes())
    with pytest.warns(UserWarning, match=r"0000\.txt"):
        assert torch.equal(images[0], files[0])


def test_two_at_once_decode_each_image_once(tmp_path, names):
    meet = threading.Barrier(2)
    files = Counted(tmp_path / "data", names, before=lambda _: time.sleep(0.005))

    def build(_: int) -> CachedImages:
        meet.wait()
        return cached(files, size=SIZE, name="set")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(build, range(2))
    assert sorted(files.decoded) == [0, 0, *range(1, 10)]
    assert same(one, files) and same(other, files)


def test_a_whole_cache_is_opened_and_read_without_the_lock(tmp_path, names, place):
    files = Counted(tmp_path / "data", names)
    cached(files, size=SIZE, name="set")
    with alone(folder_of(place)):
        assert same(cached(files, size=SIZE, name="set"), files)


def test_a_reader_waits_for_a_row_that_another_process_is_writing(tmp_path, names, place, capfd):
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set")
    files.decoded.clear()
    path = folder_of(place) / "records"
    whole = path.read_bytes()

    def put(data: bytes) -> None:
        with path.open("r+b") as out:
            out.write(data)

    with ThreadPoolExecutor(1) as pool:
        with alone(folder_of(place)):
            put(bytes(len(whole)))
            reading = pool.submit(lambda: images[2])
            assert_soon(lambda: "Waiting for another process that fills" in capfd.readouterr().err)
            assert not reading.done()
            put(whole)
        assert torch.equal(reading.result(), files[2])
    assert files.decoded == [2]


@pytest.mark.parametrize(
    "start", [pytest.param("fork", marks=needs_fork), pytest.param("spawn", marks=pytest.mark.slow)]
)
def test_workers_read_it_forked_and_spawned(tmp_path, write_image, start):
    names = [f"{seed}.png" for seed in range(4)]
    for seed, name in enumerate(names):
        write_image(tmp_path / "photos" / name, width=SIZE, height=SIZE, seed=seed)
    files = Files(tmp_path / "photos", names)
    images = cached(files, size=SIZE, name="photos")
    for name in names:
        (tmp_path / "photos" / name).unlink()
    loader = DataLoader(images, batch_size=2, num_workers=1, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), torch.stack([images[index] for index in range(4)]))


def test_pickling_takes_no_pixels_along(tmp_path, names):
    files = Counted(tmp_path / "data", names)
    images = cached(files, size=SIZE, name="set").rows(torch.tensor([8, 2]))
    stored = pickle.dumps(images)
    assert images[0].numpy().tobytes() not in stored
    assert torch.equal(pickle.loads(stored)[0], images[0])


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, names, place, monkeypatch):
    files = Counted(tmp_path / "data", names)
    # Ten images of 1 x 4 x 4 bytes.
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=159))
    with pytest.raises(
        ValueError, match=r"cache of set needs 0\.0 GB more, and .*cache has 0\.0 GB free.*DISTILL_CACHE"
    ):
        cached(files, size=SIZE, name="set")
    assert not (folder_of(place) / "images.u8").exists()
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=160))
    cached(files, size=SIZE, name="set")
    # Images that have changed take the room that they had.
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    (tmp_path / "data" / names[0]).write_text("100")
    with pytest.warns(UserWarning, match="1 of 10 images"):
        cached(files, size=SIZE, name="set")


def test_a_place_that_cannot_be_written_or_lies_in_the_data_is_refused(tmp_path, names, monkeypatch):
    files = Counted(tmp_path / "data", names)
    (tmp_path / "file").write_text("")
    for place, reason in (
        ("file", r"Cannot write the image cache .*file.*: Not a directory"),
        ("data", "inside the data"),
    ):
        monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / place / "deep"))
        with pytest.raises(ValueError, match=reason + r".*Set DISTILL_CACHE elsewhere\.$"):
            cached(files, size=SIZE, name="set")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == names


def test_no_images_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="no images of set"):
        cached(Counted(tmp_path / "data", []), size=SIZE, name="set")


def test_the_place_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_place() == tmp_path / "cache"
    monkeypatch.setenv("DISTILL_CACHE", "")
    assert cache_place() == tmp_path / "xdg" / "distill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_place() == tmp_path / "home" / ".cache" / "distill"
    monkeypatch.setenv("DISTILL_CACHE", "~/mine")
    assert cache_place() == tmp_path / "home" / "mine"
