"""A stream compared with the JPEG store that it was made from."""

import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs_for_tests import TRAIN, VAL, module
from test_photographs import by_sample, epoch_of

from alexnet_lab.data.photographs import PUBLISHED_EIGENVALUES
from alexnet_lab.data.sampler import EpochOrder
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.data.stream.layout import check_index, is_stream, is_url, stored_order
from alexnet_lab.data.stream.reading import StreamedImages, StreamSource, read_about
from alexnet_lab.data.stream.writing import Records, write_stream
from alexnet_lab.errors import UserError


@pytest.fixture(params=["folder", "bucket"])
def place(request, stream):
    """Read in place, or downloaded chunk by chunk like from a bucket."""
    return str(stream) if request.param == "folder" else f"local:{stream}"


def test_images_labels_and_statistics_equal_the_stores(place, stores):
    store, source = open_store(stores["jpeg"]), StreamSource(place, "imagenette")
    assert source.meta == store.meta
    assert np.array_equal(source.mean_image(), store.mean_image())
    ours, theirs = module(place), module(stores["jpeg"])
    for split, count in (("train", TRAIN), ("val", VAL)):
        assert np.array_equal(source.labels(split), store.labels(split))
        streamed, stored = (data.dataset.split(split).images for data in (ours, theirs))
        assert streamed.shape == stored.shape == (count, 3, 256, 256)
        for row in range(count):
            assert np.array_equal(streamed.window(row, 9, 20, 50, 60), stored.window(row, 9, 20, 50, 60))
    assert ours.preprocessing.classes == theirs.preprocessing.classes
    assert tuple(ours.pipeline.noise.lengths) != PUBLISHED_EIGENVALUES


def test_any_workers_ranks_and_restarts_give_each_sample_once_with_the_stores_crops(place, stores):
    data = module(stores["jpeg"])
    stored = by_sample(data, epoch_of(data, epoch=1), device=False)
    order = [sample for batch in epoch_of(module(place), epoch=1) for sample in batch.samples.tolist()]
    assert sorted(order) == list(range(TRAIN))
    for workers, world_size, start in [(0, 1, 0), (4, 1, 0), (0, 2, 0), (4, 3, 0), (2, 1, 2), (4, 2, 3)]:
        seen = []
        for rank in range(world_size):
            batches = epoch_of(module(place, workers=workers), 1, rank, world_size, start)
            wanted = [order[at : at + 6][rank::world_size] for at in range(0, TRAIN, 6)][start:]
            assert [batch.samples.tolist() for batch in batches] == wanted
            for sample, (image, label, drawn) in by_sample(data, batches, device=False).items():
                seen.append(sample)
                assert torch.equal(image, stored[sample][0])
                assert (label, drawn) == stored[sample][1:]
        assert sorted(seen) == sorted(order[6 * start :])


def test_epoch_reads_each_chunk_once_in_sequence(place, monkeypatch):
    read, original = [], StreamedImages._read
    monkeypatch.setattr(StreamedImages, "_read", lambda images, chunk: read.append(chunk) or original(images, chunk))
    data = module(place)
    for epoch in (0, 1):
        for batch in epoch_of(data, epoch):
            assert batch.images.shape[1:] == (3, 224, 224)
    first, second = read[:6], read[6:]
    assert sorted(first) == list(range(6))
    assert set(second) <= set(range(6))
    assert first != second


def test_evaluation_and_held_out_images_equal_the_stores(place, stores):
    for changes in ({}, {"val_size": 5}):
        ours, theirs = module(place, **changes), module(stores["jpeg"], **changes)
        streamed, stored = (by_sample(data, list(data.val_dataloader())) for data in (ours, theirs))
        assert streamed.keys() == stored.keys()
        for sample, (image, label, _) in streamed.items():
            assert torch.equal(image, stored[sample][0])
            assert label == stored[sample][1]


def test_order_by_chunks_is_a_function_of_seed_and_epoch_and_shuffles_both():
    chunks = np.repeat(np.arange(10), 20)
    orders = []
    for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]:
        order = EpochOrder(200, seed, shuffled=True, chunks=chunks)
        order.set_epoch(epoch)
        orders.append(order.order())
        assert sorted(orders[-1]) == list(range(200))
        turns = chunks[orders[-1]].reshape(10, 20)
        assert (turns == turns[:, :1]).all()
        assert list(turns[:, 0]) != list(range(10))
        assert (np.diff(orders[-1].reshape(10, 20), axis=1) < 0).any(1).all()
    assert np.array_equal(orders[0], orders[1])
    assert len({tuple(order) for order in orders}) == 3
    ascending = EpochOrder(6, chunks=np.array([1, 0, 1, 0, 2, 2])).order()
    assert ascending.tolist() == [1, 3, 0, 2, 4, 5]


