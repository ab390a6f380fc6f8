"""torchvision's network compared with torchvision, and loading of pre-trained weights."""

import hashlib
import logging
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from alexnet_lab.errors import UserError
from alexnet_lab.models.alexnet_torchvision import MeanOverBins, alexnet_torchvision
from alexnet_lab.models.pretrained import PUBLISHED

FC6 = "classifier.1.weight"


@pytest.fixture(scope="module")
def twin() -> nn.Module:
    """torchvision's network, with random weights and few classes."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    return alexnet(num_classes=4).eval()


@pytest.fixture(scope="module")
def weights(twin: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torchvision's network, named as torchvision names its files."""
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    torch.save(twin.state_dict(), path)
    return path.rename(path.with_name(f"mine-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))


def save(path: Path, state: object) -> str:
    torch.save(state, path)
    return str(path)


@torch.no_grad()
@pytest.mark.parametrize("side", [224, 96])
def test_same_names_and_bitwise_same_logits_as_torchvision(twin: nn.Module, weights: Path, side: int) -> None:
    net = alexnet_torchvision(num_classes=4, image_size=side, pretrained=str(weights)).eval()
    state = net.state_dict()
    assert list(state) == list(twin.state_dict())
    assert len(state) == 16
    x = torch.randn(2, 3, side, side)
    assert torch.equal(net(x), twin(x))


def test_same_initialisation_as_torchvision(twin: nn.Module) -> None:
    torch.manual_seed(0)
    net = alexnet_torchvision(num_classes=4)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True))


def test_same_dropout_as_torchvision(twin: nn.Module, weights: Path) -> None:
    net = alexnet_torchvision(num_classes=4, pretrained=str(weights))
    x = torch.randn(2, 3, 64, 64)
    logits = []
    for module in (net, twin):
        torch.manual_seed(1)
        logits.append(module.train()(x))
        module.eval()
    assert torch.equal(*logits)


def test_layers_that_do_not_fit_are_reported_and_initialised(
    twin: nn.Module, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(3)
        net = alexnet_torchvision(in_channels=1, num_classes=6, pretrained=str(weights))
    assert [re.match(r"\S+", message)[0] for message in caplog.messages] == ["classifier.6", "features.0"]
    assert "[4, 4096], here [6, 4096]" in caplog.text
    torch.manual_seed(3)
    fresh = alexnet_torchvision(in_channels=1, num_classes=6).state_dict()
    for name, tensor in net.state_dict().items():
        layer = name.rpartition(".")[0]
        assert torch.equal(tensor, (fresh if layer in {"features.0", "classifier.6"} else twin.state_dict())[name])


def test_matching_weights_are_loaded_silently(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    alexnet_torchvision(num_classes=4, pretrained=str(weights))
    assert not caplog.messages


def test_damaged_file_is_detected_by_the_hash_in_its_name(weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / weights.name
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=f"{weights.name} is damaged or has the wrong name: its SHA-256 begins"):
        alexnet_torchvision(num_classes=4, pretrained=str(damaged))


def small_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        names = alexnet_torchvision().state_dict()
    return {name: torch.zeros(1) for name in names}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "epoch": 3}, "is not a plain state dict"),
        ([1, 2], "is not a plain state dict"),
        ({"conv1.weight": torch.zeros(1)}, "16 tensors; missing: classifier.1.bias, .*unknown: conv1.weight"),
        (small_state(), "shapes differ from torchvision's AlexNet in classifier.1, classifier.4, "),
    ],
)
def test_wrong_content_is_refused(content: object, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "other.pth", content)
    with torch.device("meta"), pytest.raises(UserError, match=message):
        alexnet_torchvision(pretrained=path)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"PK\x03\x04 cut short"])
def test_file_without_tensors_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise.pth"
    path.write_bytes(content)
    with torch.device("meta"), pytest.raises(UserError, match="is not a file of tensors"):
        alexnet_torchvision(pretrained=str(path))


def test_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "code.pth", {"features.0.weight": Path("not a tensor")})
    with torch.device("meta"), pytest.raises(UserError, match="is not a file of tensors"):
        alexnet_torchvision(pretrained=path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"no such file: .*nowhere.pth"):
        alexnet_torchvision(pretrained=str(tmp_path / "nowhere.pth"))


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_failed_download_is_reported_with_the_file_and_the_remedy(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with torch.device("meta"), pytest.raises(UserError, match="Name or service not known") as caught:
        alexnet_torchvision(pretrained=True)
    assert PUBLISHED == "alexnet-owt-7be5be79.pth"
    assert f"put it into {empty_hub} or give its path: model.pretrained=PATH/{PUBLISHED}" in str(caught.value)


def test_published_file_in_the_cache_is_checked_by_its_hash(empty_hub: Path) -> None:
    empty_hub.mkdir()
    (empty_hub / PUBLISHED).write_bytes(b"cut short")
    with torch.device("meta"), pytest.raises(UserError, match="not with 7be5be79; remove it"):
        alexnet_torchvision(pretrained=True)


def test_published_file_name_is_torchvisions() -> None:
    from torchvision.models import AlexNet_Weights

    assert AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2] == PUBLISHED


def test_network_does_not_import_torchvision() -> None:
    code = "import sys, alexnet_lab.models.alexnet_torchvision; sys.exit('torchvision' in sys.modules)"
    src = Path(__file__).parents[2] / "src"
    assert subprocess.run([sys.executable, "-c", code], cwd=src, timeout=60).returncode == 0


@pytest.mark.parametrize("side", [1, 4, 6, 7, 13])
def test_deterministic_pool_equals_the_usual_one_forward_and_backward(side: int) -> None:
    images = torch.randn(2, 3, side, side + 1, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    usual = MeanOverBins()(images)
    torch.testing.assert_close(usual, nn.AdaptiveAvgPool2d((6, 6))(images))
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = MeanOverBins()(images)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(deterministic, usual)
    gradients = [torch.autograd.grad((pooled * weights).sum(), images)[0] for pooled in (usual, deterministic)]
    torch.testing.assert_close(*gradients)


def test_pool_of_the_native_size_returns_its_input() -> None:
    images = torch.randn(1, 3, 6, 6)
    assert MeanOverBins()(images) is images
