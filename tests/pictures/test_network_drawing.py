"""Drawings of networks are parsed: lengths, positions and texts of what a reader sees."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab.models.alexnet_d2l import alexnet_d2l
from alexnet_lab.models.alexnet_original import alexnet_original
from alexnet_lab.models.alexnet_torchvision import alexnet_torchvision
from alexnet_lab.models.alexnet_ungrouped import alexnet_ungrouped
from alexnet_lab.models.caffenet import caffenet
from alexnet_lab.models.lenet import lenet
from alexnet_lab.models.table import count_parameters, layer_table
from alexnet_lab.pictures.architecture import Network, architecture
from alexnet_lab.pictures.stages import TIMES
from alexnet_lab.pictures.svg import width_of

SVG = "{http://www.w3.org/2000/svg}"
Corners = list[tuple[float, float]]


class Branches(nn.Module):
    """A residual block whose shortcut changes the shape, then a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.left = nn.Conv2d(8, 16, (1, 5), stride=2, padding=(0, 2))
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.add_module('<fc> & "\x01', nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.depthwise(self.left(x) + self.shortcut(x))
        return self.get_submodule('<fc> & "\x01')(self.flat(self.mean(x)))


class Reshaping(nn.Module):
    """Changes shapes by functions: a vector becomes a map, and a map a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(3 * 8 * 8, 64)
        self.conv = nn.Conv2d(4, 8, 3, padding="same")
        self.fc = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.widen(x.flatten(1)).view(-1, 4, 4, 4))
        return self.fc(x.flatten(1)).softmax(1)


NETWORKS: dict[str, tuple[Callable[..., nn.Module], int, int]] = {
    "original": (alexnet_original, 3, 224),
    "one tower": (partial(alexnet_original, towers=1, num_classes=10), 3, 224),
    "small": (partial(alexnet_original, num_classes=3, image_size=67), 3, 67),
    "caffenet": (caffenet, 3, 227),
    "ungrouped": (alexnet_ungrouped, 3, 227),
    "torchvision": (alexnet_torchvision, 3, 224),
    "d2l": (partial(alexnet_d2l, in_channels=1), 1, 224),
    "lenet": (lenet, 1, 28),
    "branches": (Branches, 3, 32),
    "reshaping": (Reshaping, 3, 8),
}


@cache
def network(name: str) -> Network:
    build, channels, side = NETWORKS[name]
    with torch.device("meta"):
        net = build()
    return Network(
        f"{name}: {channels} x {side} x {side}",
        (channels, side, side),
        layer_table(net, channels, side),
        count_parameters(net),
    )


class Drawing:
    def __init__(self, *names: str) -> None:
        self.text = architecture([network(name) for name in names]).replace(TIMES, "x")
        self.root = ET.fromstring(self.text)

    def solids(self, title: str) -> list[dict[str, Corners]]:
        """The faces of the solids with this title, such as `conv1: 48x55x55`, by class."""
        groups = [one for one in self.root.iter(f"{SVG}g") if one.findtext(f"{SVG}title") == title]
        return [{face.get("class", ""): corners(face) for face in group.findall(f"{SVG}polygon")} for group in groups]

    def size(self, title: str) -> tuple[float, float]:
        """Length to the right and height of a box or bar."""
        (left, bottom), (right, _), (_, top), _ = self.solids(title)[0]["front"]
        return right - left, bottom - top

    def texts(self) -> list[tuple[str, float, float, str]]:
        """Text, x, y, class of what is placed in the drawing itself, not in the legend."""
        found = self.root.findall(f"{SVG}text")
        return [
            (one.text or "", float(one.get("x", "")), float(one.get("y", "")), one.get("class", "")) for one in found
        ]

    def captions(self) -> dict[str, list[str]]:
        """The lines below each stage, by its name."""
        columns: dict[float, list[str]] = {}
        for words, x, _, style in self.texts():
            if "c" in style.split() and "n" not in style.split():
                columns.setdefault(x, []).append(words)
        return {lines[0]: lines[1:] for lines in columns.values()}

    def lines_of_kernels(self) -> list[tuple[float, float]]:
        """Start and end on the x axis of each bundle of lines from a kernel to a point of the next map."""
        paths = [one.get("d", "") for one in self.root.findall(f"{SVG}path[@class='l']")]
        return [(float(path[1:].split()[0]), float(path.rsplit("L")[-1].split()[0])) for path in paths]


def corners(face: ET.Element) -> Corners:
    pairs = [pair.split(",") for pair in face.get("points", "").split()]
    return [(float(x), float(y)) for x, y in pairs]


drawing = cache(Drawing)


def test_sides_channels_and_features_are_linear() -> None:
    one = drawing("original")
    titles = {224: "input: 3x224x224", 55: "conv1: 48x55x55", 27: "pool1: 48x27x27", 13: "conv3: 192x13x13"}
    for side, title in titles.items():
        assert one.size(title)[1] / side == pytest.approx(420 / 224, abs=1e-3)
    lengths = [one.size(title)[0] for title in ("conv1: 48x55x55", "conv2: 128x27x27", "conv4: 192x13x13")]
    assert [round(length / lengths[0], 2) for length in lengths] == [1, 2.67, 4]
    hidden, classes = one.size("fc6: 2048")[1], one.size("fc8: 1000")[1]
    assert hidden / classes == pytest.approx(2.048, abs=1e-3)


def test_receding_edges_have_half_length() -> None:
    side = drawing("original").solids("conv1: 48x55x55")[0]["side"]
    (x, y), (right, above), *_ = side
    assert ((right - x) ** 2 + (y - above) ** 2) ** 0.5 == pytest.approx(55 * 1.875 / 2, abs=0.02)


def test_two_towers_are_two_rows_and_one_is_one() -> None:
    upper, lower = (one["front"] for one in drawing("original").solids("conv3: 192x13x13"))
    assert [x for x, _ in upper] == [x for x, _ in lower]
    assert max(y for _, y in upper) < min(y for _, y in lower)
    assert len(drawing("original").solids("fc8: 1000")) == 1
    assert len(drawing("one tower").solids("conv3: 192x13x13")) == 1
    assert len(drawing("ungrouped").solids("conv3: 384x13x13")) == 1


def test_layers_that_read_both_towers_are_those_of_the_paper() -> None:
    captions = drawing("original").captions()
    assert [name for name, lines in captions.items() if "both towers" in lines] == ["conv3", "fc6", "fc7", "fc8"]
    assert [name for name, lines in captions.items() if "own tower" in lines] == ["conv2", "conv4", "conv5"]
    # Each kernel is joined to the next map: 8 layers in 2 towers, and conv3 across them.
    assert len(drawing("original").lines_of_kernels()) == 8 * 2 + 2
    assert len(drawing("one tower").lines_of_kernels()) == len(drawing("ungrouped").lines_of_kernels()) == 8
    bands = drawing("original").root.findall(f"{SVG}polygon[@class='f']")
    assert len(bands) == 4 + 4 + 2  # fc6, fc7, fc8


def test_normalisation_over_both_towers_is_noted() -> None:
    assert drawing("caffenet").captions()["pool1"][-2:] == ["LRN over", "both towers"]
    assert drawing("original").captions()["conv1"][-1] == "LRN"


def test_captions_give_output_kernel_stride_padding_and_what_follows() -> None:
    captions = drawing("original").captions()
    assert captions["input"] == ["3x224x224", "pad to 227x227"]
    assert captions["conv1"] == ["96x55x55", "11x11", "stride 4", "ReLU", "LRN"]
    assert captions["pool1"] == ["96x27x27", "max pooling", "3x3", "stride 2"]
    assert captions["conv2"] == ["256x27x27", "5x5", "stride 1", "pad 2", "own tower", "ReLU", "LRN"]
    assert captions["pool5"] == ["256x6x6", "max pooling", "3x3", "stride 2", "flatten 9216"]
    assert captions["fc7"] == ["4096", "dense", "both towers", "ReLU", "dropout"]
    assert "mean pooling" in drawing("lenet").captions()["pool1"]
    assert "60,965,224 parameters, 724,406,816 multiply-accumulates per image" in drawing("original").text


def test_networks_in_one_drawing_have_one_scale() -> None:
    both = drawing("lenet", "d2l")
    assert both.size("input: 1x224x224")[1] / both.size("input: 1x28x28")[1] == pytest.approx(8, abs=1e-2)
    assert both.size("fc6: 4096")[1] / both.size("fc3: 120")[1] == pytest.approx(4096 / 120, rel=1e-2)
    assert drawing("lenet").size("input: 1x28x28")[1] > 4 * both.size("input: 1x28x28")[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_scale_bars_have_the_length_that_they_state(name: str) -> None:
    one = drawing(name)
    bars = {}
    for group in one.root.findall(f"{SVG}g[@transform]"):
        if (path := group.find(f"{SVG}path")) is not None:
            amount, _, unit = (group.findtext(f"{SVG}text") or "").partition(" ")
            bars[unit] = float(path.get("d", "").split("H")[1].split("M")[0]) / int(amount.replace(",", ""))
    _, channels, side = NETWORKS[name]
    length, height = one.size(f"input: {channels}x{side}x{side}")
    assert bars["pixels of height or width"] == pytest.approx(height / side, rel=1e-3)
    assert bars["channels"] == pytest.approx(length / channels, abs=0.01)
    assert bars["features"] > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_cut_off_and_captions_do_not_touch(name: str) -> None:
    one = drawing(name)
    width, height = map(float, one.root.get("viewBox", "").split()[2:])
    points = [point for face in one.root.iter(f"{SVG}polygon") for point in corners(face)]
    assert all(0 < x < width and 0 < y < height for x, y in points)
    rows: dict[float, list[tuple[float, float]]] = {}
    for words, x, y, style in one.texts():
        assert 0 < y < height
        half = width_of(words) * (1.12 if "b" in style.split() else 1) / 2
        if "c" in style.split() and "n" not in style.split():
            rows.setdefault(y, []).append((x - half, x + half))
    for row in rows.values():
        assert row[0][0] > 0
        assert row[-1][1] < width
        assert all(left[1] < right[0] for left, right in pairwise(row))


def test_kernels_cover_the_sides_and_channels_that_they_read() -> None:
    """A pool and a depthwise convolution read one channel, the towers' convolutions all channels of the row."""

    def kernels(name: str) -> list[tuple[float, float]]:
        faces = [corners(face) for face in drawing(name).root.findall(f"{SVG}polygon[@class='k']")][::3]
        return [(right - left, bottom - top) for (left, bottom), (right, _), (_, top), _ in faces]

    length, height = drawing("lenet").size("pool1: 6x14x14")
    assert [a / length * 6 for a, _ in kernels("lenet")] == pytest.approx([1, 1, 6, 1], abs=0.02)
    assert [b / height * 14 for _, b in kernels("lenet")] == pytest.approx([5, 2, 5, 2], abs=0.02)
    (length, height) = drawing("branches").size("left: 16x8x8")
    assert kernels("branches")[-1] == pytest.approx((length / 16, height * 3 / 8), abs=0.02)
    (length, _) = drawing("original").size("pool2: 128x13x13")
    assert [a for a, _ in kernels("original")].count(pytest.approx(length, abs=0.02)) == 2


def test_branches_are_not_joined_to_the_layer_before() -> None:
    one = drawing("branches")
    assert one.captions()["shortcut"] == ["16x8x8", "reads", "8x16x16", "1x1", "stride 2"]
    assert one.captions()["left"] == ["16x8x8", "1x5", "stride 2", "pad 0x2"]
    assert "16 groups" in one.captions()["depthwise"]
    (shortcut,) = one.solids("shortcut: 16x8x8")
    ends = [end for _, end in one.lines_of_kernels()]
    assert len(ends) == 3  # stem, left, depthwise
    assert not any(shortcut["front"][0][0] <= end <= shortcut["front"][1][0] for end in ends)
    assert "Sums and concatenations of branches are not drawn." in one.text
    assert "branches" not in drawing("original").text


def test_reshaping_between_layers_is_not_a_branch() -> None:
    one = drawing("reshaping")
    assert one.captions()["conv"] == ["8x4x4", "3x3", "stride 1", "pad 1"]  # padding="same"
    assert one.captions()["fc"] == ["3", "dense"]
    assert "branches" not in one.text
    assert len(one.root.findall(f"{SVG}polygon[@class='f']")) == 2


def test_softmax_in_the_loss_is_a_note_of_the_last_stage() -> None:
    given = network("lenet")
    softmax = replace(given.layers[-1], name="softmax", kind="in the loss", kernel=(), input=(10,), macs=0)
    text = architecture([given._replace(layers=[*given.layers, softmax])])
    assert "fc5 10, dense, softmax, in the loss</desc>" in text


def test_names_are_escaped_and_controls_replaced() -> None:
    assert '<fc> & "?' in drawing("branches").captions()
    assert drawing("branches").root.findtext(f"{SVG}title") == "branches: 3 x 32 x 32"


def test_drawing_has_a_background_and_a_description_and_is_reproducible() -> None:
    one = drawing("torchvision")
    background = one.root.find(f"{SVG}rect")
    assert background is not None
    assert background.get("fill") == "#fff"
    assert one.root.get("viewBox") == f"0 0 {background.get('width')} {background.get('height')}"
    assert "features.0 64x55x55, 11x11, stride 4, pad 2, ReLU" in (one.root.findtext(f"{SVG}desc") or "")
    assert Drawing("torchvision").text == one.text
