import csv
import gzip
import os
import tarfile
from itertools import islice
from pathlib import Path

import pytest
from tests.data.sources.layouts import LAYOUTS, kaggle, official, tar_bytes, tree, write

from alexnet_lab.data.sources import val_labels
from alexnet_lab.data.sources.listing import list_files
from alexnet_lab.data.sources.samples import find_samples
from alexnet_lab.errors import UserError

TENCH, SHARK, DUMBBELL = "n01440764", "n01484850", "n03255030"
IMAGES = {
    f"train/{SHARK}/{SHARK}_7.JPEG": b"shark 7",
    f"train/{TENCH}/{TENCH}_10.JPEG": b"tench 10",
    f"train/{TENCH}/{TENCH}_9.JPEG": b"tench 9",
    f"train/{DUMBBELL}/{DUMBBELL}_1.JPEG": b"dumbbell 1",
    f"val/{DUMBBELL}/ILSVRC2012_val_00000001.JPEG": b"val 1",
    f"val/{TENCH}/ILSVRC2012_val_00000002.JPEG": b"val 2",
    f"val/{DUMBBELL}/ILSVRC2012_val_00000003.JPEG": b"val 3",
}


def listed(*sources):
    """The samples with their bytes instead of the location."""
    samples = find_samples(sources)
    return {
        f"{split}/{sample.wnid}/{sample.name}": sample.blob.read()
        for split, found in samples.splits.items()
        for sample in found
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_samples_in_the_same_order(tmp_path, layout):
    source = LAYOUTS[layout](tmp_path / layout, IMAGES)
    assert list(listed(source).items()) == sorted(IMAGES.items())
    assert find_samples([source]).wnids == (TENCH, SHARK, DUMBBELL)
    assert find_samples([source]).digest() == find_samples([tree(tmp_path / "twin", IMAGES)]).digest()


def test_two_tars_are_one_source_as_a_list_and_in_a_folder(tmp_path):
    parts = {
        f"some_{split}.tar": tar_bytes({path: data for path, data in IMAGES.items() if path.startswith(split)})
        for split in ("train", "val")
    }
    write(tmp_path, parts)
    assert listed(*(tmp_path / name for name in parts)) == listed(tmp_path) == IMAGES


def test_images_outside_of_splits_are_ignored_and_counted(tmp_path):
    tree(tmp_path, {**IMAGES, f"more/{TENCH}/x.jpg": b"x", "cover.png": b"y", "notes.txt": b"z"})
    write(tmp_path, {f"train/{TENCH}/._{TENCH}_9.JPEG": b"macOS attributes"})
    assert listed(tmp_path) == IMAGES
    assert find_samples([tmp_path]).remarks == (
        "left out, in no split: more (1 image)",
        "left out, in no split: cover.png",
        f"val has no images of 1 of 3 classes: {SHARK}",
        "left out (by their names, not opened): 1 .txt",
    )


def test_folders_without_splits_are_all_training_images(tmp_path):
    write(tmp_path, {"cat/a.PNG": b"a", "cat/b.jpg": b"b", "boat/c.webp": b"c"})
    samples = find_samples([tmp_path])
    assert samples.wnids == ("boat", "cat")
    assert [sample.name for sample in samples.splits["train"]] == ["c.webp", "a.PNG", "b.jpg"]
    assert set(samples.splits) == {"train"}


def test_class_archives_of_a_half_unpacked_train_tar_are_read(tmp_path):
    write(tmp_path, {f"train/{TENCH}.tar": tar_bytes({"a.JPEG": b"a"}), f"train/{SHARK}/b.JPEG": b"b"})
    assert listed(tmp_path) == {f"train/{TENCH}/a.JPEG": b"a", f"train/{SHARK}/b.JPEG": b"b"}


def test_hidden_folders_are_not_entered(tmp_path):
    hidden = {f"train/.ipynb_checkpoints/{TENCH}_9-checkpoint.JPEG": b"x", ".trash/boat/a.JPEG": b"y"}
    write(tmp_path / "folder", {**IMAGES, **hidden})
    write(tmp_path, {"images.tar": tar_bytes({**IMAGES, **hidden})})
    assert listed(tmp_path / "folder") == listed(tmp_path / "images.tar") == IMAGES


def test_a_table_of_labels_may_begin_with_a_byte_order_mark(tmp_path):
    table = kaggle(tmp_path, IMAGES) / "LOC_val_solution.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert listed(tmp_path) == IMAGES


def test_link_to_a_parent_folder_does_not_loop(tmp_path):
    tree(tmp_path, IMAGES)
    (tmp_path / "train" / "up").symlink_to(tmp_path)
    assert listed(tmp_path) == IMAGES


def test_links_are_followed_except_loops_and_broken_links(tmp_path):
    train = write(tmp_path, {f"train/{label}/{label}.png": b"" for label in ("cats", "dogs")}) / "train"
    for link, target in {"pets": "cats", "cats/up": "../..", "self": "self", "gone": "/nowhere"}.items():
        (train / link).symlink_to(target)
    (tmp_path / "val").symlink_to("train")
    samples = find_samples([tmp_path])
    found = {split: [f"{one.wnid}/{one.name}" for one in found] for split, found in samples.splits.items()}
    images = ["cats/cats.png", "dogs/dogs.png", "pets/cats.png"]
    assert found == {"train": images, "val": images}
    nowhere = [f"{tmp_path}/{split}/{name}" for split in ("train", "val") for name in ("gone", "self")]
    loops = [f"{tmp_path}/{split}/{name}/up" for split in ("train", "val") for name in ("cats", "pets")]
    assert list(samples.remarks) == [
        f"left out (broken links): {', '.join(nowhere)}",
        f"left out (links to a folder that contains them): {', '.join(loops)}",
    ]


def test_two_folders_with_links_to_each_other_are_read_once_each_way(tmp_path):
    write(tmp_path, {"a/1.png": b"", "b/2.png": b""})
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert sorted(path for path, _ in list_files([tmp_path])) == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]


