import io
import json
import os
import shutil
import struct
import tarfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slow_reference as slow
import torch
from photographs_for_tests import TRAIN, VAL, WITHOUT_STATISTICS, WNIDS, module, write_tree
from PIL import Image
from torchvision.transforms.v2.functional import resized_crop

from alexnet_lab.data.encoded import ImageFiles
from alexnet_lab.data.jpeg_markers import jpeg_shape
from alexnet_lab.data.sampler import random_order
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.spec import mean_over_views
from alexnet_lab.data.store.images import to_square
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.errors import UserError


def epoch_of(data, epoch=0, rank=0, world_size=1, start=None):
    """The epoch's batches of rank `rank`, on the host."""
    data.trainer = SimpleNamespace(
        distributed_sampler_kwargs={"rank": rank, "num_replicas": world_size},
        accumulate_grad_batches=1,
        overfit_batches=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        precision_plugin=SimpleNamespace(convert_input=lambda images: images),
    )
    if start:
        data.load_state_dict({"epoch": epoch, "step": start})
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def by_sample(data, batches, device=True):
    """Image, label and draws of each sample."""
    found = {}
    for batch in batches:
        images = data.on_after_batch_transfer(batch, 0).images if device else batch.images
        for place, sample in enumerate(batch.samples.tolist()):
            drawn = [None if one is None else one[place].tolist() for one in batch.draws]
            found[sample] = (images[place], int(batch.labels[place]), drawn)
    return found


@pytest.mark.parametrize("colour", ["source", "paper"])
@pytest.mark.parametrize("mean", ["image_centre", "image_at_crop"])
def test_batches_equal_the_slow_reference(stores, colour, mean):
    """0 or 4 workers, 1, 2 or 3 ranks, and a restart in mid-epoch; of the second epoch, the last batch incomplete."""
    store, seed, epoch = open_store(stores["uint8"]), 5, 1
    stored, labels = store.images("train"), store.labels("train")
    order = random_order(TRAIN, seed, epoch)
    expected = {
        sample: slow.train_image(
            stored[sample], seed, epoch, sample, crop_size=224, flip=0.5, colour=colour,
            eigenvalues=store.meta.eigenvalues, eigenvectors=store.meta.eigenvectors,
            mean_image=store.mean_image(), at_crop=mean == "image_at_crop",
        )
        for sample in range(TRAIN)
    }  # fmt: skip
    first = None
    for workers, world_size, start in [(0, 1, 0), (4, 1, 0), (0, 2, 0), (4, 3, 0), (0, 1, 2), (4, 2, 3)]:
        samples = {}
        for rank in range(world_size):
            data = module(stores["uint8"], workers=workers, colour=colour, mean=mean)
            batches = epoch_of(data, epoch, rank, world_size, start)
            wanted = [order[at : at + 6][rank::world_size].tolist() for at in range(0, TRAIN, 6)][start:]
            assert [batch.samples.tolist() for batch in batches] == wanted
            samples |= by_sample(data, batches)
        assert sorted(samples) == sorted(order[6 * start :])
        first = first or samples
        for sample, (image, label, drawn) in samples.items():
            assert label == labels[sample]
            assert drawn == first[sample][2]
            # In grey levels up to 255; 1e-6 of the range is 2.6e-4.
            np.testing.assert_allclose(image.numpy(), expected[sample], atol=1e-4, rtol=0)
            np.testing.assert_allclose(image.numpy(), first[sample][0].numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["uint8", "jpeg", "folder"])
def test_every_source_gives_the_same_bytes_for_any_workers_and_ranks(stores, image_tree, form):
    folder, more = (image_tree, WITHOUT_STATISTICS) if form == "folder" else (stores[form], {})
    data = module(folder, **more)
    alone = by_sample(data, epoch_of(data), device=False)
    for workers, world_size in [(4, 1), (2, 3)]:
        for rank in range(world_size):
            batches = epoch_of(module(folder, workers=workers, **more), rank=rank, world_size=world_size)
            assert batches[0].images.is_contiguous(memory_format=torch.channels_last)
            for sample, (image, label, drawn) in by_sample(data, batches, device=False).items():
                assert torch.equal(image, alone[sample][0])
                assert (label, drawn) == alone[sample][1:]


def test_sources_differ_only_in_their_encoding(stores, image_tree):
    pixels, jpegs = (
        by_sample(data := module(stores[form]), epoch_of(data), device=False) for form in ("uint8", "jpeg")
    )
    files = by_sample(data := module(image_tree, **WITHOUT_STATISTICS), epoch_of(data), device=False)
    for sample, (image, label, drawn) in pixels.items():
        assert (label, drawn) == jpegs[sample][1:] == files[sample][1:]
        assert (image.int() - files[sample][0].int()).abs().max() <= 1
        assert (image.float() - jpegs[sample][0].float()).abs().mean() < 3


