"""Write docs/results.md from recorded runs: `python src/results.py [add=logs/train/runs/NAME]`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("results")
