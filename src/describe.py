"""Print a network's layer table: `python src/describe.py model=... data=...`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("describe")