def test_colour_noise_ends_at_its_epoch_after_any_history(stores):
    def images(epoch, **changes):
        data = module(stores["uint8"], **changes)
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(epoch)
        return torch.cat([data.on_after_batch_transfer(batch, 0).images for batch in loader])

    limited = {"colour_until_epoch": 3}
    assert torch.equal(images(2, **limited), images(2))
    assert torch.equal(images(3, **limited), images(3, colour="off"))
    assert not torch.equal(images(3, **limited), images(3))


def test_truncation_during_use_is_reported_in_one_line(stores, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(stores["uint8"], store)
    data = module(store)
    assert len(epoch_of(data)) > 0
    os.truncate(store / "train/images.npy", 200_000)
    with pytest.raises(UserError, match=r"images\.npy ends within image \d+: it was cut short after it was opened"):
        epoch_of(data)


def test_random_resized_crops_equal_torchvisions_for_the_same_boxes(stores):
    data = module(stores["uint8"], crop="random_resized", mean=[0.0], std=[1.0], colour="off")
    stored = torch.from_numpy(open_store(stores["uint8"]).images("train").copy()).permute(0, 3, 1, 2)
    for sample, (image, _, _) in by_sample(data, epoch_of(data, epoch=3)).items():
        expected = resized_crop(stored[sample] / 255, *slow.box(5, 3, sample), [224, 224], antialias=True)
        mirrored = slow.uniforms(5, 3, sample, slow.FLIP, 1)[0] < 0.5
        torch.testing.assert_close(image, expected.flip(2) if mirrored else expected, atol=1e-5, rtol=0)


def test_transforms_of_the_article_act_per_sample(stores):
    changes = {"rotation": 20.0, "scaling": 0.2, "jitter": 0.4, "mean": "channels", "std": "channels"}
    data = module(stores["uint8"], **changes)
    whole = by_sample(data, epoch_of(data))
    two = module(stores["uint8"], **changes)
    for sample, (image, _, drawn) in by_sample(two, epoch_of(two, rank=1, world_size=2)).items():
        assert drawn == whole[sample][2]
        torch.testing.assert_close(image, whole[sample][0], atol=1e-5, rtol=0)


def test_evaluation_uses_the_centre_minus_the_centre_of_the_mean_image(stores):
    store = open_store(stores["uint8"])
    expected = (store.images("val") - store.mean_image())[:, 16:240, 16:240]
    for mean in ("image_centre", "image_at_crop"):
        data = module(stores["uint8"], mean=mean)
        images = torch.cat([data.on_after_batch_transfer(batch, 0).images for batch in data.val_dataloader()])
        np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-4, rtol=0)
        mean_image = data.preprocessing.mean_image.permute(1, 2, 0).numpy()
        np.testing.assert_allclose(mean_image * 255, store.mean_image()[16:240, 16:240], atol=1e-4)


@pytest.mark.parametrize("mean", ["image_centre", "image_at_crop", "channels"])
def test_ten_crops_are_the_ten_windows_minus_the_mean(stores, mean):
    store = open_store(stores["uint8"])
    data = module(stores["uint8"], mean=mean)
    data.evaluate_by("ten_crop")
    batch = next(iter(data.val_dataloader()))
    views = data.on_after_batch_transfer(batch, 0).images.unflatten(0, (4, 10)).permute(0, 1, 3, 4, 2).numpy()
    mean_image = store.mean_image()
    for image, ten in zip(store.images("val")[:4], views, strict=True):
        for number, (top, left) in enumerate([(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)] * 2):
            window = image[top : top + 224, left : left + 224].astype(float)
            mirror = slice(None, None, -1 if number >= 5 else 1)
            subtracted = {
                "image_centre": mean_image[16:240, 16:240],
                "image_at_crop": mean_image[top : top + 224, left : left + 224][:, mirror],
                "channels": 255 * np.array(store.meta.mean),
            }[mean]
            np.testing.assert_allclose(ten[number], window[:, mirror] - subtracted, atol=1e-3, rtol=0)


def test_views_are_averaged_as_probabilities():
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    averaged = mean_over_views(logits, 3)
    expected = logits.softmax(1).view(3, 10, 5).mean(1)
    torch.testing.assert_close(averaged.softmax(1), expected)
    torch.testing.assert_close(averaged.exp(), expected)
    assert mean_over_views(logits, 30) is logits
    assert mean_over_views(torch.tensor([[0.0, -300.0]] * 10), 1)[0, 1] == -300
    assert mean_over_views(logits[:0], 0).shape == (0, 5)


