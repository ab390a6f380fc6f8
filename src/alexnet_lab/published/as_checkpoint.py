"""The content of a checkpoint for a network whose file does not record the configuration of a run."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from alexnet_lab import places
from alexnet_lab.data.imagenet_classes import imagenet_classes
from alexnet_lab.data.preprocessing import Preprocessing

UNKNOWN_DATA = "an unknown dataset"
"""`data.name` where neither the file nor its preprocessing says what the network was trained on."""
DERIVED = "derived"
"""Key of the content: the data settings come from the preprocessing, so the data module takes its pipeline from it."""


def as_checkpoint(
    run: str, model: Mapping[str, Any], preprocessing: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What a run named `run` would have saved; evaluates photographs in `data.dir` as described by `preprocessing`.

    model: the resolved settings of the network. preprocessing: facts as in a checkpoint; a network of small images has
    no `crop_size`, and then its dataset is unknown.
    """
    facts = Preprocessing.of(preprocessing)
    settings = {
        "run": run,
        "channels_last": True,
        "model": {**model},
        "data": _photographs(facts) if facts.crop_size else {"name": UNKNOWN_DATA, "eval_batch_size": 256},
        "trainer": {"precision": "32-true"},
        "matmul_precision": "highest",
    }
    content = {"config": settings, "state_dict": {**weights}, "global_step": 0, "preprocessing": {**preprocessing}}
    return {**content, DERIVED: True}


def network_settings(name: str, num_classes: int) -> dict[str, Any]:
    """The resolved settings of `conf/model/NAME.yaml` for RGB images."""
    return _resolved("model", name, {"data": {"channels": 3, "num_classes": num_classes}})


def class_names(number: int) -> list[str]:
    """ImageNet's for 1000 classes, otherwise `class 0`, `class 1`, ..."""
    known = imagenet_classes()
    return [one.name for one in known] if number == len(known) else [f"class {label}" for label in range(number)]


def _photographs(facts: Preprocessing) -> dict[str, Any]:
    """The settings of photographs with these facts; the mean image is not among them."""
    is_imagenet = facts.classes == class_names(len(imagenet_classes()))
    name = "imagenet" if is_imagenet else "image_folder"
    changes = {"name": name, "dir": f"data/{name}", "num_classes": len(facts.classes), "channels": facts.channels}
    changes |= {"crop_size": facts.crop_size, "mean": facts.mean, "std": facts.std}
    changes |= {"transparency": facts.transparency, "colour": "off"}
    others = {"model": {"image_size": facts.image_size}, "seed": 0, "channels_last": True}
    return _resolved("data", "imagenet", others) | changes


def _resolved(group: str, name: str, others: dict[str, Any]) -> dict[str, Any]:
    """A choice of a group as plain containers; `others` are the parts of the configuration that it refers to."""
    chosen = OmegaConf.load(places.CONF / group / f"{name}.yaml")
    container: Any = OmegaConf.to_container(OmegaConf.create({**others, group: chosen}), resolve=True)
    settings: dict[str, Any] = container[group]
    return settings
