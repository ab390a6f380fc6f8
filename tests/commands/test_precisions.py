"""A checkpoint of any precision can be used for evaluation, prediction and export in any other precision."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.precision import DoublePrecision
from omegaconf import DictConfig
from PIL import Image

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.export import export
from alexnet_lab.commands.predict import predict
from alexnet_lab.runs.checkpoint import read_checkpoint

TRUE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
Composed = Callable[..., DictConfig]


@pytest.fixture(scope="module", params=TRUE)
def of_true_precision(request, trained_run, tmp_path_factory) -> Path:
    """The checkpoint as a run in this precision would have written it."""
    content = torch.load(trained_run.last, weights_only=True)
    content["state_dict"] = {name: value.to(TRUE[request.param]) for name, value in content["state_dict"].items()}
    content["config"]["trainer"]["precision"] = request.param
    path = tmp_path_factory.mktemp(request.param) / "last.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("precision", ["32-true", "64-true", "16-true", "bf16-mixed"])
def test_evaluation_and_prediction_in_any_precision(
    composed: Composed, trained_run, of_true_precision: Path, precision: str, tmp_path: Path
) -> None:
    checkpoint = f"checkpoint={of_true_precision}"
    found = evaluate(composed("evaluate", checkpoint, "trainer=cpu", f"trainer.precision={precision}"))["test/loss"]
    assert found == pytest.approx(trained_run.result["final"]["test/loss"], rel=1e-3)

    Image.new("RGB", (40, 30), (200, 30, 60)).save(tmp_path / "red.png")
    (one,) = predict(composed("predict", checkpoint, f"images={tmp_path}", f"precision={precision}", "accelerator=cpu"))
    assert sum(probability for _, probability in one.classes) < 1
    assert len(one.classes) == 5


def test_exported_network_reads_float32(composed: Composed, of_true_precision: Path, tmp_path: Path) -> None:
    for form, suffix in (("state_dict", ".weights.pt"), ("torch_export", ".pt2")):
        out = tmp_path / f"network{suffix}"
        found = export(composed("export", f"checkpoint={of_true_precision}", f"format={form}", f"out={out}"))
        assert found.agrees
        assert out.exists()
    weights = torch.load(tmp_path / "network.weights.pt", weights_only=True)["state_dict"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
    given = torch.load(of_true_precision, weights_only=True)["state_dict"]
    assert all(torch.equal(value, given[name].float()) for name, value in weights.items())


def test_restored_network_keeps_full_precision_where_it_computes_in_it(of_true_precision: Path) -> None:
    restored = read_checkpoint(of_true_precision)
    net = restored.network(DoublePrecision())
    assert all(torch.equal(value, restored.weights[name].double()) for name, value in net.state_dict().items())
