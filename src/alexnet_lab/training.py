"""One run on one rank: build the configured objects, train, test, record. Read it top to bottom."""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from alexnet_lab import distributed
from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.callbacks.checkpoints import Checkpoints
from alexnet_lab.callbacks.compiled import compiled
from alexnet_lab.callbacks.finite_loss import FiniteLoss
from alexnet_lab.callbacks.heartbeat import Heartbeat
from alexnet_lab.callbacks.pruning import Pruning
from alexnet_lab.callbacks.question import question_of_sweep
from alexnet_lab.callbacks.stopwatch import Stopwatch
from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.config import trial
from alexnet_lab.config.agreement import agreeing_layers
from alexnet_lab.config.blame import blamed
from alexnet_lab.config.build import build, build_factory
from alexnet_lab.config.by_device import device_of, set_matmul_precision
from alexnet_lab.config.layer_patterns import factors_by_name, freeze, last_layer
from alexnet_lab.config.memory import training_remedies
from alexnet_lab.config.optimizer import optimizer_factory
from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.config.time_limit import max_seconds
from alexnet_lab.config.trainer import check_ranks, log_hints, make_trainer
from alexnet_lab.config.tree import print_tree
from alexnet_lab.data.dataset import overview
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.errors import QUIT, STOPPED, RunInterrupted, RunPruned
from alexnet_lab.loggers.others import finish_loggers, log_config
from alexnet_lab.loss import TrainingLoss
from alexnet_lab.runs import folders, metric_rows, result_file, run_facts
from alexnet_lab.runs.checkpoint_file import steps_done
from alexnet_lab.runs.found_settings import record_found
from alexnet_lab.runs.init_setting import weights_named, without_weights
from alexnet_lab.runs.left_out import leave_out_unreadable
from alexnet_lab.runs.metrics_csv import make_loggers
from alexnet_lab.runs.summary import print_summary

SCHEDULE = ("optimizer", "steps_per_epoch", "total_steps")
"""What a schedule is given when the length of the run is known."""

log = logging.getLogger(__name__)


