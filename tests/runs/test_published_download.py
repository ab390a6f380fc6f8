"""`checkpoint=torchvision` with a local server: the right file, a wrong one, no server, and the cached file."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from test_references import small_file

from alexnet_lab.errors import UserError
from alexnet_lab.published import torchvision_weights
from alexnet_lab.runs.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("small_files")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch.hub keeps files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "cache/hub/checkpoints"


@pytest.fixture
def published(tmp_path: Path) -> tuple[str, bytes]:
    """A file of torchvision's network, and the name under which torchvision would publish it."""
    content = small_file(tmp_path / "alexnet.pth").read_bytes()
    return f"alexnet-owt-{hashlib.sha256(content).hexdigest()[:8]}.pth", content


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes, int], list[str]]]:
    """Serves a file at the address of torchvision's weights, which it changes; returns the paths of the requests."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(name: str, content: bytes, status: int = 200) -> list[str]:
        requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """No line on stderr."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        at(f"http://127.0.0.1:{server.server_port}/{name}", monkeypatch)
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import AlexNet_Weights

    monkeypatch.setattr(AlexNet_Weights.IMAGENET1K_V1.value, "url", address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def nobody(name: str) -> str:
    """The address of a port at which no server listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}/{name}"


def test_weights_are_downloaded_once_and_then_need_no_network(cache, published, serve, monkeypatch) -> None:
    name, content = published
    requests = serve(name, content)
    found = read_checkpoint("torchvision")
    assert requests == [f"/{name}"]
    assert (cache / name).read_bytes() == content
    assert (found.settings["run"], found.file, found.step) == ("torchvision IMAGENET1K_V1", None, 0)
    assert found.settings["model"]["_target_"].endswith(".alexnet_torchvision")
    at(nobody(name), monkeypatch)
    assert read_checkpoint("torchvision").settings == found.settings
    assert len(requests) == 1


def test_file_with_another_hash_is_refused_and_not_kept(cache, published, serve) -> None:
    name, content = published
    serve(name, content[:-1] + b"x")
    with pytest.raises(UserError, match=r"^checkpoint=torchvision: the download failed \(invalid hash value") as caught:
        read_checkpoint("torchvision")
    assert f"put it into {cache}, or name it: checkpoint=FOLDER/{name}" in str(caught.value)
    assert list(cache.iterdir()) == []


def test_other_ranks_wait_for_the_first_one_to_download(cache, published, serve, monkeypatch) -> None:
    name, content = published
    requests = serve(name, content)
    cache.mkdir(parents=True)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:  # the other rank has finished
            (cache / name).write_bytes(content)

    monkeypatch.setattr(torchvision_weights.time, "sleep", sleep)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert read_checkpoint("torchvision").step == 0
    assert (len(waits), requests) == (3, [])


def test_answer_without_the_file_is_reported(cache, published, serve) -> None:
    serve(published[0], b"", 403)
    with pytest.raises(UserError, match=r"the download failed \(HTTP Error 403"):
        read_checkpoint("torchvision", option="init")


def test_missing_network_is_reported_with_the_file_to_download(cache, published, monkeypatch) -> None:
    at(address := nobody(published[0]), monkeypatch)
    with pytest.raises(UserError) as caught:
        read_checkpoint("torchvision", option="init")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("init=torchvision: the download failed (<urlopen error [Errno 111] Connection refused>); ")
    assert f"download {address} (233 MiB) on another machine" in line
    assert line.endswith(f"or name it: init=FOLDER/{published[0]}")


def test_damaged_file_in_the_cache_is_named(cache, published, monkeypatch) -> None:
    name, content = published
    cache.mkdir(parents=True)
    at(nobody(name), monkeypatch)
    other = small_file(cache / "other.pth", classes=3).read_bytes()
    for damaged, reason in ((content[:-1], "truncated"), (other, "damaged or has the wrong name: its SHA-256 begins")):
        (cache / name).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"^checkpoint=torchvision: {cache}/{name}: the file is {reason}"):
            read_checkpoint("torchvision")


def test_cache_that_cannot_be_written_is_named(cache, published, serve) -> None:
    serve(*published)
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in place of the folder")
    with pytest.raises(UserError, match=r"the download failed \(\[Errno 17\] File exists"):
        read_checkpoint("torchvision")
