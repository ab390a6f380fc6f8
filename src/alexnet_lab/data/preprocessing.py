"""From image files to the network's input, and from its outputs to class names, as in a run's evaluation.

N images, V views of each, C channels, S the network's input size.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import isfinite
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from alexnet_lab.data.augment import ten_views
from alexnet_lab.data.pipeline import InputPipeline, MeanImage
from alexnet_lab.data.spec import Draws
from alexnet_lab.data.store.images import SIZE, to_square
from alexnet_lab.data.store.modes import Transparency
from alexnet_lab.errors import UserError

CPU = torch.device("cpu")
Size = Annotated[int, Field(ge=1, le=4096)]
MEAN_IMAGES = ("mean_image", "whole_mean_image")
FOR_READERS = ("layout", "steps", "output")
"""What a description has in addition to the facts."""
Pixels = TypeVar("Pixels", NDArray[np.uint8], Tensor)


class Preprocessing(BaseModel):
    """The preprocessing of the data module, as stored in checkpoints; also applies it to image files.

    Photographs are scaled and cropped as for the store. For a network of small images (no `crop_size`), the centre
    square is scaled down to at most 256 x 256, converted to grey if the network has one channel, and resized to the
    input size by the pipeline.

    `transparency`: the background of transparent pixels; None in older checkpoints and stores.
    `mean`, `std`: one value, or one per channel.
    `crop_size`: the shorter side is resized to `stored_size`, then the centre is cropped.
    `mean_image`: float32 [C, crop_size, crop_size] in [0, 1], subtracted instead of `mean`.
    `whole_mean_image`: float32 [C, stored_size, stored_size], of which the part under each crop is subtracted.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)

    image_size: Size
    resize: Literal["bilinear"]
    channels: Literal[1, 3]
    mean: list[float]
    std: list[float]
    classes: list[str]
    stored_size: Literal[256] | None = None
    crop_size: Annotated[int, Field(ge=1, le=SIZE)] | None = None
    transparency: Transparency | None = None
    mean_image: Tensor | None = None
    whole_mean_image: Tensor | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(map(isfinite, values)):
                raise ValueError(f"{name} needs 1 or {self.channels} finite values, got {values[:4]}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        for name, side in zip(MEAN_IMAGES, (self.crop_size, self.stored_size), strict=True):
            image, expected = getattr(self, name), (self.channels, side, side)
            if image is not None and (image.shape != expected or image.dtype != torch.float32):
                raise ValueError(f"{name} is {image.dtype} {[*image.shape]}, expected float32 {[*expected]}")
        return self

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Preprocessing":
        """From the `facts` of a checkpoint; raises UserError if this version does not support them."""
        try:
            return cls.model_validate({**facts})
        except ValidationError as error:
            detail = error.errors()[0]
            reason = ": ".join([*map(str, detail["loc"]), detail["msg"].removeprefix("Value error, ")])
            raise UserError(f"this checkpoint's preprocessing is not supported: {reason}") from error

    def facts(self) -> dict[str, Any]:
        """Plain containers and tensors for a checkpoint, without entries that are None."""
        return self.model_dump(exclude_none=True)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """The centre square of an image file, [C, H, H]; for photographs H is `stored_size`.

        Raises:
            Unreadable: damaged, too large, or not an image.
        """
        mode: Literal["L", "RGB"] = "L" if self.channels == 1 else "RGB"
        square = to_square(data, mode, self.crop_size is None, self.transparency)
        return square[None] if square.ndim == 2 else square.transpose(2, 0, 1)

    def check_ten_crop(self) -> None:
        """Raises UserError if there are no ten different views."""
        if self.crop_size is None or self.stored_size is None or self.crop_size >= self.stored_size:
            raise UserError("protocol=ten_crop: this network's images are not cropped; choose protocol=center")

    def inputs(
        self, squares: Sequence[NDArray[np.uint8]], ten_crop: bool = False, device: torch.device = CPU
    ) -> Tensor:
        """float32 [N * V, C, S, S] from the results of `decode`; V is 10 or 1, the views of an image adjacent."""
        if self.crop_size is None:  # squares of different sizes
            return torch.cat([self.pipeline(torch.tensor(square, device=device)[None]) for square in squares])
        pixels = torch.from_numpy(np.stack(squares)).to(device)
        if ten_crop:
            return self.pipeline(*ten_views(pixels, self.crop_size))
        corner = _corner(pixels.shape[2], self.crop_size)
        return self.pipeline(self.seen(pixels), Draws(corner=torch.full((len(pixels), 2), corner)))

    def seen(self, squares: Pixels) -> Pixels:
        """The part of squares [..., H, H] from `decode` that the network sees with protocol=center: the centre crop."""
        if self.crop_size is None:
            return squares
        corner = _corner(squares.shape[-1], self.crop_size)
        inside = slice(corner, corner + self.crop_size)
        return squares[..., inside, inside]

    @cached_property
    def pipeline(self) -> InputPipeline:
        pixels = self.mean_image if self.whole_mean_image is None else self.whole_mean_image
        mean_image = None if pixels is None else MeanImage(pixels, at_crop=self.whole_mean_image is not None)
        return InputPipeline(self.image_size, self.mean, self.std, mean_image=mean_image)

    def described(self, complete: bool = False) -> dict[str, Any]:
        """A description for people and other programs, as JSON; images as base64 of float32.

        complete: with `whole_mean_image`, so that `of_description` returns all of it.
        """
        facts = self.model_dump(exclude={*MEAN_IMAGES}, exclude_none=True)
        facts["layout"] = "images float32 [N, channels, image_size, image_size], RGB or grey"
        facts["steps"] = self.steps()
        for name in MEAN_IMAGES if complete else MEAN_IMAGES[:1]:
            if (image := getattr(self, name)) is not None:
                pixels = image.numpy().astype("<f4")
                content = base64.b64encode(pixels.tobytes()).decode()
                facts[name] = {"shape": list(pixels.shape), "float32_base64": content}
        return facts

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> "Preprocessing":
        """The reverse of `described`; raises UserError as `of`, and for an image that is damaged."""
        facts = {name: value for name, value in description.items() if name not in FOR_READERS}
        for name in facts.keys() & {*MEAN_IMAGES}:
            try:
                pixels = np.frombuffer(base64.b64decode(facts[name]["float32_base64"]), "<f4")
                facts[name] = torch.from_numpy(pixels.astype(np.float32).reshape(facts[name]["shape"]))
            except (TypeError, KeyError, ValueError) as error:
                raise UserError(f"this file's preprocessing is damaged: {name}: {error}") from error
        return cls.of(facts)

    def steps(self) -> list[str]:
        """What is done with an image file, for people."""
        if self.crop_size is None:
            first = ["centre square", *(["grey"] if self.channels == 1 else [])]
        else:
            first = [f"RGB, shorter side to {self.stored_size}", f"centre crop of {self.crop_size}"]
        if self.transparency:
            first.insert(0, f"transparency over {self.transparency}")
        subtracted = "mean" if self.mean_image is None else "mean_image"
        return [*first, "divide by 255", f"subtract {subtracted}", "divide by std", f"resize to {self.image_size}"]


def _corner(side: int, size: int) -> int:
    """Top and left of the centre crop."""
    return (side - size) // 2
