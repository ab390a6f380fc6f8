"""The weight of each class in the training objective.

K classes.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.errors import UserError, names_of

ClassWeights = Literal["balanced"] | Sequence[float] | None
"""The setting `loss.class_weights`: by the number of training images, K numbers, or equal weights."""


def weights_of(setting: ClassWeights, labels: NDArray[np.int64], classes: Sequence[str]) -> tuple[float, ...] | None:
    """K weights for training images with these `labels`, int64 [N]; None for equal weights.

    `balanced`: N / (K times the images of the class), as in scikit-learn, so that all classes have the same total
    weight, and the mean weight of an image is 1.

    Raises:
        UserError: another number of weights than classes, or a class without images, which has no balanced weight.
    """
    if setting is None:
        return None
    if setting != "balanced":
        if len(setting) != len(classes):
            raise UserError(
                f"loss.class_weights has {len(setting)} numbers, but there are {len(classes)} classes, in the order "
                f"{names_of(classes)}"
            )
        return tuple(map(float, setting))
    counts = np.bincount(labels, minlength=len(classes))
    if empty := [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]:
        raise UserError(
            f"loss.class_weights=balanced: no training images of {names_of(empty)}; choose a list of "
            f"{len(classes)} numbers, or remove the classes"
        )
    return tuple((len(labels) / (len(classes) * counts)).tolist())
