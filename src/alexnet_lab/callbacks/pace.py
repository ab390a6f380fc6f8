"""How fast a run trains and evaluates, and how long the rest will take. Only arithmetic; it reads no clock."""

import math
from dataclasses import dataclass, field
from typing import Any

FORWARD_SHARE = 1 / 3
"""The forward pass's share of a training step: backward computes two gradients per product of the forward pass."""


@dataclass
class Meter:
    """Images and the seconds they took, while it runs; times in s, from any one clock."""

    images: float = 0.0
    seconds: float = 0.0
    _since: float | None = None

    def start(self, now: float) -> None:
        """Start at `now`; no effect if it runs already."""
        self._since = now if self._since is None else self._since

    def lap(self, now: float) -> None:
        """Add the time until `now`, and keep running; no effect if it does not run."""
        if self._since is not None:
            self.seconds += now - self._since
            self._since = now

    def stop(self, now: float) -> None:
        """Pause at `now`."""
        self.lap(now)
        self._since = None

    def take(self, now: float) -> "Meter":
        """The measurement until `now`. The meter is reset to zero and keeps running if it ran."""
        running = self._since is not None
        self.stop(now)
        taken = Meter(self.images, self.seconds)
        self.images = self.seconds = 0.0
        if running:
            self.start(now)
        return taken

    def add(self, other: "Meter") -> None:
        """Add the measurement of `other`."""
        self.images += other.images
        self.seconds += other.seconds

    @property
    def images_per_second(self) -> float | None:
        """None before anything was measured."""
        return self.images / self.seconds if self.images and self.seconds > 0 else None


@dataclass(frozen=True)
class Work:
    """The work of a run: optimizer steps, and images of each kind over all ranks."""

    first_step: int
    """Steps done by earlier sessions."""
    steps: int
    """The step at which the training ends."""
    steps_per_epoch: int
    batch_size: int
    val_images: int
    """Images of one validation."""
    validations_per_step: float
    test_images: int

    @classmethod
    def of(cls, trainer: Any, tested: bool) -> "Work":
        """The work of a fit with an `ImageDataModule` that is about to start; `tested`: whether a test follows."""
        return cls(
            first_step=trainer.global_step,
            steps=int(trainer.estimated_stepping_batches),
            steps_per_epoch=int(trainer.num_training_batches // trainer.accumulate_grad_batches),
            batch_size=trainer.datamodule.batch_size,
            val_images=_evaluated(trainer, "val", trainer.limit_val_batches),
            validations_per_step=_validations_per_step(trainer),
            test_images=_evaluated(trainer, "test", trainer.limit_test_batches) if tested else 0,
        )

    @property
    def length(self) -> str:
        """The length of this session's training: `10 epochs`, `500 steps`, `the remaining 120 steps`."""
        if self.first_step:
            return f"the remaining {self.steps - self.first_step:,} steps"
        epochs, rest = divmod(self.steps, self.steps_per_epoch)
        number, unit = (self.steps, "step") if rest else (epochs, "epoch")
        return f"{number:,} {unit}{'s' * (number != 1)}"

    @property
    def evaluations(self) -> str:
        """Its evaluations: `validation and test`, one of them, or nothing."""
        validation = ["validation"] * bool(self.val_images and self.validations_per_step)
        return " and ".join([*validation, *["test"] * bool(self.test_images)])

    def tenth(self, step: int) -> int:
        """How many tenths of this session's steps are done."""
        return 10 * (step - self.first_step) // max(1, self.steps - self.first_step)

    def left(self, step: int) -> tuple[int, int]:
        """Images that are still to be trained on and to be evaluated when `step` steps are done."""
        steps = max(0, self.steps - step)
        validations = math.ceil(steps * self.validations_per_step - 1e-6)
        return steps * self.batch_size, validations * self.val_images + self.test_images


@dataclass
class Pace:
    """The speeds of a session so far, without its first steps."""

    training: Meter = field(default_factory=Meter)
    evaluation: Meter = field(default_factory=Meter)

    def seconds_left(self, work: Work, step: int) -> float | None:
        """Remaining seconds of training, validations and test after `step` steps; None until a speed is measured.

        Before the first evaluation, an image is assumed to need a third of its time in training.
        """
        rate = self.training.images_per_second
        if rate is None:
            return None
        to_train, to_evaluate = work.left(step)
        return to_train / rate + to_evaluate / (self.evaluation.images_per_second or rate / FORWARD_SHARE)


def _validations_per_step(trainer: Any) -> float:
    interval, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.limit_val_batches or interval is None:
        return 0.0
    if epochs is None:  # the interval counts across epochs
        return trainer.accumulate_grad_batches / float(interval)
    batches = trainer.num_training_batches
    return float(batches // interval * trainer.accumulate_grad_batches / (batches * epochs))


def _evaluated(trainer: Any, split: str, limit: float) -> int:
    """Images of a pass over `split`, which the trainer may limit to a number or a share of its batches."""
    data = trainer.datamodule
    images, size = len(data.dataset.split(split).rows), data.eval_batch_size
    batches = math.ceil(images / size)
    return int(min(images, size * (min(limit, batches) if isinstance(limit, int) else int(limit * batches))))


def clock(seconds: float) -> str:
    """`0:07`, `12:40`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def speed(images_per_second: float) -> str:
    """`1,250 images/s`, `5.3 images/s`."""
    return f"{images_per_second:,.{0 if images_per_second >= 10 else 1}f} images/s"


def rough(seconds: float) -> str:
    """`about 40 s`, `about 3 min`, `about 2 h 10 min`, `about 3 days 4 h`: as exact as an estimate deserves."""
    if seconds < 90:
        return f"about {max(1, round(seconds, -1 if seconds > 20 else 0)):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    if hours < 24:
        return f"about {hours} h" + (f" {rest} min" if rest else "")
    days, hours = divmod(round(seconds / 3600), 24)
    return f"about {days} day{'s' * (days > 1)}" + (f" {hours} h" if hours else "")
