"""Settings that were null when a run started and that its images have decided, such as the number of classes."""

from pathlib import Path
from typing import Any

from alexnet_lab import distributed, files
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.runs import folders


def with_found(settings: dict[str, Any], data: ImageDataModule, folder: Path) -> dict[str, Any]:
    """`settings` with what the dataset has found in its images, also recorded in the `config.yaml` in `folder`.

    Raises:
        UserError: see the dataset's `found`, which is optional.
    """
    found: dict[str, Any] = getattr(data.dataset, "found", dict)()
    if not found:
        return settings
    model = settings["model"]
    if "num_classes" in model and model["num_classes"] is None:
        model = {**model, "num_classes": data.spec.num_classes}
    settings = {**settings, "model": model, "data": {**settings["data"], **found}}
    if distributed.rank() == 0:
        files.write(folder / folders.CONFIG, folders.as_yaml(settings))
    return settings
