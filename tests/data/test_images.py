import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.images import (
    Files,
    GreyFiles,
    UnreadableImageError,
    decode,
    decode_grey,
    image_names,
    image_size,
    in_threads,
    unreadable,
)


def test_files_are_decoded_in_rgb_whatever_they_hold(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(decode(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    red.save(tmp_path / "alpha.png")
    assert decode(tmp_path / "alpha.png").reshape(-1, 3).tolist() == [[255, 0, 0]] * 64
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    assert decode(tmp_path / "palette.png").reshape(-1, 3).tolist() == [[10, 20, 30]] * 64
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    assert decode(tmp_path / "print.jpg").shape == (8, 8, 3)
    assert unreadable(Files(tmp_path, ["grey.png", "alpha.png", "palette.png", "print.jpg"])) == {}


def test_grey_images_keep_their_values_and_colours_become_luminance(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).save(tmp_path / "marked.png", transparency=12)
    Image.fromarray(np.stack([grey, 255 - grey], axis=-1), mode="LA").save(tmp_path / "alpha.png")
    for name in ("grey.png", "marked.png", "alpha.png"):
        assert np.array_equal(decode_grey(tmp_path / name, 8), grey)
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    Image.new("RGBA", (30, 20), (200, 100, 50, 0)).save(tmp_path / "colour.png")
    assert decode_grey(tmp_path / "colour.png", 4).tolist() == [[124] * 4] * 4
    assert image_size(tmp_path / "colour.png") == (30, 20)


def test_reducing_averages_and_does_not_pick(tmp_path):
    # Stripes of one pixel are their mean, 127.5, where the filter's reach does not end at the image's edge.
    Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))).save(tmp_path / "stripes.png")
    reduced = decode_grey(tmp_path / "stripes.png", 8).astype(int)
    assert abs(reduced[:, 1:-1] - 127.5).max() < 1


def test_grey_files_are_squares_by_row(tmp_path, write_image):
    names = ["a.png", "b.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed=seed)
    files = GreyFiles(Files(tmp_path, names), 16)
    assert len(files) == 2
    assert files[0].shape == (1, 16, 16)
    assert torch.equal(files.rows(torch.tensor([1]))[0], files[1])
    assert files.rows(torch.tensor([1])).path(0) == tmp_path / "b.png"


def test_damaged_files_are_named_with_a_reason_in_one_line(tmp_path, write_image):
    good = write_image(tmp_path / "good.jpg", width=200, height=200)
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:-2000])
    flat = write_image(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(flat.read_bytes()[:-500])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(np.full((4, 4), 4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    names = ["good.jpg", "cut.jpg", "good.png", "cut.png", "text.jpg", "empty.png", "deep.png", "gone.png"]
    found = unreadable(Files(tmp_path, names))
    assert sorted(found) == [1, 3, 4, 5, 6, 7]
    for number, reason in found.items():
        assert names[number] in reason
        assert "\n" not in reason
    for number in found:
        with pytest.raises(UnreadableImageError, match=names[number]):
            decode(tmp_path / names[number])
        with pytest.raises(UnreadableImageError, match=names[number]):
            decode_grey(tmp_path / names[number], 4)
    for name in ("text.jpg", "gone.png"):
        with pytest.raises(UnreadableImageError, match=name):
            image_size(tmp_path / name)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, write_image, monkeypatch):
    path = write_image(tmp_path / "large.png", width=20, height=20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(UnreadableImageError, match=r"large\.png"):
        decode(path)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(UnreadableImageError, match="20x20 is more than"):
        decode(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert decode(path).shape == (20, 20, 3)


def test_names_are_sorted_and_hidden_or_other_files_passed_over(tmp_path, write_image):
    for name in ("b.png", "a.JPG", "deep/c.jpeg", ".hidden.png", ".checkpoints/d.png"):
        write_image(tmp_path / "set" / name)
    (tmp_path / "set" / "notes.txt").write_text("x")
    assert list(image_names(tmp_path, tmp_path / "set")) == ["set/a.JPG", "set/b.png", "set/deep/c.jpeg"]


def test_links_stay_inside_and_do_not_count_a_folder_twice(tmp_path, write_image):
    root = tmp_path / "set"
    outside = write_image(tmp_path / "outside.png")
    own = write_image(root / "x" / "own.png")
    (root / "x" / "alias.png").symlink_to(own)
    assert list(image_names(root, root / "x")) == ["x/alias.png", "x/own.png"]
    (root / "x" / "link.png").symlink_to(outside)
    with pytest.raises(ValueError, match=r"link\.png leads out"):
        list(image_names(root, root / "x"))
    (root / "x" / "link.png").unlink()
    (root / "x" / "again").symlink_to(root / "x")
    with pytest.raises(ValueError, match="link to a folder"):
        list(image_names(root, root / "x"))


def test_files_know_their_names_and_rows(tmp_path, write_image):
    names = ["a.png", "é ü.png", "long/name/of/an/image.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed=seed)
    files = Files(tmp_path, names)
    assert [files.path(number) for number in range(len(files))] == [tmp_path / name for name in names]
    chosen = files.rows(torch.tensor([2, 0]))
    assert [chosen.path(number) for number in range(len(chosen))] == [tmp_path / names[2], tmp_path / names[0]]
    with Image.open(tmp_path / names[2]) as image:
        assert torch.equal(chosen[0], torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_threads_keep_the_order():
    assert in_threads(list, 1000, description="", chunk=7) == [
        list(range(i, min(i + 7, 1000))) for i in range(0, 1000, 7)
    ]
    assert in_threads(list, 0, description="") == []


def test_checking_reads_a_large_jpeg_to_its_end_at_a_fraction_of_its_size(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8))
    stored = io.BytesIO()
    noise.save(stored, format="JPEG")
    path = Path(tmp_path / "half.jpg")
    path.write_bytes(stored.getvalue()[: len(stored.getvalue()) // 2])
    assert list(unreadable(Files(tmp_path, ["half.jpg"]))) == [0]
