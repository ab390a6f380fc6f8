"""The benchmarks run and end with a JSON line; claims that also hold on a busy machine are checked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, f"benchmarks/{name}.py", *arguments]
    kept = {key: value for key, value in os.environ.items() if key not in ("ALEXNET_LAB_IMAGES", "OMP_NUM_THREADS")}
    return subprocess.run(command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=600)


def measured(name: str, **environment: str) -> dict[str, Any]:
    """The last line of a quick run."""
    ended = run(name, "--quick", **environment)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert result["benchmark"] == name
    return result


@pytest.mark.alone
def test_a_store_of_imagenets_size_costs_little_more_than_a_small_one() -> None:
    result = measured("store_scale")
    assert set(result["ratios"]) == {"first_batch_s", "order_s", "rss_mib", "cost_growth"}
    assert result["ratios"]["rss_mib"] < 1024  # for a store of 252 GB
    assert result["ratios"]["cost_growth"] < 2
    # Sparse: a thousandth of its length.
    assert result["figures"]["disk_gb"] < result["figures"]["store_gb"] / 1000


@pytest.mark.alone
@pytest.mark.skipif("ALEXNET_LAB_IMAGES" not in os.environ, reason="ALEXNET_LAB_IMAGES names no folder of real images")
def test_photographs_are_loaded_faster_than_by_torchvision() -> None:
    result = measured("image_feed", ALEXNET_LAB_IMAGES=os.environ["ALEXNET_LAB_IMAGES"])
    assert set(result["ratios"]) == {
        "uint8_store_vs_torchvision",
        "jpeg_store_vs_torchvision",
        "folder_vs_torchvision",
        "float_from_store_vs_torchvision",
    }
    assert result["ratios"]["uint8_store_vs_torchvision"] > 10
    assert result["ratios"]["jpeg_store_vs_torchvision"] > 1


@pytest.mark.alone
@pytest.mark.skipif("ALEXNET_LAB_IMAGES" not in os.environ, reason="ALEXNET_LAB_IMAGES names no folder of real images")
def test_decoders_of_jpegs_are_compared() -> None:
    images = os.environ["ALEXNET_LAB_IMAGES"]
    ended = run("image_feed", "--quick", "--decoders", ALEXNET_LAB_IMAGES=images)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout.splitlines()[-1])["figures"]
    for files in ("photograph", "256x256"):
        assert 0 < figures[f"{files}, ours, CPU ms"] < figures[f"{files}, pillow, CPU ms"]


@pytest.mark.alone
def test_feed_of_a_device_is_measured() -> None:
    ended = run("image_feed", "--quick", "--device=cpu")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout.splitlines()[-1])["figures"]
    assert figures["host_2_threads_images_per_second"] > figures["prepared_images_per_second"] > 0
    assert figures["copy_and_pipeline_ms"] > 0


@pytest.mark.alone
@pytest.mark.skipif("ALEXNET_LAB_IMAGES" not in os.environ, reason="ALEXNET_LAB_IMAGES names no folder of real images")
def test_fine_tuning_is_compared_with_training_from_nothing(tmp_path: Path) -> None:
    images, out = os.environ["ALEXNET_LAB_IMAGES"], tmp_path / "figures.json"
    ended = run("finetune", "--quick", "--out", str(out), ALEXNET_LAB_IMAGES=images)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(out.read_text())
    assert [row[0] for row in measured["rows"]] == ["from nothing", "same recipe", "fine-tuned", "fine-tuned, frozen"]
    assert measured["figures"]["val_images"] == 40
    assert not any(images in line or "/tmp" in line for line in measured["commands"].values())


@pytest.mark.alone
def test_sweep_is_compared_with_single_and_sequential_jobs() -> None:
    ratios = measured("sweep_overhead")["ratios"]
    assert set(ratios) == {"sweep_vs_single_runs", "two_at_once_vs_sequential"}
    assert ratios["sweep_vs_single_runs"] < 2


@pytest.mark.alone
def test_normalisation_is_compared_with_pytorchs() -> None:
    result = measured("lrn")
    assert set(result["ratios"]) == {"lrn_vs_torch"}
    assert result["ratios"]["lrn_vs_torch"] > 0


@pytest.mark.alone
@pytest.mark.system
def test_call_that_writes_a_checkpoint_in_the_background_is_shorter_than_one_that_waits() -> None:
    result = measured("checkpoint_stall")
    assert 480 < result["figures"]["checkpoint_mb"] < 500
    assert result["ratios"]["call_at_once_vs_background"] > 1
    assert result["ratios"]["call_lightning_vs_background"] > 1


@pytest.mark.alone
def test_a_training_step_is_measured_for_every_network() -> None:
    result = measured("train_step")
    networks = {path.stem for path in (ROOT / "conf/model").glob("*.yaml")}
    shares = {f"peak_share_{network}" for network in networks}
    assert set(result["ratios"]) == {"original_vs_torch_lrn", "original_vs_no_lrn", "memory_vs_no_lrn"} | shares
    assert result["ratios"]["memory_vs_no_lrn"] < 1.2
    assert all(result["ratios"][share] > 0 for share in shares)


def test_image_benchmark_reports_missing_packages() -> None:
    ended = run("image_feed", "--quick")
    assert ended.returncode == 1
    assert ended.stderr == (
        "image_feed needs real images: set ALEXNET_LAB_IMAGES to the folder that holds imagenet_fullsize_400.tar\n"
    )


@pytest.mark.alone
def test_goals_of_a_gpu_are_measured_part_by_part(tmp_path: Path) -> None:
    out = tmp_path / "goals.json"
    parts = ("lrn", "platform")
    ended = run("gpu", "--quick", "--device", "cpu", "--out", str(out), "--parts", *parts)
    assert ended.returncode == 0, ended.stderr
    line, written = json.loads(ended.stdout.splitlines()[-1]), json.loads(out.read_text())
    assert written["problems"] == {}
    assert {row["part"] for row in written["measured"].values()} == set(parts)
    assert line["figures"] == {what: row["value"] for what, row in written["measured"].items()}
    over = "end to end, alexnet_torchvision, over compute alone"
    end_to_end = written["measured"][over]
    assert end_to_end["ratio"] == end_to_end["value"] / 0.95 == line["ratios"][over]


@pytest.mark.alone
def test_part_is_cut_off_at_its_limit_and_all_take_8_minutes(tmp_path: Path) -> None:
    program = """
import sys; sys.path.insert(0, "benchmarks")
import gpu
assert sum(limit for _, limit in gpu.PARTS.values()) <= 480
gpu.PARTS["limits"] = (gpu.PARTS["limits"][0], 0.01)
gpu.measure("limits", "cpu", False, {"measured": {}, "problems": {}}, gpu.Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "out.json")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == {"measured": {}, "problems": {"limits": "cut off after 0.01 s"}}


def test_benchmark_on_a_missing_gpu_is_refused_in_one_line() -> None:
    ended = run("lrn", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 1
    assert ended.stderr == "--device cuda: torch finds no GPU that it can use\n"
