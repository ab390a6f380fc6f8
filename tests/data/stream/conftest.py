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
