import json
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.restore import read_checkpoint, restored_network
from alexnet_lab.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def changed(trained_run, tmp_path):
    """The checkpoint with parts of its recorded configuration exchanged."""

    def write(**parts) -> Path:
        content = torch.load(trained_run.last, weights_only=True)
        for name, part in parts.items():
            content["config"][name] = {**content["config"][name], **part}
        torch.save(content, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def test_script_gives_exactly_the_figures_that_the_run_reported(script, trained_run, tmp_path) -> None:
    before = sorted(os.listdir(ROOT))
    out = tmp_path / "figures.json"
    ended = script.run(f"checkpoint={trained_run.last}", f"out={out}", program=("src/evaluate.py",))
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(out.read_text())
    names = ("test/loss", "test/top1", "test/top5")
    assert {name: figures[name] for name in names} == {name: trained_run.result["final"][name] for name in names}
    assert figures["images"] == 100
    assert f"{figures['test/top1']:.4f}" in ended.stdout
    assert ended.stderr == ""
    assert sorted(os.listdir(ROOT)) == before


def test_val_split_gives_the_figures_of_the_best_epoch(composed, trained_run) -> None:
    config = composed("evaluate", f"checkpoint={trained_run.best}", "split=val", "trainer=cpu")
    figures = evaluate(config)
    assert figures.keys() == {"val/loss", "val/top1", "val/top5"}
    assert figures["val/top1"] == trained_run.result["best"]["val/top1"]


def test_recorded_data_settings_can_be_changed_for_this_machine(composed, trained_run) -> None:
    checkpoint = f"checkpoint={trained_run.last}"
    whole = evaluate(composed("evaluate", checkpoint, "data.eval_batch_size=100", "trainer=cpu"))
    assert whole["test/top1"] == trained_run.result["final"]["test/top1"]
    with pytest.raises(UserError, match=r"data.dir: .* has no such option"):
        evaluate(composed("evaluate", checkpoint, "data.dir=elsewhere"))


def test_recorded_precision_is_the_default(composed, changed) -> None:
    checkpoint = f"checkpoint={changed(trainer={'precision': 'bf16-true'})}"
    coarse = evaluate(composed("evaluate", checkpoint, "trainer=cpu"))
    fine = evaluate(composed("evaluate", checkpoint, "trainer=cpu", "trainer.precision=32-true"))
    assert coarse["test/loss"] != fine["test/loss"]
    assert coarse["test/loss"] == pytest.approx(fine["test/loss"], rel=0.02)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol=ten_crop", "protocol=ten_crop: there is no such protocol; choose from: center"),
        ("split=train", "split=train: there is no such split; choose from: test, val"),
        ("checkpoint=null", "which one\\? checkpoint=PATH"),
        ("checkpoint=nowhere.ckpt", "checkpoint=nowhere.ckpt: there is no such file"),
        ("checkpoint=conf", "that is a folder; name the file in it"),
        ("out=nowhere/figures.json", "there is no folder nowhere"),
        ("trainer=ddp_cpu", "measured on one device, got 2"),
    ],
)
def test_wrong_option_is_named_with_its_remedy(composed, trained_run, override, message) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(composed("evaluate", f"checkpoint={trained_run.last}", override))


def test_file_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    path = tmp_path / "note.ckpt"
    path.write_text("not a checkpoint")
    with pytest.raises(UserError, match="that is no checkpoint"):
        read_checkpoint(path)


def test_truncated_checkpoint_is_refused(trained_run, tmp_path) -> None:
    whole = trained_run.last.read_bytes()
    path = tmp_path / "half.ckpt"
    for size in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"half.ckpt: the file is truncated"):
            read_checkpoint(path)


def test_checkpoint_of_somebody_else_is_refused(tmp_path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="it records no configuration"):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UserError, match="that is no checkpoint of ours"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "target",
    [
        "subprocess.run",
        "alexnet_lab.data.fashion_mnist_files.subprocess.run",
        "alexnet_lab.data.fashion_mnist_files._run_while_data_comes",
        "alexnet_lab.commands.supervisor.supervise",
        "alexnet_lab.data.synthetic.nothing",
    ],
)
def test_checkpoint_that_names_anything_but_our_factories_is_refused(changed, tmp_path, target) -> None:
    mark = tmp_path / "ran"
    node = {"_target_": target, "_args_": [["touch", str(mark)]]}
    for part in ({"data": node}, {"data": {"mean": [node]}}, {"model": node}):
        with pytest.raises(UserError, match=target):
            read_checkpoint(changed(**part))
    assert not mark.exists()


def test_weights_that_do_not_fit_are_refused(changed) -> None:
    path = changed(model={"num_classes": 7})
    with pytest.raises(UserError, match="the weights do not fit the recorded network"):
        restored_network(read_checkpoint(path))


def test_restored_network_holds_the_saved_weights_and_fetches_nothing(trained_run, changed) -> None:
    state = torch.load(trained_run.last, weights_only=True)["state_dict"]
    net = restored_network(read_checkpoint(trained_run.last))
    assert not net.training
    assert net.state_dict().keys() == state.keys()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    torchvision = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/alexnet_torchvision.yaml"))
    restored = read_checkpoint(changed(model={**torchvision, "in_channels": 3, "num_classes": 10, "pretrained": True}))
    with pytest.raises(UserError, match="do not fit"):
        restored_network(restored)
