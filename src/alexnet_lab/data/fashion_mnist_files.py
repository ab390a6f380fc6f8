"""Finds or downloads Fashion-MNIST's four files: a folder, the system's package, official mirrors, Debian's archive.

Every file is checked by the SHA-256 of its uncompressed contents. Debian's `.gz` lack the name and the date that the
official ones have in their headers, but the contents are the same bytes: with both put back, the MD5s are those that
torchvision publishes for the official files.
"""

import hashlib
import http.client
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab import files
from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)


class IdxFile(NamedTuple):
    shape: tuple[int, ...]
    sha256: str
    """SHA-256 of the uncompressed file."""

    @property
    def header_bytes(self) -> int:
        """IDX: four bytes of magic number, then each dimension as four bytes."""
        return 4 + 4 * len(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.header_bytes + int(np.prod(self.shape))


FILES = {
    "train-images-idx3-ubyte": IdxFile(
        (60_000, 28, 28), "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": IdxFile((60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": IdxFile(
        (10_000, 28, 28), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": IdxFile((10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
PACKAGE = "dataset-fashion-mnist"
ANSWER_SECONDS = 4.0
"""A source that sends nothing for this time is abandoned."""


def prepare(folder: Path) -> None:
    """Downloads the files into `folder` unless they are already there or in the system's folder.

    Raises:
        UserError: no source has them; the message lists every way to get them.
    """
    if locate(folder):
        return
    attempts = [_from_mirror(folder, mirror) for mirror in MIRRORS] + [_from_debian(folder)]
    failures = []
    for source, fetch in attempts:
        log.info("fetching Fashion-MNIST from %s into %s", source, folder)
        try:
            fetch()
        # Errors of networks, archives and file systems; a ValueError is a wrong checksum.
        except (OSError, http.client.HTTPException, subprocess.SubprocessError, ValueError) as error:
            failures.append(f"{source}: {error}")
        else:
            return
    raise UserError(_missing(folder, failures))


def locate(folder: Path) -> dict[str, Path] | None:
    """The four files by name, from `folder` or the system's folder, whichever first has all of them."""
    for place in (folder, SYSTEM_FOLDER):
        found = _files_in(place)
        if len(found) == len(FILES):
            return found
    return None


def load(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images uint8 [M, 28, 28] and labels uint8 [M] of the part `train` or `t10k`, read-only.

    Raises:
        UserError: a file is missing or damaged.
    """
    paths = locate(folder)
    if paths is None:
        raise UserError(_missing(folder, []))
    images, labels = (_read(paths[name], FILES[name]) for name in FILES if name.startswith(part))
    return images, labels


def _files_in(place: Path) -> dict[str, Path]:
    """The files of the four that are in `place` or its subfolder of torchvision, plain or as `.gz`."""
    candidates = {
        name: [below / (name + suffix) for below in (place, place / "FashionMNIST" / "raw") for suffix in ("", ".gz")]
        for name in FILES
    }
    found = {name: next((path for path in paths if path.is_file()), None) for name, paths in candidates.items()}
    return {name: path for name, path in found.items() if path}


def _read(path: Path, file: IdxFile) -> NDArray[np.uint8]:
    try:
        contents = _contents(path.read_bytes(), file)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Replace it, or delete it to download it again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return np.frombuffer(contents, np.uint8, offset=file.header_bytes).reshape(file.shape)


def _contents(data: bytes, file: IdxFile) -> bytes:
    """The uncompressed contents; ValueError if they differ from the published ones."""
    if data.startswith(b"\x1f\x8b"):
        try:
            # Bounded, as a download may hold anything.
            data = zlib.decompressobj(wbits=31).decompress(data, file.num_bytes + 1)
        except zlib.error as error:
            raise ValueError(f"not a valid gzip file ({error})") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ValueError("its contents do not have the published SHA-256")
    return data


def _keep(folder: Path, name: str, data: bytes) -> None:
    """Checks a downloaded `.gz` and writes it atomically."""
    try:
        _contents(data, FILES[name])
    except ValueError as error:
        raise ValueError(f"{name}.gz: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / f"{name}.gz", data)


def _absent(folder: Path) -> list[str]:
    return [name for name in FILES if name not in _files_in(folder)]


def _from_mirror(folder: Path, mirror: str) -> tuple[str, Callable[[], None]]:
    def fetch() -> None:
        for name in _absent(folder):
            with _open(f"{mirror}{name}.gz") as response:
                _keep(folder, name, response.read(FILES[name].num_bytes))

    return mirror, fetch


def _open(url: str) -> http.client.HTTPResponse:
    """Opens it within `ANSWER_SECONDS`, also where name resolution hangs, which no socket's timeout covers."""
    answer: Future[http.client.HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=ANSWER_SECONDS))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(ANSWER_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s") from None


def _from_debian(folder: Path) -> tuple[str, Callable[[], None]]:
    def fetch() -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise FileNotFoundError(f"{tool} is not installed here")
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            _run_while_data_comes(["apt-get", "-q", "-o", "Acquire::Retries=0", "download", PACKAGE], work)
            (package,) = work.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, work], check=True, capture_output=True)
            for name in _absent(folder):
                (packed,) = work.rglob(f"{name}.gz")
                _keep(folder, name, packed.read_bytes())

    return f"apt-get download {PACKAGE}", fetch


def _run_while_data_comes(command: list[str], work: Path) -> None:
    """Runs `command` in the folder `work`, and ends it when nothing arrives there for `ANSWER_SECONDS`."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=work, stdout=output, stderr=output, start_new_session=True)
        arrived, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            now = sum(path.stat().st_size for path in work.glob("*"))
            if now > arrived:
                arrived, since = now, time.monotonic()
            elif time.monotonic() - since > ANSWER_SECONDS:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
                process.wait()
                raise TimeoutError(f"no data within {ANSWER_SECONDS:g} s")
        output.seek(0)
        if process.returncode:
            lines = output.read().split("\n")
            raise OSError(next((line for line in lines if line.startswith("E:")), f"status {process.returncode}"))


def _missing(folder: Path, failures: list[str]) -> str:
    absent = ", ".join(f"{name}.gz" for name in _absent(folder))
    return "\n".join(
        [
            f"Fashion-MNIST is neither in {folder.absolute()} (data.dir) nor in {SYSTEM_FOLDER}"
            + (", and fetching it failed:" if failures else "."),
            *(f"  {failure}" for failure in failures),
            "Any one of these solves it:",
            f"  put {absent} into {folder.absolute()}, or choose the folder with the four files: data.dir=FOLDER",
            f"  sudo apt-get install {PACKAGE}",
            f"  run this once with network access: the files are then kept in {folder.absolute()}",
        ]
    )
