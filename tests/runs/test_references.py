"""What `checkpoint=` may name besides a run's checkpoint: its folder, an exported file, torchvision's state dict."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from alexnet_lab import places
from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.export import export
from alexnet_lab.data.imagenet_classes import imagenet_classes
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.published.torchvision_weights import PREPROCESSING
from alexnet_lab.runs.checkpoint import read_checkpoint
from alexnet_lab.runs.initial_weights import read_source

pytestmark = pytest.mark.usefixtures("small_files")


def small_file(path: Path, classes: int = 1000, **options: Any) -> Path:
    """A state dict of torchvision's network in a small file: all numbers of a tensor are the same one."""
    torch.save(state_of(classes), path, **options)
    return path


def state_of(classes: int = 1000) -> dict[str, Tensor]:
    with torch.device("meta"):
        own = alexnet_torchvision(num_classes=classes).state_dict()
    return {name: torch.tensor(number / 100).expand(tensor.shape) for number, (name, tensor) in enumerate(own.items())}


def test_folder_of_a_run_means_its_best_checkpoint_or_its_last(trained_run: Any, tmp_path: Path) -> None:
    found = read_checkpoint(trained_run.folder)
    assert (found.file, found.step) == (trained_run.best, read_checkpoint(trained_run.best).step)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"neither checkpoints/best\.ckpt nor checkpoints/last\.ckpt; name the folder"):
        read_checkpoint(tmp_path)
    shutil.copy(trained_run.last, tmp_path / "checkpoints")
    assert read_checkpoint(tmp_path).file == tmp_path / "checkpoints/last.ckpt"
    assert read_checkpoint(tmp_path / "checkpoints").file == tmp_path / "checkpoints/last.ckpt"


def test_exported_file_is_the_same_network_with_the_same_preprocessing(
    trained_run: Any, composed: Any, tmp_path: Path
) -> None:
    path = tmp_path / "net.weights.pt"
    export(composed("export", f"checkpoint={trained_run.last}", "format=state_dict", f"out={path}"))
    found, run = read_checkpoint(path), read_checkpoint(trained_run.last)
    images = torch.rand(2, 3, 28, 28)
    assert torch.equal(found.network()(images), run.network()(images))
    assert found.preprocessing == run.preprocessing
    assert found.settings["model"] == run.settings["model"]
    with pytest.raises(UserError, match="the file does not record its dataset; evaluate the checkpoint of the run"):
        evaluate(composed("evaluate", f"checkpoint={path}"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": 3}, "not a file of AlexNet Lab's export: model is not a dictionary"),
        ({"model": {"_target_": "os.mkdir"}}, "model: a checkpoint may not name os.mkdir"),
        ({"preprocessing": {"x": 1}}, "preprocessing is not supported: image_size: Field required"),
        (
            {"preprocessing": PREPROCESSING | {"classes": [], 7: 1}},
            "preprocessing is not supported: 7: Keys should be strings",
        ),
        ({"state_dict": {"a": 1}}, "not an AlexNet Lab checkpoint; state_dict.a: Input should be"),
        ({"state_dict": {}}, "the checkpoint's weights do not fit its network: "),
    ],
)
def test_wrong_content_of_an_exported_file_is_named(
    trained_run: Any, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    run = read_checkpoint(trained_run.last)
    facts = {"model": run.settings["model"], "preprocessing": run.needed_preprocessing().facts()}
    torch.save({"state_dict": run.weights, **facts, **changes}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=reason):
        read_checkpoint(tmp_path / "x.pt").network()


@pytest.mark.parametrize("is_zip", [True, False], ids=["new format", "old format of torch.save"])
def test_state_dict_of_torchvision_is_its_network_with_its_preprocessing_and_class_names(
    is_zip: bool, tmp_path: Path
) -> None:
    from torchvision.models import AlexNet_Weights

    found = read_checkpoint(small_file(tmp_path / "alexnet.pth", _use_new_zipfile_serialization=is_zip))
    weights = AlexNet_Weights.IMAGENET1K_V1
    facts, theirs = found.needed_preprocessing(), weights.transforms()
    assert facts.classes == weights.meta["categories"]
    assert (facts.mean, facts.std) == (theirs.mean, theirs.std)
    assert ([facts.stored_size], [facts.crop_size], facts.image_size) == (theirs.resize_size, theirs.crop_size, 224)
    assert {name: tensor.flatten()[0] for name, tensor in found.network().state_dict().items()} == {
        name: tensor.flatten()[0] for name, tensor in state_of().items()
    }
    assert found.settings["run"] == "alexnet.pth"


def test_preprocessing_of_torchvision_is_that_of_its_weights() -> None:
    from torchvision.models import AlexNet_Weights

    theirs = AlexNet_Weights.IMAGENET1K_V1.transforms()
    assert (PREPROCESSING["mean"], PREPROCESSING["std"]) == (theirs.mean, theirs.std)
    assert str(theirs.interpolation) == "InterpolationMode.BILINEAR"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(500, 375), (301, 299), (37, 900), (2, 3), (256, 256)])
