"""Top-1, top-5 and loss of a checkpoint on its run's data, or of the averaged predictions of several checkpoints.

The process that starts several ranks loads neither torch nor lightning.
"""

import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from omegaconf import DictConfig, OmegaConf

from alexnet_lab import distributed, files
from alexnet_lab.config.output_file import check_output
from alexnet_lab.config.values import check_values
from alexnet_lab.errors import FAILED, RunFailed, UserError
from alexnet_lab.launch import environment, gpus, running, slurm
from alexnet_lab.launch.command_ranks import rank_main, run_on_ranks
from alexnet_lab.launch.rank import NOISE
from alexnet_lab.launch.stopping import end_one_of_several
from alexnet_lab.rows import FILE, Rows, read_rows, write_table

if TYPE_CHECKING:
    from alexnet_lab.evaluation import Evaluation

Split = Literal["test", "val"]
Protocol = Literal["center", "ten_crop"]
SPLITS, PROTOCOLS = get_args(Split), get_args(Protocol)
Names = str | list[str]
KINDS = {"checkpoint": Names, "against": Names | None, "split": Split, "protocol": Protocol, "out": Names | None}
KINDS |= {"rows": str | None, "wandb": bool, "modules": Names}
"""The types of the command's own options."""
OTHERS_SECONDS = 5.0
"""Under torchrun, the time in which rank 0 reports an error that all ranks have."""


def evaluate(config: DictConfig) -> dict[str, float]:
    """Evaluate the checkpoints of `config`, print the metrics and return `SPLIT/loss`, `SPLIT/top1`, `SPLIT/top5`.

    With `protocol=center`, the metrics are bit-identical to those that the run itself reports for the same weights.
    With `ten_crop` (paper, section 4.1), the ten softmax outputs of an image are averaged: the classes are ranked by
    mean probability, and the loss is the negative logarithm of the mean probability of the true class. With several
    checkpoints, the outputs of the networks are averaged in the same way, as the paper does for 5 and 7 CNNs
    (section 6); each network uses its own preprocessing. Every image counts once.

    On several ranks, each batch is one rank's, so that the results do not depend on their number. Ranks of torchrun
    other than 0 return an empty dictionary.

    Raises:
        UserError: not an AlexNet Lab checkpoint, a wrong option, images without ten crops, or checkpoints of different
            data.
        SystemExit: a rank failed, or was killed.
    """
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _check_options(options)
    if variables := environment.of_torchrun():
        return _as_rank_of_torchrun(options, variables)
    if slurm.here().in_step:
        raise UserError(
            "srun: start evaluation in one task, with trainer.devices=N for several devices, or by torchrun"
        )
    count = running.local_ranks(options["trainer"])
    if count > 1:
        _check_strategy(options["trainer"].get("strategy"), count)
        return _on_started_ranks(options, count)
    environment.clean({})
    return _evaluate(options)


def _on_started_ranks(options: dict[str, Any], count: int) -> dict[str, float]:
    try:
        found: dict[str, float] = run_on_ranks("alexnet_lab.commands.evaluate", options, count)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    return found


def _as_rank_of_torchrun(options: dict[str, Any], variables: Mapping[str, str]) -> dict[str, float]:
    environment.clean(variables)
    try:
        return _evaluate(options)
    except Exception:
        if distributed.rank():
            time.sleep(OTHERS_SECONDS)  # torchrun ends this process when another one has failed
        raise


def _evaluate(options: dict[str, Any]) -> dict[str, float]:
    """Evaluate on this rank; rank 0 prints, writes and returns the metrics."""
    from alexnet_lab.evaluation import different_classes, evaluate_all, read_all

    for pattern in NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    gpus.check(options["trainer"].get("accelerator"), gpus.look())
    names, against = _list(options["checkpoint"]), _list(options["against"])
    # All are read before the evaluation, which may take an hour.
    read = read_all(names, options["modules"], "checkpoint")
    recorded = _recorded_rows(against)
    read_too = [] if recorded else read_all(against, options["modules"], "against")
    if read_too and [one.file for one in read_too] == [one.file for one in read] and read[0].file:
        raise UserError(f"against={options['against']} is the checkpoint itself; name another one")
    if read_too and (difference := different_classes(read[0], read_too[0])):
        raise UserError(
            f"against={options['against']} has other classes: {difference}; their images cannot be compared"
        )
    with_rows = bool(options["rows"] or against)
    run = None
    if options["wandb"] and not distributed.rank():
        from alexnet_lab.loggers.wandb_rows import recorded_run

        run = recorded_run(names[0], read[0].file, read[0].settings)
    measured = evaluate_all(names, read, options, with_rows)
    other = evaluate_all(against, read_too, options, with_rows).rows if read_too else recorded
    if distributed.rank():
        return {}
    result = _report(measured, other, options)
    if run:
        from alexnet_lab.loggers.wandb_rows import send

        assert measured.rows
        send(measured.rows, run, f"rows/{options['split']}" + "_ten_crop" * (options["protocol"] == "ten_crop"))
    return result


