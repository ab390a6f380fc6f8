"""Train a network: `python src/train.py model=... data=... optimizer=... scheduler=... trainer=...`; `-m` sweeps."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("train")
