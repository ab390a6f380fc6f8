"""Grad-CAM against plain autograd, on a network whose map is known, and on every network of the project."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.gradcam import grad_cam

CONF = Path(__file__).parents[2] / "conf" / "model"
SIDES = {"lenet": 10, "alexnet_d2l": 12}
"""Side of the maps that are not 13 x 13: before the last pool, at the network's own input size."""


def small_net(activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> tuple[nn.Sequential, nn.Sequential]:
    """Layers up to the explained maps, and those behind."""
    torch.manual_seed(0)
    last = [nn.Conv2d(4, 6, 3), *([nn.BatchNorm2d(6)] if norm else []), activation()]
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), *last)
    head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 3 * 3, 7), nn.ReLU(), nn.Linear(7, 5))
    return features.eval(), head.eval()


def by_autograd(features: nn.Module, head: nn.Module, image: Tensor, index: int) -> Tensor:
    """Equations 1 and 2 of the paper in loops over the maps of one image [C, S, S]."""
    maps = features(image[None]).detach().requires_grad_()
    head(maps)[0, index].backward()
    total = torch.zeros(maps.shape[2:])
    for number in range(maps.shape[1]):
        weight = sum(float(one) for one in maps.grad[0, number].flatten()) / maps.grad[0, number].numel()
        total += weight * maps.detach()[0, number]
    return total.clamp(min=0)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("activation", "norm"), [(nn.ReLU, False), (nn.Sigmoid, False), (nn.Tanh, False), (nn.ReLU, True)]
)
def test_maps_equal_those_of_plain_autograd(activation: type[nn.Module], norm: bool, frozen: bool) -> None:
    features, head = small_net(activation, norm)
    images = torch.randn(3, 3, 18, 18)
    net = nn.Sequential(*features, *head).requires_grad_(not frozen)
    logits = net(images)
    found = grad_cam(net, images)
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.classes, logits.argmax(1))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())
    for place, image in enumerate(images):
        torch.testing.assert_close(found.maps[place], by_autograd(features, head, image, int(found.classes[place])))
    second = grad_cam(net, images, 2)
    assert second.classes.tolist() == [2, 2, 2]
    torch.testing.assert_close(second.maps[1], by_autograd(features, head, images[1], 2))


def test_map_of_a_network_that_looks_at_one_colour_is_that_colour() -> None:
    convolution, last = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 2, bias=False)
    convolution.weight.data = torch.eye(3)[:, :, None, None]
    last.weight.data = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, -1.0]])  # red without green, and: no blue
    net = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
    images = torch.rand(1, 3, 4, 5)
    expected = (images[:, 0] - images[:, 1]).clamp(min=0) / 20
    torch.testing.assert_close(grad_cam(net, images, 0).maps, expected)
    assert grad_cam(net, images, 1).maps.eq(0).all()


class Functional(nn.Module):
    """A ReLU that is no module, and a convolution that the logits do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.unused = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.relu_(self.conv(images))
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


def test_activation_in_place_counts_although_it_is_no_module() -> None:
    torch.manual_seed(1)
    net, images = Functional().eval(), torch.randn(2, 3, 6, 6)
    maps = net.conv(images).relu()
    weights = net.fc.weight[1] / 16
    expected = (maps * weights[:, None, None]).sum(1).relu().detach()
    torch.testing.assert_close(grad_cam(net, images, 1).maps, expected)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_maps_of_every_network_are_those_before_the_last_pool(name: str) -> None:
    settings = OmegaConf.load(CONF / f"{name}.yaml")
    settings = OmegaConf.merge(settings, {"in_channels": 3, "num_classes": 10})
    with torch.device("meta"):
        net = instantiate(settings).eval()
        images = torch.zeros(2, 3, settings.image_size, settings.image_size)
    found = grad_cam(net, images)
    side = SIDES.get(name, 13)
    assert (found.maps.shape, found.logits.shape) == ((2, side, side), (2, 10))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
        nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, 1, -1)), nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(24, 3)),
    ],
)
def test_network_without_a_convolution_is_refused(net: nn.Module) -> None:
    with pytest.raises(UserError, match="explain=gradcam: this network has no convolution"):
        grad_cam(net.eval(), torch.zeros(1, 3, 2, 2))