def test_training_images_are_stored_shuffled_and_others_in_order():
    order = stored_order("train", 1000)
    assert sorted(order) == list(range(1000))
    assert abs(order[:100].mean() - 500) < 100
    assert stored_order("val", 5).tolist() == [0, 1, 2, 3, 4]


def test_stream_of_a_uint8_store_has_the_same_jpegs(stores):
    for split, count in (("train", TRAIN), ("val", VAL)):
        pixels, jpegs = (Records(stores[form], split) for form in ("uint8", "jpeg"))
        for sample in range(count):
            assert pixels(sample) == jpegs(sample)


def test_finished_stream_is_unchanged(stream, stores, image_tree, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    before = {path: path.stat().st_mtime_ns for path in stream.rglob("*")}
    write_stream(stores["jpeg"], str(stream), "imagenette")
    assert "it was made earlier" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in stream.rglob("*")} == before
    shutil.copytree(image_tree, tmp_path / "tree")
    next((tmp_path / "tree" / "val").rglob("*.JPEG")).unlink()
    prepare(tmp_path / "tree", tmp_path / "store", name="imagenette", workers=1)
    with pytest.raises(UserError, match="was made from other images"):
        write_stream(tmp_path / "store", str(stream), "imagenette")


def test_non_empty_folder_is_refused_and_kept(stream, stores, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty; choose a new folder"):
        write_stream(stores["jpeg"], str(tmp_path), "imagenette")
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_missing_stream_or_wrong_dataset_is_reported(stream, tmp_path):
    with pytest.raises(UserError, match="contains a stream of imagenette, not of imagenet"):
        StreamSource(str(stream), "imagenet")
    with pytest.raises(UserError, match=r"no stream in local:.*\n.*python src/prepare.py data=imagenette '?stream="):
        StreamSource(f"local:{tmp_path}/nowhere", "imagenette")


def test_damaged_chunk_is_named(stream, tmp_path):
    folder = shutil.copytree(stream, tmp_path / "copy")
    chunks = sorted((folder / "train").glob("chunk-*"))
    chunks[0].write_bytes(chunks[1].read_bytes())
    images = StreamSource(str(folder), "imagenette").images("train")
    with pytest.raises(UserError, match=r"chunk 0 of .*train"):
        images.window(int(np.flatnonzero(images.chunks == 0)[0]), 0, 0, 8, 8)


def test_missing_package_is_reported_with_its_extra(monkeypatch, tmp_path, stores):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[stream\]'"):
        module("s3://bucket/imagenette").prepare_data()
    with pytest.raises(UserError, match=r"pip install -e '\.\[stream\]'"):
        write_stream(stores["jpeg"], str(tmp_path / "new"), "imagenette")


def test_addresses_and_folders_are_distinguished(tmp_path):
    assert all(map(is_url, ("s3://bucket/imagenet", "gs://bucket/imagenet", "local:/data/imagenet")))
    assert not is_url("data/imagenet")
    assert not is_stream(str(tmp_path))


class Harmful:
    """Its pickle creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_record_that_could_run_a_program_is_refused_unread(tmp_path: Path) -> None:
    streaming = pytest.importorskip("litdata.streaming", reason="needs the extra: pip install -e '.[stream]'")
    record = {"meta": Harmful(tmp_path / "ran"), "mean_image": b"", "labels": b"", "chunk_images": 1}
    writer = streaming.Cache(str(tmp_path / "stream/about"), chunk_size=1)
    writer[0] = record
    writer.done()
    writer.merge()
    with pytest.raises(
        UserError, match=r"stream/about is not an AlexNet Lab stream: it holds Python objects \(pickle\)"
    ):
        read_about(str(tmp_path / "stream"), "imagenette")
    assert not (tmp_path / "ran").exists()


SPEC = '[1, {"type": "builtins.dict", "context": "[]", "children_spec": [{"type": %s, "children_spec": []}]}]'


@pytest.mark.parametrize(
    ("formats", "kind", "named"),
    [
        (["bytes", "pickle"], "null", "pickle"),
        (["bytes", "graph:pickle"], "null", "graph:pickle"),
        (["bytes:pickle"], "null", "bytes:pickle"),
        (["no_header_tensor:1"], "null", "no_header_tensor:1"),
        (["bytes"], '"collections.defaultdict"', "collections.defaultdict"),
    ],
)
def test_index_of_other_records_is_refused(formats: list[str], kind: str, named: str, tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"chunks": [], "config": {"data_format": formats, "data_spec": SPEC % kind}}))
    message = f"s3://b/x is not an AlexNet Lab stream: it holds Python objects ({named})"
    with pytest.raises(UserError, match=re.escape(message)):
        check_index(index, "s3://b/x")
    index.write_text(json.dumps({"config": {"data_format": ["bytes", "int", "str"], "data_spec": SPEC % "null"}}))
    check_index(index, "s3://b/x")
