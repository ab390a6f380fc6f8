import io
import struct
import zipfile
from pathlib import Path

import pytest
from tests.data.sources.layouts import tar_bytes, write, zip_bytes

from alexnet_lab.data.image_kinds import LeftOut
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.given import given_images
from alexnet_lab.data.sources.listing import list_files
from alexnet_lab.errors import UserError

FILES = {"cats/a.jpg": b"a" * 5000, "cats/b.JFIF": bytes(range(256)) * 9, "dogs/c.png": b""}


def read_all(source: Path) -> dict[str, bytes]:
    return {path: blob.read() for path, blob in list_files([source])}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_is_read_like_its_unpacked_folder(tmp_path, method) -> None:
    write(tmp_path, {"pets.zip": zip_bytes(FILES, method)})
    assert read_all(tmp_path / "pets.zip") == {f"pets/{path}": data for path, data in FILES.items()}
    write(tmp_path / "unpacked" / "pets", FILES)
    assert read_all(tmp_path / "pets.zip") == read_all(tmp_path / "unpacked")


def test_zip_in_a_folder_is_one_of_its_folders(tmp_path) -> None:
    write(tmp_path, {"train/dogs/x.jpg": b"x", "train/cats.zip": zip_bytes({"a.jpg": b"a", "b/c.png": b"c"})})
    assert read_all(tmp_path) == {"train/dogs/x.jpg": b"x", "train/cats/a.jpg": b"a", "train/cats/b/c.png": b"c"}


def test_named_archive_may_have_any_name(tmp_path) -> None:
    write(tmp_path, {"archive": zip_bytes(FILES), "other": tar_bytes(FILES)})
    assert len(read_all(tmp_path / "archive")) == len(read_all(tmp_path / "other")) == len(FILES)


def test_hidden_files_macos_attributes_and_other_files_are_ignored(tmp_path) -> None:
    more = {"__MACOSX/cats/._a.jpg": b"x", "cats/._a.jpg": b"x", ".git/a.jpg": b"x", "cats/.b.jpg": b"x"}
    others = {"cats/note.txt": b"text", "cats/IMG_1.HEIC": b"x", "cats/README": b"\xff\xd0 no image", "cats/": b""}
    write(tmp_path, {"pets.zip": zip_bytes({**FILES, **more, **others, "cats/photo": b"\xff\xd8\xff\xe0"})})
    left_out = LeftOut()
    paths = [path for path, _ in list_files([tmp_path / "pets.zip"], left_out)]
    assert paths == ["pets/cats/a.jpg", "pets/cats/b.JFIF", "pets/dogs/c.png", "pets/cats/photo"]
    assert (left_out.by_content, left_out.by_name) == ({".heic": 1, "": 1}, {".txt": 1})


def test_images_of_a_zip_are_named_by_their_paths(tmp_path) -> None:
    write(tmp_path, {"pets.zip": zip_bytes({**FILES, "LOC_val_solution.csv": b"", "a.txt": b""})})
    left_out = LeftOut()
    images = given_images([str(tmp_path / "pets.zip")], left_out)
    assert [image.path for image in images] == [f"{tmp_path}/pets/{path}" for path in FILES]
    assert "cats" in images[0].folders
    assert left_out.lines() == ["left out (by their names, not opened): 1 .txt"]


