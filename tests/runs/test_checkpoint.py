"""Whatever a checkpoint's file holds, the answer is one line; nothing that it names is run, and no line advises it."""

import argparse
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.config.advice import advice
from alexnet_lab.errors import UserError
from alexnet_lab.runs.checkpoint import read_checkpoint
from alexnet_lab.runs.checkpoint_file import read_file, steps_done

CONFIG = {
    "run": "r",
    "channels_last": True,
    "model": {
        "_target_": "alexnet_lab.models.lenet.lenet",
        "in_channels": 1,
        "num_classes": 10,
        "image_size": 28,
        "dropout": 0.0,
    },
    "data": {"_target_": "alexnet_lab.data.synthetic.synthetic"},
    "trainer": {"precision": "32-true"},
}
CONTENT = {"config": CONFIG, "state_dict": {"conv1.weight": torch.zeros(1)}, "global_step": 3}
PREPROCESSING = {
    "image_size": 28,
    "resize": "bilinear",
    "channels": 1,
    "mean": [0.0],
    "std": [1.0],
    "classes": ["a", "b"],
}

CROPPED = {"stored_size": 256, "crop_size": 28}


class Hostile:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("run-by-a-checkpoint",)


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zipped(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


def changed(**parts: Any) -> bytes:
    return saved(CONTENT | {"config": CONFIG | parts})


BIAS, MANY = "classifier.6.bias", 20_000_000
SAFETENSORS = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
NOT_OURS = "not an AlexNet Lab checkpoint"
NO_WEIGHTS = "not a file of weights"
UNUSABLE = f"{NO_WEIGHTS} that can be used"
FILES: dict[str, tuple[bytes, str]] = {
    "hostile object": (
        saved(Hostile()),
        f"{UNUSABLE}; it holds Python objects (posix.mkdir), which could run any",
    ),
    "hostile object among others": (saved(CONTENT | {"x": Hostile()}), "it holds Python objects (posix.mkdir)"),
    "harmless object": (saved(CONTENT | {"x": Fraction(1)}), "it holds Python objects (fractions.Fraction)"),
    "options with a hostile object": (
        saved(CONTENT | {"args": argparse.Namespace(lr=0.1, x=Hostile())}),
        "it holds Python objects (posix.mkdir)",
    ),
    "strides of 0": (saved({BIAS: torch.zeros(1).expand(MANY)}), f"not hold all numbers of {BIAS} [{MANY}]"),
    "strides of 0 in an entry": (
        saved({"model": {BIAS: torch.zeros(1).expand(MANY)}}),
        f"not hold all numbers of {BIAS} [{MANY}]",
    ),
    "strides of 0 in a run's file": (
        saved(CONTENT | {"state_dict": {"a": torch.zeros(2, 1).expand(2, 2)}}),
        "the file does not hold all numbers of a [2, 2]",
    ),
    "sparse tensor": (
        saved({BIAS: torch.sparse_coo_tensor(torch.zeros(1, 0), torch.zeros(0), (MANY,))}),
        f"not hold all numbers of {BIAS}",
    ),
    "tensor without numbers": (saved({BIAS: torch.zeros(MANY, device="meta")}), f"not hold all numbers of {BIAS}"),
    "module": (saved(nn.Linear(1, 1)), "modules.linear.Linear), which could run any program; save its state_dict()"),
    "hostile pickle": (pickle.dumps(Hostile()), f"{NO_WEIGHTS}, but a pickle file, which could run any program"),
    "hostile object of old PyTorch": (
        saved(Hostile(), _use_new_zipfile_serialization=False),
        f"{UNUSABLE}; its content cannot be read",
    ),
    "truncated file of old PyTorch": (
        saved(CONTENT, _use_new_zipfile_serialization=False)[:-3],
        "its content cannot be read: it is damaged or truncated",
    ),
    "truncated": (saved(CONTENT)[:-100], "the file is truncated"),
    "half": (saved(CONTENT)[:600], "the file is truncated"),
    "damaged": (saved(CONTENT).replace(b"lenet", b"linet"), "the file is damaged, in archive/data.pkl"),
    "empty": (b"", "the file is empty"),
    "web page": (b"\n<!DOCTYPE html><html>", f"{NO_WEIGHTS}, but a web page: download the file itself"),
    "answer of a server": (b'{"message": "Not Found"}', f"{NO_WEIGHTS}, but text"),
    "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", f"{NO_WEIGHTS}, but a pointer of Git LFS"),
    "safetensors": (len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(4), "it records no configuration"),
    "keras 3": (
        zipped(config_json=b"{}", model_h5=b""),
        f"{UNUSABLE}, but a zip archive of something else",
    ),
    "keras 2": (b"\x89HDF\r\n\x1a\n" + bytes(99), f"{NO_WEIGHTS}, but an HDF5 file, as Keras writes them"),
    "TorchScript": (
        zipped(m__data_pkl=b"", m__constants_pkl=b""),
        f"{UNUSABLE}, but a TorchScript archive",
    ),
    "garbage in a PyTorch archive": (
        zipped(a__data_pkl=b"garbage"),
        f"{UNUSABLE}; its content cannot be read",
    ),
    "gzip": (gzip.compress(saved(CONTENT)), f"{NO_WEIGHTS}, but a gzip file"),
    "tar": (tarred(), f"{NO_WEIGHTS}, but a tar archive"),
    "picture": (b"\x89PNG\r\n\x1a\n", NO_WEIGHTS),
    "bare state dict": (
        saved(nn.Linear(1, 1).state_dict()),
        "it records no configuration; only checkpoints of AlexNet Lab's runs, files of its export and state dicts of",
    ),
    "other Lightning project": (saved({"state_dict": {}, "global_step": 1}), "it records no configuration"),
    "tensor": (saved(torch.zeros(1)), "it records no configuration"),
    "text in place of the configuration": (saved(CONTENT | {"config": "x"}), f"{NOT_OURS}; config: "),
    "no network": (saved(CONTENT | {"config": {}}), f"{NOT_OURS}; config.run: Field required"),
    "foreign network": (changed(model={"_target_": "os.mkdir"}), "model: a checkpoint may not name os.mkdir"),
    "no trainer": (changed(trainer=None), f"{NOT_OURS}; config.trainer: "),
    "no weights": (saved(CONTENT | {"state_dict": 5}), f"{NOT_OURS}; state_dict: Input should be a valid dictionary"),
    "numbers as weights": (saved(CONTENT | {"state_dict": {"a": 5}}), f"{NOT_OURS}; state_dict.a: Input should be"),
    "weights of another network": (saved(CONTENT), "the checkpoint's weights do not fit its network: "),
    "escape sequence in a key": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | {"\x1b[2J": 1}}),
        "preprocessing is not supported: \\x1b[2J: Extra inputs",
    ),
    "two means": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | {"mean": [0.5, 0.5]}}),
        "mean needs 1 or 1 finite values, got [0.5, 0.5]",
    ),
    "standard deviation of 0": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | {"std": [0.0]}}),
        "std must be above 0",
    ),
    "standard deviation that is not a number": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | {"std": [float("nan")]}}),
        "std needs 1 or 1 finite values",
    ),
    "small mean image": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | CROPPED | {"mean_image": torch.zeros(1, 5, 5)}}),
        "mean_image is torch.float32 [1, 5, 5], expected float32 [1, 28, 28]",
    ),
    "mean image of integers": (
        saved(
            CONTENT
            | {
                "preprocessing": PREPROCESSING
                | CROPPED
                | {"whole_mean_image": torch.zeros(1, 256, 256, dtype=torch.int8)}
            }
        ),
        "whole_mean_image is torch.int8 [1, 256, 256], expected float32 [1, 256, 256]",
    ),
    "mean image without a crop": (
        saved(CONTENT | {"preprocessing": PREPROCESSING | {"mean_image": torch.zeros(1, 28, 28)}}),
        "mean_image is torch.float32 [1, 28, 28], expected float32 [1, None, None]",
    ),
    "wrong preprocessing": (
        saved(CONTENT | {"preprocessing": {"x": 1}}),
        "this checkpoint's preprocessing is not supported",
    ),
    "preprocessing of other data": (
        saved(CONTENT | {"preprocessing": PREPROCESSING}),
        "the checkpoint's network does not fit its preprocessing: model.num_classes=10, but the data has num_classes=2",
    ),
}


