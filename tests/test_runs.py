"""Whole runs of the real script: what is recorded, and what survives a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alexnet_lab.config.build import build
from alexnet_lab.runs.folders import read_config
from alexnet_lab.runs.metric_rows import read_rows

SMALL = ("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "logger=none", "trainer=cpu")

# Dropout, momentum and an incomplete last batch; validation takes longer than training, so that signals can hit it.
STEPS, EPOCHS = 129, 3
LONG = (
    *SMALL,
    "model.dropout=0.3",
    "optimizer.lr=0.05",
    "data.train_size=4103",
    "data.batch_size=32",
    "data.val_size=2048",
    "data.eval_batch_size=8",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_minutes=0.0005",
)
TWO = ("trainer=ddp_cpu", "trainer.accumulate_grad_batches=2", "data.eval_batch_size=256")
RANKS = {1: (), 2: (*TWO, "checkpoints.every_minutes=0.002")}

# Twenty steps in two epochs; the last batch of each has 2 samples, fewer than there are parts. Of the samples that are
# evaluated, neither 10,000 nor 7 divide by three ranks, and 7 not by four.
TWENTY = (
    *SMALL,
    "data.train_size=290",
    "data.batch_size=32",
    "data.val_size=10000",
    "data.eval_batch_size=512",
    "data.test_size=7",
    "optimizer.lr=0.1",
    "scheduler=one_cycle",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "test_on=last",
)


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def load(folder: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def steps(folder: Path) -> list[float]:
    """The training steps in `metrics.csv` so far."""
    return [row["step"] for row in read_rows(folder / "metrics.csv") if "train/loss_step" in row]


def losses(folder: Path) -> list[float]:
    return [row["train/loss_step"] for row in read_rows(folder / "metrics.csv") if "train/loss_step" in row]


def gradient_norms(folder: Path) -> list[float]:
    return [row["train/grad_norm"] for row in read_rows(folder / "metrics.csv") if "train/grad_norm" in row]


def reached(folder: Path, step: int) -> Callable[[], bool]:
    return lambda: max(steps(folder), default=0) >= step


def assert_same_end(folder: Path, other: Path) -> None:
    """Compare bit for bit: weights, optimizer, schedule and every recorded metric."""
    ours, theirs = load(folder), load(other)
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    momenta = [one["optimizer_states"][0]["state"] for one in (ours, theirs)]
    assert all(torch.equal(momenta[0][k]["momentum_buffer"], momenta[1][k]["momentum_buffer"]) for k in momenta[1])
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert ours["global_step"] == theirs["global_step"]
    assert (folder / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    for key in ("status", "final", "best", "best_epoch", "checkpoints"):
        assert result(folder)[key] == result(other)[key]


def figures_of(state: dict[str, Tensor], settings: dict[str, Any]) -> tuple[float, float]:
    """Loss and top-1 of these weights on the test images, by a plain loop."""
    net = build(settings["model"], "model").eval()
    net.load_state_dict(state)
    data = build(settings["data"], "data")
    loss, hits, count = 0.0, 0, 0
    with torch.inference_mode():
        for batch in data.test_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)
            logits = net(batch.images)
            loss += float(cross_entropy(logits, batch.labels, reduction="sum"))
            hits += int((logits.argmax(1) == batch.labels).sum())
            count += len(batch.labels)
    return loss / count, hits / count


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def uninterrupted(script: Any, runs: Path) -> Callable[[int], Path]:
    """The folder of an uninterrupted run of LONG, made once per number of ranks."""

    def whole(ranks: int) -> Path:
        folder = runs / f"whole-{ranks}"
        if not folder.exists():
            ended = script.run(*LONG, *RANKS[ranks], f"hydra.run.dir={folder}")
            assert ended.returncode == 0, ended.stderr
        return folder

    return whole


@pytest.fixture(scope="session")
def one(uninterrupted: Callable[[int], Path]) -> Path:
    return uninterrupted(1)


@pytest.fixture(scope="session")
def twenty(script: Any, runs: Path) -> Path:
    """TWENTY on one process."""
    ended = script.run(*TWENTY, f"hydra.run.dir={runs}/twenty")
    assert ended.returncode == 0, ended.stderr
    return runs / "twenty"


# Files of a run.


def test_folder_contains_exactly_the_files_of_the_contract(one: Path) -> None:
    files = {str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()}
    checkpoints = {"checkpoints/last.ckpt", "checkpoints/best.ckpt"}
    pictures = {
        f"pictures/{name}.png" for name in ("batch", "confusion", "curves", "filters", "neighbours", "predictions")
    }
    assert files == {"config.yaml", "metrics.csv", "result.json", "train.log", ".lock"} | checkpoints | pictures


def test_result_records_how_the_run_ended(one: Path) -> None:
    found = result(one)
    assert (found["status"], found["error"], found["world_size"]) == ("finished", None, 1)
    assert (found["parameters"], found["macs"]) == (61_706, 416_520)
    assert found["checkpoints"] == {"last": "checkpoints/last.ckpt", "best": "checkpoints/best.ckpt"}
    assert found["seconds"] > 0
    assert found["images_per_second"] > 0
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["hardware"]["accelerator"] == "cpu"
    names = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "top1", "top5")}
    assert 0 < found["seconds_to_best"] < found["seconds"]
    assert set(found["final"]) == names | {"train/loss_step", "train/grad_norm"}
    assert set(found["best"]) == names | {"train/loss_step"}
    assert all(0 <= found["final"][name] <= 1 for name in names if not name.endswith("loss"))


def test_metrics_have_a_row_for_every_step_and_for_every_pass(one: Path) -> None:
    rows = read_rows(one / "metrics.csv")
    assert steps(one) == list(range(1, EPOCHS * STEPS + 1))
    assert [row["step"] for row in rows if "val/top1" in row] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [row["epoch"] for row in rows if "train/top1" in row] == [0, 1, 2]
    assert sum("test/top1" in row for row in rows) == 1
    assert max(row["val/top1"] for row in rows if "val/top1" in row) == result(one)["best"]["val/top1"]


def test_training_loss_is_the_mean_over_every_sample_of_the_epoch(one: Path) -> None:
    sizes = [32] * (STEPS - 1) + [4103 - 32 * (STEPS - 1)]
    first = sum(loss * size for loss, size in zip(losses(one)[:STEPS], sizes, strict=True)) / 4103
    (figure, *_) = [row["train/loss"] for row in read_rows(one / "metrics.csv") if "train/loss" in row]
    assert figure == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoint_contains_plain_containers_with_configuration_and_preprocessing(one: Path, name: str) -> None:
    content = load(one, name)
    assert content["config"] == read_config(one)
    assert content["preprocessing"]["image_size"] == 28
    assert content["preprocessing"]["mean"] == [0.0]
    assert len(content["preprocessing"]["classes"]) == 10
    build(content["config"]["model"], "model").load_state_dict(content["state_dict"])


def test_best_checkpoint_has_no_optimizer_state_and_last_has_it(one: Path) -> None:
    assert "optimizer_states" in load(one)
    assert "optimizer_states" not in load(one, "best")
    assert load(one)["global_step"] == EPOCHS * STEPS
    assert load(one, "best")["global_step"] == STEPS * (result(one)["best_epoch"] + 1)


def test_best_or_last_weights_are_tested_as_configured(one: Path, twenty: Path) -> None:
    for folder, name in ((one, "best"), (twenty, "last")):
        loss, top1 = figures_of(load(folder, name)["state_dict"], read_config(folder))
        assert result(folder)["final"]["test/loss"] == pytest.approx(loss, rel=1e-5)
        assert result(folder)["final"]["test/top1"] == top1


# Several processes.


@pytest.mark.parametrize(
    ("ranks", "accumulate"),
    [
        (2, 1),
        pytest.param(2, 2, marks=pytest.mark.system),
        pytest.param(3, 1, marks=pytest.mark.system),
        pytest.param(4, 1, marks=pytest.mark.system),
    ],
)
def test_several_processes_have_the_same_losses_as_one(
    ranks: int, accumulate: int, twenty: Path, script: Any, runs: Path
) -> None:
    """The run itself asserts that every sample of an evaluation is counted once."""
    folder = runs / f"twenty-{ranks}-{accumulate}"
    more = ("trainer=ddp_cpu", f"trainer.devices={ranks}", f"trainer.accumulate_grad_batches={accumulate}")
    ended = script.run(*TWENTY, *more, f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert result(folder)["world_size"] == ranks
    assert steps(folder) == steps(twenty) == list(range(1, 21))
    assert losses(folder) == pytest.approx(losses(twenty), rel=2e-5)
    assert gradient_norms(folder) == pytest.approx(gradient_norms(twenty), rel=2e-5)
    assert len(gradient_norms(folder)) == 20
    for name, value in result(twenty)["final"].items():
        # Rounding may decide between two equally probable best classes.
        assert result(folder)["final"][name] == pytest.approx(value, rel=2e-5, abs=1e-4 if "top" in name else 0)
    assert (folder / f"train.rank{ranks - 1}.log").exists()


def test_ranks_that_torchrun_started_share_one_folder(twenty: Path, script: Any, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", "src/train.py")
    ended = script.run(*TWENTY, "trainer=ddp_cpu", f"hydra.run.dir={tmp_path}/${{run}}", program=torchrun)
    assert ended.returncode == 0, ended.stderr
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("torchrun-")
    assert result(folder)["world_size"] == 2
    assert losses(folder) == pytest.approx(losses(twenty), rel=2e-5)


# Interrupted and continued.


def killed_in_mid_epoch(script: Any, folder: Path, arguments: tuple[str, ...], kill: Callable[[int], None]) -> None:
    """Start a run and kill it in its second epoch, between two checkpoints of epochs' ends."""
    process = script.start(*arguments)
    script.wait(process, reached(folder, STEPS + 20), "the second epoch")
    kill(process.pid)
    script.finish(process)
    time.sleep(0.5)  # the surviving ranks notice it