def test_input_is_bit_for_bit_that_of_torchvisions_transforms(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    from torchvision.models import AlexNet_Weights

    classes = [known.name for known in imagenet_classes()]
    facts = Preprocessing.of({**PREPROCESSING, "classes": classes})
    random = np.random.default_rng(size[0])
    noise = Image.fromarray(random.integers(0, 256, (8, 8, 4), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    path = tmp_path / ("x.jpg" if mode in ("L", "CMYK") else "x.png")
    (noise if mode == "RGBA" else noise.convert("RGB").convert(mode)).save(path)
    theirs = AlexNet_Weights.IMAGENET1K_V1.transforms()(Image.open(path).convert("RGB"))
    assert torch.equal(facts.inputs([facts.decode(path.read_bytes())])[0], theirs)


def test_other_number_of_classes_is_read_and_the_classes_are_numbered(tmp_path: Path) -> None:
    found = read_checkpoint(small_file(tmp_path / "mine.pth", classes=3))
    assert found.needed_preprocessing().classes == ["class 0", "class 1", "class 2"]
    assert found.network()(torch.zeros(1, 3, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize("prefix", ["module.", "", "model.net."])
def test_file_of_a_training_script_is_read(prefix: str, tmp_path: Path) -> None:
    inner = "features." if "net" in prefix else "features.module."
    state = {prefix + name.replace("features.", inner): tensor for name, tensor in state_of(2).items()}
    torch.save({"epoch": 3, "arch": "alexnet", "state_dict": state, "optimizer": {}}, tmp_path / "checkpoint.pth.tar")
    found = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert list(found.weights) == list(state_of(2))


def reference_script(model: dict[str, Tensor]) -> dict[str, Any]:
    """What references/classification/train.py of torchvision saves after an epoch, with a warmup of its schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.01, momentum=0.9)
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=85)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[5])
    args = argparse.Namespace(
        data_path="/images",
        model="alexnet",
        device="cuda",
        batch_size=32,
        lr=0.01,
        gpu=0,
        norm_weight_decay=None,
        amp=False,
        output_dir=".",
        weights=None,
        distributed=True,
    )
    states = {"model": model, "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict()}
    return {**states, "epoch": 3, "args": args, "model_ema": {"n_averaged": torch.tensor(4)}}


def test_file_of_torchvisions_training_script_is_read(tmp_path: Path) -> None:
    torch.save(reference_script(state_of(2)), tmp_path / "model_3.pth")
    found = read_checkpoint(tmp_path / "model_3.pth")
    assert list(found.weights) == list(state_of(2))
    assert found.settings["run"] == "model_3.pth"
    torch.save(reference_script({"module.fc.weight": torch.ones(2)}), tmp_path / "other.pth")
    source = read_source(str(tmp_path / "other.pth"))
    assert {name: tensor.tolist() for name, tensor in source.weights.items()} == {"fc.weight": [1, 1]}


def test_state_dict_of_another_shape_is_refused(tmp_path: Path) -> None:
    state = state_of(2) | {"features.0.weight": torch.zeros(64, 1, 11, 11)}
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(UserError, match="it records no configuration; only checkpoints of AlexNet Lab's runs"):
        read_checkpoint(tmp_path / "grey.pth")


def test_only_names_that_torchvision_publishes_are_checked_for_their_hash(tmp_path: Path) -> None:
    for name in ("alexnet-20240131.pth", "my-alexnet-owt-7be5be79.pth", "alexnet-owt-7be5be79.pth.bak"):
        assert read_checkpoint(small_file(tmp_path / name)).settings["run"] == name


def test_file_with_a_published_name_is_checked(tmp_path: Path) -> None:
    path = small_file(tmp_path / "alexnet-owt-7be5be79.pth")
    with pytest.raises(
        UserError, match=r"damaged or has the wrong name: its SHA-256 begins with \w{8}, not with"
    ) as caught:
        read_checkpoint(path)
    assert "download torchvision's again, or give this one another name" in str(caught.value)
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"), [("torchvison", "torchvision"), ("Torchvision", "torchvision"), ("wandbb:a/b/c:best", "wandb")]
)
def test_misspelt_name_is_corrected(name: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"/{name}: there is no such file, did you mean {meant}[?]"):
        read_checkpoint(tmp_path / name)


def test_name_of_a_run_that_is_nearly_right_is_suggested_for_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs/train/runs/ten_classes").mkdir(parents=True)
    monkeypatch.setenv(places.HOME, str(tmp_path))
    with pytest.raises(UserError, match=r"/ten_clases: there is no such file, did you mean ten_classes\?"):
        read_source("/here/ten_clases")
    with pytest.raises(UserError, match="there is no such file; name one such as logs/train/runs"):
        read_checkpoint("/here/ten_clases")  # `checkpoint=` takes no names of runs


def test_address_is_not_a_file() -> None:
    with pytest.raises(UserError, match=r"^init=https://x/a\.pth: there is no such file; download it first, and name"):
        read_checkpoint("https://x/a.pth", option="init")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/mine\.ckpt: there is no such file; name one such as logs/train/runs/NAME/"):
        read_checkpoint(tmp_path / "mine.ckpt")


def test_name_of_a_run_is_completed_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_LAB_HOME", str(tmp_path))
    (tmp_path / "logs/train/runs/mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^against=mine: there is no such file, did you mean logs/train/runs/mine\?$"):
        read_checkpoint("mine", option="against")


def test_folder_without_a_network_is_refused_with_what_the_option_takes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^against=.*; name the folder of a run, or one that rows= has written$"):
        read_checkpoint(tmp_path, option="against")
    with pytest.raises(UserError, match=r"^init=.*; name the folder of a run$"):
        read_checkpoint(tmp_path, option="init")
