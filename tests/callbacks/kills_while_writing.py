"""`python kills_while_writing.py FOLDER`: kill 20 processes while they write checkpoints.

Ten at random moments, and ten as soon as there is an unfinished file. Each is a fork of this process. Prints as JSON
how each ended, whether the last checkpoint that it has reported as written, or a later one, is whole, and how many
left an unfinished file.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import torch

from alexnet_lab.callbacks.checkpoint_io import AtomicCheckpointIO

SIZE = 60_000


def write_for_ever(path: Path, reported: Path) -> None:
    """Checkpoints of 1 MB whose every weight is their number."""
    weights = [torch.zeros(SIZE) for _ in range(4)]
    writer = AtomicCheckpointIO({}, [path], also_on_cpu=True)
    for number in range(1, 1_000_000):
        for one in weights:
            one.fill_(number)
        writer.save_checkpoint({"number": number, "weights": weights}, path)
        if number > 1:
            reported.write_text(str(number - 1))  # the call has waited for the one before


def is_whole(path: Path, reported: Path) -> bool:
    content = torch.load(path, weights_only=True)
    number = content["number"]
    at_least = int(reported.read_text() or 0)
    return number >= at_least and all(bool((one == number).all()) and len(one) == SIZE for one in content["weights"])


def unfinished_in(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.name not in ("last.ckpt", "reported")]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    path, reported = folder / "last.ckpt", folder / "reported"
    chance = random.Random(0)
    statuses, whole, unfinished = [], [], 0
    for during_a_write in (False, True) * 10:
        path.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            write_for_ever(path, reported)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.03))
        while during_a_write and not unfinished_in(folder):
            pass
        os.kill(child, signal.SIGKILL)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        whole.append(is_whole(path, reported))
        left = unfinished_in(folder)
        unfinished += bool(left)
        for one in left:
            one.unlink()
        reported.write_text("0")
    print(json.dumps({"killed": statuses, "whole": whole, "during a write": unfinished}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
