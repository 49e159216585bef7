import json

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from distill.data.coco import Coco, read_instances

# Numbers have gaps, and the file's order is not theirs, as in the official files.
CATEGORIES = [(18, "dog", "animal"), (1, "person", "person"), (90, "toothbrush", "indoor"), (3, "car", "vehicle")]
# What is in the images of each split, by the number of the category, crowds with a star.
TRAIN = [[1], [1, 1, 18], [3], ["1*", 3], [], [18], [90, 1], [90], [1, 3], [18, 3], [1], [90]]
VAL = [[1, 90], [18], [], [3]]


def annotations(split, contents):
    objects = []
    for number, content in enumerate(contents):
        for category in content:
            crowd = str(category).endswith("*")
            rle = {"counts": [3, 2, 1195], "size": [30, 40]}
            objects.append(
                {
                    "id": 900 + len(objects),
                    "image_id": 5000 - number,
                    "category_id": int(str(category).removesuffix("*")),
                    "iscrowd": int(crowd),
                    "segmentation": rle if crowd else [[1.0, 2.0, 3.5, 2.0, 3.5, 4.0]],
                    "bbox": [1.0, 2.0, 2.5, 2.0],
                    "area": 2.5,
                }
            )
    return {
        "info": {"year": 2017, "contributor": "COCO Consortium"},
        "licenses": [{"id": 1, "name": "none", "url": ""}],
        "images": [
            {"id": 5000 - number, "file_name": name(split, number), "height": 30, "width": 40, "license": 1}
            for number in range(len(contents))
        ],
        "annotations": objects,
        "categories": [{"id": number, "name": name, "supercategory": kind} for number, name, kind in CATEGORIES],
    }


def name(split, number):
    return f"{split}_{number:012}.jpg"


def write(folder, split, document):
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


@pytest.fixture
def coco(tmp_path, write_image):
    folder = tmp_path / "coco"
    for split, contents in (("train2017", TRAIN), ("val2017", VAL)):
        write(folder, split, annotations(split, contents))
        for number in range(len(contents)):
            write_image(folder / split / name(split, number), seed=number)
    return folder


def load(folder, **settings):
    return Coco(**{"folder": str(folder), "size": 16, "validation": 0.34} | settings).load(0, None)


def test_labels_are_the_categories_in_the_order_of_their_numbers(coco):
    splits = load(coco)
    assert splits.classes == ("person", "car", "dog", "toothbrush")
    assert splits.several
    assert splits.test.labels.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert splits.test.labels.dtype == torch.float32


def test_several_objects_count_once_and_a_crowd_as_its_category(coco):
    found = read_instances(coco / "annotations" / "instances_train2017.json")
    assert found.labels[1].tolist() == [1, 0, 1, 0]
    assert found.labels[3].tolist() == [1, 1, 0, 0]
    assert found.names[3] == name("train2017", 3)


def test_validation_is_cut_out_of_train_and_the_official_validation_is_the_test(coco):
    splits = load(coco)
    assert len(splits.train) + len(splits.validation) == len(TRAIN)
    assert len(splits.test) == len(VAL)
    parts = [{part.images.path(row).name for row in range(len(part))} for part in (splits.train, splits.validation)]
    assert parts[0] | parts[1] == {name("train2017", number) for number in range(len(TRAIN))}
    # About a third of each label's positives: 5 people, 4 cars, 3 dogs and 3 toothbrushes.
    assert ((splits.validation.labels.sum(0) - torch.tensor([5, 4, 3, 3]) / 3).abs() <= 1).all()


def test_the_split_does_not_depend_on_the_run_but_on_its_own_seed(coco):
    settings = Coco(folder=str(coco), size=16, validation=0.34)
    first, again = settings.load(0, None), settings.load(7, None)
    assert torch.equal(first.train.labels, again.train.labels)
    files = [
        [part.images.path(row).name for row in range(len(part))]
        for part in (load(coco, split_seed=seed).validation for seed in range(6))
    ]
    assert len({tuple(names) for names in files}) > 1


def test_an_image_is_resized_whole(coco):
    # A crop of the middle would lose the left and right edges, where the image is white.
    path = coco / "val2017" / name("val2017", 1)
    picture = Image.new("RGB", (40, 30), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 5, 30))
    picture.paste((255, 255, 255), (35, 0, 40, 30))
    picture.save(path, quality=100)
    splits = load(coco)
    seen = splits.test[(0, 1)].image
    assert seen.shape == (3, 16, 16)
    assert seen[:, :, [0, 15]].min() > 200 and seen[:, :, 4:12].max() < 50
    assert torch.equal(seen, functional.resize(splits.test.images[1], [16, 16], antialias=True))


