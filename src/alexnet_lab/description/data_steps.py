"""The steps from a stored image to the network's input, as text for people, from the objects that carry them out."""

from collections.abc import Iterator

from alexnet_lab.data.draws import AREA, Augmentation
from alexnet_lab.data.module import ImageDataModule

TRAINING = "training only: "


def data_steps(data: ImageDataModule) -> list[str]:
    """The steps in their order; those that differ in an evaluation say so."""
    stored = data.dataset.split("train").images.shape[1:]
    steps = [f"stored image: {' x '.join(map(str, stored))}"]
    resized = False
    if data.augmentation:
        steps += _geometry(data.augmentation, data.image_size)
        resized = data.augmentation.crop == "random_resized"
    return steps + list(_normalisation(data)) + list(_last(data, stored[1], resized))


def _geometry(drawn: Augmentation, size: int) -> Iterator[str]:
    if drawn.crop == "random_resized":
        low, high = (f"{100 * part:.0f}" for part in AREA)
        centre = f"; evaluation: the centre of {drawn.crop_size} x {drawn.crop_size}" if drawn.crop_size else ""
        yield f"{TRAINING}random box of {low} to {high} % of the area, resized to {size} x {size}{centre}"
    elif drawn.crop_size:
        side = f"{drawn.crop_size} x {drawn.crop_size}"
        yield f"random crop of {side}; evaluation: the centre" if drawn.crop == "random" else f"centre crop of {side}"
    elif drawn.crop == "random":
        yield f"{TRAINING}moved by up to {drawn.crop_padding} pixels in each direction, black outside of the image"
    if drawn.flip:
        yield f"{TRAINING}mirror image, probability {drawn.flip:g}"
    if drawn.rotation:
        yield f"{TRAINING}rotation by up to {drawn.rotation:g} degrees in both directions"
    if drawn.scaling:
        yield f"{TRAINING}size times {1 - drawn.scaling:g} to {1 + drawn.scaling:g}"


def _normalisation(data: ImageDataModule) -> Iterator[str]:
    drawn, pipeline, spec = data.augmentation, data.pipeline, data.spec
    yield "division by 255: pixels in [0, 1]"
    if drawn and drawn.jitter:
        kinds = "brightness, contrast and saturation" if spec.channels == 3 else "brightness and contrast"
        yield f"{TRAINING}{kinds} times {1 - drawn.jitter:g} to {1 + drawn.jitter:g}"
    if pipeline.mean_image is not None:
        part = "the part under the crop" if pipeline.mean_image.at_crop else "its centre"
        yield f"minus the mean image of the training images, {part}"
    else:
        yield f"minus mean {_numbers(pipeline.mean)}"
    if drawn and pipeline.noise is not None:
        first = drawn.colour_until_epoch
        until = "" if first is None else f"; only in the first {first} epoch{'s' * (first != 1)}"
        divided = f", then divided by {pipeline.noise.divisor:g}" if pipeline.noise.divisor != 1 else ""
        amount = f"colour noise along the principal components, amounts of std {drawn.colour_std:g}"
        yield f"{TRAINING}{amount}{divided}{until}"
    yield f"divided by std {_numbers(pipeline.std)}"


def _last(data: ImageDataModule, side: int, resized: bool) -> Iterator[str]:
    cut = data.crop_size or side
    if cut != data.image_size:
        only = "evaluation only: " if resized else ""
        yield f"{only}resized from {cut} x {cut} to {data.image_size} x {data.image_size}"
    for name, alpha in (("mixup", data.mixing.mixup_alpha), ("cutmix", data.mixing.cutmix_alpha)):
        if alpha:
            yield f"{TRAINING}{name} of pairs, shares from Beta({alpha:g}, {alpha:g})"
    yield f"network's input: {data.spec.channels} x {data.image_size} x {data.image_size}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
