import io
import json
import os
import signal
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch.nn.functional import interpolate

from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.data.store.prepare import prepare as prepare_store
from alexnet_lab.data.store.reading import open_store
from alexnet_lab.errors import UserError
from alexnet_lab.rows import read_rows
from alexnet_lab.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
MEAN, STD = [0.5, 0.4, 0.6], [0.25, 0.3, 0.2]


@pytest.fixture
def changed(trained_run, tmp_path):
    """The checkpoint with parts of its recorded configuration replaced."""

    def write(**parts) -> Path:
        content = torch.load(trained_run.last, weights_only=True)
        for name, part in parts.items():
            content["config"][name] = {**content["config"][name], **part}
        torch.save(content, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def test_script_reproduces_the_metrics_of_the_run_exactly(script, trained_run, tmp_path) -> None:
    before = sorted(os.listdir(ROOT))
    out = tmp_path / "figures.json"
    ended = script.run(f"checkpoint={trained_run.last}", f"out={out}", program=("src/evaluate.py",))
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(out.read_text())
    names = ("test/loss", "test/top1", "test/top5")
    assert {name: figures[name] for name in names} == {name: trained_run.result["final"][name] for name in names}
    assert figures["images"] == 100
    assert f"{figures['test/top1']:.4f}" in ended.stdout
    assert ended.stderr == ""
    assert sorted(os.listdir(ROOT)) == before


def test_val_split_reproduces_the_metrics_of_the_best_epoch(composed, trained_run) -> None:
    config = composed("evaluate", f"checkpoint={trained_run.best}", "split=val", "trainer=cpu")
    figures = evaluate(config)
    assert figures.keys() == {"val/loss", "val/top1", "val/top5"}
    assert figures["val/top1"] == trained_run.result["best"]["val/top1"]


@pytest.mark.parametrize(
    ("options", "overrides", "shown"),
    [
        ((), ["seed=1", "trainer=cpu"], "published: 0.803 +- 0.016"),
        ((), ["trainer.max_epochs=2"], "published: 0.803 +- 0.016, not comparable with trainer.max_epochs=2"),
        (("split=val",), [], None),
    ],
)
def test_published_metric_of_the_same_views_is_shown_next_to_the_measured_one(
    options, overrides, shown, composed, trained_run, tmp_path, capsys
) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    published = {"test/top1": {"value": 0.803, "deviation": 0.016}, "ten_crop/top5": {"value": 0.9}}
    content["config"] |= {"recipe": {"name": "d2l", "source": "d2l", "published": published}, "overrides": overrides}
    torch.save(content, tmp_path / "of_a_recipe.ckpt")
    evaluate(composed("evaluate", f"checkpoint={tmp_path / 'of_a_recipe.ckpt'}", "trainer=cpu", *options))
    table = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (f"  {shown} test/top5".strip() in table) if shown else ("published:" not in table)


def test_recorded_data_settings_can_be_changed_for_this_machine(composed, trained_run) -> None:
    checkpoint = f"checkpoint={trained_run.last}"
    whole = evaluate(composed("evaluate", checkpoint, "data.eval_batch_size=100", "trainer=cpu"))
    assert whole["test/top1"] == trained_run.result["final"]["test/top1"]
    with pytest.raises(UserError, match=r"data.dir: .* has no such option"):
        evaluate(composed("evaluate", checkpoint, "data.dir=elsewhere"))


def test_recorded_precision_is_the_default(composed, changed) -> None:
    checkpoint = f"checkpoint={changed(trainer={'precision': 'bf16-true'})}"
    coarse = evaluate(composed("evaluate", checkpoint, "trainer=cpu"))
    fine = evaluate(composed("evaluate", checkpoint, "trainer=cpu", "trainer.precision=32-true"))
    assert coarse["test/loss"] != fine["test/loss"]
    assert coarse["test/loss"] == pytest.approx(fine["test/loss"], rel=0.02)


def test_signals_keep_their_handlers_so_a_killed_evaluation_does_not_end_with_status_0(
    composed, trained_run, monkeypatch
) -> None:
    seen, test_step = [], ImageClassifier.test_step

    def watched(self, batch, batch_idx):
        seen.append(signal.getsignal(signal.SIGTERM))
        return test_step(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "test_step", watched)
    evaluate(composed("evaluate", f"checkpoint={trained_run.best}", "trainer=cpu"))
    assert set(seen) == {signal.getsignal(signal.SIGTERM)}


@pytest.fixture
def other_network(trained_run, tmp_path) -> Path:
    """The checkpoint with other weights."""
    content = torch.load(trained_run.last, weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for tensor in content["state_dict"].values():
        tensor.add_(torch.randn(tensor.shape, generator=generator) * tensor.std())
    torch.save(content, tmp_path / "other.ckpt")
    return tmp_path / "other.ckpt"


def test_several_checkpoints_are_averaged_as_probabilities(
    composed, trained_run, other_network, tmp_path, capsys
) -> None:
    paths, out = [trained_run.last, other_network, other_network], tmp_path / "figures.json"
    restored = [read_checkpoint(path) for path in paths]
    data = restored[0].data({})
    batches = [(data.on_after_batch_transfer(batch, 0).images, batch.labels) for batch in data.test_dataloader()]
    labels = torch.cat([labels for _, labels in batches])
    with torch.no_grad():
        nets = [one.network() for one in restored]
        outputs = [torch.cat([net(images) for images, _ in batches]).double().softmax(1) for net in nets]
    mean = sum(outputs) / 3
    ranks = (mean > mean[range(100), labels][:, None]).sum(1)
    given = f"checkpoint=[{','.join(map(str, paths))}]"
    figures = evaluate(composed("evaluate", given, f"out={out}", "trainer=cpu"))
    assert figures["test/top1"] == pytest.approx((ranks == 0).sum().item() / 100, abs=1e-9)
    assert figures["test/top5"] == pytest.approx((ranks < 5).sum().item() / 100, abs=1e-9)
    assert figures["test/loss"] == pytest.approx(float(-mean[range(100), labels].log().mean()), rel=1e-5)
    written = json.loads(out.read_text())
    assert written["checkpoint"] == [str(path) for path in paths]
    assert [network["top1"] for network in written["networks"]] == [
        pytest.approx((output.argmax(1) == labels).double().mean().item(), abs=1e-9) for output in outputs
    ]
    assert (written["data"], written["whole_split"], written["images"]) == ("synthetic", True, 100)
    assert "average of 3 networks" in capsys.readouterr().out


def test_average_of_a_checkpoint_with_itself_equals_its_own_metrics(composed, trained_run) -> None:
    figures = evaluate(composed("evaluate", f"checkpoint=[{trained_run.last},{trained_run.last}]", "trainer=cpu"))
    assert figures["test/top1"] == trained_run.result["final"]["test/top1"]
    assert figures["test/loss"] == pytest.approx(trained_run.result["final"]["test/loss"], rel=1e-6)


def test_checkpoints_evaluated_on_different_images_are_not_averaged(composed, trained_run, changed) -> None:
    other = changed(data={"seed": 9, "test_size": 60})
    with pytest.raises(
        UserError, match="were evaluated on different images of synthetic; averaging requires the same images"
    ):
        evaluate(composed("evaluate", f"checkpoint=[{trained_run.last},{other}]", "trainer=cpu"))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("nowhere.ckpt", r"checkpoint=nowhere\.ckpt: there is no such file"),
        (None, r"is from synthetic, .* from other; averaging requires the same images"),
    ],
)
def test_all_checkpoints_are_checked_before_any_is_evaluated(
    composed, trained_run, changed, monkeypatch, second, message
) -> None:
    monkeypatch.setattr("alexnet_lab.evaluation._measure", lambda *_: pytest.fail("was measured"))
    second = second or changed(data={"name": "other"})
    with pytest.raises(UserError, match=message):
        evaluate(composed("evaluate", f"checkpoint=[{trained_run.last},{second}]", "trainer=cpu"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol=five_crop", "protocol=five_crop: there is no such protocol; choose from: center, ten_crop"),
        ("protocol=ten_crop", "protocol=ten_crop: synthetic is not cropped; choose protocol=center"),
        ("split=train", "split=train: there is no such split; choose from: test, val"),
        ("checkpoint=null", "name a checkpoint: checkpoint=PATH"),
        ("checkpoint=nowhere.ckpt", "checkpoint=nowhere.ckpt: there is no such file"),
        ("checkpoint=conf", "the folder has neither checkpoints/best.ckpt nor checkpoints/last.ckpt"),
        ("out=nowhere/figures.json", "there is no folder nowhere"),
        ("out=conf", "out=conf is a folder; name a file in it"),
        ("out=/proc/figures.json", "no file can be written in /proc"),
        ("out=figures", "out=figures: the name must end in .json"),
        ("trainer=[]", "choose a trainer"),
        ("trainer.precision=0", "trainer.precision: 0 does not fit"),
        ("trainer.limit_test_batches=0.0001", "trainer: You requested to check 0.0001 of the `test_dataloader`"),
        ("trainer=two_towers_cpu", "TwoTowers: evaluation on 2 devices needs the whole network on each of them"),
        ("rows=README.md", "rows=README.md: README.md is a file; rows takes a folder"),
        ("rows=/proc/rows", "rows=/proc/rows: no file can be written in /proc"),
        ("trainer.limit_test_batches=0", "trainer.limit_test_batches=0 leaves no image to evaluate"),
    ],
)
def test_wrong_option_is_named_with_its_remedy(composed, trained_run, override, message) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(composed("evaluate", f"checkpoint={trained_run.last}", override))


