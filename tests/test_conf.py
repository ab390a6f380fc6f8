"""Tests every configuration: it composes, has the keys of its target, and takes a step on small data."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab.config.build import build, build_factory, check
from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.data import fashion_mnist_files
from alexnet_lab.data.store.prepare import prepare
from alexnet_lab.runs import result_file
from alexnet_lab.runs.metric_rows import read_rows
from alexnet_lab.training import train

CONF = Path(__file__).parents[1] / "conf"
Settings = Callable[..., dict[str, Any]]

# Smaller inputs than published, if the network accepts them; its layers are unchanged.
SMALL = {"lenet": 28}
SMALL_ALEXNET = 67
IMAGENETTE = [
    "n01440764",
    "n02102040",
    "n02979186",
    "n03000684",
    "n03028079",
    "n03394916",
    "n03417042",
    "n03425413",
    "n03445777",
    "n03888257",
]
TINY = ("trainer=cpu", "debug=fast_dev_run", "data.batch_size=2", "data.eval_batch_size=2", "logger=none")


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def few_images(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST with its number of images, all blank, with cyclic labels."""
    size = {"train": 60_000, "t10k": 10_000}[part]
    blank = np.zeros((1, 28, 28), np.uint8)
    return np.broadcast_to(blank, (size, 28, 28)), (np.arange(size) % 10).astype(np.uint8)


@pytest.fixture(autouse=True)
def _no_files_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist_files, "prepare", lambda folder: None)
    monkeypatch.setattr(fashion_mnist_files, "load", lambda folder, part: few_images(part))


