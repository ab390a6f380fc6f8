"""Write a checkpoint for use elsewhere: `python src/export.py checkpoint=PATH format=onnx|torch_export|state_dict`."""

from alexnet_lab.commands.entry import start

if __name__ == "__main__":
    start("export")
