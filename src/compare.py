"""Compare runs: `python src/compare.py runs=logs/train [baseline=NAME] [out=compare.html]`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("compare")
