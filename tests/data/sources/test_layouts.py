"""Recognition of splits and classes in folders and archives."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.data.sources.layouts import tar_bytes, write

from alexnet_lab.data.sources.samples import Samples, find_samples
from alexnet_lab.data.sources.split_names import split_meant
from alexnet_lab.errors import UserError


def pairs(*folders: str) -> list[str]:
    return [f"{folder}/{name}.jpg" for folder in folders for name in "ab"]


@pytest.fixture(params=["folder", "tar", "zip"])
def found(tmp_path, request):
    """The samples found in a source named `photos` with these images."""

    def find(paths: Iterable[str]) -> Samples:
        files = {path: b"\xff\xd8\xff" + path.encode() for path in paths}
        if request.param == "folder":
            return find_samples([write(tmp_path / "photos", files)], "data.dir")
        archive = tmp_path / f"photos.{request.param}"
        if request.param == "tar":
            archive.write_bytes(tar_bytes(files))
        else:
            with zipfile.ZipFile(archive, "w") as opened:
                for path, data in files.items():
                    opened.writestr(path, data)
        return find_samples([archive], "data.dir")

    return find


def shown(samples: Samples) -> dict[str, list[str]]:
    return {split: [f"{one.wnid}/{one.name}" for one in images] for split, images in samples.splits.items()}


PETS = pairs("cats", "dogs")
TRAIN_AND = [
    "training",
    "TRAIN",
    "Train",
    "train_set",
    "trainset",
    "images_train",
    "TrainingSet",
    "training-data",
    "train2017",
    "seg_train",
]
TRAIN_AND += ["Trainingsdaten", "Lerndaten", "entrenamiento", "Entra\u00eenement"]
VAL = [
    "vld",
    "validacio\u0301n",
    "validaci\u00f3n",
    "val",
    "Val",
    "valid",
    "Validation",
    "VAL_SET",
    "valset",
    "dev",
    "seg_val",
    "validation_images",
]
TEST = [
    "unseen",
    "Testdaten",
    "Pr\u00fcfdaten",
    "prueba",
    "test",
    "Testing",
    "testset",
    "Test_Data",
    "seg_test",
    "test1",
]


@pytest.mark.parametrize(("split", "name"), [("train", name) for name in TRAIN_AND] + [("val", name) for name in VAL])
def test_split_is_recognised_in_usual_spellings(found, split, name):
    other = {"train": "val", "val": "train"}[split]
    samples = found([f"{folder}/{path}" for folder in (name, other) for path in PETS])
    assert shown(samples) == {"train": PETS, "val": PETS}
    assert list(samples.splits) == ["train", "val"]


@pytest.mark.parametrize("name", TEST)
def test_images_of_a_test_folder_are_the_test_split(found, name):
    assert shown(found([f"{folder}/{path}" for folder in ("train", name) for path in PETS])) == {
        "train": PETS,
        "test": PETS,
    }


@pytest.mark.parametrize("name", ["train_station", "test_tube", "trains", "devil", "validity", "contest", "n01440764"])
def test_class_whose_name_contains_a_split_name_is_a_class(found, name):
    assert split_meant(name) is None
    assert found(pairs("boat", name)).wnids == tuple(sorted(("boat", name)))


ALIKE = [f"{fold}/{label}" for fold in ("fold1", "fold2") for label in ("cats", "dogs")]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (pairs("cats/indoor", "cats/outdoor/summer", "dogs/indoor"), {"train": ["cats", "dogs"]}),
        (pairs("cats/indoor", "cats/night", "dogs/indoor", "dogs/day"), {"train": ["cats", "dogs"]}),
        (pairs("cats/indoor", "cats/outdoor", "dogs/indoor", "dogs/outdoor"), {"train": ["cats", "dogs"]}),
        (pairs(*(f"train/{one}" for one in ALIKE), "val/fold1"), {"train": ["fold1", "fold2"], "val": ["fold1"]}),
        (pairs("train/cats/indoor", "val/cats/indoor"), {"train": ["cats"], "val": ["cats"]}),
        (pairs("d/d/train/cats", "d/d/test/cats"), {"train": ["cats"], "test": ["cats"]}),
        (pairs("seg_train/seg_train/cats", "seg_test/seg_test/cats"), {"train": ["cats"], "test": ["cats"]}),
        (pairs("train_test_split/train/cats", "train_test_split/test/cats"), {"train": ["cats"], "test": ["cats"]}),
        (pairs("test/train/cats", "test/val/cats"), {"train": ["cats"], "val": ["cats"]}),
        (
            pairs("train/car", "train/train", "val/car", "val/train"),
            {"train": ["car", "train"], "val": ["car", "train"]},
        ),
        (pairs("train/car", "train/bullet_train"), {"train": ["bullet_train", "car"]}),
    ],
)
def test_classes_are_the_top_folders_of_a_split(found, paths, expected):
    samples = found(paths)
    assert {split: sorted({one.wnid for one in images}) for split, images in samples.splits.items()} == expected
    assert sum(map(len, samples.splits.values())) == len(paths)


def test_images_with_equal_names_in_two_subfolders_of_a_class_are_two_images(found):
    samples = found(pairs("cats/indoor", "cats/outdoor", "dogs/indoor"))
    assert shown(samples)["train"][:3] == ["cats/indoor/a.jpg", "cats/indoor/b.jpg", "cats/outdoor/a.jpg"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["cats/a.jpg", "cats/kittens/b.jpg", "dogs/c.jpg"],
            "different depths, as .*cats/a.jpg and .*cats/kittens/b.jpg",
        ),
        (["flowers/a.jpg", "animals/cats/b.jpg"], "different depths, as .*flowers/a.jpg and .*animals/cats/b.jpg"),
        (["cover.jpg", *PETS], r"photos/cover.jpg is next to class folders \(cats, dogs\)"),
        (pairs("train/cats", "train", "val/cats"), r"train/[ab].jpg is next to class folders \(cats\)"),
        (["val/x.jpg", *pairs("train/cats", "val/cats")], r"val/x.jpg is next to class folders \(cats\)"),
        (["a.jpg"], "no training images in folders of classes"),
        (pairs("train", "val"), "train in .*photos is the training split, but has no folders of classes"),
        (pairs("train/cats", "Training/cats"), "Training, train in .*photos are all named like the train split"),
        (pairs("train/cats", "val/cats", "validation/cats"), "val, validation in .* like the val split"),
        (pairs("cats_train", "dogs_train", "cats_test"), "cats_train, dogs_train in .* like the train split"),
        (pairs("train_cats", "train_dogs", "test_cats"), "test_cats, train_cats, train_dogs in .* named like splits"),
        (pairs("train/cats", "holdout/cats"), "holdout in .* could be two splits: rename it to train, val or test"),
        (pairs("train/cats", "eval/cats"), "eval in .* could be two splits"),
        (pairs("train/cats", "trainval/cats"), "trainval in .* could be two splits"),
        (pairs("train/cats", "val_for_cats/cats"), "val_for_cats may be a split; rename it"),
        (pairs("train/cats", "val/cats", "cats"), "cats is next to the splits and named like a class of the training"),
        (
            pairs("cats", "dogs", "test"),
            r"no training images: test in .* the folders next to it \(cats, dogs\) are not",
        ),
        (pairs("boat", "bullet_train"), "bullet_train in .* has no folders of classes; .*; if it is a class, move all"),
        (pairs("boat/x", "bullet_train/x"), "bullet_train in .* is named like a split, but boat next to it are not"),
        (
            pairs("cats/train", "cats/test", "dogs/train", "dogs/test"),
            "cats/(train|test) is named like a split, but is",
        ),
        (pairs("train/cats", "train/cats/test"), "train/cats/test is named like a split, but is not next to"),
        (pairs("train/cats", "more/test"), "more/test is named like a split, but is not next to other splits"),
        (pairs("a/train/cats", "b/train/cats"), "(a|b)/train is named like a split, but is not next to other splits"),
        (pairs("train/cats", "train/test", "val/cats"), "train/test is named like a split within a split"),
        (pairs("train/train/cats", "train/val/cats", "test/cats"), "train/(train|val) is named like a split within a"),
        (pairs("train/cats", "test/cats", "test/birds"), "test has classes without training images: birds; .* cats"),
        (
            pairs(*ALIKE),
            r"folders in .* \(fold1, fold2\) all have folders of the same names \(cats, dogs\), so they",
        ),
        (pairs("tr/a", "tr/b", "tr/c", "te/a", "te/b"), r"\(te, tr\) all have .* \(a, b\), .*; rename them to train"),
        (pairs("d/1/a", "d/1/b", "d/2/a", "d/2/b"), r"/d \(1, 2\) all have .* if they are classes, move all class fol"),
        (pairs("test/cats", "val/cats"), "no training images: test, val in .* are named like splits; expected are"),
        (pairs("train/cats", "val/Cats"), "val has classes without training images: Cats; the classes of train: cats"),
        (
            pairs("train/cats", "val"),
            "val/[ab].jpg is a val image without a folder of its class; move each val image into",
        ),
        (
            [*pairs("train/cats"), "val/ILSVRC2012_val_00000001.JPEG"],
            "the validation images have no folders of classes",
        ),
    ],
)
def test_ambiguous_folder_is_refused_by_name(found, paths, message):
    with pytest.raises(UserError, match=message) as error:
        found(paths)
    assert "Blob" not in str(error.value)
    assert "Folder(" not in str(error.value)


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (pairs("dataset/train/cats", "docs"), "dataset"),
        (pairs("x/train/cats", "x/test/cats", "x/x/train/cats", "x/x/test/cats"), "x/x"),
    ],
)
def test_error_suggests_the_folder_that_contains_the_dataset(tmp_path, paths, named):
    write(tmp_path, dict.fromkeys(paths, b"\xff\xd8\xff"))
    with pytest.raises(UserError, match=rf"; for the dataset in .*: data.dir={tmp_path}/{named}$"):
        find_samples([tmp_path], "data.dir")


def test_archive_next_to_its_unpacked_folders_is_reported(tmp_path):
    images = dict.fromkeys(pairs("train/cats", "val/cats"), b"")
    write(tmp_path, {**images, "all.tar": tar_bytes(images)})
    with pytest.raises(
        UserError, match=rf"all/train is named like a split.*it is in {tmp_path}/all.tar: move that away"
    ):
        find_samples([tmp_path])


@pytest.mark.parametrize(
    ("paths", "classes", "wrapper"),
    [
        (pairs("PetImages/Cat", "PetImages/Dog"), ("Cat", "Dog"), "PetImages"),
        (pairs("pets/pets/cats/x", "pets/pets/dogs/x"), ("cats", "dogs"), "pets/pets"),
        (pairs("cats/indoor", "cats/outdoor"), ("indoor", "outdoor"), "cats"),
        (pairs("a/b/c/cats/x", "a/b/c/dogs/y"), ("cats", "dogs"), "a/b/c"),
        (pairs("pets/cats"), ("cats",), "pets"),
        (pairs("cats"), ("cats",), ""),
        (pairs("cats", "dogs"), ("cats", "dogs"), ""),
    ],
)
def test_folders_in_an_only_folder_are_the_classes_and_reported(found, paths, classes, wrapper):
    samples = found(paths)
    assert samples.wnids == classes
    remarks = [remark.replace("in photos/", "in ") for remark in samples.remarks]  # photos.zip is listed as photos/
    names = ", ".join(classes)
    assert remarks == ([f"the classes are the folders in {wrapper}, the only folder: {names}"] if wrapper else [])


def test_only_folder_of_a_nested_archive_is_not_a_class(tmp_path):
    archive = tar_bytes(dict.fromkeys(pairs("PetImages/Cat", "PetImages/Dog"), b""))
    write(tmp_path, {"pets.tar": archive})
    assert find_samples([tmp_path]).wnids == ("Cat", "Dog")


def test_ignored_images_and_missing_classes_are_reported(found):
    paths = [*pairs("train/cats", "train/dogs", "val/cats", "seg_pred/seg_pred", "test"), "notes.txt", "cover.jpg"]
    samples = found(paths)
    assert list(samples.splits) == ["train", "val"]
    assert [remark.replace("photos/", "") for remark in samples.remarks] == [
        "left out, in no split: seg_pred (2 images)",
        "left out, in no split: cover.jpg",
        "left out: 2 images in test, without folders of classes",
        "val has no images of 1 of 2 classes: dogs",
        "left out (by their names, not opened): 1 .txt",
    ]


def test_a_folder_of_a_class_without_images_is_reported(tmp_path):
    write(tmp_path, {**dict.fromkeys(pairs("train/cats", "val/cats"), b""), "train/birds/bird.doc": b"text"})
    (tmp_path / "val" / "eels").mkdir()
    assert [remark for remark in find_samples([tmp_path]).remarks if "no class" in remark] == [
        "no class of train, as they have no images: birds",
        "no class of val, as they have no images: eels",
    ]


def test_unneeded_official_archives_are_ignored(tmp_path):
    images = {"n01440764/a.JPEG": b"", "n01440764/b.JPEG": b""}
    names = ("ILSVRC2012_img_train_t3", "ILSVRC2012_img_test_v10102019")
    write(tmp_path, {f"{name}.tar": tar_bytes(images) for name in names})
    write(tmp_path, {f"train/{Path(path).parent}/c.JPEG": b"" for path in images})
    samples = find_samples([tmp_path])
    assert shown(samples) == {"train": ["n01440764/c.JPEG"]}
    assert len(samples.remarks) == 2
