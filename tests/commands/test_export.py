import base64
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from alexnet_lab.commands.export import _default_out, export
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sources.given import given_images
from alexnet_lab.errors import UserError
from alexnet_lab.report import model_card
from alexnet_lab.runs import export_formats
from alexnet_lab.runs.checkpoint import read_checkpoint
from alexnet_lab.runs.export_formats import FORMS, Network

CONF = Path(__file__).parents[2] / "conf"
NETWORKS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.mark.parametrize("form", FORMS)
def test_export_agrees_with_the_checkpoint_for_any_number_of_images(composed, trained_run, tmp_path, form) -> None:
    out = (tmp_path / "network").with_suffix(FORMS[form].suffix)
    found = export(composed("export", f"checkpoint={trained_run.last}", f"format={form}", f"out={out}"))
    assert found.about == "validation images of synthetic"
    assert (found.images, found.same_top5) == (16, 16)
    assert found.difference <= 1e-4
    assert sorted(os.listdir(tmp_path)) == ["network.md"] * (form == "safetensors") + [out.name]
    net, exported = read_checkpoint(trained_run.last).network(), FORMS[form].read(out)
    for number in (1, 3, 20):
        images = torch.randn(number, 3, 28, 28, generator=torch.Generator().manual_seed(number))
        with torch.inference_mode():
            torch.testing.assert_close(exported(images), net(images), atol=1e-4, rtol=0)