@pytest.mark.parametrize(("data", "reason"), FILES.values(), ids=FILES.keys())
def test_foreign_file_is_refused_with_its_type(
    data: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.ckpt"
    path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        read_checkpoint(path).network()
    (line,) = advice(raised.value, "", "predict").splitlines()
    assert reason in line
    assert line.isprintable()
    assert "weights_only" not in line
    assert "trust" not in line
    assert os.listdir(tmp_path) == ["x.ckpt"]


NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")


def missing(path: Path) -> None:
    """Nothing is there."""


def refused(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "there is no such file; name one such as logs/"),
        (Path.mkdir, "the folder has neither checkpoints/best.ckpt nor checkpoints/last.ckpt"),
        (os.mkfifo, "there is no such file"),
        pytest.param(
            refused, "Permission denied", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root reads all")
        ),
    ],
)
def test_unreadable_path_is_reported(make: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=rf"^checkpoint=\S+x\.ckpt: {reason}"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_error_of_the_system_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "x.ckpt").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"^checkpoint=x: Permission denied$"):
        read_file(tmp_path / "x.ckpt", "checkpoint=x")


@pytest.mark.parametrize("kind", ["hostile object", "truncated", "web page", "bare state dict", "tensor"])
def test_run_is_not_continued_from_such_a_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(FILES[kind][0])
    with pytest.raises(UserError, match=rf"^{tmp_path}/x\.ckpt: ") as raised:
        steps_done(tmp_path / "x.ckpt", {})
    assert "weights_only" not in str(raised.value)
