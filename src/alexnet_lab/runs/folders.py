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


def read_config(folder: Path) -> dict[str, Any]:
    """The recorded configuration of a run, as plain containers, with today's names for what has moved since."""
    try:
        container = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, YAMLError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(container, dict):
        raise UserError(f"{folder / CONFIG} is damaged: it is not the configuration of a run")
    return {str(key): value for key, value in with_todays_names(container).items()}


def as_yaml(config: dict[str, Any]) -> str:
    """As `config.yaml` has it."""
    return OmegaConf.to_yaml(OmegaConf.create(config))
