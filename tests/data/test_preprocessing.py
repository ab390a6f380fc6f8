import io

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError

GREY = {"image_size": 56, "resize": "bilinear", "channels": 1, "mean": [0.3], "std": [0.5], "classes": ["a", "b"]}
PHOTOGRAPHS = GREY | {"channels": 3, "stored_size": 256, "crop_size": 224, "image_size": 224}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_small_grey_images_are_unchanged_and_photographs_become_grey_squares() -> None:
    random = np.random.default_rng(0)
    preprocessing, small = Preprocessing.of(GREY), random.integers(0, 256, (28, 28), dtype=np.uint8)
    assert np.array_equal(preprocessing.decode(png(small))[0], small)
    wide = np.zeros((300, 500, 3), np.uint8)
    wide[:, 90:410] = (250, 20, 20)
    square = preprocessing.decode(png(wide))
    assert square.shape == (1, 256, 256)
    assert np.ptp(square) == 0
    assert square[0, 0, 0] == np.asarray(Image.fromarray(wide[:1, 250:251]).convert("L"))[0, 0]
    inputs = preprocessing.inputs([small[None], square])
    assert inputs.shape == (2, 1, 56, 56)
    assert float(inputs[1, 0, 5, 5]) == pytest.approx((square[0, 0, 0] / 255 - 0.3) / 0.5, abs=1e-6)


def test_photographs_are_cropped_in_the_centre_or_ten_times() -> None:
    preprocessing = Preprocessing.of(PHOTOGRAPHS)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    square = preprocessing.decode(png(np.ascontiguousarray(ramp)))
    centre = preprocessing.inputs([square])
    columns = (torch.arange(16, 240) / 255 - 0.3) / 0.5
    torch.testing.assert_close(centre[0, 0, 0], columns, atol=1e-6, rtol=0)
    ten = preprocessing.inputs([square, square], ten_crop=True)
    assert ten.shape == (20, 3, 224, 224)
    torch.testing.assert_close(ten[4], centre[0])
    torch.testing.assert_close(ten[9], centre[0].flip(2))


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"stored_size": 128}, {"crop_size": 300}, {"gamma": 2.2}])
def test_unknown_facts_are_refused(wrong) -> None:
    with pytest.raises(UserError, match=f"preprocessing is not supported: {next(iter(wrong))}"):
        Preprocessing.of(PHOTOGRAPHS | wrong)


def test_missing_facts_are_refused() -> None:
    with pytest.raises(UserError, match="preprocessing is not supported: image_size: Field required"):
        Preprocessing.of({})