def test_folders_of_an_operating_system_are_not_entered(tmp_path):
    names = ["$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "__MACOSX", ".AppleDouble"]
    for name in names:
        write(tmp_path, {f"{inside}{name}/a.jpg": b"" for inside in ("", "train/", f"train/{TENCH}/")})
    assert listed(tree(tmp_path, IMAGES)) == IMAGES
    assert len(find_samples([tmp_path]).remarks) == 1  # about the class that val lacks


def test_content_decides_for_unknown_suffixes(tmp_path):
    write(tmp_path, {f"train/{TENCH}/a.{suffix}": b"\x89PNG\r\n\x1a\n" for suffix in ("heic", "dat", "bin", "png.txt")})
    write(tmp_path, {f"train/{TENCH}/b.{suffix}": b"other" for suffix in ("heic", "jpg.txt", "txt", "jpg.part")})
    samples = find_samples([tmp_path])
    assert [one.name for one in samples.splits["train"]] == ["a.bin", "a.dat", "a.heic", "a.png.txt"]
    assert list(samples.remarks) == [
        "left out (not images that Pillow can decode): 1 .heic, 1 .txt",
        "left out (by their names, not opened): 1 .part, 1 .txt",
    ]


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        (official, without("ILSVRC2012_img_val.tar"), "ILSVRC2012_img_val.tar is missing"),
        (official, without("ILSVRC2012_devkit_t12.tar.gz"), "neither ILSVRC2012_devkit_t12.tar.gz .* nor LOC_val"),
        (kaggle, without("LOC_val_solution.csv"), "neither .* nor LOC_val_solution.csv"),
        (official, without("ILSVRC2012_img_train.tar"), "no training images"),
        (kaggle, lambda folder: (folder / "LOC_val_solution.csv").write_text("a,b\n1,2\n"), "published form"),
        (
            tree,
            lambda folder: write(folder, {f"train/{TENCH}.tar": tar_bytes({f"{TENCH}_9.JPEG": b""})}),
            rf"train/{TENCH}/{TENCH}_9.JPEG exists twice: in /.*{TENCH}(/{TENCH}_9.JPEG|.tar) and /[^(]*$",
        ),
        (tree, lambda folder: write(folder, {"val/n09999999/a.JPEG": b""}), "without training images: n09999999"),
        (
            tree,
            lambda folder: write(folder, {"train/caf\udce9/a.JPEG": b""}),
            r"'caf\\udce9' has a name that is not UTF-8",
        ),
    ],
)
def test_invalid_source_is_reported_with_the_reason(tmp_path, layout, change, message):
    change(layout(tmp_path, IMAGES))
    with pytest.raises(UserError, match=message):
        find_samples([tmp_path])