def _recorded_rows(names: Sequence[str]) -> Rows | None:
    """The rows in the folder or file that `against` names; None if it names checkpoints."""
    paths = [Path(name) if name.endswith(".csv") else Path(name, FILE) for name in names]
    if len(paths) > 1 and (found := next((path for path in paths if path.is_file()), None)):
        raise UserError(
            f"against: {found} has rows, and rows cannot be averaged; name one folder of rows, or checkpoints"
        )
    return read_rows(paths[0]) if len(paths) == 1 and paths[0].is_file() else None


def _report(measured: "Evaluation", against: Rows | None, options: dict[str, Any]) -> dict[str, float]:
    """Print the metrics and write the files."""
    from alexnet_lab.report import changes, evaluations

    split = options["split"]
    result = {f"{split}/{name}": value for name, value in measured.figures.items()}
    evaluations.show(measured, options, result)
    about, pixels = evaluations.about(measured.members, options), measured.members[0].data.dataset.split(split).image
    if options["rows"]:
        from alexnet_lab.report.row_files import write_folder

        assert measured.rows
        for line in write_folder(Path(options["rows"]), measured.rows, pixels, about | result):
            print(line)
    compared = None
    if against:
        assert measured.rows
        names = (", ".join(_list(options["checkpoint"])), ", ".join(_list(options["against"])))
        compared = changes.compare(names, measured.rows, against)
        changes.show(compared)
    for out in map(Path, _list(options["out"])):
        if out.suffix.lower() == ".json":
            differences = {"against": changes.facts(compared)} if compared else {}
            files.write(out, json.dumps(about | result | differences, indent=2) + "\n")
        elif compared and out.suffix.lower() == ".html":
            files.write(out, changes.html(compared, pixels, about))
        elif compared:
            write_table(out, *changes.table(compared))
        files.print_written(out)
    return result


def _check_options(options: dict[str, Any]) -> None:
    for key in ("checkpoint", "against"):
        given = _list(options[key])
        if (key == "checkpoint" and not given) or not all(isinstance(name, str) for name in given):
            raise UserError(f"name a checkpoint: {key}=PATH, such as logs/train/runs/NAME/checkpoints/best.ckpt")
    for name, choices in (("split", SPLITS), ("protocol", PROTOCOLS)):
        if options[name] not in choices:
            raise UserError(f"{name}={options[name]}: there is no such {name}; choose from: {', '.join(choices)}")
    if "_target_" not in options["trainer"]:
        raise UserError("choose a trainer: trainer=default|cpu|gpu|ddp|ddp_cpu")
    if options["trainer"].get(limit := f"limit_{options['split']}_batches") == 0:
        raise UserError(f"trainer.{limit}=0 leaves no image to evaluate")
    for out in _list(options["out"]):
        if not options["against"] and str(out).lower().endswith((".html", ".csv")):
            raise UserError(f"out={out}: against=CHECKPOINT is missing; the file would show the images that changed")
        check_output("out", out, [".json", ".html", ".csv"] if options["against"] else [".json"])
    check_values(options, KINDS)
    if options["rows"]:
        from alexnet_lab.report.row_files import check_folder

        check_folder(Path(options["rows"]), "rows")
    if options["wandb"] and (not options["rows"] or len(_list(options["checkpoint"])) > 1):
        raise UserError(
            "wandb=true adds the rows of one checkpoint to its W&B run; name one checkpoint, and rows=FOLDER"
        )


def _check_strategy(strategy: Any, count: int) -> None:
    """Before the ranks are started: the name of a strategy that has all of the network on each device."""
    name = str(strategy.get("_target_") if isinstance(strategy, dict) else strategy)
    if name != "auto" and not name.lower().rpartition(".")[2].startswith("ddp"):
        raise UserError(
            f"trainer.strategy={name}: evaluation on {count} devices needs the whole network on each of them; choose "
            "trainer=ddp|ddp_cpu, or trainer=default|cpu|gpu for one device"
        )


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _on_started_rank(options: dict[str, Any]) -> dict[str, float]:
    from alexnet_lab.commands.entry import advise

    try:
        return _evaluate(options)
    except UserError as error:
        raise UserError(advise(error, "evaluate")) from error


if __name__ == "__main__":
    end_one_of_several(rank_main(_on_started_rank))