@pytest.mark.parametrize(
    ("ranks", "kill"),
    [
        (1, lambda pid: os.kill(pid, signal.SIGKILL)),
        pytest.param(2, lambda pid: os.killpg(pid, signal.SIGKILL), marks=pytest.mark.system),
    ],
    ids=["1 rank", "2 ranks, everything killed"],
)
def test_run_continued_after_kill_9_equals_the_uninterrupted_run(
    ranks: int, kill: Callable[[int], None], uninterrupted: Callable[[int], Path], script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    arguments = (*LONG, *RANKS[ranks], f"hydra.run.dir={folder}", "resume=auto")
    killed_in_mid_epoch(script, folder, arguments, kill)
    assert not (folder / "result.json").exists()
    assert STEPS < load(folder)["global_step"] < 2 * STEPS
    ended = script.run(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert_same_end(folder, uninterrupted(ranks))


@pytest.mark.system
def test_run_stopped_twice_equals_the_uninterrupted_run(one: Path, script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    arguments = (*LONG, f"hydra.run.dir={folder}", "resume=auto")

    process = script.start(*arguments)
    script.wait(process, (folder / "config.yaml").exists, "the run has begun")
    second = script.run(*arguments)
    assert second.returncode == 2
    assert second.stderr.startswith("error: run stopped is being written by another process (pid ")

    script.wait(process, reached(folder, 20), "the first epoch")
    process.send_signal(signal.SIGTERM)  # like a scheduler, to one process
    assert script.finish(process).returncode == 3
    assert result(folder)["status"] == "interrupted"
    assert 20 <= load(folder)["global_step"] < STEPS

    process = script.start(*arguments)
    script.wait(process, reached(folder, 2 * STEPS), "the second validation")
    os.killpg(process.pid, signal.SIGINT)  # like Ctrl-C, to all of them
    assert script.finish(process).returncode == 3
    assert result(folder)["status"] == "interrupted"
    assert load(folder)["global_step"] == 2 * STEPS
    assert sum("val/top1" in row for row in read_rows(folder / "metrics.csv")) == 1

    ended = script.run(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert_same_end(folder, one)


def test_stop_while_a_run_still_imports_leaves_its_name_free(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "early"
    process = script.start(*LONG, f"hydra.run.dir={folder}", fresh=True)
    script.wait(process, (folder / "train.log").exists, "the run has its folder")
    process.send_signal(signal.SIGTERM)
    ended = script.finish(process)
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == "interrupted before the training began"
    assert not folder.exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_stop_while_lightning_begins_to_train_is_recorded_as_interrupted(
    ranks: int, script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "early"
    asked = "+callbacks.asked._target_=faults.Asked"
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "launch")}
    ended = script.run(*SMALL, *RANKS[ranks], asked, f"hydra.run.dir={folder}", env=environment)
    assert ended.returncode == 3, ended.stderr
    assert result(folder)["status"] == "interrupted"


def test_resume_auto_does_not_change_a_finished_run(one: Path, script: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in one.rglob("*")}
    ended = script.run(*LONG, f"hydra.run.dir={one}", "resume=auto")
    assert ended.returncode == 0
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"run {one.name} has finished already")
    ended = script.run(f"hydra.run.dir={one}", "resume=auto", "trainer.max_epochs=99")
    assert ended.stdout.splitlines() == [
        line,
        f"to continue it with other settings: {sys.executable} src/train.py resume={one} trainer.max_epochs=99",
    ]
    assert {path: path.stat().st_mtime_ns for path in one.rglob("*")} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "run whole-1 exists already in "),
        (
            ("resume=auto", "model.dropout=0.1", "trainer.max_epochs=9"),
            "only trainer, logger, callbacks, checkpoints and ",
        ),
    ],
)
def test_recorded_run_is_not_overwritten(more: tuple[str, ...], message: str, one: Path, script: Any) -> None:
    config, figures = (one / "config.yaml").read_text(), (one / "result.json").read_text()
    resume = ("resume=" + str(one),) if more else ()
    ended = script.run(*LONG, f"hydra.run.dir={one}", *[text for text in more if text != "resume=auto"], *resume)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {message}")
    assert (one / "config.yaml").read_text() == config
    assert (one / "result.json").read_text() == figures


