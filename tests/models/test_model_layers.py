"""The padding that rounds conv1's output up."""

import pytest
from torch import nn

from alexnet_lab.models.layers import overhang_pad


@pytest.mark.parametrize(("side", "centred", "pads"), [(224, False, (0, 3, 0, 3)), (224, True, (1, 2, 1, 2))])
def test_224_is_padded_to_227(side: int, centred: bool, pads: tuple[int, ...]) -> None:
    pad = overhang_pad(side, centred=centred)
    assert isinstance(pad, nn.ZeroPad2d)
    assert pad.padding == pads
    assert isinstance(overhang_pad(227, centred=centred), nn.Identity)
