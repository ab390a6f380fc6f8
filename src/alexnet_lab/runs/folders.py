"""The files in a run's folder, its recorded configuration, and the note of a start. Imports nothing heavy."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from alexnet_lab.errors import UserError
from alexnet_lab.runs.former_networks import with_current_keys

CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
BEST = f"{CHECKPOINTS}/best.ckpt"
CONFIG = "config.yaml"
RESULT = "result.json"
METRICS = "metrics.csv"
LEFT_OUT = "left_out.json"
"""File and reason of each image that could not be read when the run began."""
ROWS = "rows"
"""Where `evaluate rows=RUN/rows` writes the predictions of a run's test image by image; `compare` looks there."""
JOB_LOG = "job.log"
OF_RANGE_TEST = ("lr.csv", "lr.png")
"""What `tune=lr` writes, see `pictures/lr_range.py`."""
LOCK = ".lock"
NOTE = ".starting"
"""There until training begins: until then a start can be undone, see `alexnet_lab.launch.starting`."""
CONFIG_BEFORE, RESULT_BEFORE = ".config.before", ".result.before"
"""The configuration and result of an earlier start, until training begins."""

MAY_NAME_THE_FOLDER = ("callbacks", "logger", "trainer")
HERE = "${folder}"
"""The run's folder in a recorded configuration, which stays valid when the folder is moved."""

NEW_NAMES = {
    "alexnet_lab.callbacks.pictures.Pictures": "alexnet_lab.pictures.callback.Pictures",
    "alexnet_lab.tracking.loggers.mlflow_logger": "alexnet_lab.loggers.others.mlflow_logger",
    "alexnet_lab.tracking.loggers.tensorboard_logger": "alexnet_lab.loggers.others.tensorboard_logger",
    "alexnet_lab.tracking.wandb.wandb_logger": "alexnet_lab.loggers.wandb.wandb_logger",
}
"""`_target_`s of older versions: former name -> name. Add each class or function that `conf` names and that moves."""
REMOVED = ("alexnet_lab.tracking.pictures.painter.PaperPictures",)
"""`_target_`s of nodes that no longer exist; they are dropped."""
FORMER = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, NEW_NAMES))})(?![\w.])")


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C loader, ten times as fast, where PyYAML has it. As in Hydra `1e-3` is a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_config(folder: Path) -> dict[str, Any]:
    """The recorded configuration of a run, as plain containers.

    A configuration of an older version gets today's class names and keys of the network, and `${folder}` for the
    folder's former path.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        container = yaml.load((folder / CONFIG).read_text(), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(container, dict):
        raise UserError(f"{folder / CONFIG} is damaged: it is not the configuration of a run")
    # Also in overrides.
    named = _mapped(container, lambda text: FORMER.sub(lambda found: NEW_NAMES[found[0]], text))
    config = with_current_keys({str(key): value for key, value in named.items()})
    former = config.get("folder")
    return portable({**config, "folder": None}, former) if former else config


def with_precision(config: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a run, also of an older one that did not record in which precision float32 is multiplied."""
    trainer, hardware = config.get("trainer"), result.get("hardware")
    if not isinstance(trainer, Mapping) or "matmul_precision" in config:
        return config
    on_gpu = isinstance(hardware, Mapping) and hardware.get("accelerator") == "cuda"
    precision = {"precision": trainer.get("precision") or "32-true"}
    return {**config, "trainer": {**trainer, **precision}, "matmul_precision": "torch" if on_gpu else "highest"}


def portable(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """`config` with `${folder}` in place of the path `folder`, as it is recorded."""
    return _with_folder(config, folder, HERE)


def placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recorded configuration with the path `folder` in place of `${folder}`, as its parts are built."""
    return _with_folder(config, HERE, str(folder))


def as_yaml(config: dict[str, Any]) -> str:
    """As `config.yaml` has it."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def training_begins(folder: Path) -> None:
    """Mark that nothing of the run may be deleted any more; each rank calls this before its first step."""
    for name in (NOTE, CONFIG_BEFORE, RESULT_BEFORE):
        (folder / name).unlink(missing_ok=True)


def is_training(folder: Path) -> bool:
    """Whether a run has its folder and has begun to train."""
    return (folder / CONFIG).exists() and training_has_begun(folder)


def training_has_begun(folder: Path) -> bool:
    """Whether a rank has begun to train since the last start; True if no start is in progress."""
    return not (folder / NOTE).exists()


def _with_folder(config: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    def moved(text: str) -> str:
        return new + text[len(old) :] if f"{text}/".startswith(f"{old}/") else text

    return {key: _mapped(value, moved) if key in MAY_NAME_THE_FOLDER else value for key, value in config.items()}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with `change` applied to every text in it, and without nodes that no longer exist."""
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items() if not _is_removed(item)}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _is_removed(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("_target_") in REMOVED
