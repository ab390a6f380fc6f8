"""Compares the classes of evaluated images with those of the network."""

from alexnet_lab import distributed
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.photographs import Photographs
from alexnet_lab.data.spec import different_class
from alexnet_lab.errors import UserError
from alexnet_lab.runs.checkpoint import Checkpoint


def check_classes(checkpoint: Checkpoint, data: ImageDataModule) -> None:
    """Check that each label means the same class for the network; print a line if the images are of a part of them.

    Raises:
        UserError: a class differs.
    """
    trained = checkpoint.preprocessing.classes if checkpoint.preprocessing else data.spec.classes
    if difference := different_class(trained, data.spec.classes):
        raise UserError(f"the classes differ from the checkpoint's: {difference}; name its data: data.dir=FOLDER")
    part = data.dataset.images.part_of_classes() if isinstance(data.dataset, Photographs) else ""
    if part and distributed.rank() == 0:
        print(part)