def test_crop_is_resized_for_a_net_of_another_size(stores):
    data = module(stores["uint8"], image_size=28)
    images = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0).images
    assert images.shape == (6, 3, 28, 28)
    data = module(stores["uint8"], image_size=227, crop_size=227)
    assert next(iter(data.train_dataloader())).images.shape == (6, 3, 227, 227)


def test_a_part_without_samples_passes_through_every_step(stores):
    for crop, more in (("random", {}), ("random_resized", {"mean": "channels", "rotation": 5.0, "jitter": 0.1})):
        data = module(stores["uint8"], batch_size=11, crop=crop, **more)
        last = epoch_of(data, rank=2, world_size=3)[-1]
        assert data.on_after_batch_transfer(last, 0).images.shape == (0, 3, 224, 224)
        data.evaluate_by("ten_crop")
        empty = last._replace(images=torch.empty((0, 3, 256, 256), dtype=torch.uint8))
        assert data.on_after_batch_transfer(empty, 0).images.shape == (0, 3, 224, 224)


def test_abandoned_epoch_ends_its_threads(stores):
    import threading

    data = module(stores["uint8"], workers=3)
    batches = iter(data.train_dataloader())
    next(batches)
    assert any(thread.name.startswith("gather") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("gather") for thread in threading.enumerate())


def test_memory_is_reused_only_after_the_batch_is_released(stores):
    data = module(stores["uint8"])
    loader = data.train_dataloader()
    kept = list(loader)
    before = [batch.images.clone() for batch in kept]
    view = kept[0].images[1:2].numpy()
    copy = view.copy()
    places = {batch.images.data_ptr() for batch in kept}
    del kept[0]
    list(islice(loader, 3))
    assert np.array_equal(view, copy)
    assert all(torch.equal(batch.images, images) for batch, images in zip(kept, before[1:], strict=True))
    del kept, view
    assert next(iter(loader)).images.data_ptr() in places


def test_the_splits(stores):
    dataset = module(stores["uint8"]).dataset
    assert [len(dataset.split(name).rows) for name in ("train", "val", "test")] == [TRAIN, VAL, VAL]
    held_out = module(stores["uint8"], val_size=5, seed=1).dataset
    train, val, test = (held_out.split(name) for name in ("train", "val", "test"))
    assert sorted([*train.rows, *val.rows]) == list(range(TRAIN))
    assert (len(val.rows), len(test.rows)) == (5, VAL)
    again = module(stores["uint8"], val_size=5, seed=2).dataset.split("val").rows
    assert np.array_equal(val.rows, again)


def test_a_plain_folder_of_classes_is_split_by_val_size(image_tree):
    data = module(image_tree / "train", val_size=4, **WITHOUT_STATISTICS)
    data.prepare_data()
    assert [len(data.dataset.split(name).rows) for name in ("train", "val", "test")] == [19, 4, 4]
    with pytest.raises(UserError, match=r"has no val images: hold out training images, for example data\.val_size=3"):
        module(image_tree / "train", **WITHOUT_STATISTICS).prepare_data()


def test_checkpoint_records_images_and_contents(stores):
    facts = module(stores["uint8"]).preprocessing.facts()
    assert facts["classes"] == ["tench", "English springer", "parachute"]
    assert (facts["stored_size"], facts["crop_size"], facts["channels"]) == (256, 224, 3)
    assert facts["mean"] == open_store(stores["uint8"]).meta.mean
    facts = module(stores["uint8"], mean="channels", std="channels").preprocessing.facts()
    assert "mean_image" not in facts
    assert facts["std"] == open_store(stores["uint8"]).meta.std


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, "data.channels of these images is 3, got 1"),
        ({"crop_size": 257}, r"data.crop_size must be in \[1, 256\], the stored size, got 257"),
        ({"crop": "random_resized"}, "data.mean=image_centre cannot be combined with data.crop=random_resized"),
        ({"workers": -1}, "data.workers must not be negative"),
        ({"val_size": -1}, "data.val_size must not be negative"),
        ({"flip": 2.0}, "data.flip must be in"),
    ],
)
def test_wrong_values_are_reported_before_reading(stores, changes, message):
    with pytest.raises(UserError, match=message):
        module(stores["uint8"], **changes)


