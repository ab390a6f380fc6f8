"""AlexNet Lab: AlexNet's published variants, recipes and results in PyTorch Lightning and Hydra."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from alexnet_lab.runs.trained_network import TrainedNetwork


def load(path: "str | os.PathLike[str]", modules: "str | list[str] | tuple[()]" = ()) -> "TrainedNetwork":
    """A trained network, with its preprocessing and its class names.

    >>> model = alexnet_lab.load("net.safetensors")
    >>> logits = model.network(model.preprocess(["first.jpg", "second.jpg"]))
    >>> print([model.classes[index] for index in logits.argmax(1)])

    Args:
        path: whatever `checkpoint=` of the commands takes: a run's folder or checkpoint, a file of `export` with
            weights, `torchvision`, ...
        modules: Python modules of your own that the network may come from.

    Raises:
        alexnet_lab.errors.UserError: a ValueError, with one line: nothing is there, or no network that can be used.
    """
    from alexnet_lab.runs.trained_network import load  # here, so that the import of this package stays light

    return load(path, modules)
