"""Loss, top-1 and top-5 compared with hand-computed values and torchmetrics."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from alexnet_lab import metrics
from alexnet_lab.metrics import ClassificationMetrics, place_of_sums, sum_of_losses


def test_top1_and_top5_equal_torchmetrics_micro_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = ClassificationMetrics()
    theirs = {k: MulticlassAccuracy(num_classes=20, top_k=k, average="micro") for k in (1, 5)}
    for size in (64, 64, 7):
        logits = torch.randn(size, 20, generator=generator)
        labels = torch.randint(20, (size,), generator=generator)
        ours.update(cross_entropy(logits, labels, reduction="sum"), logits, labels)
        for metric in theirs.values():
            metric.update(logits, labels)
    figures = ours.compute()
    assert figures["top1"] == pytest.approx(float(theirs[1].compute()), abs=1e-6)
    assert figures["top5"] == pytest.approx(float(theirs[5].compute()), abs=1e-6)
    assert figures["count"] == 135


def test_metrics_of_four_samples_match_hand_computed_values() -> None:
    # Ranks of the labels among six classes: 1st, 2nd, 5th, 6th.
    logits = torch.tensor([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(4, 1)
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(10.0), logits, torch.tensor([0, 1, 4, 5]))
    assert metrics.compute() == {"loss": 2.5, "top1": 0.25, "top5": 0.75, "count": 4}


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_top5_is_one_with_fewer_than_five_classes(classes: int) -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(1.0), torch.randn(8, classes), torch.arange(8) % classes)
    assert metrics.compute()["top5"] == 1.0


def test_an_empty_batch_changes_nothing() -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(3.0), torch.eye(6)[:2], torch.tensor([0, 0]))
    before = metrics.compute()
    metrics.update(torch.tensor(0.0), torch.empty(0, 6), torch.empty(0, dtype=torch.int64))
    assert metrics.compute() == before == {"loss": 1.5, "top1": 0.5, "top5": 1.0, "count": 2}


@pytest.mark.filterwarnings("ignore:.*called before the ``update``")
def test_no_samples_give_no_metrics() -> None:
    assert ClassificationMetrics().compute() == {}


def test_counts_stay_exact_beyond_what_float32_can_count() -> None:
    metrics = ClassificationMetrics()
    metrics.restore(0.0, 2**24, 2**24, 2**24)
    metrics.update(torch.tensor(0.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert metrics.sums().tolist() == [0.0, 2**24 + 1, 2**24 + 1, 2**24 + 1]


@pytest.mark.filterwarnings("ignore:.*called before the ``update``")
def test_reset_clears_all_counts() -> None:
    metrics = ClassificationMetrics()
    metrics.update(torch.tensor(3.0), torch.eye(2), torch.tensor([0, 1]))
    metrics.reset()
    assert metrics.compute() == {}


CONVERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to bfloat16": lambda net: net.to(torch.bfloat16),
    "to float16 on the CPU": lambda net: net.to("cpu", torch.float16),
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "float": nn.Module.float,
    "type": lambda net: net.type(torch.float16),
    "twice": lambda net: net.half().to(dtype=torch.float32),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_sums_stay_exact_when_the_network_is_converted(convert: Callable[[nn.Module], nn.Module]) -> None:
    """In bfloat16, 2,000 batches of mean 6.9 once reported 1.024."""
    ours = ClassificationMetrics()
    convert(nn.Sequential(nn.Linear(2, 2), ours))
    logits, labels = torch.zeros(3, 7, dtype=torch.bfloat16), torch.arange(3)
    for begin in range(2):
        ours.reset()
        for _ in range(2000):
            ours.update(torch.tensor(3 * 6.9), logits, labels)
        assert ours.compute()["loss"] == pytest.approx(float(torch.tensor(3 * 6.9)) / 3, rel=1e-14), begin
        assert ours.sums().dtype == torch.float64
        assert ours.sums()[3] == 6000


def test_sums_follow_the_network_to_its_device_but_stay_on_the_cpu_for_apples_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, apple, nvidia, meta = map(torch.device, ("cpu", "mps:0", "cuda:1", "meta"))
    assert [place_of_sums(device) for device in (cpu, apple, nvidia)] == [cpu, cpu, nvidia]
    assert ClassificationMetrics().to(meta).loss_sum.device == meta
    monkeypatch.setattr(metrics, "place_of_sums", lambda device: cpu)  # "meta" stands for the device without float64
    ours = ClassificationMetrics().to(meta)
    assert (ours.device, ours.loss_sum.device, ours.hits.device) == (meta, cpu, cpu)
    ours.to(torch.bfloat16).reset()
    assert (ours.device, ours.loss_sum.device, ours.loss_sum.dtype) == (meta, cpu, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_losses_of_a_large_batch_are_summed_with_six_digits_in_every_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(20_000, 10, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(10, (20_000,), generator=generator)
    found = sum_of_losses(logits, labels)
    exact = cross_entropy(logits.double(), labels, reduction="sum")
    assert exact > torch.finfo(torch.float16).max
    assert found.item() == pytest.approx(exact.item(), rel=2e-6)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
