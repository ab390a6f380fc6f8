"""A learning-rate range test: the settings of its run, and the callback that records and draws the losses."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from alexnet_lab import files
from alexnet_lab.callbacks.agreement import Agreement
from alexnet_lab.errors import UserError
from alexnet_lab.optim.lr_curve import Divergence, Suggestion, smoothed, suggestion
from alexnet_lab.pictures.chart import Line, Panel, chart

CURVE, PICTURE = "lr.csv", "lr.png"
HIGHEST = 2.0
"""The top of the picture, divided by the highest of the first losses: a loss that diverges would hide the others."""
UNLIMITED = {"max_epochs": -1, "min_epochs": None, "min_steps": None}
WITHOUT_VALIDATION = {"limit_val_batches": 0, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}


def as_range_test(settings: dict[str, Any], folder: Path) -> tuple[dict[str, Any], "RangeTest"]:
    """The range test `settings["tune"]` of a run: a run whose learning rate rises exponentially, and its callback.

    Without validation, test, checkpoints, loggers and callbacks other than progress. The rest stays: network, data,
    optimizer, precision, devices.

    Raises:
        UserError: the optimizer has no learning rate.
    """
    start, end, steps = (settings["tune"][key] for key in ("start", "end", "steps"))
    if "lr" not in settings["optimizer"]:
        raise UserError(f"tune=lr: the optimizer {settings['optimizer'].get('_target_')} has no option lr")
    rising = {"_target_": "alexnet_lab.optim.schedules.rising", "_partial_": True, "last_factor": end / start}
    progress = settings["callbacks"].get("progress")
    changed = {
        **settings,
        "optimizer": {**settings["optimizer"], "lr": start},
        "scheduler": rising,
        "trainer": {**settings["trainer"], **UNLIMITED, **WITHOUT_VALIDATION, "max_steps": steps},
        "callbacks": {"progress": {**progress, "test_on": "none"}} if progress else {},
        "checkpoints": {**settings["checkpoints"], "keep": False},
        "logger": {},
        "test_on": "none",
    }
    return changed, RangeTest(folder, start, end, steps)


class RangeTest(pl.Callback):
    """Records the mean training loss of each global batch, and stops all ranks at the step at which it diverges.

    Each step waits for the device and the other ranks. At the end, rank 0 writes `lr.csv` and `lr.png` to `folder`.
    `start`, `end` and `steps`: see `conf/tune/lr.yaml`.
    """

    def __init__(self, folder: Path, start: float, end: float, steps: int) -> None:
        self._folder = folder
        self._rates = [start * (end / start) ** (step / (steps - 1)) for step in range(steps)]
        self.losses: list[float] = []
        """Of each step; the last one is NaN or infinite if this has ended the test."""
        self.has_diverged = False
        self.guessing: float | None = None
        """The loss of the frequencies of the classes as prediction, after the test."""
        self.suggestion: Suggestion | None = None
        """Of optimizer.lr, after the test; None if the loss never falls."""
        self._divergence = Divergence()
        self._ranks = Agreement()
        self._labels = torch.zeros(1, dtype=torch.float64)
        """How often each class was a label; [K] after the start."""
        self._before = torch.zeros(2, dtype=torch.float64)  # loss sum and count of this epoch so far

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._ranks.join(trainer)
        self._labels = torch.zeros(trainer.datamodule.spec.num_classes, dtype=torch.float64)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, *_: Any) -> None:
        self._before.zero_()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._labels += torch.bincount(batch.labels.cpu(), minlength=len(self._labels))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        total = pl_module.train_metrics.sums()[[0, 3]]
        loss, count = pl_module.over_ranks(total - self._before).tolist()
        self._before = total
        self.losses.append(loss / count)
        diverged = self._divergence.add(self.losses[-1])
        # Ranks that see the same samples may differ in the last digit.
        self.has_diverged = trainer.should_stop = bool(self._ranks.strongest(int(diverged)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        shares = pl_module.over_ranks(self._labels)
        if trainer.is_global_zero and self.losses:
            shares = shares[shares > 0] / shares.sum()
            self.guessing = float(-(shares * shares.log()).sum())
            self.suggestion = suggestion(*self._finite(), self.guessing)
            self._write(self.guessing)

    def result(self) -> dict[str, Any]:
        """For `result.json`."""
        last = self._rates[len(self.losses) - 1] if self.losses else None
        ended = {"steps": len(self.losses), "last_lr": last, "diverged": self.has_diverged}
        rate, has_learned = self.suggestion or (None, None)
        return {**ended, "suggestion": rate, "fell_below_guessing": has_learned, "guessing": self.guessing}

    def _finite(self) -> tuple[list[float], list[float]]:
        finite = [loss for loss in self.losses if loss - loss == 0]
        return self._rates[: len(finite)], finite

    def _write(self, guessing: float) -> None:
        rates, losses = self._finite()
        means = smoothed(rates, losses).tolist()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["step", "lr", "train/loss_step", "smoothed"])
        for step, row in enumerate(zip(self._rates, self.losses, [*means, None], strict=False), start=1):
            writer.writerow([step, *row])
        files.write(self._folder / CURVE, text.getvalue())
        if losses:
            drawn = io.BytesIO()
            chart([self._panel(rates, losses, means, guessing)], legend_below=True).save(drawn, "PNG")
            files.write(self._folder / PICTURE, drawn.getvalue())

    def _panel(self, rates: list[float], losses: list[float], means: list[float], guessing: float) -> Panel:
        top = min(max(losses), HIGHEST * max(losses[: len(losses) // 10 + 1]))
        low, high = min(*losses, guessing), max(top, guessing)
        level = Line(
            f"guessing ({guessing:.3f})", [rates[0], rates[-1]], [guessing] * 2, colour=3, dash=1, marked=False
        )
        return Panel(
            x="learning rate (optimizer.lr)",
            y="training loss" + (" (cut off at the top)" if max(losses) > top else ""),
            lines=[Line("each step", rates, losses, colour=8), Line("smoothed", rates, means), level],
            log_x=True,
            y_range=(low - 0.05 * (high - low), high + 0.05 * (high - low)),
            marks=[(self.suggestion.rate, f"suggested: {self.suggestion.rate:.2g}")] if self.suggestion else [],
        )
