"""A trained network for programs of your own: `alexnet_lab.load`.

N images, C channels, S the network's input size, K classes.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sources.blobs import Blob, reason_of
from alexnet_lab.data.store.images import read_image
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.errors import UserError, printable
from alexnet_lab.runs.checkpoint import Modules, read_checkpoint

Picture = str | os.PathLike[str] | Image.Image
OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Pillow's modes that a PNG file can have; a TIFF file has the others."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, and what turns image files into its input and its output into names."""

    network: nn.Module
    """float32 [N, C, S, S] -> logits float32 [N, K]; in evaluation mode, on the CPU."""
    preprocessing: Preprocessing
    """The facts: `image_size`, `channels`, `mean`, `std`, ..."""

    @property
    def classes(self) -> list[str]:
        """The K class names, in the order of the logits."""
        return self.preprocessing.classes

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Image files or Pillow images, one or several, as the network saw them in evaluation.

        Returns:
            float32 [N, C, S, S] on the CPU.

        Raises:
            UserError: there is no image, or one cannot be read; it is a ValueError, with one line.
        """
        several = [*images] if isinstance(images, list | tuple) else [images]
        if not several:
            raise UserError("preprocess: there is no image")
        return self.preprocessing.inputs([self._decoded(image) for image in several])

    def _decoded(self, image: object) -> NDArray[np.uint8]:
        if not isinstance(image, str | os.PathLike | Image.Image):
            raise UserError(f"preprocess takes paths and Pillow images, got {type(image).__name__}")
        try:
            return self.preprocessing.decode(_encoded(image) if isinstance(image, Image.Image) else _content(image))
        except (Unreadable, OSError) as error:
            name = "the image" if isinstance(image, Image.Image) else printable(os.fspath(image))
            raise UserError(f"{name}: {reason_of(error)}") from error


def _content(path: str | os.PathLike[str]) -> bytes:
    place = os.path.expanduser(os.fspath(path))
    return read_image(Blob(place, 0, os.stat(place).st_size))


def _encoded(image: Image.Image) -> bytes:
    """As the bytes of a lossless file, with the orientation: files and images are then decoded in the same way."""
    file = io.BytesIO()
    if image.mode in OF_PNG:
        image.save(file, "PNG", compress_level=0, exif=image.getexif())
    else:
        image.save(file, "TIFF", exif=image.getexif())
    return file.getvalue()


def load(path: str | os.PathLike[str], modules: Modules | tuple[()] = ()) -> TrainedNetwork:
    """Read the network that `checkpoint=PATH` of the commands names; see `alexnet_lab.load`."""
    checkpoint = read_checkpoint(os.path.expanduser(os.fspath(path)), modules, option="")
    return TrainedNetwork(checkpoint.network(), checkpoint.needed_preprocessing())
