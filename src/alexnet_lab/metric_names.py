"""The names of the metrics of every run, the same in W&B, `metrics.csv` and `result.json`."""

FIGURES = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "top1", "top5")]
