"""The files in a run's folder, and its recorded configuration. Imports nothing heavy."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from alexnet_lab.errors import UserError
from alexnet_lab.runs import result_file
from alexnet_lab.runs.former_names import with_todays_names

CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
BEST = f"{CHECKPOINTS}/best.ckpt"
CONFIG = "config.yaml"
RESULT = "result.json"
METRICS = "metrics.csv"
LEFT_OUT = "left_out.json"
"""File and reason of each image that could not be read when the run began."""
JOB_LOG = "job.log"
LOCK = result_file.LOCK


MAY_NAME_THE_FOLDER = ("callbacks", "logger", "trainer")
HERE = "${folder}"
"""The run's folder in a recorded configuration, which stays valid when the folder is moved."""


def read_config(folder: Path) -> dict[str, Any]:
    """The recorded configuration of a run, as plain containers.

    A configuration of an older version gets today's class names, and `${folder}` for the folder's former path.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        container = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, YAMLError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(container, dict):
        raise UserError(f"{folder / CONFIG} is damaged: it is not the configuration of a run")
    config = {str(key): value for key, value in with_todays_names(container).items()}
    former = config.get("folder")
    return portable({**config, "folder": None}, former) if former else config


def portable(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """`config` with `${folder}` in place of the path `folder`, as it is recorded."""
    return _with_folder(config, folder, HERE)


def placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recorded configuration with the path `folder` in place of `${folder}`, as its parts are built."""
    return _with_folder(config, HERE, str(folder))


def as_yaml(config: dict[str, Any]) -> str:
    """As `config.yaml` has it."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def _with_folder(config: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {key: _replaced(value, old, new) if key in MAY_NAME_THE_FOLDER else value for key, value in config.items()}


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    within = isinstance(value, str) and f"{value}/".startswith(f"{old}/")
    return new + value[len(old) :] if within else value
