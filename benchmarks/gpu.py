"""The goals for one GPU, and what was measured: the table of docs/gpu.md, within 8 minutes.

Every part is a process of its own that ends at its limit; what it had measured until then counts. After each value, the
whole result is written to --out. Networks run on one batch that stays on the device, in channels_last, with fused SGD;
the platform is the real command, `src/train.py`, on a uint8 store of noise.

Peers in the same run: torch's LRN; a bare loop with the same network; the training loop of pytorch/vision's
references/classification (train.py: `image.to(device)`, autocast and a GradScaler with --amp, `loss.item()` and the
accuracies in each step) with as many workers as cores; timm's loader, where timm is installed.

`ratio` is 1 or more where a goal is reached. --device cpu --quick runs the logic alone, in small sizes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from _device import add_device, check_device
from _gpu_parts import COMPARED, PARTS, QUICK, Measured, Sizes
from _report import report

MARK = "measured: "
QUICK_FACTOR = 5
"""A CPU needs longer, also for small sizes."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The goals for one GPU, and what was measured.")
    add_device(parser)
    parser.add_argument("--quick", action="store_true", help="small sizes, for the logic alone")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="these only")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there as JSON, after each value")
    parser.add_argument("--in-this-process", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_this_process:
        run_part(arguments.in_this_process, check_device(arguments.device), QUICK if arguments.quick else Sizes())
        return
    check_device(arguments.device)
    result: dict[str, Any] = {"machine": machine(arguments.device), "measured": {}, "problems": {}}
    for part in arguments.parts:
        start = time.monotonic()
        measure(part, arguments.device, arguments.quick, result, arguments.out)
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    print()
    print_table(result)


def run_part(part: str, device: str, sizes: Sizes) -> None:
    measurements, _ = PARTS[part]
    for measured in measurements(device, sizes):
        print(MARK + json.dumps(measured), flush=True)


def measure(part: str, device: str, quick: bool, result: dict[str, Any], out: Path | None) -> None:
    """Run a part in a process, until its limit, and take its values as they come."""
    limit = PARTS[part][1] * (QUICK_FACTOR if quick else 1)
    command = [sys.executable, __file__, "--in-this-process", part, "--device", device, *(["--quick"] if quick else [])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""))
    timer.start()
    reader.start()
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(MARK):
                measured = Measured(*json.loads(line.removeprefix(MARK)))
                result["measured"][measured.what] = {**measured._asdict(), "part": part, "ratio": ratio(measured)}
                print(f"  {measured.what}: {measured.value:,.3f} {measured.unit}", flush=True)
                write(result, out)
            else:
                print(f"  {line}", end="", flush=True)
        status = process.wait()
    finally:  # also if this process is interrupted
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    reader.join()
    if late.is_set():
        result["problems"][part] = f"cut off after {limit:g} s"
    elif status:
        result["problems"][part] = (errors[0].strip() or f"exit status {status}")[-2000:]
    write(result, out)


def ratio(measured: Measured) -> float | None:
    """1 or more where the goal is reached; None without one, or where it is 0."""
    if not measured.goal:
        return None
    return measured.goal / measured.value if measured.at_most else measured.value / measured.goal


def write(result: dict[str, Any], out: Path | None) -> None:
    if out:
        unfinished = out.with_name(out.name + ".unfinished")
        unfinished.write_text(json.dumps(result, indent=1))
        unfinished.replace(out)


def machine(device: str) -> dict[str, str]:
    facts = {"torch": torch.__version__, "cores": str(os.cpu_count())}
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cudnn": str(torch.backends.cudnn.version())}
    return facts


def print_table(result: dict[str, Any]) -> None:
    measured = result["measured"]
    rows = [
        (
            row["what"],
            "" if row["goal"] is None else f"{'at most ' if row['at_most'] else ''}{row['goal']:,g}",
            f"{row['value']:,.3g}" if abs(row["value"]) < 1000 else f"{row['value']:,.0f}",
            row["unit"],
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        )
        for row in measured.values()
    ]
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    for part, problem in result["problems"].items():
        print(f"{part}: {problem.splitlines()[-1]}")
    ratios = {what: row["ratio"] for what, row in measured.items() if row["ratio"] is not None}
    figures = {what: row["value"] for what, row in measured.items()}
    ratios |= {
        f"{ours} over {peer}": figures[ours] / figures[peer]
        for ours, peer in COMPARED
        if {ours, peer} <= figures.keys()
    }
    report("gpu", ("what", "goal", "measured", "unit", "ratio"), rows, ratios, figures)


if __name__ == "__main__":
    main()
