"""How long a training step waits for a checkpoint: alexnet_original's weights and momentum, 488 MB.

Ours: `AtomicCheckpointIO` in the background (the default for a GPU) and at once (the default for the CPU). Peer:
lightning's `TorchCheckpointIO`, which also replaces the file atomically, but does not flush it to the disk. Each round
measures a step without a checkpoint, then, for each way, a checkpoint and the step after it, and the further steps
until the file is complete. `call` is the time of the call itself on the host; `wait` and `total` are by how much the
step after it, and all these steps, take longer than without. On the CPU the writer shares the cores with them, and
only `call` is compared. Medians of the rounds; of the rounds' own ratios, the median. On a GPU, the times of steps are
those of CUDA events.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from _report import median_ratio, report
from lightning.fabric.plugins.io import CheckpointIO
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO
from alexnet_lab.models.alexnet_original import alexnet_original

BATCH = {"cpu": 4, "cuda": 128}
TIMES = ("call", "wait", "total")


class Training:
    """A network, its optimizer with momentum, and a batch that stays on the device."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.net = alexnet_original(in_channels=3, num_classes=1000, image_size=224)
        self.net.to(device).to(memory_format=torch.channels_last)
        self.optimizer = SGD(self.net.parameters(), lr=0.001, momentum=0.9)
        self._images = torch.rand(BATCH[device], 3, 224, 224, device=device)
        self._labels = torch.zeros(BATCH[device], dtype=torch.long, device=device)

    def step(self) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.net(self._images), self._labels).backward()
        self.optimizer.step()

    def checkpoint(self) -> dict[str, object]:
        return {"state_dict": self.net.state_dict(), "optimizer_states": [self.optimizer.state_dict()]}

    def milliseconds(self, action: Callable[[], object]) -> float:
        """The time that `action` takes on the device, from the moment when it is idle."""
        if self.device == "cpu":
            start = time.perf_counter()
            action()
            return 1e3 * (time.perf_counter() - start)
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        action()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time that a training step waits for a checkpoint of 488 MB.")
    parser.add_argument("--quick", action="store_true", help="two rounds, within a minute")
    parser.add_argument("--device", choices=[*BATCH], default="cpu")
    options = parser.parse_args()
    rounds = 2 if options.quick else 9

    training = Training(options.device)
    for _ in range(3):
        training.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        ours = AtomicCheckpointIO({}, [path], also_on_cpu=True)
        ways = {"background": ours, "at once": AtomicCheckpointIO({}), "lightning": TorchCheckpointIO()}
        measured(training, ways, path, 1)  # allocates the memory on the host
        times = measured(training, ways, path, rounds)
        megabytes = path.stat().st_size / 1e6

    medians = {way: [statistics.median(times[what][way]) for what in TIMES] for way in ways}
    compared = TIMES[:1] if options.device == "cpu" else TIMES[:2]
    ratios = {
        f"{what}_{way.replace(' ', '_')}_vs_background": median_ratio(times[what][way], times[what]["background"])
        for what in compared
        for way in ("at once", "lightning")
    }
    figures = {
        f"{way.replace(' ', '_')}_{what}_ms": value
        for way in ways
        for what, value in zip(TIMES, medians[way], strict=True)
    }
    figures |= {"checkpoint_mb": megabytes, "rounds": rounds, "torch_threads": torch.get_num_threads()}
    rows = [(way, *(f"{value:,.0f}" for value in medians[way])) for way in ways]
    report("checkpoint_stall", ("checkpoint", *(f"{what}, ms" for what in TIMES)), rows, ratios, figures)


def measured(
    training: Training, ways: Mapping[str, CheckpointIO], path: Path, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """The times in ms by kind and way, one per round; at least 1 ms, so that a ratio is not one of noise."""
    times: dict[str, dict[str, list[float]]] = {what: {way: [] for way in ways} for what in TIMES}
    for _ in range(rounds):
        alone = statistics.median(training.milliseconds(training.step) for _ in range(3))
        for way, writer in ways.items():
            call = 0.0

            def save_and_step(writer: CheckpointIO = writer) -> None:
                nonlocal call
                start = time.perf_counter()
                writer.save_checkpoint(training.checkpoint(), path)
                call = 1e3 * (time.perf_counter() - start)
                training.step()

            longer = [training.milliseconds(save_and_step) - alone]
            while isinstance(writer, AtomicCheckpointIO) and writer.is_writing:
                longer.append(training.milliseconds(training.step) - alone)
            for what, value in zip(TIMES, (call, longer[0], sum(longer)), strict=True):
                times[what][way].append(max(1.0, value))
    return times


if __name__ == "__main__":
    main()
