"""Settings that were null when a run started and that its images have decided, such as the number of classes."""

from pathlib import Path
from typing import Any

from alexnet_lab import distributed, files
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.runs import folders


def with_found(settings: dict[str, Any], data: ImageDataModule) -> dict[str, Any]:
    """`settings` with what the dataset has found in its images; the same object if that is nothing.

    Raises:
        UserError: see the dataset's `found`, which is optional.
    """
    found: dict[str, Any] = getattr(data.dataset, "found", dict)()
    if not found:
        return settings
    model = settings["model"]
    if "num_classes" in model and model["num_classes"] is None:
        model = {**model, "num_classes": data.spec.num_classes}
    return {**settings, "model": model, "data": {**settings["data"], **found}}


def record_found(settings: dict[str, Any], data: ImageDataModule, folder: Path) -> dict[str, Any]:
    """As `with_found`; what was found is recorded in the `config.yaml` in `folder`."""
    complete = with_found(settings, data)
    if complete is not settings and distributed.rank() == 0:
        files.write(folder / folders.CONFIG, folders.as_yaml(complete))
    return complete
