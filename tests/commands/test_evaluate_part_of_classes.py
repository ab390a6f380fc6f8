"""A network of ImageNet's classes is evaluated on folders that have some of them."""

import csv
import math
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.predict import predict
from alexnet_lab.data.imagenet_classes import imagenet_classes
from alexnet_lab.data.store.prepare import prepare as prepare_store
from alexnet_lab.errors import UserError
from alexnet_lab.models.lenet import lenet

CHOSEN = (217, 0, 701)
"""An order that is not that of the labels."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train` and `val` with folders of three of ImageNet's classes, named by their wnids."""
    folder, random = tmp_path_factory.mktemp("images") / "part", np.random.default_rng(0)
    for place, label in enumerate(CHOSEN * 2):
        for split in ("train", "val"):
            path = folder / split / imagenet_classes()[label].wnid / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (240, 300, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    """Writes an exported LeNet of 1000 classes for photographs; its file does not record a dataset."""

    def write(classes: list[str] | None = None) -> Path:
        names = classes or [known.name for known in imagenet_classes()]
        torch.manual_seed(0)
        net = lenet(in_channels=3, num_classes=len(names))
        facts = {"image_size": 28, "resize": "bilinear", "channels": 3, "mean": [0.5], "std": [0.1], "classes": names}
        model = {"_target_": "alexnet_lab.models.lenet.lenet", "in_channels": 3, "num_classes": len(names)}
        preprocessing = facts | {"stored_size": 256, "crop_size": 224, "transparency": "white"}
        path = tmp_path / "net.weights.pt"
        torch.save({"state_dict": net.state_dict(), "model": model, "preprocessing": preprocessing}, path)
        return path

    return write


def measured(composed: Any, path: Path, folder: Path) -> dict[str, float]:
    found: dict[str, float] = evaluate(composed("evaluate", f"checkpoint={path}", f"data.dir={folder}", "trainer=cpu"))
    return found


def test_images_in_folders_of_wnids_are_compared_with_their_classes_among_all(
    composed: Any, network: Any, images: Path, capsys: Any
) -> None:
    path = network()
    figures = measured(composed, path, images)
    line = f"classes: {images} has 3 of the network's 1,000: tench, English springer, parachute"
    printed = capsys.readouterr().out
    assert line in printed.splitlines()
    assert "weights of net.weights.pt" in printed
    assert " of run" not in printed
    # The table wraps long paths.
    assert re.sub(r"\s", "", f"data{images}, test split, 6 images") in re.sub(r"[│\s]", "", printed)
    found = predict(composed("predict", f"checkpoint={path}", f"images={images}/val", "top=1000", "accelerator=cpu"))
    assert len(found) == 6
    loss = -np.mean([math.log(dict(one.classes)[one.truth]) for one in found])
    assert figures["test/loss"] == pytest.approx(loss, rel=1e-5)
    assert figures["test/top5"] == sum(one.rank < 5 for one in found) / 6


def test_classes_without_splits_are_all_evaluated_and_may_be_named_by_words(
    composed: Any, network: Any, images: Path, tmp_path: Path
) -> None:
    path, plain, words = network(), images / "val", tmp_path / "words"
    for label in CHOSEN:
        shutil.copytree(plain / imagenet_classes()[label].wnid, words / imagenet_classes()[label].name)
    expected = measured(composed, path, images)
    assert measured(composed, path, plain) == expected
    assert measured(composed, path, words) == pytest.approx(expected)


def test_images_must_be_named(composed: Any, network: Any) -> None:
    with pytest.raises(UserError, match=r"name the images: data\.dir=FOLDER, with a folder for each class, or a store"):
        evaluate(composed("evaluate", f"checkpoint={network(['a', 'b'])}", "trainer=cpu"))


def test_store_of_another_dataset_is_evaluated(composed: Any, network: Any, images: Path, tmp_path: Path) -> None:
    prepare_store(images, tmp_path / "store", name="imagenette", format="uint8", workers=1)
    path = network()
    assert measured(composed, path, tmp_path / "store") == measured(composed, path, images)


def test_classes_that_the_network_does_not_have_are_named(
    composed: Any, network: Any, images: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(images / "val", tmp_path / "more")
    shutil.copytree(tmp_path / "more/n01440764", tmp_path / "more/unicorn")
    message = r"more \(data.dir\) has images of unicorn; the network has 1,000 classes: tench, goldfish, "
    with pytest.raises(UserError, match=message) as caught:
        measured(composed, network(), tmp_path / "more")
    assert "experiment=finetune" in str(caught.value)
    assert "classes:" not in capsys.readouterr().out


def test_numbered_classes_are_those_of_the_folder_in_order(composed: Any, network: Any, images: Path) -> None:
    numbered = measured(composed, network([f"class {label}" for label in range(3)]), images)
    names = [imagenet_classes()[label].name for label in sorted(CHOSEN)]
    assert measured(composed, network(names), images) == numbered
    with pytest.raises(UserError, match=r"has images of tench, English springer, parachute; the network has 2 classes"):
        measured(composed, network(["class 0", "class 1"]), images)


def test_rows_name_each_file_and_its_class_among_all(composed: Any, network: Any, images: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(images, "part")
    found = {}
    for name, place in (("folder", images), ("archive", tmp_path / "packed.tar")):
        options = (f"checkpoint={network()}", f"data.dir={place}", f"rows={tmp_path / name}", "trainer=cpu")
        evaluate(composed("evaluate", *options))
        found[name] = (tmp_path / name / "rows.csv").read_text()
    rows = list(csv.DictReader(found["folder"].splitlines()))
    assert sorted(row["path"] for row in rows) == sorted(
        str(path.relative_to(images)) for path in images.glob("val/*/*")
    )
    known = imagenet_classes()
    for row in rows:
        assert known[int(row["label"])].wnid == row["path"].split("/")[1]
        assert known[int(row["label"])].name == row["class"]
    assert found["archive"] == found["folder"]
    with (tmp_path / "folder/classes.csv").open() as file:
        counted = {row["label"]: row["images"] for row in csv.DictReader(file)}
    assert len(counted) == 1000
    assert {label for label, number in counted.items() if number != "0"} == {str(label) for label in CHOSEN}
