"""torchvision's AlexNet: its published weights by download, and any file with a state dict of the same network."""

import hashlib
import http.client
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_lab import distributed
from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.published.as_checkpoint import as_checkpoint, class_names, network_settings

PUBLISHED = re.compile(r"alexnet-owt-([0-9a-f]{8})\.pth")
"""The name of a file that torchvision publishes, with the first digits of its SHA-256."""
STATES = ("state_dict", "model")
"""Entries with the state dict: in files of Lightning and pytorch/examples, and of torchvision's training script."""
LAST = "classifier.6.bias"
PREPROCESSING = {
    "image_size": 224,
    "resize": "bilinear",
    "channels": 3,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "stored_size": 256,
    "crop_size": 224,
}
"""That of torchvision's weights; the transparency of a file is ignored, as by `Image.convert("RGB")`."""


def published_file(named: str) -> tuple[Path, str]:
    """The file of torchvision's weights, downloaded once into the cache of torch.hub, and their name.

    Raises:
        UserError: the download failed; the message begins with `named`.
    """
    from torchvision.models import AlexNet_Weights  # here, since it takes a second to import

    weights = AlexNet_Weights.IMAGENET1K_V1
    name = weights.url.rpartition("/")[2]
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    while distributed.local_rank() and not path.exists():
        time.sleep(0.2)  # no time limit: if the first rank of this machine fails to download it, all ranks are ended
    try:
        if not path.exists():
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        option = named.partition("=")[0]
        raise UserError(
            f"{named}: the download failed ({error}); download {weights.url} (233 MiB) on another machine, and put it "
            f"into {path.parent}, or name it: {option}=FOLDER/{name}"
        ) from error
    return path, f"torchvision {weights.name}"


def check_hash(path: Path, named: str) -> None:
    """Check a file with a name of torchvision's, such as `alexnet-owt-7be5be79.pth`, against its SHA-256.

    Raises:
        UserError: the hash differs; the message begins with `named`.
    """
    if not (expected := PUBLISHED.fullmatch(path.name)):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected[1]):
        raise UserError(
            f"{named}: the file is damaged or has the wrong name: its SHA-256 begins with {digest[:8]}, not with "
            f"{expected[1]}; download torchvision's again, or give this one another name"
        )


def plain_state(content: Any) -> dict[str, Tensor]:
    """The state dict in the content of a file, also in one of the entries `STATES`; empty if there is none.

    Parts `module` of names are removed; `DataParallel` adds them, as in files of pytorch/examples.
    """
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in STATES if isinstance(content.get(key), Mapping)), content)
    if not all(isinstance(value, Tensor) for value in inner.values()):
        return {}
    return {re.sub(r"(^|\.)module\.", r"\1", str(name)): tensor for name, tensor in inner.items()}


def torchvision_state(content: Any) -> dict[str, Tensor] | None:
    """The state dict of torchvision's AlexNet in the content of a file, see `plain_state`; None if there is none.

    Its names may begin with the name of an attribute, as in files of Lightning.
    """
    state = plain_state(content)
    prefix = next((name.removesuffix(LAST) for name in state if name.endswith(LAST)), "")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    last = state.get(LAST)
    if last is None or last.dim() != 1 or not len(last):
        return None
    with torch.device("meta"):
        own = alexnet_torchvision(num_classes=len(last)).state_dict()
    fits = state.keys() == own.keys() and all(state[name].shape == own[name].shape for name in own)
    return {name: state[name] for name in own} if fits else None


def torchvision_checkpoint(state: Mapping[str, Tensor], run: str) -> dict[str, Any]:
    """The content of a checkpoint with these weights and torchvision's preprocessing; see `class_names`."""
    classes = class_names(len(state[LAST]))
    model = network_settings("alexnet_torchvision", len(classes))
    return as_checkpoint(run, model, {**PREPROCESSING, "classes": classes}, state)
