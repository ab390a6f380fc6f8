import gzip
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.counting import calls

from alexnet_lab.data import fashion_mnist_files as files
from alexnet_lab.data.fashion_mnist import fashion_mnist
from alexnet_lab.errors import UserError

NOWHERE = "http://127.0.0.1:9/"
SETTINGS = {
    "name": "fashion_mnist",
    "num_classes": 10,
    "channels": 1,
    "mean": [0.0],
    "std": [1.0],
    "image_size": 28,
    "batch_size": 128,
    "eval_batch_size": 256,
    "validate_on": "split",
    "val_size": 5000,
    "split_seed": 0,
    "seed": 0,
}


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without the data, a network and apt; returns a folder for the data that does not exist yet."""
    monkeypatch.setattr(files, "SYSTEM_FOLDER", Path("/usr/share/datasets/not-installed"))
    monkeypatch.setattr(files, "MIRRORS", (NOWHERE, NOWHERE))
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    return tmp_path / "data"


@pytest.fixture
def serve():
    """Serves folders on this machine; returns the address of each."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def module(folder, **changes):
    return fashion_mnist(dir=str(folder), **SETTINGS | changes)


def test_the_three_splits(system_folder):
    dataset = module(system_folder).dataset
    train, val, test = (dataset.split(name) for name in ("train", "val", "test"))
    assert [len(split.rows) for split in (train, val, test)] == [55_000, 5_000, 10_000]
    assert train.images.shape == (60_000, 1, 28, 28)
    assert train.images is val.images
    assert sorted([*train.rows, *val.rows]) == list(range(60_000))
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as torchvision reads them
    pixels = train.images / np.float32(255)
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.2860, 0.3530)


def test_another_seed_gives_the_same_split_in_another_order(system_folder):
    one, two = module(system_folder, seed=0), module(system_folder, seed=1)
    assert np.array_equal(one.dataset.split("val").rows, two.dataset.split("val").rows)
    first, second = (next(iter(data.train_dataloader())).samples for data in (one, two))
    assert first.tolist() != second.tolist()


def test_validation_on_the_test_split_trains_on_all_images(system_folder):
    dataset = module(system_folder, validate_on="test").dataset
    assert [len(dataset.split(name).rows) for name in ("train", "val", "test")] == [60_000, 10_000, 10_000]
    assert dataset.split("val").images is dataset.split("test").images


def test_each_file_is_read_once(system_folder, monkeypatch):
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), read_bytes(path))[1])
    dataset = module(system_folder).dataset
    assert calls(lambda: [dataset.split(name) for name in ("train", "val", "test")]) < 2000  # of 70,000 images
    assert sorted(read) == sorted(f"{name}.gz" for name in files.FILES)


