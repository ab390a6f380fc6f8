"""Stands for ImageNet or Imagenette where only the number of images counts and there are no images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_lab.data.spec import DataSpec
from alexnet_lab.errors import UserError

TRAINING_IMAGES = {"imagenet": 1_281_167, "imagenette": 9_469}
"""By `data.name`; published with the datasets."""


@dataclass(frozen=True)
class Published:
    """A dataset of which the number of training images is known, held-out ones subtracted."""

    spec: DataSpec
    images: int
    note: str

    def training_images(self) -> int:
        return self.images


def published(settings: Mapping[str, Any]) -> Published | None:
    """The dataset of `settings["data"]`, if its number is published and its usual folder does not exist.

    Raises:
        UserError: more images are held out than there are.
    """
    data = settings["data"]
    name, classes = data.get("name"), data.get("num_classes")
    number = TRAINING_IMAGES.get(name)
    usual = number is not None and Path(data.get("dir") or "") == Path("data", name)
    if number is None or classes is None or not usual or Path(data["dir"]).exists() or _is_typed(settings, "data.dir"):
        return None
    note = f"there is no folder {data['dir']}: the number of training images is the published one, {number:,}"
    if held_out := data.get("val_size") or 0:
        if held_out >= number:
            raise UserError(f"data.val_size={held_out}: {name} has {number:,} training images")
        note += f", without {held_out:,} held out"
    spec = DataSpec(name, tuple(map(str, range(classes))), data["channels"], (0.0,), (1.0,))
    return Published(spec, number - held_out, note)


def _is_typed(settings: Mapping[str, Any], key: str) -> bool:
    return any(text.partition("=")[0].lstrip("+") == key for text in settings.get("overrides") or ())
