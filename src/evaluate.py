"""Evaluate a checkpoint: `python src/evaluate.py checkpoint=PATH [split=val] [trainer=gpu] [data.dir=FOLDER]`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("evaluate")