def run(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run in this process and return the result."""
    train(settings, folder, None, time.time())
    result = result_file.read_result(folder / "result.json")
    assert result is not None
    assert result["status"] == "finished"
    return result


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("data", ["fashion_mnist", "synthetic"])
@pytest.mark.parametrize("model", names("model"))
def test_any_model_takes_a_step_on_any_data(model: str, data: str, settings: Settings, tmp_path: Path) -> None:
    size = SMALL.get(model, SMALL_ALEXNET)
    choices = (f"model={model}", f"data={data}", f"model.image_size={size}", "checkpoints=none", "test_on=last")
    result = run(settings(*TINY, *choices), tmp_path)
    assert np.isfinite(result["final"]["train/loss"])
    assert set(result["final"]) >= {f"{split}/{name}" for split in ("val", "test") for name in ("loss", "top1", "top5")}
    assert result["parameters"] > 0
    assert result["macs"] > 0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, made of `images/{train,val}/<wnid>/*`, two of each of Imagenette's ten classes."""
    folder = tmp_path_factory.mktemp("photographs")
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for wnid in IMAGENETTE:
            place = folder / "images" / split / wnid
            place.mkdir(parents=True)
            for number in range(2):
                pixels = noise.integers(0, 256, (260, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.JPEG")
    prepare(folder / "images", folder / "store", name="imagenette", workers=1)
    return folder


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize(
    "choices",
    [
        *(("data=imagenette", f"model={model}") for model in names("model")),
        ("data=imagenet", "data.name=imagenette", "data.num_classes=10", "model=alexnet_half_v2"),
        ("data=image_folder", "data.name=imagenette", "data.num_classes=10", "model=alexnet_half_v2"),
    ],
    ids=lambda choices: "-".join(word.split("=")[1] for word in choices if word.split("=")[0] in ("data", "model")),
)
def test_any_model_takes_a_step_on_photographs(
    choices: tuple[str, ...], photographs: Path, settings: Settings, tmp_path: Path
) -> None:
    model = next(word.split("=")[1] for word in choices if word.startswith("model="))
    size = (f"model.image_size={SMALL.get(model, SMALL_ALEXNET)}", "checkpoints=none", "test_on=last")
    result = run(settings(*TINY, *choices, *size, f"data.dir={photographs / 'store'}"), tmp_path)
    assert np.isfinite(result["final"]["train/loss"])
    assert 0 <= result["final"]["test/top1"] <= result["final"]["test/top5"] <= 1


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("trainer", ["cpu", "ddp", "default"])
def test_trainer_takes_a_step_on_this_machine(trainer: str, settings: Settings, tmp_path: Path) -> None:
    choices = (f"trainer={trainer}", "model=lenet", "data=synthetic", "trainer.accelerator=cpu")
    assert run(settings(*TINY, *choices), tmp_path)["world_size"] == 1


@pytest.mark.parametrize("trainer", names("trainer"))
def test_every_trainer_has_the_keys_of_lightnings(trainer: str, settings: Settings) -> None:
    found = settings(f"trainer={trainer}")["trainer"]
    check(found, "trainer")
    assert found.keys() == settings("trainer=default")["trainer"].keys()


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("scheduler", names("scheduler"))
@pytest.mark.parametrize("optimizer", names("optimizer"))
def test_any_optimizer_follows_any_scheduler(
    optimizer: str, scheduler: str, settings: Settings, tmp_path: Path
) -> None:
    choices = (f"optimizer={optimizer}", f"scheduler={scheduler}", "model=lenet", "data=synthetic", "test_on=none")
    run(settings(*TINY, *choices, "trainer.limit_train_batches=2"), tmp_path)
    rates = [row["lr"] for row in read_rows(tmp_path / "metrics.csv") if "lr" in row]
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)


@pytest.mark.usefixtures("as_in_a_rank")
def test_max_steps_run_has_the_length_of_its_epochs(settings: Settings, tmp_path: Path) -> None:
    sizes = ("data.train_size=8", "data.batch_size=4", "trainer.max_epochs=-1", "trainer.max_steps=5")
    steps = ("scheduler=step", "scheduler.epochs=1", "optimizer.lr=0.5", "trainer.log_every_n_steps=1")
    found = settings("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "test_on=none", *sizes, *steps)
    run(found, tmp_path)
    rates = [row["lr"] for row in read_rows(tmp_path / "metrics.csv") if "lr" in row]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


@pytest.mark.parametrize("logger", names("logger"))
def test_every_logger_has_the_keys_of_its_factory(logger: str, settings: Settings) -> None:
    found = settings(f"logger={logger}")
    check_run_settings(found)
    for name, node in found["logger"].items():
        check(node, f"logger.{name}")


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("debug", ["overfit", "profile"])
def test_debug_runs_on_small_data(debug: str, settings: Settings, tmp_path: Path) -> None:
    limits = ("trainer.max_epochs=2", "trainer.log_every_n_steps=1")
    choices = ("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", f"debug={debug}", *limits)
    found = settings(*choices)
    train(found, tmp_path, None, time.time())
    assert read_rows(tmp_path / "metrics.csv")
    assert (tmp_path / "fit-profile.txt").exists() == (debug == "profile")
    assert OmegaConf.load(CONF / "debug" / f"{debug}.yaml").trainer.keys() <= found["trainer"].keys()


@pytest.mark.usefixtures("as_in_a_rank")
def test_debug_overfit_reaches_a_loss_near_zero(settings: Settings, tmp_path: Path) -> None:
    choices = ("model=lenet", "data=synthetic", "trainer=cpu", "logger=none", "callbacks.pictures=null")
    train(settings(*choices, "debug=overfit", "checkpoints=none"), tmp_path, None, time.time())
    assert read_rows(tmp_path / "metrics.csv")[-1]["train/loss"] < 0.1


CLASSES = {"finetune": ("data.num_classes=7",)}
"""Where the images decide their number."""


@pytest.mark.parametrize("experiment", names("experiment"))
def test_experiment_has_no_stray_key_and_all_its_factories_can_be_called(experiment: str, settings: Settings) -> None:
    found = settings(f"experiment={experiment}", *CLASSES.get(experiment, ()))
    check_run_settings(found)
    data = build(found["data"], "data")
    # To save memory, recipes for large images build the layers without weights.
    with torch.device("meta"):
        net = build(found["model"], "model")
    optimizer = build_factory(found["optimizer"], "optimizer", ("params",), Optimizer)(net.named_parameters())
    late = ("optimizer", "steps_per_epoch", "total_steps")
    scheduler = build_factory(found["scheduler"], "scheduler", late, LRScheduler)
    scheduler(optimizer, 10, 10 * max(1, found["trainer"]["max_epochs"]))
    check(found["trainer"], "trainer")
    for group in ("callbacks", "logger"):
        for name, node in found[group].items():
            check(node, f"{group}.{name}")
    assert found["recipe"]["name"] == experiment
    assert data.batch_size == found["data"]["batch_size"]
    assert found["data"]["num_classes"] == found["model"]["num_classes"]


# Overrides that make a recipe small enough for two images and one processor.
SMALL_DATA = {
    "imagenet": ("data.name=imagenette", "data.num_classes=10"),
    "image_folder": ("data.name=imagenette", "init=null"),
    "imagenette": (),
    "fashion_mnist": (),
}


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("experiment", names("experiment"))
def test_experiment_takes_a_step_on_small_data(
    experiment: str, photographs: Path, settings: Settings, tmp_path: Path
) -> None:
    full = settings(f"experiment={experiment}")
    data = full["data"]["name"]
    model = full["model"]["_target_"].rpartition(".")[2]
    place = () if data == "fashion_mnist" else (f"data.dir={photographs / 'store'}",)
    small = (f"model.image_size={SMALL.get(model, SMALL_ALEXNET)}", *SMALL_DATA[data], *place, "checkpoints=none")
    result = run(settings(*TINY, f"experiment={experiment}", *small), tmp_path)
    assert np.isfinite(result["final"]["train/loss"])
    assert 0 <= result["final"]["test/top1"] <= result["final"]["test/top5"] <= 1


@pytest.mark.usefixtures("as_in_a_rank")
@pytest.mark.parametrize("data", [name for name in names("data") if name != "imagenet"])  # see the test above
def test_recipe_of_the_article_takes_a_step_on_any_data(
    data: str, photographs: Path, settings: Settings, tmp_path: Path
) -> None:
    of_photographs = ("data.name=imagenette", "data.num_classes=10", f"data.dir={photographs / 'store'}")
    place = () if data in ("fashion_mnist", "synthetic") else of_photographs
    small = (f"model.image_size={SMALL_ALEXNET}", "checkpoints=none", *place)
    found = settings(*TINY, "experiment=article_ungrouped", f"data={data}", *small)
    article = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}
    assert {key: found["optimizer"][key] for key in article} == article
    assert np.isfinite(run(found, tmp_path)["final"]["train/loss"])


def test_recipe_of_the_article_has_its_numbers(settings: Settings) -> None:
    found = settings("experiment=article_ungrouped")
    assert found["model"]["_target_"].endswith(".alexnet_ungrouped")
    assert found["optimizer"]["_target_"] == "torch.optim.SGD"
    assert found["scheduler"]["_target_"].endswith(".constant")
    # Ten epochs, the accuracy after each.
    assert (found["trainer"]["max_epochs"], found["trainer"]["check_val_every_n_epoch"]) == (10, 1)


def test_the_2012_recipe_has_the_numbers_of_the_paper(settings: Settings) -> None:
    found = settings("experiment=krizhevsky_2012")
    stated = {
        "model": {"image_size": 224, "dropout": 0.5, "norm": "lrn", "lrn_size": 5, "lrn_k": 2.0, "towers": 2},
        "data": {"batch_size": 128, "crop": "random", "crop_size": 224, "flip": 0.5, "colour_std": 0.1, "val_size": 0},
        "optimizer": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005, "convention": "paper"},
        "scheduler": {"factor": 0.1, "drops": 3},
    }
    assert {group: {key: found[group][key] for key in keys} for group, keys in stated.items()} == stated
    # From the source: not specified in the paper.
    assert (found["data"]["mean"], found["data"]["colour"]) == ("image_centre", "source")
    assert found["data"]["colour_until_epoch"] == 67
    assert found["model"]["lrn_alpha"] == 1e-4


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        (
            "krizhevsky_2012",
            {
                "data.batch_size",
                "data.colour_until_epoch",
                "optimizer.lr",
                "scheduler.patience",
                "scheduler.min_delta",
                "trainer.precision",
            },
        ),
        ("caffenet_2014", {"data.batch_size", "optimizer.lr", "scheduler.epochs"}),
        ("one_weird_trick_2014", {"data.batch_size", "scheduler.epochs"}),
        ("ungrouped", {"data.batch_size", "scheduler.epochs"}),
    ],
)
def test_imagenette_recipe_differs_only_where_fewer_images_and_classes_require_it(
    experiment: str, changed: set[str], settings: Settings
) -> None:
    large, small = settings(f"experiment={experiment}"), settings(f"experiment={experiment}_imagenette")
    differing = {
        f"{group}.{key}"
        for group in ("model", "data", "optimizer", "scheduler", "trainer")
        for key in large[group].keys() | small[group].keys()
        if large[group].get(key) != small[group].get(key)
    }
    of_the_data = {"data.name", "data.dir", "data.num_classes", "model.num_classes"}
    assert differing == changed | of_the_data | {"trainer.max_epochs"}


