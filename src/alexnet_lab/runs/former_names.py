"""Recorded configurations of older versions, with the names of today's. Imports nothing heavy."""

import re
from collections.abc import Mapping
from typing import Any

NOW = {
    "alexnet_lab.callbacks.pictures.Pictures": "alexnet_lab.pictures.callback.Pictures",
    "alexnet_lab.tracking.loggers.mlflow_logger": "alexnet_lab.loggers.others.mlflow_logger",
    "alexnet_lab.tracking.loggers.tensorboard_logger": "alexnet_lab.loggers.others.tensorboard_logger",
    "alexnet_lab.tracking.wandb.wandb_logger": "alexnet_lab.loggers.wandb.wandb_logger",
}
"""`_target_`s of older versions: former name -> name. A class or function that `conf` names and that moves is added."""
GONE = ("alexnet_lab.tracking.pictures.painter.PaperPictures",)
"""`_target_`s of nodes that no longer exist: what they were an option of does without."""
FORMER = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, NOW))})(?![\w.])")


def with_todays_names(recorded: Any) -> Any:
    """A recorded configuration, or a value in it, with every `_target_` as it is named now, in overrides too."""
    if isinstance(recorded, Mapping):
        return {key: with_todays_names(value) for key, value in recorded.items() if not _is_gone(value)}
    if isinstance(recorded, list):
        return [with_todays_names(value) for value in recorded]
    return FORMER.sub(lambda found: NOW[found[0]], recorded) if isinstance(recorded, str) else recorded


def _is_gone(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("_target_") in GONE