def test_number_of_classes_and_size_of_the_held_out_part_are_found_in_the_images(stores, tmp_path):
    open_settings = {"num_classes": None, "val_size": None}
    assert module(stores["uint8"], **open_settings).dataset.found() == {"num_classes": 3, "val_size": 0}
    assert module(stores["uint8"]).dataset.found() == {}
    write_tree(tmp_path)
    (tmp_path / "train").rename(tmp_path / "only_train")
    data = module(tmp_path / "only_train", **open_settings, **WITHOUT_STATISTICS)
    assert data.dataset.found() == {"num_classes": 3, "val_size": 3}  # of 23, at least one per class
    assert [len(data.dataset.split(name).rows) for name in ("train", "val", "test")] == [20, 3, 3]
    (tmp_path / "one" / "train").mkdir(parents=True)
    (tmp_path / "only_train" / WNIDS[0]).rename(tmp_path / "one" / "train" / WNIDS[0])
    with pytest.raises(UserError, match=r"has images of one class only \(tench\): a network needs two or more"):
        module(tmp_path / "one", **open_settings, **WITHOUT_STATISTICS).dataset.found()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 10}, r"has images of 3 classes \(.*\), data.num_classes is 10: set data.num_classes=3"),
        ({"name": "imagenet"}, "contains the store of imagenette, not of imagenet"),
    ],
)
def test_data_that_contradict_the_settings_are_refused(stores, changes, message):
    with pytest.raises(UserError, match=message):
        module(stores["uint8"], **changes).prepare_data()


def test_missing_data_are_reported_with_the_command(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        data = module(folder)  # the network can be described without the data
        with pytest.raises(UserError, match=r"python src/prepare.py data=imagenette source=") as error:
            data.prepare_data()
        assert str(folder) in str(error.value)


def test_folder_without_statistics_is_reported_with_the_remedy(image_tree):
    for changes in ({"mean": "image_centre"}, {"mean": "channels"}, {"std": "channels"}, {"colour_basis": "store"}):
        with pytest.raises(UserError, match=r"data.std=\[0.229,0.224,0.225\]' data.colour_basis=published"):
            assert module(image_tree, **WITHOUT_STATISTICS | changes).pipeline


def test_ten_crop_of_uncropped_data_is_refused():
    from test_synthetic import SETTINGS

    from alexnet_lab.data.synthetic import synthetic

    with pytest.raises(UserError, match="protocol=ten_crop: synthetic is not cropped; choose protocol=center"):
        synthetic(**SETTINGS).evaluate_by("ten_crop")


def test_folder_without_images_is_reported_with_the_command(tmp_path):
    (tmp_path / ".gitkeep").touch()
    with pytest.raises(
        UserError, match=r"(?s)no store in .*, or images in train/<class>/.*prepare.py data=imagenette so"
    ):
        module(tmp_path).prepare_data()


def test_a_stored_jpeg_of_another_size_is_named(stores, tmp_path):
    folder = shutil.copytree(stores["jpeg"], tmp_path / "store")
    images = folder / "train" / "images.bin"
    data = images.read_bytes()
    assert data.count(b"\xff\xc0\x00\x11\x08\x01\x00\x01\x00") == TRAIN  # the headers: 256 x 256
    images.write_bytes(data.replace(b"\xff\xc0\x00\x11\x08\x01\x00", b"\xff\xc0\x00\x11\x08\x00\x80", 1))
    with pytest.raises(
        UserError, match=r"image 0 is damaged \(its size is 128 x 256, not 256 x 256\).*all of them: (.*)$"
    ) as error:
        epoch_of(module(folder))
    assert str(error.value).endswith(f": python src/prepare.py data=imagenette verify=true data.dir={folder}")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nope", r"there is no folder .*nope \(data\.dir\); data\.dir=FOLDER names one .*\nto make a store in it: "),
        ("empty", r"the folder .*empty \(data\.dir\) is empty\nto make a store in it: "),
        ("a.tar.gz", r"a\.tar\.gz \(data\.dir\) is a file, but not an archive that can be read \(\.tar or \.zip\)"),
        ("texts", r"(?s)there is no store in .*\nleft out \(by their names, not opened\): 1 \.txt$"),
    ],
)
def test_place_without_images_is_described(tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(UserError, match=message):
        module(tmp_path / place).prepare_data()


def test_damaged_file_is_reported_when_read(tmp_path):
    path = tmp_path / "train.JPEG"
    image = io.BytesIO()
    Image.new("RGB", (300, 300)).save(image, "JPEG")
    for contents in (b"\xff\xd8 no image", b"text", image.getvalue()[:-200]):
        path.write_bytes(contents)
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            ImageFiles([Blob(str(path), 0, len(contents))]).window(0, 0, 0, 8, 8)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path, image = tmp_path / "bomb.JPEG", io.BytesIO()
    Image.new("L", (64, 64)).save(image, "JPEG")
    small = image.getvalue()
    place = small.index(b"\xff\xc0") + 5
    bomb = small[:place] + b"\xff\xff\xff\xff" + small[place + 4 :]  # 65,535 x 65,535
    path.write_bytes(bomb)
    monkeypatch.setattr("alexnet_lab.data.encoded.decode_jpeg", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"bomb\.JPEG cannot be read: .*decompression bomb"):
        ImageFiles([Blob(str(path), 0, len(bomb))]).window(0, 0, 0, 8, 8)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 99}, {"comment": b"x"}]
)
def test_the_size_of_a_jpeg_is_read_from_its_header(options):
    image = io.BytesIO()
    Image.new("RGB", (300, 200)).save(image, "JPEG", **options)
    assert jpeg_shape(image.getvalue()) == (200, 300, 3)
    assert jpeg_shape(image.getvalue()[:10]) is None
    assert jpeg_shape(b"text") is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])  # BYTE, SHORT (the standard), LONG
