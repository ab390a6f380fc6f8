"""The learning rate that `tune=lr` suggests, compared with a grid of learning rates, each of which is trained.

Fashion-MNIST. The best rate of a grid is that with the lowest val/loss after a short training. The claim, for the
default cases: the suggestion of every seed is within a factor of 3 of it, in either direction. `--quick` checks only
that it works: the first case, two rates and one seed, cut short.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from _report import ROOT, report
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.training import train


class Case(NamedTuple):
    """A network with its optimizer, the rates of the grid, and the length of each training of the grid."""

    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    length: str = "trainer.max_epochs=4"


LENET = ("experiment=d2l_lenet", "data.validate_on=split")
HALF_V2 = ("model=alexnet_half_v2", "model.image_size=67")
ADAMW = ("optimizer=adamw", "~optimizer.momentum")
CASES = {
    "lenet": Case(LENET, (0.0316, 0.1, 0.316, 1.0, 3.16)),
    "half_v2": Case(HALF_V2, (0.00316, 0.01, 0.0316, 0.1, 0.316), "trainer.max_epochs=1"),
    "lenet_relu": Case((*LENET, "model.activation=relu"), (0.01, 0.0316, 0.1, 0.316, 1.0)),
    "lenet_adamw": Case((*LENET, *ADAMW), (0.000316, 0.001, 0.00316, 0.01, 0.0316)),
    "lenet_relu_adamw": Case((*LENET, *ADAMW, "model.activation=relu"), (0.000316, 0.001, 0.00316, 0.01, 0.0316)),
    "lenet_relu_momentum": Case(
        (*LENET, "model.activation=relu", "optimizer.momentum=0.9"), (0.00316, 0.01, 0.0316, 0.1, 0.316)
    ),
    "lenet_one_cycle": Case((*LENET, "scheduler=one_cycle"), (0.1, 0.316, 1.0, 3.16, 10.0)),
    "half_v2_adamw": Case(
        (*HALF_V2, "optimizer=adamw"), (0.0001, 0.000316, 0.001, 0.00316, 0.01), "trainer.max_epochs=1"
    ),
}
SHOWN = ("lenet", "half_v2")
QUIET = ("logger=none", "test_on=none", "checkpoints=none", "callbacks.pictures=null", "callbacks.progress=null")


def main() -> None:
    parser = argparse.ArgumentParser(description="The suggestion of tune=lr compared with a grid of learning rates.")
    parser.add_argument("--quick", action="store_true", help="checks only that it works, within a minute")
    parser.add_argument("--case", nargs="+", choices=CASES, default=SHOWN, help="default: lenet half_v2")
    parser.add_argument("--seeds", type=int, default=3, help="range tests of each case")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs and the pictures below it")
    given = parser.parse_args()
    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        measure(given, given.keep.absolute() if given.keep else Path(folder))


def measure(given: argparse.Namespace, folder: Path) -> None:
    rows: list[tuple[str, ...]] = []
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for name in given.case[:1] if given.quick else given.case:
        overrides, rates, length = CASES[name]
        lengths = ("trainer.max_epochs=1", "trainer.limit_train_batches=5") if given.quick else (length,)
        losses = {}
        for rate in rates[:2] if given.quick else rates:
            ended = run(folder / f"{name}-{rate:g}", *overrides, *lengths, f"optimizer.lr={rate}")
            best = ended["final"]
            losses[rate] = best.get("val/loss", float("inf"))
            figures[f"{name}_val_loss_at_{rate:g}"] = losses[rate]
            rows.append((f"{name}, lr {rate:g}", f"{losses[rate]:.4f}", f"{best.get('val/top1', 0):.4f}", ""))
        best_rate = min(losses, key=lambda rate: losses[rate])
        steps = ("tune.steps=30",) if given.quick else ()
        for seed in range(1 if given.quick else given.seeds):
            ended = run(folder / f"{name}-test-{seed}", *overrides, "tune=lr", *steps, f"seed={seed}")
            suggested = ended["lr_test"]["suggestion"] or float("nan")
            figures[f"{name}_suggestion_of_seed_{seed}"] = suggested
            ratios[f"{name}_suggestion_vs_best_seed_{seed}"] = suggested / best_rate
            rows.append((f"{name}, range test, seed {seed}", "", "", f"{suggested:g}"))
        figures[f"{name}_best"] = best_rate
    report("lr_range", ("training", "val/loss", "val/top1", "suggested"), rows, ratios, figures)


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run in this process; returns the content of `result.json`, of a failed run without metrics."""
    folder.mkdir(parents=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["run=benchmark", "trainer=cpu", "trainer.precision=32-true", *QUIET, *overrides])
    config.folder = str(folder)
    settings: Any = OmegaConf.to_container(config, resolve=True)
    settings = {key: value for key, value in settings.items() if key != "folder"} | {"logger": {}, "overrides": []}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings)))
    started = time.time()
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            train(settings, folder, None, started)
        except Exception as error:
            print(f"{folder.name}: {error}", file=sys.stderr)
    ended: dict[str, Any] = json.loads((folder / "result.json").read_text())
    print(f"{folder.name}: {time.time() - started:.1f} s", file=sys.stderr, flush=True)
    return {"final": {}, "lr_test": {"suggestion": None}} | ended


if __name__ == "__main__":
    main()
