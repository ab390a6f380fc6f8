"""Wrong command lines are reported in a few lines with status 2 and leave no files; help is fast."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
SMALL = ("model=lenet", "data=synthetic", "logger=none", "trainer=cpu")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["optimizer.lrr=1"], "error: there is no option 'optimizer.lrr', did you mean optimizer.lr?"),
        (["modle=lenet"], "error: there is no option 'modle', did you mean model?"),
        (["model=lent"], "error: model=lent: there is no such model, did you mean lenet?"),
        (["model.dropout=["], "error: model.dropout=[: Hydra cannot parse this"),
        (["resume=nowhere"], f"error: resume={ROOT}/nowhere: no run there"),
        (["resume=nowhere/last.ckpt"], f"error: resume={ROOT}/nowhere/last.ckpt: no such checkpoint"),
        (["run=a/b"], "error: run=a/b: a run's name consists of letters"),
        (["trainer.devices=0"], "error: trainer.devices=0: a number of devices, a list of their indices, or auto"),
        (
            ["model=[lenet,caffenet]"],
            "error: model=[lenet,caffenet]: choose one model, or sweep over several: -m model=",
        ),
        (["~model"], "error: data.image_size refers to model.image_size, which does not exist"),
        (["--no-such-flag"], "error: --no-such-flag: options have the form KEY=VALUE, without dashes"),
        (["-m", "--cfg", "job"], "error: Only one of --run, --multirun, --cfg"),
    ],
)
def test_wrong_argument_is_reported_before_any_rank_starts(
    arguments: list[str], line: str, script: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # A name is checked only if it determines the folder.
    where = () if arguments[0].startswith("run=") else (f"hydra.run.dir={folder}",)
    ended = script.run(*SMALL, *where, *arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    output = [text for text in ended.stderr.splitlines() if "error:" in text]
    assert [text[: len(line)] for text in output] == [line]
    assert ended.stdout == ""
    assert not folder.exists()


@pytest.mark.parametrize("override", ["+foo=1", "data.batch_size=-1"])
def test_wrong_value_is_reported_by_the_script_and_frees_the_name(override: str, script: Any, tmp_path: Path) -> None:
    ended = script.run(*SMALL, "trainer=ddp_cpu", f"hydra.run.dir={tmp_path}/run", override)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_refusal_deletes_nothing_in_an_existing_folder(script: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ended = script.run(*SMALL, f"hydra.run.dir={tmp_path}", "model.dropout=2")
    assert ended.returncode == 2
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches: 0 does not fit: it must be above 0"),
        ("data.batch_size=-1", "data.batch_size must be at least 1, got -1"),
        ("data.batch_size=1.5", "data.batch_size: 1.5 does not fit: Input should be a valid integer"),
        ("model.dropout=abc", "model.dropout: 'abc' does not fit: Input should be a valid number"),
        ("model.dropout=1.5", "model.dropout must be in [0, 1), got 1.5"),
        ("model.image_size=8", "model.image_size must be at least 12, got 8"),
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("optimizer.lr=abc", "optimizer.lr: 'abc' does not fit"),
        ("optimizer.nesterov=maybe", "optimizer.nesterov: 'maybe' does not fit"),
        ("seed=-1", "seed: -1 does not fit"),
        ("test_on=first", "test_on: 'first' does not fit: Input should be 'best', 'last' or 'none'"),
        ("compile=1", "compile: 1 does not fit"),
        ("compile=fast", "compile: 'fast' does not fit: choose true, false, reduce-overhead, max-autotune or cuda-gr"),
        ("checkpoints.every_minutes=0", "checkpoints.every_minutes: 0 does not fit"),
        ("trainer.precision=99", "trainer.precision: 99 does not fit"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs: 1.5 does not fit"),
        ("trainer.max_time=soon", "trainer.max_time=soon: expected DD:HH:MM:SS (in YAML within quotes), "),
        ("trainer.accelerator=abacus", "trainer: "),
        pytest.param("trainer.accelerator=gpu", "trainer.accelerator=gpu: torch finds no GPU here: ", marks=NO_GPU),
        ("trainer.strategy=dpp", "trainer.strategy: 'dpp' does not fit: choose auto, ddp, "),
        ("data.mean=[0.1,0.2]", "data.mean needs one value, or one for each of 3 channels, got 2"),
        ("+foo=1", "there is no option 'foo'"),
        ("+sed=1", "there is no option 'sed', did you mean seed?"),
        (
            "+model.dropuot=0.1",
            "model.dropuot: alexnet_lab.models.lenet.lenet has no such option, did you mean dropout?",
        ),
        ("+data.batchsize=3", "data.batchsize: alexnet_lab.data.synthetic.synthetic has no such option, did you mean"),
        ("+optimizer.momentun=1", "optimizer.momentun: torch.optim.SGD has no such option, did you mean momentum?"),
        ("+scheduler.epochs=3", "scheduler.epochs: alexnet_lab.optim.schedules.constant has no such option"),
        (
            "+trainer.max_epoch=3",
            "trainer.max_epoch: lightning.pytorch.Trainer has no such option, did you mean max_ep",
        ),
        ("+trainer.logger=false", "trainer.logger: lightning.pytorch.Trainer has no such option"),
        ("+callbacks.foo=1", "callbacks.foo: _target_ is missing; it names the class or function to call"),
        ("+callbacks.foo.bar=1", "callbacks.foo: _target_ is missing; it names the class or function to call"),
        ("+logger.foo=1", "logger.foo: _target_ is missing; it names the class or function to call"),
        ("+checkpoints.top_k=3", "there is no option 'checkpoints.top_k'"),
        (
            "model._target_=alexnet_lab.models.lenet.linnet",
            "model._target_: there is no alexnet_lab.models.lenet.linnet",
        ),
        ("~optimizer", "optimizer is missing"),
    ],
)
def test_wrong_value_or_added_key_is_reported_before_training(
    override: str, line: str, settings: Callable[..., dict[str, Any]], refusal: Callable[..., str]
) -> None:
    output = refusal(settings(*SMALL, override))
    assert output.startswith(f"error: {line}")
    assert len(output.splitlines()) <= 3


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["scheduler=cosine", "scheduler.warmup_epochs=20"], "scheduler.warmup_epochs=20 must be shorter than the run"),
        (["scheduler=one_cycle", "scheduler.rise=2"], "scheduler: needs 0 < rise < 1"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs=-1 needs trainer.max_steps"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer: Nesterov momentum requires a momentum"),
        (["model=alexnet_torchvision", "model.pretrained=nowhere.pt"], "model.pretrained"),
    ],
)
def test_wrong_combination_is_reported(
    overrides: list[str], line: str, settings: Callable[..., dict[str, Any]], refusal: Callable[..., str]
) -> None:
    assert f"error: {line}" in refusal(settings(*SMALL, *overrides))


QUICK = {
    "help": (["--help"], 0),
    "the configuration": (["--cfg", "job"], 0),
    "a wrong option": (["optimizer.lrr=1"], 2),
    "a wrong model": (["model=lent"], 2),
    "the defaults list": (["--info", "defaults"], 0),
    "Hydra's help": (["--hydra-help"], 0),
}
# Python calls of each answer relative to those of importing `hydra.compose`, by what is installed besides Hydra: at
# most what they were when they were first counted. --help took 17.8 and 10.4 then, and composes nothing now. Hydra's
# own help took 16.4 and 9.0, most of them for copies of the plugins' settings. Then --help listed the keys with their
# meanings (from 1.71 to 1.85), and the comments in conf with these meanings took each composition .04 more to read.
# Augmentation of small images, activation, norm and the group tune (12 keys and a group) added up to .12.
MOST_CALLS = {
    "all extras": dict(zip(QUICK, (1.97, 4.0, 6.1, 3.42, 2.98, 3.7), strict=True)),
    "no extras": dict(zip(QUICK, (1.97, 3.89, 6.02, 3.32, 2.83, 3.7), strict=True)),
}


@pytest.fixture(scope="module")
def answers(script: Any) -> dict[str, Any]:
    """The counts of `count_calls.py`: by extras and command line, and for importing Hydra."""
    questions = {name: arguments for name, (arguments, _) in QUICK.items()}
    ended = script.run(json.dumps(questions), *MOST_CALLS, program=("tests/count_calls.py",), fresh=True)
    assert ended.returncode == 0, ended.stderr
    counted: dict[str, Any] = json.loads(ended.stdout)
    return counted


@pytest.mark.parametrize("command", ["train", "predict"])
def test_torchvision_that_does_not_fit_torch_is_one_line(script: Any, tmp_path: Path, command: str) -> None:
    """The first import of lightning loads torchvision; here a module in its place raises what torchvision raises."""
    (tmp_path / "lightning.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = script.environment | {"PYTHONPATH": str(tmp_path)}
    arguments = {"train": [*SMALL, f"hydra.run.dir={tmp_path}/run"], "predict": ["checkpoint=x", "images=y"]}[command]
    ended = script.run(*arguments, program=(f"src/{command}.py",), fresh=True, env=environment)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert re.match(r"error: torch 2\S+ and torchvision 0\S+ do not work together \(operator torchvision::nms ", line)
    assert line.endswith("for example by `pip install --upgrade torch torchvision`")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("extras", MOST_CALLS)
@pytest.mark.parametrize("question", QUICK)
def test_help_and_cfg_load_neither_torch_nor_lightning(question: str, extras: str, answers: dict[str, Any]) -> None:
    answer = answers[extras][question]
    assert answer["status"] == QUICK[question][1]
    assert not {"torch", "lightning", "torchvision", "torchmetrics", "wandb", "numpy", "pydantic"} & set(
        answer["loaded"]
    )


@pytest.mark.parametrize("extras", MOST_CALLS)
@pytest.mark.parametrize("question", QUICK)
def test_help_and_cfg_cost_no_more_calls_than_recorded(question: str, extras: str, answers: dict[str, Any]) -> None:
    inlined = 1.03 if sys.version_info >= (3, 12) else 1  # comprehensions, which Hydra's import has more of
    assert answers[extras][question]["calls"] <= MOST_CALLS[extras][question] * answers["hydra"] * inlined


@pytest.mark.parametrize("extras", MOST_CALLS)
def test_help_costs_at_most_1_2_times_the_configuration(extras: str, answers: dict[str, Any]) -> None:
    assert answers[extras]["help"]["calls"] <= 1.2 * answers[extras]["the configuration"]["calls"]


def test_configuration_is_printed_from_any_folder_without_creating_one(script: Any, tmp_path: Path) -> None:
    arguments = ("model=lenet", "run=never-made", "--cfg", "job")
    here = script.run(*arguments)
    there = script.run(*arguments, cwd=tmp_path, program=(str(ROOT / "src" / "train.py"),))
    assert here.returncode == there.returncode == 0
    assert here.stdout == there.stdout
    assert "_target_: alexnet_lab.models.lenet.lenet" in here.stdout
    assert list(tmp_path.iterdir()) == []
    assert not (ROOT / "logs" / "train" / "runs" / "never-made").exists()


def test_full_traceback_is_shown_on_request(script: Any) -> None:
    environment = script.environment | {"HYDRA_FULL_ERROR": "1"}
    ended = script.run("model=lent", env=environment)
    assert ended.returncode != 0
    assert "Traceback" in ended.stderr
