"""A run whose data has changed since its checkpoint."""

import logging
from pathlib import Path
from typing import Any

import pytest
from photographs_for_tests import WITHOUT_STATISTICS, module

from alexnet_lab.data.contents import Contents
from alexnet_lab.data.dataset import overview
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import UserError

REFUSED = r"{}\. data\.val_size would hold out other images than before, .*; restore the images as they were, or start"


def data_in(folder: Path, val_size: int) -> ImageDataModule:
    return module(folder, val_size=val_size, num_classes=2, **WITHOUT_STATISTICS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, images in (("train", "abcd"), ("val", "ef"), ("test", "gh")):
        for name in images:
            for label in ("cats", "dogs"):
                path = tmp_path / split / label / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path


def resumed(folder: Path, state: dict[str, Any], val_size: int, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings when a run is resumed with the current contents of the folder."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        data_in(folder, val_size).load_state_dict(state)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("plain", [True, False], ids=["folder of classes", "splits, of which val is not used"])
@pytest.mark.parametrize(
    ("remove", "add", "reason"),
    [
        ("", "cats/0.jpg", "5 training images then, 6 now"),
        ("dogs/a.jpg", "", "5 training images then, 4 now"),
        ("dogs/d.jpg", "cats/0.jpg", "5 training images then and now, from another set of files"),
    ],
)
def test_run_with_held_out_images_is_not_continued_on_different_images(
    folder, caplog, remove, add, reason, plain
) -> None:
    train = folder / "train"
    trained_on = train if plain else folder
    state = data_in(trained_on, 3).state_dict()
    assert resumed(trained_on, state, 3, caplog) == []
    if remove:
        (train / remove).unlink()
    if add:
        (train / add).touch()
    with pytest.raises(UserError, match=REFUSED.format(reason)):
        resumed(trained_on, state, 3, caplog)
    del state["contents"]  # as in older checkpoints
    if "then and now" not in reason:
        with pytest.raises(UserError, match=REFUSED.format(reason)):
            resumed(trained_on, state, 3, caplog)


def test_each_changed_split_causes_one_warning(folder, caplog) -> None:
    state = data_in(folder, 0).state_dict()
    assert resumed(folder, state, 0, caplog) == []
    (folder / "val/cats/z.jpg").touch()
    (folder / "test/cats/g.jpg").rename(folder / "test/cats/z.jpg")
    changed = "the data has changed since the checkpoint: "
    assert resumed(folder, state, 0, caplog) == [
        f"{changed}4 val images then, 5 now; the best epoch so far was measured on other images",
        f"{changed}4 test images then and now, from another set of files",
    ]
    (folder / "train/cats/z.jpg").touch()
    assert resumed(folder, state, 0, caplog)[0] == f"{changed}8 training images then, 9 now, in another order"


def test_unused_val_images_may_change_if_images_are_held_out(folder, caplog) -> None:
    state = data_in(folder, 3).state_dict()
    (folder / "val/cats/z.jpg").touch()
    assert resumed(folder, state, 3, caplog) == []


def test_image_replaced_under_its_name_counts_as_the_same(folder, caplog) -> None:
    state = data_in(folder, 3).state_dict()
    (folder / "train/cats/a.jpg").write_bytes(b"repaired")
    assert resumed(folder, state, 3, caplog) == []


def test_store_is_identified_by_its_source_and_not_compared_with_a_folder(stores, caplog) -> None:
    state = module(stores["uint8"], val_size=5).state_dict()
    images, identity, is_held_out = state["contents"]["val"]
    assert (images, is_held_out, identity.partition(":")[0]) == (23, True, "source")
    assert state["contents"] == module(stores["jpeg"], val_size=5).state_dict()["contents"]
    one = Contents(images, identity)
    assert one.differs(Contents(images, "source:0"))
    assert one.differs(Contents(images - 1, "names:0"))
    assert not one.differs(Contents(images, "names:0"))


@pytest.mark.parametrize(("val_size", "lacking"), [(1, "val"), (7, "train")])
def test_class_without_a_held_out_image_is_named(folder, val_size, lacking) -> None:
    dataset = data_in(folder / "train", val_size).dataset
    split = dataset.split(lacking)
    (present,) = split.labels[split.rows].tolist()
    assert overview(dataset, with_test=False).splitlines() == [
        "classes: 2: cats, dogs",
        f"images: {8 - val_size} train, {val_size} val",
        f"val images are held out without regard to classes: no {lacking} image of {('cats', 'dogs')[1 - present]}",
    ]


def test_classes_are_not_named_where_none_lacks_images_or_no_image_is_held_out(folder) -> None:
    assert len(overview(data_in(folder / "train", 4).dataset, with_test=False).splitlines()) == 2
    for image in (folder / "val/dogs").iterdir():
        image.unlink()
    assert len(overview(data_in(folder, 0).dataset, with_test=False).splitlines()) == 2
