"""Download, convert and check a dataset: `python src/prepare.py data=NAME`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("prepare")