def test_training_images_are_mirrored_half_of_the_time_and_only_with_augment(coco):
    def variants(splits):
        return {tuple(splits.train[(epoch, 0)].image.flatten().tolist()) for epoch in range(12)}

    assert len(variants(load(coco))) == 2
    assert len(variants(load(coco, augment=False))) == 1


def test_images_without_an_object_stay_and_are_counted(coco):
    splits = load(coco)
    assert "Images without any object, which have no label: 1 of 12 of train2017, 1 of 4 of val2017." in splits.notes


def test_another_year_has_other_folders(coco):
    for old, new in (("train2017", "train2014"), ("val2017", "val2014")):
        (coco / old).rename(coco / new)
        (coco / "annotations" / f"instances_{old}.json").rename(coco / "annotations" / f"instances_{new}.json")
    assert len(load(coco, year=2014).test) == len(VAL)
    with pytest.raises(ValueError, match=r"instances_train2017\.json is missing"):
        load(coco)


def test_an_unreadable_image_is_named_or_left_out(coco):
    (coco / "val2017" / name("val2017", 2)).write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"val2017_000000000002\.jpg"):
        load(coco)
    with pytest.warns(UserWarning, match="1 of 4 images of the val2017 split"):
        splits = load(coco, skip_unreadable=True)
    assert splits.test.labels.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]


def changed(what, number, **fields):
    def change(document):
        document[what][number].update(fields)

    return change


def drop(*keys):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("images", 0, file_name="../secret.jpg"), r"'\.\./secret\.jpg' of .*val2017\.json leads out"),
        (changed("images", 0, file_name="/etc/passwd"), "'/etc/passwd' of .* leads out"),
        (changed("images", 0, file_name="..\\secret.jpg"), "leads out"),
        (changed("images", 0, file_name=".."), "leads out"),
        (changed("images", 0, file_name=""), "leads out"),
        (changed("images", 0, file_name="a\nb.jpg"), r"no image 'a\\nb\.jpg'"),
        (changed("images", 1, file_name="val2017_000000000000.jpg"), "lists image 'val2017_000000000000.jpg' twice"),
        (changed("images", 1, id=5000), "lists image 5000 twice"),
        (changed("images", 1, id="4999"), r"images\[1\] needs id of type int, got \{'id': '4999'"),
        (changed("images", 1, id=True), r"images\[1\] needs id of type int"),
        (changed("annotations", 0, image_id=17), "has an object with image_id 17, which it does not list"),
        (changed("annotations", 0, category_id=2), "has an object with category_id 2, which it does not list"),
        (changed("categories", 0, name="person"), "lists category 'person' twice"),
        (changed("categories", 0, id=1), "lists category 1 twice"),
        (changed("categories", 0, name="cat"), "the categories of train2017 and val2017 differ"),
        (drop("annotations", 0, "category_id"), r"annotations\[0\] needs category_id of type int"),
        (drop("annotations"), "lists no annotations"),
        (drop("images"), r"lists no images\. Give an annotation file in the form of COCO's"),
        (drop("categories"), "lists no categories"),
    ],
)
def test_wrong_annotations_are_refused_in_one_line(coco, change, words):
    document = annotations("val2017", VAL)
    change(document)
    write(coco, "val2017", document)
    with pytest.raises(ValueError, match=words) as caught:
        load(coco)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"images": {}}', "[" * 100_000, b"\xff\xfe\x00"])
def test_a_file_that_is_no_annotation_is_refused(coco, text):
    path = coco / "annotations" / "instances_val2017.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"instances_val2017\.json (is no JSON|lists no )") as caught:
        load(coco)
    assert "\n" not in str(caught.value)


def test_missing_images_are_counted_and_the_first_is_named(coco):
    for number in (1, 3):
        (coco / "val2017" / name("val2017", number)).unlink()
    with pytest.raises(ValueError, match=r"no image 'val2017_000000000001\.jpg' in .*, and 1 more are missing"):
        load(coco)
    for path in (coco / "val2017").iterdir():
        path.unlink()
    (coco / "val2017").rmdir()
    with pytest.raises(ValueError, match=r"There is no folder .*val2017 with the images"):
        load(coco)


def test_a_link_out_of_the_folder_is_refused(coco, tmp_path):
    path = coco / "val2017" / name("val2017", 0)
    path.rename(tmp_path / "outside.jpg")
    path.symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(ValueError, match="leads out of its data folder"):
        load(coco)


def test_settings_without_effect_or_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Coco\.resize has no effect"):
        Coco(resize=256)
    with pytest.raises(ValueError, match=r"Coco\.packed=300 would cut off"):
        Coco(packed=300)
    with pytest.raises(ValueError, match=r"Coco\.validation"):
        Coco(validation=0.0)
    with pytest.raises(ValueError, match="There is no data folder"):
        Coco(folder=str(tmp_path / "nowhere")).load(0, None)
