import tarfile
from pathlib import Path

import pytest

from alexnet_lab.data.sources.given import given_images
from alexnet_lab.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a/1.jpg", "a/2.PNG", "b/c/3.jpeg", "a/note.txt", "a/._1.jpg", "LOC_val_solution.csv"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "photos"


def test_folder_archive_and_pattern_give_the_same_images(folder) -> None:
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        archive.add(folder, "")
    for place in (folder, folder.with_suffix(".tar"), f"{folder}/**/[123].*"):
        images = given_images([str(place)])
        assert [image.path for image in images] == [f"{folder}/{name}" for name in ("a/1.jpg", "a/2.PNG", "b/c/3.jpeg")]
        assert [image.blob.read() for image in images] == [b"a/1.jpg", b"a/2.PNG", b"b/c/3.jpeg"]
        above = ["c"] if "*" in str(place) else ["b", "c"]  # for a file, only its own folder
        assert [[name for name in image.folders if name in "abc"] for image in images] == [["a"], ["a"], above]


def test_places_keep_their_order_and_duplicates_count_once(folder) -> None:
    images = given_images([f"{folder}/b", f"{folder}/a/note.txt", str(folder)])
    assert [Path(image.path).name for image in images] == ["3.jpeg", "note.txt", "1.jpg", "2.PNG"]


def test_name_of_an_existing_file_is_not_a_pattern(folder) -> None:
    (folder / "[x].png").touch()
    assert [Path(image.path).name for image in given_images([f"{folder}/[x].png"])] == ["[x].png"]


@pytest.mark.parametrize("place", ["nowhere", "nowhere/*.png"])
def test_missing_or_empty_place_is_reported(folder, place) -> None:
    with pytest.raises(UserError, match="no such file or folder, and no file matches it as a pattern"):
        given_images([str(folder), place])


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar"])
def test_unreadable_archive_is_reported_with_its_option(folder, name) -> None:
    (folder / name).write_text("text")
    with pytest.raises(UserError, match=rf"^images: .*{name} is not a"):
        given_images([str(folder / name)])