@pytest.mark.parametrize(
    ("what", "more", "message"),
    [
        ("", ("trainer.max_time=soon",), "trainer.max_time=soon: expected "),
        ("", ("trainer.max_epochs=1",), "the run is in epoch 3, at step "),
        (
            "",
            ("trainer.limit_train_batches=3", "trainer.accumulate_grad_batches=2"),
            "trainer.limit_train_batches counts",
        ),
        ("checkpoints/best.ckpt", (), ""),
    ],
)
def test_refused_continuation_does_not_change_the_record(
    what: str, more: tuple[str, ...], message: str, one: Path, script: Any
) -> None:
    before = result(one), *((one / name).read_text() for name in ("config.yaml", "metrics.csv"))
    ended = script.run(f"resume={one / what}", *more)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert (result(one), *((one / name).read_text() for name in ("config.yaml", "metrics.csv"))) == before


@pytest.mark.system
def test_run_ended_in_mid_epoch_continues_there(script: Any, runs: Path) -> None:
    whole, parts = runs / "steps-whole", runs / "steps-parts"
    endless = (*TWENTY, "scheduler=constant", "trainer.max_epochs=-1")
    for folder, steps_done in ((whole, 15), (parts, 4)):
        ended = script.run(*endless, f"trainer.max_steps={steps_done}", f"hydra.run.dir={folder}")
        assert ended.returncode == 0, ended.stderr
    assert script.run(f"resume={parts}", "trainer.max_steps=15").returncode == 0
    ours, theirs = load(parts)["state_dict"], load(whole)["state_dict"]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert losses(parts) == losses(whole)