def test_orientation_of_any_type_is_applied_as_in_prepare(tmp_path, order, kind):
    value = {1: b"\x06\0\0\0", 3: struct.pack(f"{order}HH", 6, 0), 4: struct.pack(f"{order}I", 6)}[kind]
    entries = struct.pack(f"{order}HHHI", 1, 0x112, kind, 1) + value + bytes(4)
    exif = b"Exif\0\0" + {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8) + entries
    image, path = io.BytesIO(), tmp_path / "train.JPEG"
    Image.linear_gradient("L").convert("RGB").resize((256, 300)).save(image, "JPEG", exif=exif)
    path.write_bytes(image.getvalue())
    seen = ImageFiles([Blob(str(path), 0, path.stat().st_size)]).window(0, 0, 0, 256, 256).astype(int)
    assert np.abs(seen - to_square(image.getvalue())).max() <= 1
    assert (seen[128, 0].mean() > 200) == (kind != 1)  # the gradient's white lower end is on the left, turned


def test_real_photographs_equal_the_output_of_prepare(tmp_path):
    folder = os.environ.get("ALEXNET_LAB_IMAGES")
    if not folder:
        pytest.skip("needs real images: set ALEXNET_LAB_IMAGES to a folder with imagenet_fullsize_400.tar")
    differences = []
    with tarfile.open(Path(folder) / "imagenet_fullsize_400.tar") as archive:
        for member in islice((member for member in archive if member.isfile()), 0, 400, 10):
            path = tmp_path / Path(member.name).name
            path.write_bytes(archive.extractfile(member).read())
            image = ImageFiles([Blob(str(path), 0, member.size)]).window(0, 0, 0, 256, 256)
            differences.append(np.abs(image.astype(int) - to_square(path.read_bytes())).max())
    assert len(differences) == 40
    assert max(differences) <= 2
    assert np.mean(differences) <= 1


def test_preprocessing_of_plain_numbers_is_json(stores):
    facts = module(stores["uint8"], mean=[0.5], std=[0.25]).preprocessing.facts()
    assert json.loads(json.dumps(facts)) == facts


def test_training_and_evaluation_with_lightning(stores, tmp_path):
    from lightning.pytorch import LightningModule, Trainer

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net, self.seen = torch.nn.Linear(3 * 28 * 28, 3), []

        def training_step(self, batch):
            self.seen.append(batch.samples.tolist())
            return torch.nn.functional.cross_entropy(self.net(batch.images.flatten(1)), batch.labels)

        def test_step(self, batch):
            logits = mean_over_views(self.net(batch.images.flatten(1)), len(batch.labels))
            assert logits.shape == (len(batch.labels), 3)
            self.seen.append(batch.samples.tolist())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    nets = []
    for workers in (0, 3):
        data, net = module(stores["uint8"], workers=workers, image_size=28, std=[1.0]), Net()
        trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, enable_model_summary=False, **settings)
        trainer.fit(net, datamodule=data)
        assert net.seen == [batch.samples.tolist() for epoch in (0, 1) for batch in epoch_of(data, epoch)]
        data.evaluate_by("ten_crop")
        net.seen.clear()
        trainer.test(net, datamodule=data, verbose=False)
        assert net.seen == [[0, 1, 2, 3], [4, 5, 6]]
        nets.append(net)
    assert torch.equal(nets[0].net.weight, nets[1].net.weight)