def jobs(sweep: str) -> dict[str, list[str]]:
    found = OmegaConf.to_container(OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml").hydra.sweeper.jobs)
    assert isinstance(found, dict)
    return {str(name): list(overrides) for name, overrides in found.items()}


def test_ablations_match_the_paper_and_each_changes_only_its_part(settings: Settings) -> None:
    experiment = "experiment=imagenette_equal"
    whole = settings(experiment)

    def changed(overrides: list[str]) -> dict[str, Any]:
        found = settings(experiment, *overrides)
        check_run_settings(found)
        for group in ("model", "data"):
            check(found[group], group)
        return {
            f"{group}.{key}": value
            for group in ("model", "data", "optimizer", "scheduler", "trainer")
            for key, value in found[group].items()
            if value != whole[group][key]
        }

    assert {name: changed(overrides) for name, overrides in jobs("ablations_2012").items()} == {
        "baseline": {},
        "no_lrn": {"model.norm": "none"},
        "non_overlapping_pools": {"model.overlapping_pooling": False},
        "one_tower": {"model.towers": 1},
        "tanh": {"model.activation": "tanh"},
        "no_colour_noise": {"data.colour": "off"},
        "no_dropout": {"model.dropout": 0.0},
        "no_augmentation": {"data.crop": "centre", "data.flip": 0.0, "data.colour": "off"},
    }
    assert whole["model"]["_target_"].endswith(".alexnet_original")


def test_published_ablations_are_jobs_of_the_sweep(settings: Settings) -> None:
    published = settings("experiment=krizhevsky_2012")["recipe"]["ablations"]
    assert published.keys() <= jobs("ablations_2012").keys()
    assert published["no_lrn"]["published"] == {"top1": -0.0137, "top5": -0.0115}


@pytest.mark.parametrize("experiment", names("experiment"))
def test_experiment_reads_like_a_methods_section(experiment: str) -> None:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    for word in ("Source:", "Command:", "Hardware:", "Time:", "Published:", "Measured:"):
        assert f"# {word}" in text


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_begins_with_a_description(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("data", names("data"))
def test_model_follows_classes_and_channels_of_the_data(data: str, settings: Settings) -> None:
    found = settings("model=alexnet_d2l", f"data={data}")
    assert found["model"]["num_classes"] == found["data"]["num_classes"]
    assert found["model"]["in_channels"] == found["data"]["channels"]
    assert found["data"]["image_size"] == found["model"]["image_size"] == 224
