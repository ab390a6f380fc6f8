"""The names of the metrics that every run has: in W&B, `metrics.csv` and `result.json` alike."""

FIGURES = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "top1", "top5")]
