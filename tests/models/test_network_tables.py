"""Every network compared with the published table: shapes, parameters and multiply-accumulates."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.alexnet_half import alexnet_half_v1, alexnet_half_v2
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.bvlc_alexnet import bvlc_alexnet
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.table import count_macs, count_parameters, layer_table

Factory = Callable[..., nn.Module]

# Row: output shape, parameters, (kernel, stride, padding, groups) where the layer has them.
ALEXNET_FC = {
    "fc6": ((4096,), 37_752_832, None),
    "fc7": ((4096,), 16_781_312, None),
    "fc8": ((1000,), 4_097_000, None),
}
POOLS = {
    "pool1": ((96, 27, 27), 0, (3, 2, 0, None)),
    "pool2": ((256, 13, 13), 0, (3, 2, 0, None)),
    "pool5": ((256, 6, 6), 0, (3, 2, 0, None)),
}
ORIGINAL = {
    "conv1": ((96, 55, 55), 34_944, (11, 4, 0, 1)),
    "conv2": ((256, 27, 27), 307_456, (5, 1, 2, 2)),
    "conv3": ((384, 13, 13), 885_120, (3, 1, 1, 1)),
    "conv4": ((384, 13, 13), 663_936, (3, 1, 1, 2)),
    "conv5": ((256, 13, 13), 442_624, (3, 1, 1, 2)),
    **POOLS,
    **ALEXNET_FC,
}
UNGROUPED = {
    "conv1": ((96, 55, 55), 34_944, (11, 4, 0, 1)),
    "conv2": ((256, 27, 27), 614_656, (5, 1, 2, 1)),
    "conv3": ((384, 13, 13), 885_120, (3, 1, 1, 1)),
    "conv4": ((384, 13, 13), 1_327_488, (3, 1, 1, 1)),
    "conv5": ((256, 13, 13), 884_992, (3, 1, 1, 1)),
    **POOLS,
    **ALEXNET_FC,
}
TORCHVISION = {
    "features.0": ((64, 55, 55), 23_296, (11, 4, 2, 1)),
    "features.2": ((64, 27, 27), 0, (3, 2, 0, None)),
    "features.3": ((192, 27, 27), 307_392, (5, 1, 2, 1)),
    "features.5": ((192, 13, 13), 0, (3, 2, 0, None)),
    "features.6": ((384, 13, 13), 663_936, (3, 1, 1, 1)),
    "features.8": ((256, 13, 13), 884_992, (3, 1, 1, 1)),
    "features.10": ((256, 13, 13), 590_080, (3, 1, 1, 1)),
    "features.12": ((256, 6, 6), 0, (3, 2, 0, None)),
    "flatten": ((9216,), 0, None),
    "classifier.1": ((4096,), 37_752_832, None),
    "classifier.4": ((4096,), 16_781_312, None),
    "classifier.6": ((1000,), 4_097_000, None),
}
D2L = {
    "conv1": ((96, 54, 54), 11_712, (11, 4, 1, 1)),
    "pool1": ((96, 26, 26), 0, (3, 2, 0, None)),
    "conv2": ((256, 26, 26), 614_656, (5, 1, 2, 1)),
    "pool2": ((256, 12, 12), 0, (3, 2, 0, None)),
    "conv3": ((384, 12, 12), 885_120, (3, 1, 1, 1)),
    "conv4": ((384, 12, 12), 1_327_488, (3, 1, 1, 1)),
    "conv5": ((256, 12, 12), 884_992, (3, 1, 1, 1)),
    "pool5": ((256, 5, 5), 0, (3, 2, 0, None)),
    "flatten": ((6400,), 0, None),
    "fc6": ((4096,), 26_218_496, None),
    "fc7": ((4096,), 16_781_312, None),
    "fc8": ((10,), 40_970, None),
}
HALF = {
    "pad": ((3, 227, 227), 0, None),
    "conv1": ((48, 55, 55), 17_472, (11, 4, 0, 1)),
    "pool1": ((48, 27, 27), 0, (3, 2, 0, None)),
    "conv2": ((128, 27, 27), 153_728, (5, 1, 2, 1)),
    "pool2": ((128, 13, 13), 0, (3, 2, 0, None)),
    "conv3": ((192, 13, 13), 221_376, (3, 1, 1, 1)),
    "conv4": ((192, 13, 13), 331_968, (3, 1, 1, 1)),
    "conv5": ((128, 13, 13), 221_312, (3, 1, 1, 1)),
    "pool5": ((128, 6, 6), 0, (3, 2, 0, None)),
    "flatten": ((4608,), 0, None),
}
HALF_V1 = HALF | {
    "fc6": ((2048,), 9_439_232, None),
    "fc7": ((2048,), 4_196_352, None),
    "fc8": ((1000,), 2_049_000, None),
}
HALF_V2 = HALF | {
    "fc6": ((1024,), 4_719_616, None),
    "fc7": ((128,), 131_200, None),
    "fc8": ((1000,), 129_000, None),
}
LENET = {
    "conv1": ((6, 28, 28), 156, (5, 1, 2, 1)),
    "pool1": ((6, 14, 14), 0, (2, 2, 0, None)),
    "conv2": ((16, 10, 10), 2_416, (5, 1, 0, 1)),
    "pool2": ((16, 5, 5), 0, (2, 2, 0, None)),
    "flatten": ((400,), 0, None),
    "fc3": ((120,), 48_120, None),
    "fc4": ((84,), 10_164, None),
    "fc5": ((10,), 850, None),
}
# Factory, channels, side, table, parameters, multiply-accumulates; the factories' defaults are the published values.
PUBLISHED = {
    "original": (alexnet_original, 3, 224, ORIGINAL, 60_965_224, 724_406_816),
    "ungrouped": (alexnet_ungrouped, 3, 227, UNGROUPED, 62_378_344, 1_135_256_096),
    "torchvision": (alexnet_torchvision, 3, 224, TORCHVISION, 61_100_840, 714_188_480),
    "d2l": (alexnet_d2l, 1, 224, D2L, 46_764_746, 938_146_176),
    "half_v1": (alexnet_half_v1, 3, 224, HALF_V1, 16_630_440, 311_191_824),
    "half_v2": (alexnet_half_v2, 3, 224, HALF_V2, 5_925_672, 300_490_000),
    "caffenet": (caffenet, 3, 227, ORIGINAL, 60_965_224, 724_406_816),
    "bvlc_alexnet": (bvlc_alexnet, 3, 227, ORIGINAL, 60_965_224, 724_406_816),
    "lenet": (lenet, 1, 28, LENET, 61_706, 416_520),
}


def on_meta(factory: Factory, **parameters: object) -> nn.Module:
    with torch.device("meta"):
        return factory(**parameters)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_row_and_total_matches_the_published_table(name: str) -> None:
    factory, channels, side, table, parameters, macs = PUBLISHED[name]
    net = on_meta(factory)
    rows = {row.name: row for row in layer_table(net, channels, side)}
    assert {name for name, row in rows.items() if row.parameters} == {name for name, row in table.items() if row[1]}
    for layer, (output, count, windows) in table.items():
        row = rows[layer]
        assert (row.output, row.parameters) == (output, count), layer
        if windows:
            kernel, stride, padding, groups = windows
            assert (row.kernel, row.stride, row.padding) == ((kernel,) * 2, (stride,) * 2, (padding,) * 2), layer
            assert row.groups == groups, layer
    assert count_parameters(net) == parameters
    assert count_macs(net, channels, side) == macs


@pytest.mark.parametrize(
    ("factory", "classes", "parameters"),
    [(alexnet_original, 10, 56_909_194), (alexnet_half_v1, 5, 14_591_685), (alexnet_half_v2, 5, 5_797_317)],
)
def test_other_class_counts(factory: Factory, classes: int, parameters: int) -> None:
    assert count_parameters(on_meta(factory, num_classes=classes)) == parameters


@pytest.mark.parametrize("name", ["original", "caffenet", "bvlc_alexnet", "ungrouped", "half_v1"])
def test_224_and_227_give_the_same_network(name: str) -> None:
    factory, channels, _, _, parameters, macs = PUBLISHED[name]
    for side in (224, 227):
        net = on_meta(factory, image_size=side)
        assert (count_parameters(net), count_macs(net, channels, side)) == (parameters, macs)
        assert isinstance(net.get_submodule("pad"), nn.ZeroPad2d if side == 224 else nn.Identity)


ORDERS = {
    "original": "pad conv1 act1 norm1 pool1 conv2 act2 norm2 pool2 conv3 act3 conv4 act4 conv5 act5 pool5 flatten "
    "fc6 act6 drop6 fc7 act7 drop7 fc8",
    "caffenet": "pad conv1 act1 pool1 norm1 conv2 act2 pool2 norm2 conv3 act3 conv4 act4 conv5 act5 pool5 flatten "
    "fc6 act6 drop6 fc7 act7 drop7 fc8",
    "ungrouped": "pad conv1 act1 pool1 conv2 act2 pool2 conv3 act3 conv4 act4 conv5 act5 pool5 flatten "
    "drop6 fc6 act6 drop7 fc7 act7 fc8",
    "d2l": "conv1 act1 pool1 conv2 act2 pool2 conv3 act3 conv4 act4 conv5 act5 pool5 flatten "
    "fc6 act6 drop6 fc7 act7 drop7 fc8",
    "half_v1": "pad conv1 act1 pool1 conv2 act2 pool2 conv3 act3 conv4 act4 conv5 act5 pool5 flatten "
    "drop6 fc6 act6 drop7 fc7 act7 fc8",
    "lenet": "conv1 act1 pool1 conv2 act2 pool2 flatten fc3 act3 drop3 fc4 act4 drop4 fc5",
}
ORDERS["bvlc_alexnet"] = ORDERS["original"]


@pytest.mark.parametrize("name", ORDERS)
def test_dropout_and_normalisation_are_placed_as_in_the_source(name: str) -> None:
    assert " ".join(layer for layer, _ in on_meta(PUBLISHED[name][0]).named_children()) == ORDERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_default_dropout_is_published_and_can_be_changed(name: str) -> None:
    published = {"half_v1": 0.2, "half_v2": 0.2, "lenet": 0.0}.get(name, 0.5)
    for expected, parameters in ((published, {}), (0.25, {"dropout": 0.25})):
        net = on_meta(PUBLISHED[name][0], **parameters)
        assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [expected] * 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_has_dropout_only_where_its_probability_is_not_zero(name: str) -> None:
    factory, channels, side, *_ = PUBLISHED[name]
    for dropout in (0.0, 0.25):
        kinds = [row.kind for row in layer_table(on_meta(factory, dropout=dropout), channels, side)]
        assert kinds.count("Dropout") == (2 if dropout else 0)


SMALLEST = {
    "original": 64,
    "ungrouped": 64,
    "torchvision": 63,
    "d2l": 65,
    "half_v1": 64,
    "half_v2": 64,
    "caffenet": 64,
    "bvlc_alexnet": 64,
    "lenet": 12,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_smallest_image_is_accepted_and_a_smaller_one_reported(name: str) -> None:
    factory, smallest = PUBLISHED[name][0], SMALLEST[name]
    net = on_meta(factory, in_channels=2, num_classes=3, image_size=smallest)
    assert net(torch.empty(4, 2, smallest, smallest, device="meta")).shape == (4, 3)
    with pytest.raises(RuntimeError):
        net(torch.empty(4, 2, smallest - 1, smallest - 1, device="meta"))
    with pytest.raises(ValueError, match=f"model.image_size must be at least {smallest}, got {smallest - 1}"):
        factory(image_size=smallest - 1)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("side", [80, 97, 130])
def test_flat_size_follows_the_image_size(name: str, side: int) -> None:
    net = on_meta(PUBLISHED[name][0], in_channels=1, num_classes=2, image_size=side)
    assert net(torch.empty(1, 1, side, side, device="meta")).shape == (1, 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_empty_batch_runs_forward_and_backward(name: str) -> None:
    factory, smallest = PUBLISHED[name][0], SMALLEST[name]
    net = factory(in_channels=1, num_classes=2, image_size=smallest)
    logits = net(torch.empty(0, 1, smallest, smallest))
    assert logits.shape == (0, 2)
    nn.functional.cross_entropy(logits, torch.empty(0, dtype=torch.int64), reduction="sum").backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_channels": 0}, "model.in_channels must be at least 1, got 0"),
        ({"num_classes": 0}, "model.num_classes must be at least 1, got 0"),
        ({"dropout": 1.5}, r"model.dropout must be in \[0, 1\), got 1.5"),
        ({"dropout": float("nan")}, "model.dropout"),
    ],
)
def test_values_out_of_range_are_refused(name: str, wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PUBLISHED[name][0](**wrong)
