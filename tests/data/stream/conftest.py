from importlib.util import find_spec

import pytest

from alexnet_lab.data.stream.writing import write_stream

CHUNK = 4
"""Images: 23 training images are 6 chunks, the last one of 3."""


@pytest.fixture(scope="session")
def stream(stores, tmp_path_factory):
    """The store of `stores` as a stream in a folder, written as a user would."""
    pytest.importorskip("litdata", reason="needs the extra: pip install -e '.[stream]'")
    place = tmp_path_factory.mktemp("streams") / "imagenette"
    write_stream(stores["jpeg"], str(place), "imagenette", chunk_images=CHUNK)
    return place


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep LitData's downloads out of the home directory."""
    if find_spec("litdata"):
        folder = str(tmp_path / "cache")
        monkeypatch.setattr("litdata.utilities.dataset_utilities.get_default_cache_dir", lambda: folder)
