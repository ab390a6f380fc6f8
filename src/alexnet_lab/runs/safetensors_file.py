"""Weights as a safetensors file, with the network's settings and its preprocessing as JSON in the metadata.

safetensors is an extra; it is imported when such a file is written or read.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_lab.command_line import install
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError

OURS = ("model", "preprocessing")
"""Keys of the metadata, each with JSON."""


def write(path: Path, state: Mapping[str, Tensor], model: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
    """`model`: the settings of the network; `preprocessing`: see `Preprocessing.described`."""
    from safetensors.torch import save_file

    # Copied: a file with tensors that share memory cannot be written.
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    metadata = {"format": "pt", "model": json.dumps(model), "preprocessing": json.dumps(preprocessing)}
    save_file(tensors, path, metadata)


def read(path: Path, named: str) -> dict[str, Any]:
    """`state_dict`, `model` and `preprocessing` (facts as in a checkpoint); of a file of another program, its tensors.

    Raises:
        UserError: the package is missing, or the file is damaged; messages begin with `named`.
    """
    if find_spec("safetensors") is None:
        raise UserError(f"{named}: a safetensors file needs the package safetensors: {install('safetensors')}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - `file` is not iterable
    except SafetensorError as error:
        raise UserError(f"{named}: the file is damaged or truncated: {error}") from error
    if not metadata.keys() >= {*OURS}:
        return tensors
    try:
        model, preprocessing = (json.loads(metadata[key]) for key in OURS)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{named}: the file is damaged: its metadata is not JSON: {error}") from error
    if not isinstance(model, dict) or not isinstance(preprocessing, dict):
        raise UserError(f"{named}: a safetensors file of another program: {' and '.join(OURS)} are not JSON objects")
    facts = Preprocessing.of_description(preprocessing).facts()
    return {"state_dict": tensors, "model": model, "preprocessing": facts}
