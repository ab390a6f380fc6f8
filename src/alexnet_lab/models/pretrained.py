"""torchvision's published weights for `alexnet_torchvision`, by download or from a file."""

import hashlib
import http.client
import logging
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet_lab.errors import UserError

log = logging.getLogger(__name__)

PUBLISHED = "alexnet-owt-7be5be79.pth"
"""torchvision's IMAGENET1K_V1, 233 MiB; the 8 hex digits begin the file's SHA-256."""
RESIZABLE = {"features.0", "classifier.6"}
"""The layers whose shape depends on the number of input channels or classes."""


def load_pretrained(net: nn.Module, source: bool | str) -> None:
    """Copies weights into an `alexnet_torchvision`, in place.

    source: True for torchvision's IMAGENET1K_V1, downloaded once into torch's cache; else the path of a file that holds
    a state dict of the same 16 names. A file named like torchvision's, with 8 hex digits before `.pth`, is checked
    against its SHA-256. When the first or the last layer has another shape (other channels, other classes), it stays as
    it is and is named in the log. Raises UserError when the weights cannot be had or are not this network's.
    """
    state = _from_file(Path(source).expanduser()) if isinstance(source, str) else _published()
    own = net.state_dict()
    if state.keys() != own.keys():
        raise UserError(
            f"model.pretrained: expected a state dict of torchvision's AlexNet with {len(own)} tensors; "
            f"missing: {_listed(own.keys() - state.keys())}; unknown: {_listed(state.keys() - own.keys())}"
        )
    misfits = {key.rpartition(".")[0] for key in own if state[key].shape != own[key].shape}
    if misfits - RESIZABLE:
        raise UserError(f"model.pretrained: shapes differ from torchvision's AlexNet in {_listed(misfits - RESIZABLE)}")
    for layer in sorted(misfits):
        theirs, ours = (list(tensors[f"{layer}.weight"].shape) for tensors in (state, own))
        log.warning(
            "%s does not fit the pre-trained weights (%s, here %s); initialised randomly instead", layer, theirs, ours
        )
    net.load_state_dict({k: v for k, v in state.items() if k.rpartition(".")[0] not in misfits}, strict=False)


def _published() -> dict[str, Tensor]:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED
    if cached.exists():  # torchvision checks the hash of downloads only
        return _from_file(cached)
    from torchvision.models import AlexNet_Weights  # slow to import

    try:
        return AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"model.pretrained=true: could not download torchvision's weights ({error}). Fetch the file {PUBLISHED} "
            f"(233 MiB) on a machine that can, and put it into {cached.parent} or give its path: "
            f"model.pretrained=PATH/{PUBLISHED}"
        ) from error


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"model.pretrained: no such file: {path}; expected true, false or the path of a state dict")
    if named := re.search(r"-([0-9a-f]{8})\.pth$", path.name):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(named[1]):
            raise UserError(
                f"model.pretrained: {path} is damaged or has the wrong name: its SHA-256 begins with {digest[:8]}, "
                f"not with {named[1]}; remove it and fetch it again"
            )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"model.pretrained: {path} is not a file of tensors saved by torch.save") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"model.pretrained: {path} is not a plain state dict (name: tensor), and neither is a run's checkpoint"
        )
    return state


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "") if names else "none"