@pytest.fixture(scope="module", params=["uint8", "jpeg"])
def store(request, tmp_path_factory) -> Path:
    """13 photographs of ten classes for training and 13 for evaluation, including a small and a grey one."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("stores") / "photographs"
    random = np.random.default_rng(3)
    for split in ("train", "val"):
        for place in range(13):
            path = source / split / f"class{place % 10}" / f"{place:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
            picture = coarse.resize([(300, 280), (256, 256), (90, 120)][place % 3], Image.Resampling.BICUBIC)
            (picture.convert("L") if place == 4 else picture).save(path)
    prepare_store(source, folder, name="image_folder", format=request.param, workers=1)
    return folder


@pytest.fixture
def measured_on(trained_run, composed, store, tmp_path):
    """The checkpoint, LeNet for 28 x 28 pixels, as if it had been trained on the photographs of the store."""

    def write(**changes) -> Path:
        config = composed("prepare", "data=image_folder", "model=lenet", "data.num_classes=10", "data.crop_size=28")
        settings = OmegaConf.to_container(config.data, resolve=True)
        content = torch.load(trained_run.last, weights_only=True)
        content["config"]["data"] = {**settings, "dir": str(store), **changes}
        content["preprocessing"]["classes"] = [f"class{number}" for number in range(10)]
        torch.save(content, tmp_path / "photographs.ckpt")
        return tmp_path / "photographs.ckpt"

    return write


def ten_crops_one_by_one(net: torch.nn.Module, image: np.ndarray, crop: int, size: int) -> np.ndarray:
    """[K], the mean of ten softmax outputs for uint8 [256, 256, 3]: PIL crops, NumPy normalises."""
    whole, room = Image.fromarray(image), 256 - crop
    total = np.zeros(10)
    for left, top in [(0, 0), (room, 0), (0, room), (room, room), (room // 2, room // 2)]:
        window = whole.crop((left, top, left + crop, top + crop))
        for view in (window, window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
            pixels = (np.asarray(view, np.float32) / 255 - MEAN) / STD
            tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
            if crop != size:
                tensor = interpolate(tensor, (size, size), mode="bilinear", antialias=True)
            with torch.no_grad():
                logits = net(tensor)[0].double().numpy()
            weights = np.exp(logits - logits.max())
            total += weights / weights.sum()
    return total / 10


@pytest.mark.parametrize("crop", [28, 224])
def test_ten_crop_metrics_are_those_of_the_mean_probabilities(composed, measured_on, store, crop, tmp_path) -> None:
    path = measured_on(mean=MEAN, std=STD, crop_size=crop)
    opened = open_store(store)
    labels = opened.labels("val")
    if opened.meta.format == "jpeg":
        images = [np.asarray(Image.open(io.BytesIO(opened.jpegs("val")[row].tobytes()))) for row in range(13)]
    else:
        images = list(opened.images("val"))
    net = read_checkpoint(path).network()
    probabilities = np.stack([ten_crops_one_by_one(net, image, crop, 28) for image in images])
    ranks = (probabilities > probabilities[range(13), labels][:, None]).sum(1)
    options = (f"checkpoint={path}", "protocol=ten_crop", "trainer=cpu", f"rows={tmp_path}/rows")
    figures = evaluate(composed("evaluate", *options))
    rows = read_rows(tmp_path / "rows/rows.csv")
    np.testing.assert_allclose(rows.probabilities, -np.sort(-probabilities)[:, :5], rtol=1e-3)
    assert figures["test/top1"] == rows.top1.mean() == (ranks == 0).mean()
    assert figures["test/top5"] == (ranks < 5).mean()
    assert figures["test/loss"] == pytest.approx(-np.log(probabilities[range(13), labels]).mean(), abs=1e-4)
    center = evaluate(composed("evaluate", f"checkpoint={path}", "trainer=cpu"))
    assert center["test/loss"] != figures["test/loss"]


def test_ten_crop_counts_every_image_once_for_any_batch_size(composed, measured_on, tmp_path) -> None:
    checkpoint, out = f"checkpoint={measured_on()}", tmp_path / "figures.json"
    losses = []
    for size in ("null", "1", "5", "13"):
        options = (checkpoint, f"out={out}", "protocol=ten_crop", f"data.eval_batch_size={size}", "trainer=cpu")
        losses.append(evaluate(composed("evaluate", *options))["test/loss"])
        figures = json.loads(out.read_text())
        assert (figures["images"], figures["protocol"]) == (13, "ten_crop")
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_center_protocol_on_photographs_equals_lightnings_test_bit_for_bit(composed, measured_on) -> None:
    path = measured_on()
    restored = read_checkpoint(path)
    classifier = ImageClassifier(restored.network(), None, None, seed=0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(devices=1, enable_model_summary=False, **quiet)
    trainer.test(classifier, restored.data({}), verbose=False)
    expected = classifier.eval_metrics.compute()
    figures = evaluate(composed("evaluate", f"checkpoint={path}", "protocol=center", "trainer=cpu"))
    assert figures == {f"test/{name}": expected[name] for name in ("loss", "top1", "top5")}


def test_ten_crop_of_whole_images_is_refused(composed, measured_on) -> None:
    with pytest.raises(UserError, match="image_folder stores only 256 x 256 pixels of each image"):
        evaluate(composed("evaluate", f"checkpoint={measured_on(crop_size=256)}", "protocol=ten_crop", "trainer=cpu"))


@pytest.mark.parametrize(
    "target",
    [
        "subprocess.run",
        "alexnet_lab.data.fashion_mnist_files.subprocess.run",
        "alexnet_lab.data.fashion_mnist_files._run_while_data_comes",
        "alexnet_lab.launch.ranks.run_ranks",
        "alexnet_lab.data.synthetic.nothing",
    ],
)
def test_checkpoint_that_names_anything_but_our_factories_is_refused(changed, tmp_path, target) -> None:
    mark = tmp_path / "ran"
    node = {"_target_": target, "_args_": [["touch", str(mark)]]}
    for part in ({"data": node}, {"data": {"mean": [node]}}, {"model": node}):
        with pytest.raises(UserError, match=target):
            read_checkpoint(changed(**part))
    assert not mark.exists()


def test_network_that_does_not_fit_its_preprocessing_is_refused(changed) -> None:
    path = changed(model={"num_classes": 7})
    with pytest.raises(UserError, match="the checkpoint's network does not fit its preprocessing"):
        read_checkpoint(path).network()


def test_restored_network_has_the_saved_weights_and_downloads_nothing(trained_run, changed) -> None:
    state = torch.load(trained_run.last, weights_only=True)["state_dict"]
    net = read_checkpoint(trained_run.last).network()
    assert not net.training
    assert net.state_dict().keys() == state.keys()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    torchvision = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/alexnet_torchvision.yaml"))
    restored = read_checkpoint(changed(model={**torchvision, "in_channels": 3, "num_classes": 10, "pretrained": True}))
    with pytest.raises(UserError, match="does not fit its preprocessing"):
        restored.network()


def test_name_of_a_run_from_a_file_is_shown_as_plain_text(composed, trained_run, tmp_path, capsys) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    content["config"]["run"] = "a[/b]\x1b[2J"
    torch.save(content, tmp_path / "x.ckpt")
    evaluate(composed("evaluate", f"checkpoint={tmp_path}/x.ckpt", "trainer=cpu"))
    assert "checkpoint of run a[/b]\\x1b[2J" in capsys.readouterr().out


def test_data_that_the_checkpoint_does_not_record_is_named_in_a_line(composed, trained_run, tmp_path) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    data, old = content["config"]["data"], tmp_path / "old.ckpt"
    unnamed = {key: value for key, value in data.items() if key not in ("name", "eval_batch_size")}
    for recorded, line in (({}, "^the file does not record its dataset"), (unnamed, r"^data\.name is missing$")):
        torch.save({**content, "config": {**content["config"], "data": recorded}}, old)
        for protocol in ("center", "ten_crop"):
            with pytest.raises(UserError, match=line):
                evaluate(composed("evaluate", f"checkpoint={old}", "trainer=cpu", f"protocol={protocol}"))