@pytest.mark.system
def test_run_continues_in_mid_epoch_with_another_accumulation(script: Any, runs: Path) -> None:
    constant = (*TWENTY, "scheduler=constant", "test_on=none")
    whole = runs / "accumulated-whole"
    assert script.run(*constant, f"hydra.run.dir={whole}").returncode == 0
    for before, now, stop in ((2, 1, 5), (1, 2, 5), (1, 2, 6)):
        folder = runs / f"accumulated-{before}-{now}-{stop}"
        first = (f"trainer.accumulate_grad_batches={before}", f"trainer.max_steps={stop}")
        assert script.run(*constant, *first, f"hydra.run.dir={folder}").returncode == 0
        then = (f"trainer.accumulate_grad_batches={now}", "trainer.max_steps=-1")
        ended = script.run(f"resume={folder}", *then)
        assert ended.returncode == 0, ended.stderr
        assert steps(folder) == list(range(1, 21))
        assert sum("val/top1" in row for row in read_rows(folder / "metrics.csv")) == 2
        ours, theirs = load(folder)["state_dict"], load(whole)["state_dict"]
        assert all(torch.allclose(value, theirs[name], rtol=0, atol=1e-6) for name, value in ours.items())


def test_finished_run_with_other_settings_is_not_reused(twenty: Path, script: Any) -> None:
    ended = script.run(*TWENTY, "seed=3", f"hydra.run.dir={twenty}", "resume=auto")
    assert ended.returncode == 2
    assert "seed is 0 in the recorded run, 3 here" in ended.stderr


def test_ranks_of_torchrun_need_a_matching_trainer(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "src/train.py")
    late = "+callbacks.late._target_=faults.Late"  # rank 0 still reports it
    environment = script.environment | {"PYTHONPATH": str(Path(__file__).parent / "launch")}
    ended = script.run(*TWENTY, late, f"hydra.run.dir={folder}", program=torchrun, env=environment)
    assert ended.returncode != 0
    assert "2 processes were started, but the trainer needs 1" in ended.stderr
    assert not (folder / "config.yaml").exists()


