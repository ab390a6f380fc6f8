"""The model card of an exported network, in the form of Hugging Face's: what the run recorded, and nothing else."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from alexnet_lab.command_line import usual_command
from alexnet_lab.config.schema import Effect, effect
from alexnet_lab.distributed import processes
from alexnet_lab.errors import UserError, printable
from alexnet_lab.models.table import count_parameters, run_once, total_macs
from alexnet_lab.runs import folders, metric_rows
from alexnet_lab.runs.checkpoint import Checkpoint
from alexnet_lab.runs.result_file import read_result

DATASETS = {
    "imagenet": "ILSVRC/imagenet-1k",
    "imagenette": "frgfm/imagenette",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
"""Names on Hugging Face of datasets that others can get."""
METRICS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "loss": "cross-entropy"}
SHOWN_CLASSES = 20
END = "<!-- Written by AlexNet Lab. sha256 of the text above: {} -->\n"


def check_card(path: Path) -> None:
    """Raises UserError if a file at `path` is not a card as it was written: it would be replaced."""
    if not path.exists():
        return
    text, newline, end = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").rpartition("\n")
    if f"{end}\n" != _end(text + newline):
        raise UserError(
            f"the model card would replace {path}, which was written or changed by somebody else; move it, or choose "
            "another out="
        )


def model_card(checkpoint: Checkpoint, weights: str) -> str:
    """The card of the network in the file named `weights`.

    A checkpoint may come from anybody, or from an older version: a line whose record is missing is left out.
    """
    run = _run_of(checkpoint)
    result = (read_result(run / folders.RESULT) if run else None) or {}
    metrics = _metrics(checkpoint, run, result) if run else {}
    name = printable(str(checkpoint.settings["model"]["_target_"]).rpartition(".")[2])
    origin = f"{', read from' if checkpoint.derived_data else ' of run'} {printable(checkpoint.settings['run'])}"
    parts = [
        f"---\n{yaml.safe_dump(_front(checkpoint, name, metrics), sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}{origin}\n",
        *_network(checkpoint),
        *_results(metrics, result),
        *_training(checkpoint, result),
        *_use(checkpoint, weights),
        *_limits(metrics),
    ]
    text = "\n".join(parts)
    return text + _end(text)


def _end(text: str) -> str:
    return END.format(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def _mapping(recorded: Any) -> Mapping[str, Any]:
    """What is recorded as a mapping; empty for anything else."""
    return recorded if isinstance(recorded, Mapping) else {}


def _run_of(checkpoint: Checkpoint) -> Path | None:
    """The folder of the run if the checkpoint is still in it."""
    file = checkpoint.file
    if file is None or f"{file.parent.name}/{file.name}" not in (folders.BEST, folders.LAST):
        return None
    folder = file.resolve().parents[1]
    try:
        return folder if folders.read_config(folder)["run"] == checkpoint.settings["run"] else None
    except (UserError, KeyError, TypeError):
        return None


def _metrics(checkpoint: Checkpoint, run: Path, result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The metrics of these very weights by split; a split that they were not measured on is left out.

    `last.ckpt` holds the trained weights, and a callback may have validated others.
    """
    rows = metric_rows.read_rows(run / folders.METRICS)
    assert checkpoint.file
    is_best, settings = checkpoint.file.name == Path(folders.BEST).name, checkpoint.settings
    found = {}
    if is_best or not _changing(settings.get("callbacks")):
        found["val"] = [row for row in rows if row.get("step") == checkpoint.step and "val/top1" in row]
    if settings.get("test_on") == ("best" if is_best else "last"):
        found["test"] = [row for row in rows if "test/top1" in row] if result.get("status") == "finished" else []
    return {
        split: {name: row[-1][f"{split}/{name}"] for name in METRICS if f"{split}/{name}" in row[-1]}
        for split, row in found.items()
        if row
    }


def _changing(callbacks: Any) -> dict[str, Mapping[str, Any]]:
    """The callbacks that change the training, or which weights are validated and saved as the best."""
    present = {name: node for name, node in _mapping(callbacks).items() if _mapping(node)}
    return {name: node for name, node in present.items() if effect(f"callbacks.{name}") is not Effect.NONE}


