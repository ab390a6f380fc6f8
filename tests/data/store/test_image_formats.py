import numpy as np
import pytest
from PIL import Image
from tests.data.image_formats import EXAMPLES, OPAQUE, TRANSPARENT

from alexnet_lab.data.store.images import to_square


@pytest.mark.parametrize("name", EXAMPLES)
def test_image_has_the_expected_pixels(name) -> None:
    example = EXAMPLES[name]
    found = to_square(example.data)
    assert (found.shape, found.dtype) == ((256, 256, 3), np.uint8)
    grey = to_square(example.data, "L")
    expected_grey = Image.fromarray(example.rgb).convert("L")
    for pixels, expected in ((found, example.rgb), (grey, np.asarray(expected_grey))):
        difference = np.abs(pixels.astype(int) - expected)
        assert difference.mean() < 2 if example.lossy else difference.max() == 0


@pytest.mark.parametrize("name", [name for name in OPAQUE if not OPAQUE[name].lossy])
def test_opaque_image_is_the_same_without_composition(name) -> None:
    data = OPAQUE[name].data
    assert np.array_equal(to_square(data), to_square(data, transparency=None))


@pytest.mark.parametrize("name", ["rgba.PNG", "la.PNG", "palette_index.GIF", "palette_alphas.PNG", "rgb_trns.PNG"])
def test_without_composition_transparent_pixels_have_the_colour_of_the_file(name) -> None:
    data = TRANSPARENT[name].data
    opaque = OPAQUE["grey.PNG" if name == "la.PNG" else "rgb.PNG"]
    assert np.array_equal(to_square(data, transparency=None), opaque.rgb)