def test_more_nodes_than_started_are_refused(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = script.run(*TWENTY, "trainer=ddp_cpu", "trainer.num_nodes=2", f"hydra.run.dir={folder}")
    assert ended.returncode == 2
    assert "2 processes were started, but the trainer needs 4" in ended.stderr
    assert not folder.exists()


@pytest.mark.system
def test_finished_run_is_extended_by_more_epochs(script: Any, runs: Path) -> None:
    folder = runs / "extended"
    assert script.run(*TWENTY, f"hydra.run.dir={folder}").returncode == 0
    before, seconds = (folder / "metrics.csv").read_text().splitlines(), result(folder)["seconds"]
    ended = script.run(f"resume={folder}", "trainer.max_epochs=3")
    assert ended.returncode == 0, ended.stderr
    after = (folder / "metrics.csv").read_text().splitlines()
    assert after[: len(before) - 1] == before[:-1]  # all but the test
    assert steps(folder) == list(range(1, 31))
    assert result(folder)["status"] == "finished"
    assert read_config(folder)["trainer"]["max_epochs"] == 3
    assert load(folder)["config"]["trainer"]["max_epochs"] == 3
    assert result(folder)["seconds"] > seconds


# Other endings.


def test_nan_loss_ends_the_run_as_failed_with_step_and_learning_rate(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "diverged"
    ended = script.run(*TWENTY, "scheduler=constant", "optimizer.lr=1e10", f"hydra.run.dir={folder}")
    assert ended.returncode == 1
    found = result(folder)
    assert found["status"] == "failed"
    assert "with a learning rate of 1e+10" in found["error"]
    step = int(found["error"].partition("at step ")[2].split()[0])
    assert 1 <= step <= 20
    assert step - 1 <= len(losses(folder)) <= step
    assert found["world_size"] == 1
    assert "Traceback" not in ended.stderr
    assert found["error"] in ended.stderr


def test_no_checkpoints_are_written_if_turned_off(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    ended = script.run(*TWENTY, "checkpoints=none", "trainer.max_epochs=1", f"hydra.run.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert list(folder.rglob("*.ckpt*")) == []
    assert result(folder)["checkpoints"] == {}
    assert "test/top1" in result(folder)["final"]


# Longer.


@pytest.mark.system
@pytest.mark.parametrize("ranks", [1, 2])
def test_run_killed_again_and_again_equals_the_uninterrupted_run(
    ranks: int, uninterrupted: Callable[[int], Path], script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    arguments = (*LONG, *RANKS[ranks], f"hydra.run.dir={folder}", "resume=auto")
    for step in (1, 40, STEPS - 1, STEPS, STEPS + 70, 2 * STEPS, 2 * STEPS + 1, EPOCHS * STEPS):
        process = script.start(*arguments)
        script.wait(process, reached(folder, step), f"step {step}")
        os.killpg(process.pid, signal.SIGKILL)
        script.finish(process)
    ended = script.run(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert_same_end(folder, uninterrupted(ranks))


@pytest.mark.system
def test_two_ranks_stop_at_the_same_step(uninterrupted: Callable[[int], Path], script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    arguments = (*LONG, *RANKS[2], f"hydra.run.dir={folder}", "resume=auto")
    for step in (30, STEPS, 2 * STEPS - 1):
        process = script.start(*arguments)
        script.wait(process, reached(folder, step), f"step {step}")
        process.send_signal(signal.SIGTERM)
        assert script.finish(process).returncode == 3
        assert result(folder)["status"] == "interrupted"
    assert script.run(*arguments).returncode == 0
    assert_same_end(folder, uninterrupted(2))


@pytest.mark.system
def test_hangup_of_the_terminal_saves_and_can_be_ignored(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "hangup"
    process = script.start(*LONG, *RANKS[2], f"hydra.run.dir={folder}")
    script.wait(process, reached(folder, 10), "step 10")
    os.killpg(process.pid, signal.SIGHUP)
    assert script.finish(process).returncode == 3
    assert (folder / "checkpoints/last.ckpt").exists()
    process = script.start(
        *LONG,
        *RANKS[2],
        f"hydra.run.dir={tmp_path}/nohup",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # like nohup
    )
    script.wait(process, reached(tmp_path / "nohup", 10), "step 10")
    os.killpg(process.pid, signal.SIGHUP)
    script.wait(process, reached(tmp_path / "nohup", 20), "step 20")
    os.killpg(process.pid, signal.SIGKILL)
    script.finish(process)


@pytest.mark.system
def test_dead_rank_ends_the_run_and_the_other_ranks(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "lost"
    process = script.start(*LONG, *RANKS[2], f"hydra.run.dir={folder}")
    script.wait(process, reached(folder, 10), "step 10")
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)
    assert script.finish(process).returncode != 0
    assert result(folder)["status"] == "failed"
