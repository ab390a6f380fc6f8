"""The position of a training in its data, counted in optimizer steps."""

import lightning.pytorch as pl


def between_epochs(trainer: pl.Trainer) -> bool:
    """Whether no epoch has begun that is not finished yet."""
    epochs = trainer.fit_loop.epoch_progress.current.state_dict()
    return bool(epochs["started"] == epochs["processed"])


def position_of(trainer: pl.Trainer) -> dict[str, int]:
    """`epoch`, and `step`, the optimizer steps done in that epoch. Exact at the end of an optimizer step."""
    epoch = trainer.fit_loop.epoch_progress.current.state_dict()["processed"]
    if between_epochs(trainer):  # the batch counters are still those of the last epoch
        return {"epoch": epoch, "step": 0}
    # `processed` and not `completed`, which follows only after the hook in which checkpoints are written.
    micro_batches = trainer.fit_loop.epoch_loop.batch_progress.current.state_dict()["processed"]
    return {"epoch": epoch, "step": micro_batches // trainer.accumulate_grad_batches}
