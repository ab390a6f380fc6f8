"""The export formats: writing a network to a file, and reading it back as a function.

N images, C channels, S the network's input size, K classes.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alexnet_lab.command_line import install
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError
from alexnet_lab.runs import safetensors_file
from alexnet_lab.runs.checkpoint import Checkpoint

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"
Output = Literal["logits", "probabilities"]

Network = Callable[[Tensor], Tensor]
"""float32 [N, C, S, S] to [N, K]."""


@dataclass(frozen=True)
class Exported:
    """The content of every format."""

    net: nn.Module
    """Returns `output`."""
    model: dict[str, Any]
    """The settings of the network."""
    preprocessing: Preprocessing
    output: Output = "logits"

    def example(self) -> Tensor:
        size = self.preprocessing.image_size
        return torch.zeros(2, self.preprocessing.channels, size, size)

    def description(self) -> str:
        """JSON."""
        return json.dumps({**self.preprocessing.described(), "output": self.output})


@dataclass(frozen=True)
class Form:
    """One choice of `format=`."""

    suffix: str
    write: Callable[[Exported, Path], None]
    read: Callable[[Path], Network]
    packages: tuple[str, ...] = ()
    extra: str = "export"
    """The extra of pyproject.toml with the packages."""
    holds_weights: bool = False
    """The file holds weights, not a program: it cannot return anything but the network's logits."""

    def check_packages(self) -> None:
        """Raise UserError with the remedy if packages are missing."""
        if missing := [name for name in self.packages if importlib.util.find_spec(name) is None]:
            raise UserError(f"this format needs {', '.join(missing)}: {install(self.extra)}")


def _write_onnx(exported: Exported, path: Path) -> None:
    program = _quietly(
        torch.onnx.export,
        exported.net,
        (exported.example(),),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[exported.output],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    program.model.metadata_props["preprocessing"] = exported.description()
    program.save(path, external_data=False)


def _read_onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def network(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: images.contiguous().numpy()})[0])

    return network


def _write_torch_export(exported: Exported, path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = _quietly(torch.export.export, exported.net, (exported.example(),), dynamic_shapes=shapes)
    with path.open("wb") as file:  # a name would have to end in .pt2
        torch.export.save(program, file, extra_files={"preprocessing.json": exported.description()})


def _read_torch_export(path: Path) -> Network:
    with path.open("rb") as file:
        network: Network = torch.export.load(file).module()
    return network


def _write_state_dict(exported: Exported, path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in exported.net.state_dict().items()}
    facts = {"model": exported.model, "preprocessing": exported.preprocessing.facts()}
    torch.save({"state_dict": state, **facts}, path)


def _read_state_dict(path: Path) -> Network:
    return _network_of(torch.load(path, map_location="cpu", weights_only=True))


def _network_of(content: Mapping[str, Any]) -> Network:
    settings = {"model": content["model"], "channels_last": False}
    return Checkpoint(settings, content["state_dict"], 0, Preprocessing.of(content["preprocessing"])).network()


def _write_safetensors(exported: Exported, path: Path) -> None:
    description = exported.preprocessing.described(complete=True)
    safetensors_file.write(path, exported.net.state_dict(), exported.model, {**description, "output": exported.output})


def _read_safetensors(path: Path) -> Network:
    return _network_of(safetensors_file.read(path, str(path)))


def _quietly(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The result of the call, without the exporter's warnings about the internals of torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments, **more)
    finally:
        logger.setLevel(level)


FORMS = {
    "onnx": Form(".onnx", _write_onnx, _read_onnx, ONNX_PACKAGES),
    "torch_export": Form(".pt2", _write_torch_export, _read_torch_export),
    "state_dict": Form(".weights.pt", _write_state_dict, _read_state_dict, holds_weights=True),
    "safetensors": Form(
        ".safetensors", _write_safetensors, _read_safetensors, ("safetensors",), "safetensors", holds_weights=True
    ),
}
