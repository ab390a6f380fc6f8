"""The setting `init`: a new run starts with the weights of another network, as far as its layers fit."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError, listed, names_of, printable
from alexnet_lab.published.torchvision_weights import check_hash, plain_state
from alexnet_lab.runs import references
from alexnet_lab.runs.checkpoint import Content
from alexnet_lab.runs.checkpoint_file import read_file
from alexnet_lab.runs.init_setting import weights_named

SHOWN = 12
"""Layers that are listed in a line."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A network whose weights a run starts with."""

    weights: Mapping[str, Tensor]
    network: str
    """Its name; empty if the file does not record it."""
    preprocessing: Preprocessing | None = None
    """None if the file does not record it."""

    @property
    def classes(self) -> list[str]:
        """Their names; empty if they are unknown, or only numbers."""
        names = self.preprocessing.classes if self.preprocessing else []
        return [] if names == [f"class {number}" for number in range(len(names))] else names


def take_weights(net: nn.Module, settings: Mapping[str, Any], data: ImageDataModule, last: str) -> None:
    """Copy the weights that `init` names, for the layers that fit, and log which do not; those keep their values.

    A layer fits if its tensors have the same names and shapes; it is taken or left as a whole. `last`, the layer of the
    logits, also needs the same classes, where the source records them.

    Raises:
        UserError: no layer fits; or see `read_source`.
    """
    option, reference = weights_named(settings)
    if not reference:
        return
    source, name = read_source(reference, option), settings["model"]["_target_"].rpartition(".")[2]
    ours, theirs = _by_layer(net.state_dict()), _by_layer(source.weights)
    reasons = {layer: _misfit(tensors, theirs.get(layer)) for layer, tensors in ours.items()}
    if source.classes not in ([], [*data.spec.classes]) and last in ours and not reasons[last]:
        reasons[last] = f"for other classes: {names_of(source.classes, 2)}"
    taken = [layer for layer, reason in reasons.items() if not reason]
    if not taken:
        raise UserError(
            f"{option}={reference}: no layer of {source.network or 'this file'} ({_described(theirs)}) fits {name} "
            f"({_described(ours)})"
        )
    net.load_state_dict({key: source.weights[key] for layer in taken for key in ours[layer]}, strict=False)
    log.info("%s: %d of %d layers from %s: %s", option, len(taken), len(ours), reference, names_of(taken, SHOWN))
    if left := [f"{layer} ({reason})" for layer, reason in reasons.items() if reason]:
        log.info("%s: initialised: %s", option, listed(left, SHOWN))
    if source.preprocessing and (line := _differences(source.preprocessing, data)):
        log.info("%s: %s", option, line)


def read_source(reference: str, option: str = "init") -> Source:
    """The network that `OPTION=REFERENCE` names: all that `checkpoint=` may name, or a file with a plain state dict.

    Nothing that the file names is imported, so it may be a network of the user's.

    Raises:
        UserError: nothing is there, or it has no weights.
    """
    try:
        content = references.find(reference, option).content
    except UserError:
        if weights := _plain(Path(reference)):
            return Source(weights, "")
        raise
    try:
        found = Content.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{option}={reference}: not an AlexNet Lab checkpoint") from error
    name = printable(str(found.config.model.get("_target_", "")).rpartition(".")[2])
    return Source(found.state_dict, name, Preprocessing.of(found.preprocessing) if found.preprocessing else None)


def _plain(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of another program, see `plain_state`; empty if it holds something else."""
    try:
        check_hash(path, "init")
        return plain_state(read_file(path, "init"))
    except (UserError, OSError):  # `references.find` has reported it
        return {}


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by name, of each layer."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        layers.setdefault(key.rpartition(".")[0], {})[key] = value
    return layers


def _misfit(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor] | None) -> str:
    """The reason why a layer does not fit; empty if it fits."""
    if theirs is None:
        return "not there"
    for key, value in ours.items():
        there = theirs.get(key)
        if there is None or there.shape != value.shape:
            shape = "missing" if there is None else [*there.shape]
            return f"{key.rpartition('.')[2]} {shape}, here {[*value.shape]}"
    more = theirs.keys() - ours.keys()
    return f"has also {names_of(sorted(key.rpartition('.')[2] for key in more))}" if more else ""


def _described(layers: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The first layers with the shapes of their first tensors."""
    shapes = ([*next(iter(tensors.values())).shape] for tensors in layers.values())
    return listed([f"{layer} {shape}" for layer, shape in zip(layers, shapes, strict=True)], 3)


def _differences(source: Preprocessing, data: ImageDataModule) -> str:
    """A line about the preprocessing of the source where that of the run differs; empty if it does not."""
    ours: dict[str, Any] = {"mean": [*data.spec.mean], "std": [*data.spec.std], "image_size": data.image_size}
    theirs = {"mean": source.mean, "std": source.std, "image_size": source.image_size}
    if source.channels != data.spec.channels:
        return ""
    keys = [key for key in ours if _different(ours[key], theirs[key])]
    if not keys:
        return ""
    options = {"mean": "data.mean", "std": "data.std", "image_size": "model.image_size"}
    pairs = (f"{options[key]}={_rounded(theirs[key])}, here {_rounded(ours[key])}" for key in keys)
    return f"the source was trained with {'; '.join(pairs)}"


def _different(ours: Any, theirs: Any) -> bool:
    one, two = (torch.tensor(value, dtype=torch.float64).expand(3) for value in (ours, theirs))
    return not torch.allclose(one, two, rtol=1e-4, atol=1e-6)


def _rounded(value: Any) -> Any:
    return [float(f"{one:.6g}") for one in value] if isinstance(value, Iterable) else value