def test_the_class_names_follow_the_labels(system_folder):
    assert module(system_folder).spec.classes[9] == "ankle boot"
    assert module(system_folder).spec.num_classes == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "data.num_classes of Fashion-MNIST is 10, got 5"),
        ({"channels": 3}, "data.channels of Fashion-MNIST is 1, got 3"),
        ({"val_size": 60_000}, r"data.val_size must be in \[1, 59999\], got 60000"),
        ({"val_size": 0}, "data.val_size"),
        ({"split_seed": -1}, "data.split_seed"),
    ],
)
def test_wrong_values_are_reported(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        module(tmp_path, **changes)


@pytest.mark.parametrize("layout", ["gz", "plain", "torchvision"])
def test_the_users_folder_is_read_in_every_layout(bare, system_folder, layout):
    target = bare / "FashionMNIST" / "raw" if layout == "torchvision" else bare
    target.mkdir(parents=True)
    for path in system_folder.glob("*.gz"):
        if layout == "plain":
            (target / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            (target / path.name).symlink_to(path)
    data = module(bare)
    data.prepare_data()
    assert data.dataset.split("test").labels[:5].tolist() == [9, 2, 1, 1, 6]


def test_users_folder_has_priority_over_the_systems(monkeypatch, system_folder, tmp_path):
    monkeypatch.setattr(files, "SYSTEM_FOLDER", system_folder)
    for path in system_folder.glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    located = files.locate(tmp_path)
    assert {path.parent for path in located.values()} == {tmp_path}
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert {path.parent for path in files.locate(tmp_path).values()} == {system_folder}


@pytest.mark.parametrize("damage", ["one byte", "truncated", "not gzip", "empty"])
def test_damaged_file_is_reported(bare, system_folder, damage):
    bare.mkdir()
    for path in system_folder.glob("*.gz"):
        (bare / path.name).symlink_to(path)
    damaged = bare / "t10k-labels-idx1-ubyte.gz"
    data = bytearray(damaged.read_bytes())
    damaged.unlink()
    data[len(data) // 2] ^= 1
    contents = {"one byte": data, "truncated": data[: len(data) // 3], "not gzip": b"<html>", "empty": b""}[damage]
    damaged.write_bytes(contents)
    with pytest.raises(UserError, match=rf"{damaged} is damaged: .*Replace it, or delete it"):
        module(bare).dataset.split("test")


def test_missing_sources_are_reported_with_all_alternatives(bare):
    with pytest.raises(UserError) as error:
        module(bare).prepare_data()
    message = str(error.value)
    for part in (
        f"neither in {bare} (data.dir) nor in /usr/share/datasets/not-installed",
        f"{NOWHERE}: ",
        "Connection refused",
        "apt-get is not installed here",
        f"put {', '.join(f'{name}.gz' for name in files.FILES)} into {bare}",
        "sudo apt-get install dataset-fashion-mnist",
        "with network access",
    ):
        assert part in message
    assert not bare.exists()


def test_sources_that_never_answer_are_abandoned(bare, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "ANSWER_SECONDS", 0.5)
    install(monkeypatch, tmp_path, "apt-get", "sleep 60")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(files, "MIRRORS", (f"http://127.0.0.1:{silent.getsockname()[1]}/",))
        start = time.monotonic()
        with pytest.raises(UserError) as error:
            module(bare).prepare_data()
    assert time.monotonic() - start < 5
    assert "no answer within 0.5 s" in str(error.value)
    assert "no data within 0.5 s" in str(error.value)


def test_slow_name_resolution_is_abandoned(monkeypatch):
    monkeypatch.setattr(files, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0.3 s"):
        files._open("http://mirror.invalid/")
    assert time.monotonic() - start < 2


def test_download_from_a_mirror_checks_and_keeps_the_files(bare, system_folder, serve, monkeypatch):
    monkeypatch.setattr(files, "MIRRORS", (NOWHERE, serve(system_folder)))
    data = module(bare)
    data.prepare_data()
    assert sorted(path.name for path in bare.iterdir()) == sorted(f"{name}.gz" for name in files.FILES)
    assert {oct(path.stat().st_mode & 0o777) for path in bare.iterdir()} == {"0o644"}
    assert len(data.dataset.split("train").rows) == 55_000
    monkeypatch.setattr(files, "MIRRORS", (NOWHERE,))
    module(bare).prepare_data()  # now from the folder


def test_mirror_with_wrong_contents_is_skipped(bare, system_folder, serve, monkeypatch, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for name in files.FILES:
        (wrong / f"{name}.gz").write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(files, "MIRRORS", (serve(wrong),))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz: its contents do not have the published SHA-256"):
        module(bare).prepare_data()
    assert not bare.exists()
    monkeypatch.setattr(files, "MIRRORS", (serve(wrong), serve(system_folder)))
    module(bare).prepare_data()
    assert files.locate(bare)


def test_debians_archive_is_unpacked_without_root(bare, system_folder, monkeypatch, tmp_path):
    dpkg = shutil.which("dpkg-deb", path=os.defpath)
    if dpkg is None:
        pytest.skip("needs dpkg-deb")
    package = tmp_path / "package"
    shutil.copytree(system_folder, package / "usr/share/datasets/fashion-mnist")
    (package / "DEBIAN").mkdir()
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    (package / "DEBIAN" / "control").write_text(control)
    subprocess.run([dpkg, "-Znone", "--build", package, tmp_path / "made.deb"], check=True, capture_output=True,
                   env={"PATH": os.defpath})  # fmt: skip
    install(monkeypatch, tmp_path, "apt-get", f'for last; do :; done; cp "{tmp_path}/made.deb" "$last.deb"')
    data = module(bare)
    data.prepare_data()
    assert len(data.dataset.split("test").rows) == 10_000
    assert files.locate(bare)


def test_apts_own_error_is_passed_on(bare, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    with pytest.raises(UserError, match="apt-get download dataset-fashion-mnist: E: Unable to locate package"):
        module(bare).prepare_data()


def install(monkeypatch, folder, program, script):
    """Puts a shell script of that name first on the PATH."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / program).write_text(f"#!/bin/sh\n{script}\n")
    (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