def train(
    settings: dict[str, Any],
    folder: Path,
    checkpoint: Path | None,
    started: float,
    progress: Callable[[], None] = lambda: None,
    stop_requested: Callable[[], bool] = lambda: False,
    also: Sequence[pl.Callback] = (),
) -> None:
    """Run `settings` in `folder`, from `checkpoint` where there is one; `started` is when the process began, in s.

    `progress` is called after each batch and checkpoint; `stop_requested` is asked then; `also`: further callbacks.

    Raises:
        UserError: something in the settings is wrong; nothing was trained.
        RunFailed: training cannot continue.
        RunInterrupted, BdbQuit: a signal, a time limit or `q` at the prompt of a debugger stopped it.
    """
    check_run_settings(settings)
    step = steps_done(checkpoint, settings["trainer"]) if checkpoint else 0
    pl.seed_everything(settings["seed"], verbose=False)
    data: ImageDataModule = build(settings["data"], "data", ImageDataModule)
    settings = record_found(settings, data, folder)
    watch: Any = FiniteLoss()
    if settings.get("tune"):  # older runs have none
        from alexnet_lab.pictures.lr_range import as_range_test  # here, since only range tests need it

        settings, watch = as_range_test(settings, folder)
    classifier, facts = make_classifier(settings, data, is_new=checkpoint is None)
    here = folders.placed(settings, folder)
    callbacks = {
        name: build(node, f"callbacks.{name}", pl.Callback) for name, node in here["callbacks"].items() if node
    }
    loggers = make_loggers(here["logger"], folder)
    stopwatch, begun = Stopwatch(started), partial(folders.training_has_begun, folder)
    kept = {**settings["checkpoints"], "max_seconds": max_seconds(settings["trainer"].get("max_time"))}
    payload = {**leave_out_unreadable(data, folder), "config": settings, "preprocessing": data.preprocessing.facts()}
    last, best = folder / folders.LAST, folder / folders.BEST
    writer = AtomicCheckpointIO(payload, in_background=(last, best), progress=progress)
    checkpoints = Checkpoints(last, best, writer=writer, stop_requested=stop_requested, **kept)
    pruning = [Pruning(question, checkpoints, progress)] if (question := question_of_sweep()) else []
    if distributed.local_rank() == 0:
        data.prepare_data()

    @cache  # asked first where it was raised
    def reason_of(error: BaseException) -> BaseException:
        return blamed(error, parts, begun(), lambda: training_remedies(trainer, data.batch_size))

    def record_failure(error: BaseException) -> None:
        if not isinstance(error, STOPPED):
            result_file.record_failure(folder, reason_of(error), **_figures(folder, stopwatch, checkpoints), **facts)

    first = pl.callbacks.LambdaCallback(
        on_train_start=lambda trainer, _: _begin(trainer, folder, step, stop_requested),
        on_exception=lambda trainer, _, error: record_failure(error),  # before any other rank notices
        on_validation_batch_end=checkpoints.validated,
    )
    graph = compiled(classifier.net, settings["compile"])
    called = [first, *graph, Heartbeat(progress), watch, stopwatch, *also, *callbacks.values(), checkpoints, *pruning]
    set_matmul_precision(settings.get("matmul_precision"))
    trainer = make_trainer(here["trainer"], folder, called, [*loggers.values()], writer, settings.get("hang_timeout"))
    check_ranks(trainer)
    parts: dict[str, object] = {f"callbacks.{name}": callback for name, callback in callbacks.items()} | loggers
    parts["trainer.profiler"] = trainer.profiler  # type: ignore[attr-defined]
    trial.check_parts(settings, trainer, classifier, data, callbacks, parts)
    # Lightning converts only after loading a checkpoint: a float32 network would cut off its double precision.
    trainer.precision_plugin.convert_module(classifier)

    if trainer.is_global_zero:
        print_tree(settings)
    facts |= {"world_size": trainer.world_size, "hardware": run_facts.hardware(trainer)}
    status: result_file.Status = "failed"
    reason = None
    try:
        if trainer.is_global_zero:
            log.info("%s", overview(data.dataset, with_test=settings["test_on"] != "none"))
            log_hints(trainer, classifier.net, data.batch_size)
        log_config(trainer.loggers, {**settings, **facts})
        # Before the callbacks' setup: a callback that averages the weights keeps its copy on their device.
        classifier.to(trainer.strategy.root_device)
        trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
        folders.training_begins(folder)  # also if nothing was left to train
        _test(settings, trainer, classifier, data, checkpoints)
        status, reason = "finished", classifier.ended_early
    except RunPruned as stopped:
        folders.training_begins(folder)
        status, reason = "pruned", str(stopped)
    except STOPPED as stopped:
        status, reason = "interrupted", str(stopped) or QUIT
        raise
    except Exception as error:
        record_failure(error)
        raise reason_of(error)  # noqa: B904 - possibly the same
    finally:
        if trainer.is_global_zero:
            facts |= {"lr_test": watch.result()} if settings.get("tune") else {}
            facts |= {"images": classifier.images, "reason": reason, "peak_memory_mb": run_facts.peak_memory(trainer)}
            _end(folder, status, trainer, stopwatch, checkpoints, facts)


