"""Prints the end of a run: its metrics and the published ones of its recipe, the time, and the paths."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alexnet_lab.callbacks.pace import speed
from alexnet_lab.command_line import command, from_here, override
from alexnet_lab.config.arguments import folder_flag, given
from alexnet_lab.distributed import processes
from alexnet_lab.runs import folders
from alexnet_lab.runs.recipe import NOT_MEASURED, not_comparable, published_text
from alexnet_lab.runs.run import Run, read_run


def print_summary(folder: Path) -> None:
    """Print the recorded result of the run in `folder` as a table, and the paths below it."""
    run = read_run(folder)
    if run.is_range_test:
        _print_range_test(run)
        return
    result, published, different = run.result, run.published, not_comparable(run.config)
    reason = f" ({result['reason']})" if result.get("reason") else ""
    title = f"run {run.name}: {run.status}{reason}"
    table = Table("", "this run", *["published"] * bool(published), title=title, show_header=bool(published))
    for label, ours, theirs in [*_metrics(result, published, not different), *_facts(result)]:
        table.add_row(label, ours, *[theirs] * bool(published))
    _print(table, [*_about_published(run, different), *_paths(folder, result)])


def _print(table: Table, lines: Iterable[str]) -> None:
    table.title_justify = "left"
    console = Console()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_range_test(run: Run) -> None:
    found, settings = run.result["lr_test"], run.config["tune"]
    reason = f" ({run.result['reason']})" if run.result.get("reason") else ""
    table = Table("", "", title=f"range test {run.name}: {run.status}{reason}", show_header=False)
    table.add_row("suggested optimizer.lr", "none" if found["suggestion"] is None else f"{found['suggestion']:g}")
    if found["steps"]:
        at_end = " (tune.end)" if found["steps"] == settings["steps"] else ""  # otherwise interrupted
        ended = ", where the loss diverged" if found["diverged"] else at_end
        table.add_row("learning rates", f"{settings['start']:g} to {found['last_lr']:.2g}{ended}")
    table.add_row("steps", f"{found['steps']} of {settings['steps']}")
    table.add_row("time", f"{run.result['seconds']:.1f} s")
    _print(table, _after_range_test(run, found))


def _after_range_test(run: Run, found: Mapping[str, Any]) -> Iterable[str]:
    suggestion = found["suggestion"]
    written = [path for path in (Path(run.source, name) for name in folders.OF_RANGE_TEST) if path.exists()]
    if found.get("fell_below_guessing") is False:  # older tests do not say
        never = f"the loss did not fall clearly below that of guessing ({found['guessing']:.3f}) before it rose"
        yield f"{never}: the suggestion is where it begins to rise; more tune.steps may help"
    yield from (f"written: {path.absolute()}" for path in written)
    if suggestion is not None:
        replaced = ("tune", "optimizer.lr", "resume")
        kept = [text for text in run.config["overrides"] if text.partition("=")[0].lstrip("+~") not in replaced]
        kept = [text for text in kept if not text.lstrip("+").startswith("tune.")]
        words = [*folder_flag(given), *kept, override("optimizer.lr", suggestion)]
        yield f"train with it: {command('train', *words)}"
    elif written:
        yield "no suggestion: the loss never fell; try a higher tune.end or more tune.steps"


def _metrics(
    result: Mapping[str, Any], published: Mapping[str, Any], comparable: bool
) -> Iterable[tuple[str, str, str]]:
    """The test metrics and all published ones, which are in brackets if they are not comparable."""
    final, best = result["final"], result["best"]
    for name in dict.fromkeys([*("test/top1", "test/top5", "test/loss"), *published]):
        theirs = published_text(published.get(name))
        if name in final or theirs:
            ours = f"{final[name]:.4f}" if name in final else NOT_MEASURED
            yield name, ours, theirs if comparable or not theirs else f"({theirs})"
    if "val/top1" in best:
        yield "best val/top1", f"{best['val/top1']:.4f} (epoch {result['best_epoch'] + 1})", ""


def _facts(result: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    yield "time", f"{result['seconds']:.1f} s", ""
    if result["images_per_second"]:
        rate = speed(result["images_per_second"])
        yield "training rate", f"{rate} on {processes(result['world_size'])}", ""
    yield "parameters, MACs", f"{result['parameters']:,}, {result['macs']:,}", ""


def _about_published(run: Run, different: list[str]) -> Iterable[str]:
    """The source of the published metrics, whether they are comparable, and how to measure those over ten views."""
    if not run.published:
        return
    yield f"published: {run.config['recipe']['source']}"
    if different:
        yield f"(not comparable: this run is the recipe with {' '.join(different)})"
    checkpoint = Path(run.source, folders.LAST)
    if any(name.startswith("ten_crop/") for name in run.published) and checkpoint.exists():
        ten_crop = override("checkpoint", from_here(checkpoint)), "protocol=ten_crop"
        yield f"ten_crop/ is measured by: {command('evaluate', *ten_crop)}"


def _paths(folder: Path, result: Mapping[str, Any]) -> Iterable[str]:
    yield f"folder: {folder}"
    yield from (f"{name}: {folder / path}" for name, path in result["checkpoints"].items())