def test_a_missing_and_an_empty_source_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        find_samples([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no training images in"):
        find_samples([tmp_path])


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../../outside.JPEG"), "would be outside"),
        (member("/etc/outside.JPEG"), "would be outside"),
        (member("train/n01440764/a.JPEG", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (member("train/n01440764/a.JPEG", tarfile.LNKTYPE, "../../etc/passwd"), "is a link"),
        (member("train/n01440764/a.JPEG", tarfile.CHRTYPE), "a device"),
        (member("train/n01440764/a.JPEG", tarfile.FIFOTYPE), "is a link or a device"),
        (member("train/n01440764/a.JPEG", size=10**12), "damaged or cut off"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_untrusted_archives_are_refused(tmp_path, bad, message, nested):
    archive = bad.tobuf() + tar_bytes({f"train/{TENCH}/good.JPEG": b"good"})
    data = tar_bytes({"train/inner.tar": archive}) if nested else archive
    write(tmp_path, {"bad.tar": data})
    with pytest.raises(UserError, match=message):
        find_samples([tmp_path / "bad.tar"])


def pax(key, value):
    """A member whose extended header has a malformed `key`."""
    record = f" {key}={value}\n"
    record = f"{len(record) + 2}{record}".encode()
    return (
        member("pax", tarfile.XHDTYPE, size=len(record)).tobuf() + record.ljust(512, b"\0") + member("a.JPEG").tobuf()
    )


def long_names(count):
    """A chain of headers, each with the name of the next one."""
    return (member("long", tarfile.GNUTYPE_LONGNAME, size=2).tobuf() + b"a".ljust(512, b"\0")) * count


HOSTILE = {
    "negative size to its own header": pax("size", -1536),
    "negative size before the file": pax("size", -131072),
    "slightly negative size": pax("size", -5),
    "size beyond 64 bits": pax("size", 10**22),
    "endless chain of long names": long_names(2000) + member("a.JPEG").tobuf(),
    "sparse map without numbers": pax("GNU.sparse.map", "a,b"),
    "name length beyond 64 bits": member("a", tarfile.GNUTYPE_LONGNAME, size=2**70).tobuf(tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("where", ["outside", "nested", "development kit"])
def test_archive_with_a_misleading_header_is_refused(tmp_path, what, where):
    good = tar_bytes({f"train/{TENCH}/good.JPEG": b"good"})[:1024]
    data = good + HOSTILE[what] + bytes(10240)
    if where == "development kit":
        source = official(tmp_path, IMAGES)
        write(tmp_path, {"ILSVRC2012_devkit_t12.tar.gz": gzip.compress(data)})
    else:
        write(tmp_path, {"bad.tar": tar_bytes({"train/inner.tar": data}) if where == "nested" else data})
        source = tmp_path / "bad.tar"
        with pytest.raises(UserError):  # and does not loop
            list(islice(list_files([source]), 100))
    with pytest.raises(UserError, match=r"cannot be trusted|damaged or cut off"):
        find_samples([source])


def test_a_tar_in_a_tar_in_a_tar_is_refused(tmp_path):
    inner = tar_bytes({f"{TENCH}.tar": tar_bytes({"a.JPEG": b"a"})})
    write(tmp_path, {"all.tar": tar_bytes({"train.tar": inner})})
    with pytest.raises(UserError, match=rf"an archive in an archive \(all/train/{TENCH}.tar\); only a tar in"):
        find_samples([tmp_path])


def test_broken_link_and_fifo_are_listed_as_unreadable(tmp_path):
    tree(tmp_path, IMAGES)
    (tmp_path / "train" / TENCH / "a.JPEG").symlink_to("nowhere")
    os.mkfifo(tmp_path / "train" / TENCH / "b.JPEG")
    link, fifo, *_ = find_samples([tmp_path]).splits["train"]
    assert (link.name, fifo.name) == ("a.JPEG", "b.JPEG")
    with pytest.raises(FileNotFoundError):
        link.blob.read()
    with pytest.raises(OSError, match=r"b\.JPEG is not a plain file"):
        fifo.blob.read()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("nowhere")])
@pytest.mark.parametrize("name", ["more.tar", "LOC_val_solution.csv"])
def test_unreadable_archive_or_label_file_is_reported(tmp_path, make, name):
    kaggle(tmp_path, IMAGES)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} cannot be read"):
        find_samples([tmp_path])


def test_unlistable_folder_is_reported(tmp_path, monkeypatch):
    tree(tmp_path, IMAGES)
    closed, scandir = str(tmp_path / "train" / SHARK), os.scandir

    def refusing(folder):
        if folder == closed:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # root can list everything
    with pytest.raises(UserError, match=rf"{closed} cannot be listed \(Permission denied\)"):
        find_samples([tmp_path])


def test_a_list_of_sources_may_name_label_files(tmp_path):
    official(tmp_path / "official", IMAGES)
    assert listed(*(tmp_path / "official").iterdir()) == IMAGES
    kaggle(tmp_path / "kaggle", IMAGES)
    assert listed(tmp_path / "kaggle" / "ILSVRC", tmp_path / "kaggle" / "LOC_val_solution.csv") == IMAGES


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: text.rindex(",")],
        lambda text: text[: text.rindex(",") + 1],
        lambda text: text + "x," + "y" * (csv.field_size_limit() + 1),
        lambda text: text + "\udcff",
        lambda text: "",
    ],
)
def test_a_damaged_table_of_labels_is_named(tmp_path, damage):
    table = kaggle(tmp_path, IMAGES) / "LOC_val_solution.csv"
    table.write_bytes(damage(table.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"LOC_val_solution.csv does not have|no class for"):
        find_samples([tmp_path])


@pytest.mark.parametrize("kept", [600, 1024, 1536, 2100])
def test_truncated_archive_is_refused_for_any_cut(tmp_path, kept):
    whole = tar_bytes({f"train/{TENCH}/a.JPEG": b"a" * 512, f"train/{TENCH}/b.JPEG": b"b" * 700})
    write(tmp_path, {"cut.tar": whole[:kept]})
    with pytest.raises(UserError, match=r"cut off|not a plain tar"):
        find_samples([tmp_path / "cut.tar"])


def test_a_compressed_archive_is_refused_with_the_remedy(tmp_path):
    write(tmp_path, {"images.tgz": gzip.compress(tar_bytes(IMAGES))})
    with pytest.raises(
        UserError, match=r"decompress a compressed archive first, for example with gunzip .*images\.tgz"
    ):
        find_samples([tmp_path / "images.tgz"])


def test_decompression_bomb_as_development_kit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(val_labels, "MAX_BYTES", 2**20)
    official(tmp_path, IMAGES)
    write(tmp_path, {"ILSVRC2012_devkit_t12.tar.gz": gzip.compress(bytes(2**24))})
    with pytest.raises(UserError, match="more than 1048576 bytes unpacked"):
        find_samples([tmp_path])
