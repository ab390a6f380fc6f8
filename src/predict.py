"""Classify images: `python src/predict.py checkpoint=PATH images=PATH_OR_GLOB [out=FILE.json|FILE.csv]`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("predict")
