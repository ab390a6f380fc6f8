"""`describe what=cost`: the time, memory and checkpoint size of a run, from a few steps of the real training.

Several ranks have a process each: `python -m alexnet_lab.description.cost`.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_lab import distributed, files
from alexnet_lab.callbacks.pace import clock, rough, speed
from alexnet_lab.errors import FAILED, RunFailed, UserError
from alexnet_lab.launch import environment, gpus, ownership, precision, running, slurm
from alexnet_lab.launch.command_ranks import rank_main, run_on_ranks
from alexnet_lab.launch.rank import NOISE, silence_lightning
from alexnet_lab.launch.stopping import end_one_of_several

LEFT_OUT = ("alexnet_lab.callbacks.progress.Progress", "alexnet_lab.pictures.callback.Pictures")
"""Callbacks that are not called in the measured steps."""
WIDTH = 160


def cost(settings: dict[str, Any], outputs: Sequence[Path]) -> None:
    """Print what a run of `settings` costs, measured in a temporary folder, and write it to `outputs` (*.json).

    Raises:
        UserError: something in the settings is wrong, or the run is too short.
    """
    _check(settings)
    with tempfile.TemporaryDirectory(prefix="alexnet_lab-") as name:
        measured = _on_all_ranks(_measured_settings(settings), Path(name))
    estimate = estimated(measured, bool(settings["checkpoints"]["keep"]))
    _print(estimate, f"{settings['model']['_target_'].rpartition('.')[2]} on {settings['data']['name']}")
    for path in outputs:
        files.write(path, json.dumps(estimate, indent=2) + "\n")
        files.print_written(path)


def _check(settings: dict[str, Any]) -> None:
    if settings.get("resume") is not None:
        raise UserError(f"resume={settings['resume']}: what=cost measures a new run; omit resume")
    if settings["trainer"].get("num_nodes", 1) != 1 or environment.of_torchrun() or slurm.here().in_step:
        raise UserError("what=cost measures on one machine, which starts its ranks by itself: trainer.num_nodes=1")


def _measured_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that ends when it is measured and keeps nothing."""
    callbacks = {
        name: node
        for name, node in (settings.get("callbacks") or {}).items()
        if not (isinstance(node, dict) and node.get("_target_") in LEFT_OUT)
    }
    left = {key: value for key, value in settings.items() if key != "folder"}
    return {
        **left,
        "logger": {},
        "callbacks": callbacks,
        "checkpoints": {**settings["checkpoints"], "keep": False},
        "trainer": {**settings["trainer"], "max_time": None},
    }


def _on_all_ranks(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    started = time.time()
    ownership.claim(folder, settings)
    options = {"settings": settings, "folder": str(folder), "started": started}
    count = running.local_ranks(settings["trainer"])
    if count == 1:
        environment.clean({})
        return measure(options)
    try:
        found: dict[str, Any] = run_on_ranks("alexnet_lab.description.cost", options, count, share_cores=True)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    return found


def measure(options: dict[str, Any]) -> dict[str, Any]:
    """Measure on this rank; rank 0 returns what `CostMeter` found."""
    from alexnet_lab.description.cost_meter import CostMeter, Measured
    from alexnet_lab.training import train

    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    settings, folder = options["settings"], Path(options["folder"])
    gpus.check(settings["trainer"].get("accelerator"), gpus.look())
    settings = precision.choose(settings, folder)
    silence_lightning()
    meter = CostMeter(str(folder), options["started"], settings["test_on"] != "none")
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.suppress(Measured):
        train(settings, folder, None, options["started"], also=[meter])
    return {} if distributed.rank() else meter.found


def estimated(measured: dict[str, Any], keeps: bool) -> dict[str, Any]:
    """The cost of the whole run, by name; bytes, MB (1e6 bytes) and seconds.

    Raises:
        UserError: no step was measured.
    """
    steps, warm = measured["steps"], measured["warm_up_steps"]
    if not measured["images"]:
        raise UserError(
            f"the run has {steps} optimizer step{'s' * (steps != 1)}: the first {warm} are left out, and none is left "
            "to measure; a longer run (trainer.max_epochs) or more images can be measured"
        )
    rate = measured["images"] / measured["seconds"]
    epochs = steps / measured["steps_per_epoch"]
    passes = -(-steps // measured["steps_per_epoch"])
    parts = {
        "start": measured["start_seconds"]
        + max(0.0, measured["warm_up_seconds"] - warm * measured["batch_size"] / rate),
        "training": steps * measured["batch_size"] / rate,
        "validation": _evaluation(measured, measured["validation_images"], measured["validations"]),
        "test": _evaluation(measured, measured["test_images"], 1),
        "checkpoints": passes * measured["checkpoint_seconds"] if keeps else 0.0,
    }
    return {
        "images_per_second": rate,
        "seconds_per_step": measured["seconds"] / measured["measured_steps"],
        "warm_up_steps": warm,
        "measured_steps": measured["measured_steps"],
        "steps": steps,
        "epochs": epochs,
        "ranks": measured["ranks"],
        "hardware": measured["hardware"],
        "peak_memory_mb": measured["peak_memory_mb"],
        "checkpoint_bytes": measured["checkpoint_bytes"],
        "seconds": {**parts, "total": sum(parts.values())},
    }


def _evaluation(measured: dict[str, Any], images: int, passes: int) -> float:
    """Seconds of `passes` over `images` in all; without a validation, an image takes a third of a training step's."""
    if not images:
        return 0.0
    per_image = measured["seconds"] / measured["images"] / 3
    first, others = measured["first_batch_images"], measured["evaluated_images"]
    if others:
        per_image = measured["evaluation_seconds"] / others
    elif first:
        per_image = measured["first_batch_seconds"] / first
    start = max(0.0, measured["first_batch_seconds"] - first * per_image)
    return float(images * per_image + passes * start)


def _print(estimate: dict[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    seconds = dict(estimate["seconds"])
    total = seconds.pop("total")
    parts = ", ".join(f"{name} {clock(value)}" for name, value in seconds.items() if round(value))
    memory, ranks = estimate["peak_memory_mb"], estimate["ranks"]
    epochs = _rounded(estimate["epochs"])
    each = " of rank 0" if ranks > 1 else ""
    rows = {
        "measured": f"{estimate['measured_steps']:,} steps after {estimate['warm_up_steps']} that are left out",
        "device": f"{estimate['hardware']['device']}, {ranks} rank{'s' * (ranks > 1)}",
        "speed": speed(estimate["images_per_second"]),
        "time per step": f"{_rounded(1000 * estimate['seconds_per_step'])} ms",
        "peak memory" + each: ", ".join(f"{name} {size:,} MB" for name, size in memory.items()),
        "length of the run": f"{estimate['steps']:,} steps, {epochs} epoch{'s' * (epochs != '1')}",
        "time of the run": f"{rough(total)}{': ' * bool(parts)}{parts}",
        "checkpoint": f"{_rounded(estimate['checkpoint_bytes'] / 1e6)} MB (last.ckpt)",
    }
    table = Table(title=f"{title}: cost", title_justify="left", show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    console = Console(width=WIDTH)
    console.print(table)
    console.print("without loggers and pictures, which take time in a run that has them", markup=False)


def _rounded(number: float) -> str:
    """For people: two digits below 1, three below 1,000."""
    return f"{number:.2g}" if number < 1 else f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


if __name__ == "__main__":
    end_one_of_several(rank_main(measure))
