"""Exports the network of a checkpoint for use elsewhere, and compares the file with the checkpoint before keeping it.

N images, C channels, S the network's input size, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from alexnet_lab import files
from alexnet_lab.config.output_file import check_output
from alexnet_lab.config.values import check_values
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sources.given import given_images
from alexnet_lab.data.store.images import read_image
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.errors import UserError, printable
from alexnet_lab.runs.checkpoint import Checkpoint, Modules, read_checkpoint
from alexnet_lab.runs.export_formats import FORMS, Exported, Form, Network, Output

KINDS = {
    "checkpoint": str,
    "format": Literal["onnx", "torch_export", "state_dict", "safetensors"],
    "output": Output,
    "out": str | None,
    "images": str | list[str] | None,
    "modules": Modules,
}
"""The types of the options."""
TOLERANCE = 1e-4
"""Largest allowed difference of a logit; relative to the largest logit if that is above 1."""
COMPARED = 16
"""Number of images for the comparison."""


@dataclass(frozen=True)
class Comparison:
    """An exported network compared with the checkpoint."""

    images: int
    about: str
    """Which images were compared."""
    difference: float
    """Largest difference of a logit, or of a probability."""
    tolerance: float
    same_top5: int
    """Images with the same five most probable classes in the same order, ignoring ties within the tolerance."""

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance and self.same_top5 == self.images


def export(config: DictConfig) -> Comparison:
    """Export the checkpoint of `config`, see `conf/export.yaml`; print the largest difference to the checkpoint.

    Raises:
        UserError: not an AlexNet Lab checkpoint, a wrong option, a missing package, or the exported network differs
            from the checkpoint; an existing file is then kept.
    """
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    form = _check_options(options)
    checkpoint = read_checkpoint(options["checkpoint"], options["modules"])
    if not options["out"] and not checkpoint.file:
        raise UserError(f"name the file to write: out=NAME{form.suffix}")
    out = Path(options["out"] or _default_out(checkpoint.file, form))  # type: ignore[arg-type]
    _check_out(str(out), form)
    if checkpoint.file and out.resolve() == checkpoint.file.resolve():
        raise UserError(f"out={out} is the checkpoint itself; name another file")
    preprocessing = checkpoint.needed_preprocessing()
    card = _card(checkpoint, out) if options["format"] == "safetensors" else None
    net, output = checkpoint.network().to(memory_format=torch.contiguous_format), options["output"]
    if output == "probabilities":
        net = nn.Sequential(net, nn.Softmax(1)).eval()
    inputs, about = _inputs(checkpoint, preprocessing, options["images"])
    with files.replacing(out) as unfinished:
        form.write(Exported(net, checkpoint.settings["model"], preprocessing, output), unfinished)
        comparison = compare(net, form.read(unfinished), inputs, about, output)
        if not comparison.agrees:
            raise UserError(f"the exported network differs from the checkpoint; no file was written: {comparison}")
    _print(comparison, checkpoint, options, out)
    if card:
        files.write(*card)
        files.print_written(card[0])
    return comparison


def _card(checkpoint: Checkpoint, out: Path) -> tuple[Path, str]:
    """The file and the text of the model card of `out`; raises UserError if it would replace another file."""
    from alexnet_lab.report.model_card import check_card, model_card

    path = out.with_suffix(".md")
    check_card(path)
    return path, model_card(checkpoint, out.name)


def compare(net: nn.Module, exported: Network, inputs: Tensor, about: str, output: Output = "logits") -> Comparison:
    """Compare on float32 [N, C, S, S], with all images in one batch and with a single image: N must be free.

    Both return `output`.
    """
    with torch.inference_mode():
        expected, found = net(inputs), exported(inputs)
        alone = exported(inputs[:1])
    if found.shape != expected.shape or alone.shape != expected[:1].shape:
        raise UserError(f"the exported network returns {list(found.shape)}, the checkpoint {list(expected.shape)}")
    # Probabilities of many classes are small: there the largest one is the scale.
    tolerance = TOLERANCE * max(1.0 if output == "logits" else 0.0, float(expected.abs().max()))
    difference = max(float((found - expected).abs().max()), float((alone - expected[:1]).abs().max()))
    best = min(5, expected.shape[1])
    ranked = expected.gather(1, found.topk(best).indices)
    same = ((ranked - expected.topk(best).values).abs() <= 2 * tolerance).all(1)
    # A comparison with NaN is false.
    return Comparison(len(inputs), about, difference, tolerance, int(same.sum()))


def _check_options(options: dict[str, Any]) -> Form:
    if not isinstance(options["checkpoint"], str):
        raise UserError("name a checkpoint: checkpoint=PATH, such as logs/train/runs/NAME/checkpoints/best.ckpt")
    if options["format"] not in [*FORMS]:
        raise UserError(f"format={options['format']}: there is no such format; choose from: {', '.join(FORMS)}")
    form = FORMS[options["format"]]
    form.check_packages()
    if options["output"] == "probabilities" and form.holds_weights:
        raise UserError(
            f"output=probabilities: a file of format={options['format']} holds weights, whose network returns logits; "
            "choose format=onnx or torch_export, or apply a softmax to the logits"
        )
    _check_out(options["out"], form)
    check_values(options, KINDS)
    return form


def _default_out(checkpoint: Path, form: Form) -> Path:
    """Beside the checkpoint, with the suffix of `form` in place of its own."""
    own = next((one.suffix for one in FORMS.values() if checkpoint.name.endswith(one.suffix)), checkpoint.suffix)
    return checkpoint.with_name(checkpoint.name.removesuffix(own) + form.suffix)


def _check_out(out: Any, form: Form) -> None:
    check_output("out", out, [Path(form.suffix).suffix or form.suffix])


def _inputs(checkpoint: Checkpoint, preprocessing: Preprocessing, given: Any) -> tuple[Tensor, str]:
    """float32 [N, C, S, S], and a description of the images."""
    if given is not None:
        return _given_inputs(preprocessing, given if isinstance(given, list) else [given])
    name = printable(str(checkpoint.settings["data"].get("name", "the dataset")))
    try:
        data = checkpoint.data({"eval_batch_size": COMPARED})
        batch = next(iter(data.val_dataloader()))
    except UserError:
        size = preprocessing.image_size
        noise = torch.randn(COMPARED, preprocessing.channels, size, size, generator=torch.Generator().manual_seed(0))
        return noise, f"random, because {name} cannot be read here; images=FOLDER compares on real images"
    return data.on_after_batch_transfer(batch, 0).images, f"validation images of {name}"


def _given_inputs(preprocessing: Preprocessing, places: list[Any]) -> tuple[Tensor, str]:
    images = given_images([str(place) for place in places])[:COMPARED]
    squares = []
    for image in images:
        try:
            squares.append(preprocessing.decode(read_image(image.blob)))
        except (Unreadable, OSError) as error:
            raise UserError(f"images: {printable(image.path)}: {error}") from error
    return preprocessing.inputs(squares), "those of images="


def _print(comparison: Comparison, checkpoint: Checkpoint, options: dict[str, Any], out: Path) -> None:
    console, network = Console(), checkpoint.settings["model"]["_target_"]
    what = {"logits": "logit", "probabilities": "probability"}[options["output"]]
    table = Table(
        title=f"{options['format']}, {out.stat().st_size / 1e6:.1f} MB", show_header=False, title_justify="left"
    )
    table.add_row("network", Text(f"{network.rpartition('.')[2]} of {checkpoint.origin}", overflow="fold"))
    table.add_row("compared on", Text(f"{comparison.images} images: {comparison.about}", overflow="fold"))
    table.add_row(f"largest difference of a {what}", f"{comparison.difference:.2g}, at most {comparison.tolerance:.2g}")
    table.add_row("same top-5", f"{comparison.same_top5} of {comparison.images}")
    console.print(table)
    files.print_written(out)