def make_classifier(
    settings: dict[str, Any], data: ImageDataModule, is_new: bool
) -> tuple[ImageClassifier, dict[str, Any]]:
    """The network that the data fits, with its optimizer and schedule; and what is known of it before training."""
    net: nn.Module = build(without_weights(settings["model"]), "model", nn.Module)
    layers = agreeing_layers(net, settings["model"], data.spec.channels, data.image_size, data.spec.num_classes)
    facts, last = run_facts.known_before(net, layers), last_layer(layers)
    _, weights = weights_named(settings)
    if is_new and weights:
        from alexnet_lab.runs.initial_weights import take_weights  # here, since few runs need it

        take_weights(net, settings, data, last)
    freeze(net, settings.get("freeze", []), last)
    factors = factors_by_name(net, settings.get("layers") or [], last)
    if settings["channels_last"]:
        net.to(memory_format=torch.channels_last)
    optimizer = optimizer_factory(settings["optimizer"], device_of(settings["trainer"]).kind == "cuda", factors)
    optimizer(net.named_parameters())  # an invalid learning rate is reported now, not when training has begun
    scheduler = build_factory(settings["scheduler"], "scheduler", SCHEDULE, LRScheduler)
    objective = settings.get("loss") or {}  # older runs have none
    data.class_weights = objective.get("class_weights")
    loss = TrainingLoss(objective.get("label_smoothing", 0.0), data.weights_of_classes)
    return ImageClassifier(net, optimizer, scheduler, settings["seed"], loss), facts


def _end(
    folder: Path,
    status: result_file.Status,
    trainer: pl.Trainer,
    stopwatch: Stopwatch,
    checkpoints: Checkpoints,
    facts: dict[str, Any],
) -> None:
    """Record how the run ended, tell the callbacks, and pass its metrics and best checkpoint to the loggers."""
    figures = _figures(folder, stopwatch, checkpoints)
    summary = ("parameters", "macs", "seconds", "seconds_to_best", "images_per_second", "images")
    try:
        if status != "failed" and folders.training_has_begun(folder):
            result_file.write_result(folder / folders.RESULT, status, **figures, error=None, **facts)
            print_summary(folder)
        if folders.training_has_begun(folder):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if hasattr(callback, "run_ended"):  # lightning has no hook for it
                    callback.run_ended(trainer)
    finally:
        finish_loggers(
            trainer.loggers,
            status in result_file.ENDED_WELL,
            best=figures["best"],
            summary={"status": status, **{name: {**facts, **figures}[name] for name in summary}},
            checkpoint=checkpoints.best if checkpoints.best.exists() else None,
            is_kept=folders.training_has_begun(folder),
        )


def _begin(trainer: pl.Trainer, folder: Path, step: int, stop_requested: Callable[[], bool]) -> None:
    """From now on nothing is deleted, except the rows after `step`, which the continued run writes again."""
    if stop_requested() and not folders.training_has_begun(folder):
        raise RunInterrupted("signal")
    folders.training_begins(folder)
    if trainer.is_global_zero:
        result_file.reserve(folder / folders.RESULT)
        metric_rows.truncate(folder / folders.METRICS, step)


def _test(
    settings: dict[str, Any],
    trainer: pl.Trainer,
    classifier: ImageClassifier,
    data: ImageDataModule,
    checkpoints: Checkpoints,
) -> None:
    if settings["test_on"] == "none":
        return
    if settings["test_on"] == "best" and checkpoints.best.exists():
        path = checkpoints.best
        log.info("testing the weights of epoch %d, the best by val/top1", checkpoints.best_epoch + 1)
    else:
        path = checkpoints.last
        gone = settings["test_on"] == "best" and checkpoints.keep and checkpoints.best_epoch >= 0
        best = f"epoch {checkpoints.best_epoch + 1} was the best, but its weights have been replaced"
        log.info("testing the last weights%s", f" ({best})" if gone else "")
    if path.exists():
        # The last weights are also read from the file: callbacks may have replaced those in memory.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        trainer.strategy.load_model_state_dict({"state_dict": weights})
    trainer.test(classifier, data, verbose=False)


def _figures(folder: Path, stopwatch: Stopwatch, checkpoints: Checkpoints) -> dict[str, Any]:
    return {
        **metric_rows.figures(metric_rows.read_rows(folder / folders.METRICS), stopwatch.validated_at),
        "seconds": stopwatch.seconds,
        "images_per_second": stopwatch.images_per_second,
        "checkpoints": {name: str(path.relative_to(folder)) for name, path in checkpoints.on_disk().items()},
    }