def test_preprocessing_and_names_are_described_in_each_form(composed, trained_run, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    for form in FORMS:
        out = tmp_path / f"{form}{FORMS[form].suffix}"
        export(composed("export", f"checkpoint={trained_run.last}", f"format={form}", f"out={out}"))
    extra = {"preprocessing.json": ""}
    torch.export.load(tmp_path / "torch_export.pt2", extra_files=extra)
    model = onnx.load(tmp_path / "onnx.onnx")
    in_onnx = {fact.key: fact.value for fact in model.metadata_props}
    for text in (extra["preprocessing.json"], in_onnx["preprocessing"]):
        facts = json.loads(text)
        assert facts["classes"] == [f"class {number}" for number in range(10)]
        assert (facts["image_size"], facts["channels"], facts["mean"], facts["std"]) == (28, 3, [0.0], [1.0])
        assert facts["steps"][-1] == "resize to 28"
        assert facts["output"] == "logits"
    assert [(one.name, one.type.tensor_type.shape.dim[0].dim_param) for one in model.graph.input] == [
        ("images", "batch")
    ]
    assert [one.name for one in model.graph.output] == ["logits"]
    with safe_open(tmp_path / "safetensors.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["preprocessing"])["classes"] == [f"class {number}" for number in range(10)]
    assert json.loads(metadata["model"])["_target_"] == "alexnet_lab.models.lenet.lenet"
    weights = torch.load(tmp_path / "state_dict.weights.pt", weights_only=True)
    assert weights.keys() == {"state_dict", "model", "preprocessing"}
    assert weights["preprocessing"] == torch.load(trained_run.last, weights_only=True)["preprocessing"]


def test_mean_image_is_stored_as_text(trained_run) -> None:
    facts = torch.load(trained_run.last, weights_only=True)["preprocessing"]
    pixels = torch.rand(3, 5, 5)
    described = Preprocessing.of({**facts, "stored_size": 256, "crop_size": 5, "mean_image": pixels}).described()
    sent = json.loads(json.dumps(described))["mean_image"]
    received = np.frombuffer(base64.b64decode(sent["float32_base64"]), "<f4").reshape(sent["shape"])
    assert np.array_equal(received, pixels.numpy())
    assert Preprocessing.of_description(described).mean_image.equal(pixels)
    assert described["steps"][:3] == ["transparency over white", "RGB, shorter side to 256", "centre crop of 5"]


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_probabilities_are_the_softmax_of_the_logits(composed, trained_run, tmp_path, capsys, form) -> None:
    out = (tmp_path / "network").with_suffix(FORMS[form].suffix)
    options = (f"checkpoint={trained_run.last}", f"format={form}", f"out={out}", "output=probabilities")
    found = export(composed("export", *options))
    assert found.agrees
    assert found.tolerance < 1e-4  # of the largest probability
    assert "largest difference of a probability" in capsys.readouterr().out
    images = torch.randn(3, 3, 28, 28)
    with torch.inference_mode():
        expected = read_checkpoint(trained_run.last).network()(images).softmax(1)
        torch.testing.assert_close(FORMS[form].read(out)(images), expected, atol=1e-6, rtol=0)
    if form == "torch_export":
        extra = {"preprocessing.json": ""}
        torch.export.load(out, extra_files=extra)
        assert json.loads(extra["preprocessing.json"])["output"] == "probabilities"
    else:
        graph = pytest.importorskip("onnx").load(out).graph
        assert [one.name for one in graph.output] == ["probabilities"]


def test_safetensors_file_is_read_as_a_checkpoint_with_all_of_its_preprocessing(
    composed, trained_run, tmp_path
) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    whole = torch.rand(3, 256, 256)
    content["preprocessing"] |= {
        "stored_size": 256,
        "crop_size": 28,
        "transparency": "white",
        "whole_mean_image": whole,
    }
    content["preprocessing"]["mean_image"] = whole[:, 114:142, 114:142].clone()
    torch.save(content, tmp_path / "cropped.ckpt")
    out = tmp_path / "network.safetensors"
    export(composed("export", f"checkpoint={tmp_path}/cropped.ckpt", "format=safetensors", f"out={out}"))
    first, second = read_checkpoint(tmp_path / "cropped.ckpt"), read_checkpoint(out)
    one, other = first.preprocessing.facts(), second.preprocessing.facts()
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
    assert first.settings["model"] == second.settings["model"]
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())
    squares = [np.random.default_rng(0).integers(0, 256, (3, 256, 256), np.uint8)]
    assert torch.equal(first.preprocessing.inputs(squares, True), second.preprocessing.inputs(squares, True))
    with pytest.raises(UserError, match="is the checkpoint itself; name another file"):
        export(composed("export", f"checkpoint={out}", "format=safetensors"))


def test_safetensors_file_of_another_program_is_refused_in_a_line(composed, trained_run, tmp_path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"net\.safetensors: it records no configuration; only"):
        read_checkpoint(path)
    save_file({"weight": torch.zeros(3)}, path, {"model": "[1]", "preprocessing": "{}"})
    with pytest.raises(UserError, match="of another program: model and preprocessing are not JSON objects"):
        read_checkpoint(path)
    save_file({"weight": torch.zeros(3)}, path, {"model": "LeNet", "preprocessing": "{}"})
    with pytest.raises(UserError, match="its metadata is not JSON"):
        read_checkpoint(path)
    save_file({"weight": torch.zeros(3)}, path, {"model": "[" * 100_000, "preprocessing": "{}"})
    with pytest.raises(UserError, match="its metadata is not JSON"):
        read_checkpoint(path)
    export(composed("export", f"checkpoint={trained_run.last}", "format=safetensors", f"out={path}"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"net\.safetensors: the file is damaged or truncated: "):
        read_checkpoint(path)


def front_matter(card: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.read_text().split("---\n")[1])
    return content


def test_card_has_the_metrics_that_the_run_recorded_for_these_weights(composed, trained_run, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run.folder, folder)
    result = json.loads((folder / "result.json").read_text())
    for name in ("last", "best"):
        checkpoint, out = folder / "checkpoints" / f"{name}.ckpt", tmp_path / f"{name}.safetensors"
        export(composed("export", f"checkpoint={checkpoint}", "format=safetensors", f"out={out}"))
    front, text = front_matter(tmp_path / "last.md"), (tmp_path / "last.md").read_text()
    (one,) = front["model-index"]
    found = {entry["dataset"]["split"]: {m["name"]: m["value"] for m in entry["metrics"]} for entry in one["results"]}
    names = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "loss": "cross-entropy"}
    assert found == {
        split: {names[key]: result["final"][f"{split}/{key}"] for key in names} for split in ("val", "test")
    }
    assert front["license"] == "unknown"
    assert "datasets" not in front  # synthetic images
    assert "62,006 parameters" in text
    assert f"| test | 100 | {result['final']['test/top1']:.4f} |" in text
    assert "python src/train.py model=lenet data=synthetic data.train_size=128" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    # The run tested its last weights.
    results = front_matter(tmp_path / "best.md")["model-index"][0]["results"]
    assert {entry["dataset"]["split"]: entry["metrics"][0]["value"] for entry in results} == {
        "val": result["best"]["val/top1"]
    }


def test_card_of_averaged_weights_has_no_metrics_for_the_others(composed, trained_run, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run.folder, folder)
    average = {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging", "decay": 0.9}
    for name in ("last", "best"):
        checkpoint = folder / "checkpoints" / f"{name}.ckpt"
        content = torch.load(checkpoint, weights_only=True)
        content["config"]["callbacks"]["ema"], content["config"]["test_on"] = average, "best"
        torch.save(content, checkpoint)
        out = tmp_path / f"{name}.safetensors"
        export(composed("export", f"checkpoint={checkpoint}", "format=safetensors", f"out={out}"))
        assert (
            "- callback ema: `lightning.pytorch.callbacks.EMAWeightAveraging(decay=0.9)`"
            in out.with_suffix(".md").read_text()
        )
    assert "model-index" not in front_matter(tmp_path / "last.md")
    results = front_matter(tmp_path / "best.md")["model-index"][0]["results"]
    assert [entry["dataset"]["split"] for entry in results] == ["val", "test"]


def test_card_says_less_without_the_record_of_the_run_and_is_not_replaced_once_changed(
    composed, trained_run, tmp_path
) -> None:
    shutil.copy(trained_run.last, tmp_path / "last.ckpt")
    options = (f"checkpoint={tmp_path}/last.ckpt", "format=safetensors")
    export(composed("export", *options))
    card = tmp_path / "last.md"
    assert "model-index" not in front_matter(card)
    assert "## Metrics" not in card.read_text()
    assert "No metrics of these weights were recorded." in card.read_text()
    export(composed("export", *options))  # as it was written
    card.write_text(card.read_text().replace("license: unknown", "license: mit"))
    before = (tmp_path / "last.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"last\.md, which was written or changed by somebody else; move it"):
        export(composed("export", *options))
    assert front_matter(card)["license"] == "mit"
    assert (tmp_path / "last.safetensors").stat().st_mtime_ns == before
    export(
        composed(
            "export", f"checkpoint={tmp_path}/last.safetensors", "format=safetensors", f"out={tmp_path}/b.safetensors"
        )
    )
    assert "The file does not record how the network was trained." in (tmp_path / "b.md").read_text()


def test_card_leaves_out_what_the_checkpoint_does_not_record(composed, trained_run, tmp_path) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    needed, config = ("run", "channels_last", "model", "data", "trainer"), content["config"]
    damaged = {"data": {}, "scheduler": "cosine", "loss": [1], "callbacks": ["ema"], "recipe": "r", "overrides": "x=1"}
    only_optimizer = {**{key: config[key] for key in needed}, "optimizer": config["optimizer"]}
    for settings in (only_optimizer, {**config, **damaged}, {**config, "callbacks": {"ema": True}, "optimizer": None}):
        torch.save({**content, "config": settings}, tmp_path / "old.ckpt")
        export(composed("export", f"checkpoint={tmp_path}/old.ckpt", "format=safetensors"))
        assert read_checkpoint(tmp_path / "old.safetensors").network()
        card = (tmp_path / "old.md").read_text()
        if settings["optimizer"]:
            assert "- optimizer: `torch.optim.SGD(lr=" in card
            assert ("seed 0" in card, "scheduler" in card, "```sh" in card) == ("seed" in settings, False, False)
        else:
            assert "The file does not record how the network was trained." in card


def test_no_file_is_written_without_its_card(composed, trained_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model_card, "model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(
            composed("export", f"checkpoint={trained_run.last}", "format=safetensors", f"out={tmp_path}/a.safetensors")
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("checkpoint", "form", "name"),
    [
        ("best.ckpt", "state_dict", "best.weights.pt"),
        ("f.weights.pt", "torch_export", "f.pt2"),
        ("f.weights.pt", "onnx", "f.onnx"),
        ("f.weights.pt", "state_dict", "f.weights.pt"),
        ("v1.2.safetensors", "state_dict", "v1.2.weights.pt"),
        ("run.v2.pth", "safetensors", "run.v2.safetensors"),
    ],
)
def test_default_name_has_one_suffix(checkpoint: str, form: str, name: str) -> None:
    assert _default_out(Path("folder", checkpoint), FORMS[form]) == Path("folder", name)


def test_network_that_differs_keeps_the_existing_file(composed, trained_run, tmp_path, monkeypatch) -> None:
    form = FORMS["state_dict"]

    def read(path: Path) -> Network:
        net = form.read(path)
        return lambda images: net(images) + 1e-3

    monkeypatch.setitem(FORMS, "state_dict", replace(form, read=read))
    out = tmp_path / "network.pt"
    out.write_text("older")
    with pytest.raises(UserError, match="the exported network differs from the checkpoint; no file was written"):
        export(composed("export", f"checkpoint={trained_run.last}", "format=state_dict", f"out={out}"))
    assert (os.listdir(tmp_path), out.read_text()) == (["network.pt"], "older")


def test_missing_packages_are_named_with_the_remedy(composed, trained_run, monkeypatch) -> None:
    monkeypatch.setattr(export_formats.importlib.util, "find_spec", lambda name: None if "onnx" in name else "there")
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install -e '.\[export\]'"):
        export(composed("export", f"checkpoint={trained_run.last}", "format=onnx"))
    monkeypatch.setattr(export_formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs safetensors: pip install -e '.\[safetensors\]'"):
        export(composed("export", f"checkpoint={trained_run.last}", "format=safetensors"))


def test_without_the_dataset_random_inputs_are_compared_and_reported(script, trained_run, tmp_path) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    data = OmegaConf.to_container(OmegaConf.load(CONF / "data/imagenette.yaml"), resolve=False)
    references = {"image_size": 28, "crop_size": 28, "seed": 0, "channels_last": True}
    content["config"]["data"] = {**data, **references, "dir": str(tmp_path / "nowhere")}
    torch.save(content, tmp_path / "far.ckpt")
    ended = script.run(f"checkpoint={tmp_path}/far.ckpt", "format=state_dict", program=("src/export.py",))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "random, because imagenette cannot be read here" in " ".join(ended.stdout.replace("│", " ").split())
    assert (tmp_path / "far.weights.pt").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checkpoint=null", "name a checkpoint: checkpoint=PATH"),
        ("format=null", "there is no such format; choose from: onnx, torch_export, state_dict"),
        ("format=tflite", "format=tflite: there is no such format; choose from: onnx, torch_export, state_dict"),
        ("out=network.pth", "out=network.pth: the name must end in .onnx"),
        ("out=nowhere/network.onnx", "there is no folder nowhere"),
        ("out=/proc/network.onnx", "no file can be written in /proc"),
        ("output=logit", "output: 'logit' does not fit: Input should be 'logits' or 'probabilities'"),
        ("output=null", "output: None does not fit"),
        ("format=[]", r"format=\[\]: there is no such format"),
        ("checkpoint=/", "checkpoint=/: the folder has neither checkpoints/best.ckpt nor checkpoints/last.ckpt"),
        ("images=nowhere", "images=nowhere: no such file or folder, and no file matches it as a pattern"),
        ("images=README.md", "images: README.md: not an image in a format that Pillow can decode"),
    ],
)
def test_wrong_option_is_named_with_its_remedy(composed, trained_run, override, message) -> None:
    options = (f"checkpoint={trained_run.last}", "format=onnx", override)
    with pytest.raises(UserError, match=message):
        export(composed("export", *options))


@pytest.mark.parametrize("form", ["state_dict", "safetensors"])
def test_probabilities_of_a_file_with_weights_are_refused(composed, trained_run, form) -> None:
    with pytest.raises(UserError, match=f"a file of format={form} holds weights, .* choose format=onnx or torch_expo"):
        export(composed("export", f"checkpoint={trained_run.last}", f"format={form}", "output=probabilities"))


def checkpoint_of(model: str, folder: Path) -> Path:
    """A network of ten classes whose untrained weights let signals through, so that images have different logits."""
    settings = OmegaConf.load(CONF / "model" / f"{model}.yaml")
    size = settings.image_size
    settings = OmegaConf.to_container(OmegaConf.merge(settings, {"in_channels": 3, "num_classes": 10}), resolve=True)
    torch.manual_seed(0)
    net = instantiate(settings)
    gain = 8 if any(isinstance(module, nn.Sigmoid) for module in net.modules()) else 2**0.5
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=gain / module.weight[0].numel() ** 0.5)
    preprocessing = {
        "image_size": size,
        "resize": "bilinear",
        "channels": 3,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "classes": [f"class {number}" for number in range(10)],
        "stored_size": 256,
        "crop_size": max(224, size),
    }
    data = {"_target_": "alexnet_lab.data.photographs.photographs", "name": "imagenette"}
    config = {"model": settings, "data": data, "channels_last": True, "run": model, "trainer": {"precision": "32-true"}}
    content = {"config": config, "state_dict": net.state_dict(), "global_step": 0, "preprocessing": preprocessing}
    torch.save(content, folder / "untrained.ckpt")
    return folder / "untrained.ckpt"


def logits_spread(checkpoint: Path, photographs: Path) -> float:
    """The standard deviation of a logit over 16 photographs, mean over the logits."""
    restored = read_checkpoint(checkpoint)
    preprocessing = restored.preprocessing
    squares = [preprocessing.decode(image.blob.read()) for image in given_images([str(photographs)])[:16]]
    with torch.inference_mode():
        return float(restored.network()(preprocessing.inputs(squares)).std(0).mean())


@pytest.mark.system
@pytest.mark.parametrize("model", NETWORKS)
def test_onnx_of_every_network_agrees_within_1e_4_on_photographs(composed, tmp_path, model) -> None:
    photographs = Path(os.environ.get("ALEXNET_LAB_IMAGES", "nowhere"), "imagenet_fullsize_400.tar")
    if not photographs.exists():
        pytest.skip("needs real images: set ALEXNET_LAB_IMAGES to the folder of imagenet_fullsize_400.tar")
    checkpoint = checkpoint_of(model, tmp_path)
    found = export(composed("export", f"checkpoint={checkpoint}", "format=onnx", f"images={photographs}"))
    assert (found.images, found.same_top5) == (16, 16)
    assert found.difference <= 1e-4
    assert logits_spread(checkpoint, photographs) >= 0.1
    for path in tmp_path.iterdir():  # hundreds of megabytes
        path.unlink()
