"""The data module of photographs, for the configurations `imagenet`, `imagenette` and `image_folder`.

Source of the published constants: facebookarchive/fb.resnet.torch, `datasets/imagenet.lua`.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from alexnet_lab.data.draws import Augmentation, Crop
from alexnet_lab.data.mixing import Mixing
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.pipeline import Colour, ColourNoise, InputPipeline, MeanImage
from alexnet_lab.data.spec import DataSpec
from alexnet_lab.data.store.images import SIZE
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.data.stored import OnUnreadable, StoredImages
from alexnet_lab.errors import UserError

PUBLISHED_EIGENVALUES = (0.2175, 0.0188, 0.0045)
"""Eigenvalues of the covariance of ImageNet's RGB values in [0, 1]."""
PUBLISHED_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Rows R G B, columns the components."""

Mean = Literal["image_centre", "image_at_crop", "channels"]
Basis = Literal["store", "published"]


class Photographs:
    """`StoredImages` with the configured normalisation, which may use the store's own statistics."""

    def __init__(
        self, images: StoredImages, mean: Mean | Sequence[float], std: Literal["channels"] | Sequence[float]
    ) -> None:
        self.images = images
        self._mean = mean
        self._std = std
        self.prepare = images.prepare
        self.split = images.split
        self.contents = images.contents
        self.found = images.found

    @property
    def spec(self) -> DataSpec:
        images = self.images
        # The per-channel means of the mean image if that is subtracted.
        mean = images.store.meta.mean if isinstance(self._mean, str) else self._mean
        std = images.store.meta.std if isinstance(self._std, str) else self._std
        return DataSpec(
            images.name, images.classes, images.channels, tuple(mean), tuple(std), images.source.transparency
        )

    def places(self) -> list[str]:
        return [f"folder: {self.images.folder}"]

    def mean_image(self) -> MeanImage | None:
        """None if per-channel means are subtracted."""
        if self._mean not in ("image_centre", "image_at_crop"):
            return None
        grey_levels = torch.from_numpy(self.images.store.mean_image().copy())
        return MeanImage(grey_levels.permute(2, 0, 1) / 255, at_crop=self._mean == "image_at_crop")

    def colour_noise(self, colour: Colour, colour_std: float, basis: Basis) -> ColourNoise | None:
        """The convention `colour` in the store's own basis or the published one."""
        if colour == "off":
            return None  # without reading the store's statistics
        values, vectors = torch.tensor(PUBLISHED_EIGENVALUES), torch.tensor(PUBLISHED_EIGENVECTORS)
        if basis == "store":
            meta = self.images.store.meta
            values, vectors = torch.tensor(meta.eigenvalues).clamp(min=0), torch.tensor(meta.eigenvectors)
        return ColourNoise.of(colour, colour_std, values, vectors)


def photographs(
    *,
    name: str,
    dir: str,
    num_classes: int | None,
    channels: int,
    image_size: int,
    batch_size: int,
    eval_batch_size: int,
    val_size: int | None,
    split_seed: int,
    seed: int,
    crop: Crop,
    crop_size: int,
    flip: float,
    colour: Colour,
    colour_std: float,
    colour_basis: Basis,
    rotation: float,
    scaling: float,
    jitter: float,
    mean: Mean | Sequence[float],
    std: Literal["channels"] | Sequence[float],
    colour_until_epoch: int | None = None,
    transparency: Transparency | None = None,
    unreadable: OnUnreadable = "fail",
    workers: int | None = None,
    channels_last: bool = True,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
) -> ImageDataModule:
    """The data module of `conf/data/imagenet.yaml`, where each argument is explained.

    The images need not exist yet; `prepare_data`, `spec` and `preprocessing` read them.

    Raises:
        UserError: a value is out of range, or contradicts another.
    """
    _check(crop, crop_size, channels, mean)
    amount = 0 if colour == "off" else colour_std
    augmentation = Augmentation(crop, crop_size, flip, rotation, scaling, jitter, amount, colour_until_epoch)
    images = StoredImages(dir, name, num_classes, val_size, split_seed, transparency, unreadable)
    dataset = Photographs(images, mean, std)

    def pipeline() -> InputPipeline:
        noise = dataset.colour_noise(colour, colour_std, colour_basis)
        spec = dataset.spec
        return InputPipeline(image_size, spec.mean, spec.std, channels_last, dataset.mean_image(), noise)

    return ImageDataModule(
        dataset,
        image_size=image_size,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        seed=seed,
        channels_last=channels_last,
        augmentation=augmentation,
        pipeline=pipeline,
        workers=workers,
        mixing=Mixing(mixup_alpha, cutmix_alpha),
    )


def _check(crop: Crop, crop_size: int, channels: int, mean: Mean | Sequence[float]) -> None:
    if channels != StoredImages.channels:
        raise UserError(f"data.channels of these images is {StoredImages.channels}, got {channels}")
    if not 1 <= crop_size <= SIZE:
        raise UserError(
            f"data.crop_size must be in [1, {SIZE}], the stored size, got {crop_size}; a smaller crop, such as "
            "data.crop_size=224, is enlarged to model.image_size"
        )
    if crop == "random_resized" and mean in ("image_centre", "image_at_crop"):
        raise UserError(f"data.mean={mean} cannot be combined with data.crop=random_resized; use data.mean=channels")
