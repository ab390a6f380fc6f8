"""The classes of ImageNet's validation images, which the official archive and Kaggle's layout keep apart from them."""

import csv
import io
import zlib
from collections.abc import Sequence

from alexnet_lab.data.imagenet_classes import wnids_by_ilsvrc2012_id
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.listing import DEVKIT, DEVKIT_VAL_LABELS, KAGGLE_VAL_LABELS, Listed
from alexnet_lab.data.sources.tars import tar_members
from alexnet_lab.errors import UserError

MAX_BYTES = 64 * 2**20
"""Largest size of a label file or an unpacked development kit; the real ones have 2 and 3 MB."""


def read_val_labels(files: Sequence[Listed]) -> dict[str, str]:
    """The wnid of each validation image, by file name without suffix, such as `ILSVRC2012_val_00000001`.

    `files`: Kaggle's table, the development kit, or the list inside it; one of them suffices.

    Raises:
        UserError: none of them exists, or it does not have the published format.
    """
    readers = {KAGGLE_VAL_LABELS: _from_kaggle, DEVKIT: _from_devkit, DEVKIT_VAL_LABELS: _from_list}
    for name, reader in readers.items():
        for path, blob in files:
            if path.rpartition("/")[2] == name:
                try:
                    return reader(_read(blob))
                except UserError:
                    raise
                except OSError as error:
                    raise UserError(f"{path} cannot be read ({error})") from None
                except (ValueError, KeyError, IndexError, csv.Error, zlib.error) as error:
                    raise UserError(f"{path} does not have the published form ({error!r})") from None
    raise UserError(
        "the validation images have no folders of classes, as in val/<class>/*, and neither "
        f"{DEVKIT} (official archives) nor {KAGGLE_VAL_LABELS} (Kaggle) with the classes of ImageNet's was found"
    )


def _read(blob: Blob) -> bytes:
    if blob.size > MAX_BYTES:
        raise ValueError(f"{blob.size} bytes, at most {MAX_BYTES} expected")
    return blob.read()


def _from_kaggle(data: bytes) -> dict[str, str]:
    """Reads `ImageId,PredictionString`; the string contains the wnid and a box per object."""
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
    return {row["ImageId"]: (row["PredictionString"] or "").split()[0] for row in rows}  # None if the line is cut off


def _from_devkit(data: bytes) -> dict[str, str]:
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = unpacker.decompress(data, MAX_BYTES)  # limited, because a download may contain anything
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {MAX_BYTES} bytes unpacked")
    for member in tar_members(io.BytesIO(unpacked), Blob(DEVKIT, 0, len(unpacked))):
        if member.isreg() and member.name.endswith(DEVKIT_VAL_LABELS):
            return _from_list(unpacked[member.offset_data :][: member.size])
    raise ValueError(f"without {DEVKIT_VAL_LABELS}")


def _from_list(data: bytes) -> dict[str, str]:
    """Reads lines of class numbers, 1 to 1000; line i belongs to image i."""
    wnids = wnids_by_ilsvrc2012_id()
    numbers = enumerate(data.decode().split(), start=1)
    return {f"ILSVRC2012_val_{image:08}": wnids[int(number)] for image, number in numbers}