def test_zip64_is_read(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    data = (tmp_path / "large.zip").read_bytes()
    end = data.index(b"PK\5\6")
    # The directory's offset is only in the zip64 record, as in an archive above 4 GB.
    count, size, place = struct.unpack_from("<HII", data, end + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "large.zip").write_bytes(data[:end] + record + locator + last)
    assert read_all(tmp_path / "large.zip") == {f"large/{path}": data for path, data in FILES.items()}


def test_folders_written_with_backslashes_are_folders(tmp_path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("cats\\", "cats\\a.jpg"):
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 0
            opened.writestr(info, b"a")
    write(tmp_path, {"pets.zip": archive.getvalue()})
    assert [path for path, _ in list_files([tmp_path / "pets.zip"])] == ["pets/cats/a.jpg"]


def linked() -> bytes:
    archive = io.BytesIO()
    info = zipfile.ZipInfo("cats/a.jpg")
    info.external_attr, info.create_system = 0o120777 << 16, 3
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(info, "/etc/passwd")
    return archive.getvalue()


def encrypted() -> bytes:
    data = bytearray(zip_bytes({"cats/a.jpg": b"a"}))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


GOOD = zip_bytes(FILES)
BAD = {
    "leads out": (zip_bytes({"../../cats/a.jpg": b"a"}), r"'../../cats/a.jpg' would be outside of its folder"),
    "is absolute": (zip_bytes({"/cats/a.jpg": b"a"}), "'/cats/a.jpg' would be outside of its folder"),
    "is a link": (linked(), "'cats/a.jpg' is a link or a device"),
    "is encrypted": (encrypted(), r"bad.zip is encrypted \(cats/a.jpg\); unpack it with its password"),
    "is of a rare method": (zip_bytes({"a/b.jpg": b"a"}, zipfile.ZIP_BZIP2), r"by the method bzip2 \(a/b.jpg\)"),
    "is cut off": (GOOD[:-30], "bad.zip is not a whole zip archive"),
    "has lost its start": (GOOD[40:], "bad.zip is not a whole zip archive"),
    "is empty": (b"", "bad.zip is not a whole zip archive"),
    "is text": (b"text", "bad.zip is not a whole zip archive"),
    "has a zip": (
        zip_bytes({"train.zip": GOOD}),
        r"an archive in an archive \(bad/train.zip\).*unpack the outer archive",
    ),
    "has a tar": (zip_bytes({"train.tar": tar_bytes(FILES)}), r"an archive in an archive \(bad/train.tar\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_unsafe_archive_is_refused(tmp_path, what) -> None:
    data, message = BAD[what]
    write(tmp_path / "source", {"bad.zip": data})
    for source in (tmp_path / "source", tmp_path / "source" / "bad.zip"):
        with pytest.raises(UserError, match=f"^data.dir: .*{message}"):
            list(list_files([source], option="data.dir"))


def test_zip_in_a_tar_is_refused(tmp_path) -> None:
    write(tmp_path, {"all.tar": tar_bytes({"train.zip": GOOD})})
    with pytest.raises(UserError, match=r"an archive in an archive \(all/train.zip\)"):
        list(list_files([tmp_path / "all.tar"]))


def blob_of(tmp_path: Path, data: bytes) -> Blob:
    write(tmp_path, {"one.zip": data})
    ((_, blob),) = list_files([tmp_path / "one.zip"])
    return blob


def test_member_larger_than_stated_is_damaged_and_not_unpacked(tmp_path) -> None:
    blob = blob_of(tmp_path, zip_bytes({"a/bomb.png": bytes(2**24)}))
    small = blob._replace(size=1000)
    with pytest.raises(OSError, match=r"one\.zip is damaged: the file at byte 0 does not match its size or checksum"):
        small.read()
    assert small.start(10**6) == bytes(1000)


def test_member_whose_bytes_changed_is_damaged(tmp_path) -> None:
    blob = blob_of(tmp_path, zip_bytes({"a/b.jpg": bytes(range(256))}, zipfile.ZIP_STORED))
    data = bytearray((tmp_path / "one.zip").read_bytes())
    data[100] ^= 1
    (tmp_path / "one.zip").write_bytes(data)
    with pytest.raises(OSError, match="damaged"):
        blob.read()
    (tmp_path / "one.zip").write_bytes(b"x" * len(data))
    with pytest.raises(OSError, match="there is no member at byte 0"):
        blob.read()


def test_damaged_deflated_member_is_a_read_error(tmp_path) -> None:
    blob = blob_of(tmp_path, zip_bytes({"a/b.jpg": bytes(range(256)) * 20}))
    assert blob.zipped is not None
    data = bytearray((tmp_path / "one.zip").read_bytes())
    for place in range(37, 37 + blob.zipped.size):
        data[place] ^= 0x5A
    (tmp_path / "one.zip").write_bytes(data)
    with pytest.raises(OSError, match=r"one\.zip is damaged"):
        blob.read()
