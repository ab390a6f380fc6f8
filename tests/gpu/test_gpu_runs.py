"""Whole runs on the device by the real commands: equal where they must be, and one line where memory runs out."""

import json
import math
from typing import Any

import pytest
from tests.gpu.runs_on_device import NETWORKS, REPLAYED, TWO_RANKS, Run, Runs


def largest_difference(run: Run, other: Run, floor: float = 1e-12) -> float:
    """Of two weights, relative to the largest weight of their tensor, or to `floor` where that is larger."""
    ours, theirs = run.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    return max(
        float((value - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=floor))
        for name, value in ours.items()
    )


def assert_same_bits(run: Run, other: Run) -> None:
    import torch

    ours, theirs = run.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def test_float64_losses_equal_those_of_the_cpu(runs: Runs) -> None:
    found, expected = runs["float64"].losses(), runs["float64 on the CPU"].losses()
    assert len(found) == runs.steps
    assert found == pytest.approx(expected, rel=1e-9)


def test_deterministic_runs_have_the_same_weights_bit_for_bit(runs: Runs) -> None:
    assert_same_bits(runs["again"], runs["deterministic"])


@pytest.mark.usefixtures("only_on_gpu")
@pytest.mark.parametrize("name", REPLAYED)
def test_replayed_network_has_the_same_weights_bit_for_bit(runs: Runs, name: str) -> None:
    assert_same_bits(runs[f"{name} graph"], runs[name])


def test_killed_and_continued_run_has_the_same_weights_bit_for_bit(runs: Runs) -> None:
    assert_same_bits(runs["killed and continued"], runs["deterministic"])


def test_ddp_with_one_device_has_the_weights_of_one_process_bit_for_bit(runs: Runs) -> None:
    assert_same_bits(runs["one rank"], runs["deterministic"])


@pytest.mark.parametrize(
    ("whole", "strategy"), [*(("float64", name) for name in TWO_RANKS), ("batch norm", "batch norm over ranks")]
)
def test_two_ranks_on_one_device_equal_one_process(runs: Runs, whole: str, strategy: str) -> None:
    one, two = runs[whole], runs[strategy]
    assert two.losses() == pytest.approx(one.losses(), rel=1e-9)
    # The gradient of a bias before batch normalisation is rounding error, so the bias stays near 0.
    floor = 1e-3 if whole == "batch norm" else 1e-12
    assert largest_difference(two, one, floor) < 1e-9
    assert json.loads((two.folder / "result.json").read_text())["world_size"] == 2


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_deterministically(runs: Runs, network: str) -> None:
    runs[network].assert_finished()


@pytest.mark.parametrize("name", ["16-mixed", "grey"])
def test_half_precision_has_finite_losses(runs: Runs, name: str) -> None:
    losses = runs[name].losses()
    assert len(losses) == runs.steps + 1
    assert all(math.isfinite(loss) for loss in losses)


def test_layer_statistics_do_not_change_the_weights(runs: Runs) -> None:
    assert_same_bits(runs["statistics"], runs["deterministic"])
    header, *rows = (runs["statistics"].folder / "layer_statistics.csv").read_text().splitlines()
    assert header.startswith("epoch,step,layer,activation_mean")
    assert {int(row.split(",")[1]) for row in rows} == set(range(7, 2 * (runs.steps + 1) + 1, 7))


def test_batch_normalisation_counts_the_batches_of_training_alone(runs: Runs) -> None:
    weights = runs["changed" if runs.on_cpu else "changed graph"].weights()
    counts = {int(value) for name, value in weights.items() if name.endswith("num_batches_tracked")}
    assert counts == {2 * (runs.steps + 1)}


def test_range_test_draws_its_curve(runs: Runs) -> None:
    runs["tuned"].assert_finished()
    assert (runs["tuned"].folder / "lr.png").stat().st_size > 10_000


def test_cost_counts_the_steps_and_measures_the_memory_of_the_gpu(runs: Runs) -> None:
    cost = runs.described_cost()
    assert cost["steps"] == 2 * (runs.steps + 1)
    assert cost["images_per_second"] > 0
    assert ("gpu" in cost["peak_memory_mb"]) == (not runs.on_cpu)


def test_predicted_classes_are_those_of_the_cpu(only_on_gpu: None, runs: Runs) -> None:
    on_device, on_cpu = (runs.predicted(runs["float64"], accelerator) for accelerator in ("cuda", "cpu"))
    assert len(on_device) == 40
    for ours, theirs in zip(on_device, on_cpu, strict=True):
        assert [one["class"] for one in ours["classes"]] == [one["class"] for one in theirs["classes"]]
        found, expected = ([one["probability"] for one in image["classes"]] for image in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-6)


def test_checkpoint_of_the_device_is_evaluated_on_the_cpu(runs: Runs) -> None:
    ended = runs.evaluated_on_the_cpu(runs["deterministic"])
    assert ended.status == 0, ended.output


def test_run_begun_on_the_cpu_continues_on_the_device(runs: Runs) -> None:
    found = runs["moved"].losses()
    assert len(found) == 2 * (runs.steps + 1)
    # Rounding differs between devices, and dropout draws from other generators.
    assert all(math.isfinite(loss) for loss in found)


def test_no_batch_of_the_validation_is_kept(only_on_gpu: None, runs: Runs) -> None:
    watched = runs["krizhevsky_2012"].watched()
    assert watched["kept"] < watched["batch"]


def test_running_out_of_memory_is_one_line_with_remedies(only_on_gpu: None, runs: Runs) -> None:
    run: Any = runs["too large"]
    assert run.status == 1
    reason = json.loads((run.folder / "result.json").read_text())["error"]
    assert reason.startswith("out of memory: allocating ")
    assert " failed on GPU 0 " in reason
    assert "trainer.accumulate_grad_batches=2" in reason
    assert "\n" not in reason
    assert "Traceback" not in run.output
