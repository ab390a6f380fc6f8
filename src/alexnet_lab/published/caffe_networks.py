"""BVLC's two AlexNets, from Caffe's files: `bvlc_alexnet` and `caffenet`, and networks of other classes made from them.

The files have images in the order BGR, of 0 to 255; here they are RGB, of 0 to 1: conv1's channels are reversed, and
the mean and a standard deviation of 1 are divided by 255. All other arrays are the same, also for groups, and for the
rows of fc6, since Caffe flattens channels, height and width in this order, too.
"""

import logging
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_lab.data.pipeline import MeanImage
from alexnet_lab.errors import UserError, names_of, printable
from alexnet_lab.models.bvlc_alexnet import bvlc_alexnet
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.published.as_checkpoint import as_checkpoint, class_names, network_settings
from alexnet_lab.published.caffemodel import Blob, Layer, blob, layers, mapped
from alexnet_lab.published.protobuf import Damaged

NETWORKS = {"bvlc_alexnet": bvlc_alexnet, "caffenet": caffenet}
INPUTS_OF_CONV2 = {"pool1": "bvlc_alexnet", "norm1": "caffenet"}
NAMES = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
"""The layers with weights, before the last one, which may have another name in a network of other classes."""
MEAN_PIXEL = (122.67891434, 116.66876762, 104.00698793)
"""Mean of Caffe's mean image of ILSVRC2012, RGB."""
MEAN_FILES = "*.binaryproto"
STORED = 256

log = logging.getLogger(__name__)


def caffe_checkpoint(kind: str, path: Path, named: str) -> dict[str, Any]:
    """The content of a checkpoint with the weights of a `.caffemodel`; `kind` is a key of `NETWORKS`.

    A mean image is subtracted if there is one in the file's folder, otherwise the mean pixel of ILSVRC2012.

    Raises:
        UserError: the file is damaged or of another network; the message begins with `named`.
    """
    try:
        found = [layer for layer in layers(mapped(path)) if layer.blobs]
    except Damaged as error:
        raise UserError(f"{named}: not a file of Caffe's weights (.caffemodel), or a damaged one: {error}") from error
    _check_layers(found, kind, named)
    weights = _weights(found, kind, named)
    classes = class_names(len(weights["fc8.bias"]))
    side = 227
    facts = {"image_size": side, "resize": "bilinear", "channels": 3, "std": [1 / 255] * 3, "classes": classes}
    mean, about = _mean(path.parent, side, named)
    preprocessing = facts | {"stored_size": STORED, "crop_size": side} | mean
    return as_checkpoint(f"{path.name} with {about}", network_settings(kind, len(classes)), preprocessing, weights)


def _check_layers(found: Sequence[Layer], kind: str, named: str) -> None:
    names = [layer.name for layer in found]
    if names[:-1] != NAMES:
        raise UserError(
            f"{named}: not the weights of {kind}: its layers with weights are {names_of(names, 9) or 'none'}; expected "
            f"{', '.join(NAMES)} and fc8"
        )
    for bottom in found[1].bottoms:
        if (other := INPUTS_OF_CONV2.get(bottom, kind)) != kind:
            raise UserError(f"{named}: this file is of {other}, whose conv2 reads {bottom}: name it {other}:FILE")


def _weights(found: Sequence[Layer], kind: str, named: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        own = NETWORKS[kind](num_classes=prod(_sides(found[-1].blobs[0].shape)[:-1])).state_dict()
    weights = {}
    for layer, name in zip(found, [*NAMES, "fc8"], strict=True):
        for part, array in zip(("weight", "bias"), [*layer.blobs, None, None], strict=False):
            expected = own[f"{name}.{part}"].shape
            weights[f"{name}.{part}"] = _tensor(array, expected, f"{named}: {printable(layer.name)}.{part}")
    weights["conv1.weight"] = weights["conv1.weight"].flip(1)
    return weights


def _tensor(array: Blob | None, expected: Sequence[int], named: str) -> Tensor:
    if array is None:
        raise UserError(f"{named} is missing")
    if _sides(array.shape) != _sides(expected):
        raise UserError(f"{named} has the shape {list(array.shape)}, expected {list(expected)}")
    return array.tensor(*expected)


def _sides(shape: Sequence[int]) -> list[int]:
    """The shape without the dimensions of 1 that older files add."""
    return [side for side in shape if side != 1]


def _mean(folder: Path, side: int, named: str) -> tuple[dict[str, Any], str]:
    """The entries of the preprocessing about the mean, and their name."""
    files = sorted(folder.glob(MEAN_FILES))
    if not files:
        return {"mean": [value / 255 for value in MEAN_PIXEL]}, "the mean pixel"
    if len(files) > 1:
        raise UserError(f"{named}: {names_of([file.name for file in files])} are next to the file; keep one mean image")
    (file,) = files
    try:
        array = blob(mapped(file))
    except OSError as error:
        raise UserError(f"{named}: {printable(str(file))}: {error.strerror}") from error
    except ValueError as error:  # also `Damaged`, and an empty file
        raise UserError(
            f"{named}: {printable(str(file))} is not a mean image of Caffe, or a damaged one: {error}"
        ) from error
    if _sides(array.shape) not in ([3], [3, STORED, STORED]):
        raise UserError(
            f"{named}: {printable(str(file))} has the shape {list(array.shape)}, expected {[3, STORED, STORED]}"
        )
    log.info("%s: the mean in %s is subtracted", named, printable(str(file)))
    if _sides(array.shape) == [3]:
        return {"mean": (array.tensor(3).flip(0) / 255).tolist()}, f"the mean pixel of {file.name}"
    pixels = array.tensor(3, STORED, STORED).flip(0) / 255
    centre = MeanImage(pixels, at_crop=True).centre(side).clone()
    return {
        "mean": pixels.mean((1, 2)).tolist(),
        "mean_image": centre,
        "whole_mean_image": pixels,
    }, f"the mean image {file.name}"
