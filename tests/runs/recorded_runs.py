"""Writes folders of runs as training leaves them, without training."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from alexnet_lab.runs.metric_rows import COLUMNS

IMAGES = 10_000


def settings(model: str = "lenet", seed: int = 0, lr: float = 0.1, **more: Any) -> dict[str, Any]:
    return {
        "model": {"_target_": f"alexnet_lab.models.{model}.{model}", "in_channels": 1, "dropout": 0.0},
        "data": {"name": "fashion_mnist", "dir": "data/fashion_mnist", "batch_size": 128, "seed": seed},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": lr, "momentum": 0.9},
        "trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": 3, "accelerator": "auto"},
        "seed": seed,
        "logger": {},
        "recipe": None,
        **more,
    }


def rows(top1: float, epochs: int = 3, steps: int = 100, every: int = 50) -> list[dict[str, float]]:
    """Logged rows that rise to `top1` on the test split; the last validation is below the best one."""
    found: list[dict[str, float]] = []
    for epoch in range(epochs):
        for step in range(every, steps + 1, every):
            at = epoch + step / steps
            found.append(
                {
                    "epoch": epoch,
                    "step": epoch * steps + step,
                    "train/loss_step": 2.3 * math.exp(-at / epochs),
                    "lr": 0.1,
                }
            )
        part = 1 - 0.5 * math.exp(-3 * (epoch + 1) / epochs) - (0.08 if epoch == epochs - 1 else 0)
        for split, shift in (("val", 0.0), ("train", 0.02)):
            at_end = {"loss": 2.3 - 2 * part, "top1": (top1 + shift) * part, "top5": 0.5 + 0.49 * part}
            found.append(
                {"epoch": epoch, "step": (epoch + 1) * steps, **{f"{split}/{k}": v for k, v in at_end.items()}}
            )
    tested = {"test/loss": 0.5, "test/top1": top1, "test/top5": min(1.0, top1 + 0.1)}
    return [*found, {"epoch": epochs, "step": epochs * steps, **tested}]


def write_rows(folder: Path, recorded: list[dict[str, float]]) -> None:
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(recorded)


def write_run(
    folder: Path,
    config: dict[str, Any] | None = None,
    recorded: list[dict[str, float]] | None = None,
    pictures: tuple[str, ...] = (),
    **result: Any,
) -> Path:
    folder.mkdir(parents=True)
    config = config or settings()
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "run": folder.name, "folder": str(folder)}))
    write_rows(folder, rows(0.8) if recorded is None else recorded)
    facts = {
        "seconds": 60.5,
        "images_per_second": 1000.0,
        "parameters": 61_706,
        "macs": 416_520,
        "images": {"val": IMAGES, "test": IMAGES},
    }
    (folder / "result.json").write_text(json.dumps({"status": "finished", "error": None, **facts, **result}))
    for position, name in enumerate(pictures):
        (folder / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (320, 200), (40 + 60 * position, 90, 160)).save(folder / "pictures" / f"{name}.png")
    return folder