def _front(checkpoint: Checkpoint, name: str, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The entries for Hugging Face; the license is unknown: it depends on the data and the owner of the weights."""
    data = str(checkpoint.settings["data"].get("name", ""))
    front: dict[str, Any] = {
        "license": "unknown",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "alexnet", "pytorch", "safetensors", "alexnet-lab"],
    }
    if data in DATASETS and not checkpoint.derived_data:
        front["datasets"] = [DATASETS[data]]
    if metrics:
        front["metrics"] = ["accuracy"]
        results = [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": data, "type": DATASETS.get(data, data), "split": split},
                "metrics": [
                    {"type": "accuracy" if key != "loss" else "loss", "name": METRICS[key], "value": value}
                    for key, value in values.items()
                ],
            }
            for split, values in metrics.items()
        ]
        front["model-index"] = [{"name": name, "results": results}]
    return front


def _network(checkpoint: Checkpoint) -> Iterator[str]:
    facts, model = checkpoint.needed_preprocessing(), checkpoint.settings["model"]
    net = checkpoint.network()
    rows, _ = run_once(net, facts.channels, facts.image_size)
    classes = [printable(name) for name in facts.classes]
    more = f" and {len(classes) - SHOWN_CLASSES:,} more" if len(classes) > SHOWN_CLASSES else ""
    yield "## Network\n"
    yield f"- `{_call(model)}`"
    yield f"- {count_parameters(net):,} parameters, {total_macs(rows):,} multiply-accumulates per image"
    shape = f"[N, {facts.channels}, {facts.image_size}, {facts.image_size}]"
    yield f"- input: float32 {shape}; output: logits [N, {len(classes)}]"
    yield f"- classes: {', '.join(classes[:SHOWN_CLASSES])}{more}\n"


def _results(metrics: Mapping[str, Mapping[str, float]], result: Mapping[str, Any]) -> Iterator[str]:
    if not metrics:
        return
    images = _mapping(result.get("images"))
    yield "## Metrics\n"
    yield "| split | images | " + " | ".join(METRICS.values()) + " |"
    yield "|---|---|" + "---|" * len(METRICS)
    for split, values in metrics.items():
        numbers = " | ".join(f"{values[name]:.4f}" if name in values else "" for name in METRICS)
        yield f"| {split} | {images.get(split, '')} | {numbers} |"
    yield "\nOne view of each image, the centre, with the preprocessing below. Accuracies are fractions of 1.\n"


def _training(checkpoint: Checkpoint, result: Mapping[str, Any]) -> Iterator[str]:
    settings, hardware = checkpoint.settings, _mapping(result.get("hardware"))
    if not _mapping(settings.get("optimizer")):
        yield "## Training\n\nThe file does not record how the network was trained.\n"
        return
    images = _mapping(result.get("images")).get("train")
    yield "## Training\n"
    if name := settings["data"].get("name"):
        yield f"- data: {printable(str(name))}" + (f", {images:,} training images" if images else "")
    for group in ("data", "optimizer", "scheduler"):
        if node := _mapping(settings.get(group)):
            yield f"- {f'`{group}`' if group == 'data' else group}: `{_call(node, without=('dir', 'workers'))}`"
    if loss := _mapping(settings.get("loss")):
        yield f"- loss: `{_arguments(loss)}`"
    for name, node in _changing(settings.get("callbacks")).items():
        yield f"- callback {name}: `{_call(node)}`"
    for key in ("init", "freeze", "layers"):
        if settings.get(key):
            yield f"- {key}: {printable(str(settings[key]))}"
    if recipe := _mapping(settings.get("recipe")).get("name"):
        yield f"- recipe: {printable(str(recipe))}"
    seed = f", seed {printable(str(settings['seed']))}" if "seed" in settings else ""
    yield f"- {checkpoint.step:,} optimizer steps{seed}, precision {settings['trainer'].get('precision')}"
    if result:
        yield f"- status of the run: {result.get('status')}"
        used = f"{processes(result.get('world_size'))} on {hardware.get('device')}"
        yield f"- {used}; {result.get('seconds', 0):,.0f} s"
        versions = ", ".join(f"{name} {version}" for name, version in _mapping(result.get("versions")).items())
        commit = _mapping(result.get("git")).get("commit")
        yield f"- versions: {versions}" + (f"; AlexNet Lab at {commit}" if commit else "")
    overrides = settings.get("overrides")
    if isinstance(overrides, list):
        yield f"\n```sh\n{printable(usual_command('train', *map(str, overrides)))}\n```\n"


def _use(checkpoint: Checkpoint, weights: str) -> Iterator[str]:
    facts = checkpoint.needed_preprocessing()
    yield "## Use\n"
    yield "```python\nimport alexnet_lab\n"
    yield f'model = alexnet_lab.load("{printable(weights)}")'
    yield 'logits = model.network(model.preprocess(["first.jpg", "second.jpg"]))'
    yield "print([model.classes[index] for index in logits.argmax(1)])"
    yield "```\n"
    yield "`safetensors.torch.load_file` reads the state dict without AlexNet Lab; the settings of the network, the"
    yield "preprocessing and the class names are JSON in the metadata of the file.\n"
    mean = "the mean image is in the metadata" if facts.mean_image is not None else f"mean {facts.mean}"
    yield f"Preprocessing: {'; '.join(facts.steps())}; {mean}, std {facts.std}.\n"


def _limits(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits\n"
    yield "- The network chooses one of its classes for every image, also if the image shows none of them."
    if metrics:
        yield "- The metrics hold for images like those of the dataset. Nothing else was measured."
    else:
        yield "- No metrics of these weights were recorded."
    yield "- The license is not stated: the data and the author of the training decide it.\n"


def _call(node: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """A configured object as Python would write it: `torch.optim.SGD(lr=0.01, momentum=0.9)`."""
    options = {key: value for key, value in node.items() if key not in without and not str(key).startswith("_")}
    return f"{printable(str(node.get('_target_', '')))}({_arguments(options)})"


def _arguments(options: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{key}={value!r}" for key, value in options.items()))
