"""The page on networks, datasets and recipes of one's own: its files are written, and its commands run as typed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab import places
from alexnet_lab.commands.program import COMMANDS
from alexnet_lab.runs.metric_rows import read_rows

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def lab(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a command of the page in a folder that has its files; returns exit status and output."""
    folder = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    usual = script.environment | {places.HOME: str(folder), "PYTHONPATH": "."}

    def run(line: str, **variables: str) -> tuple[int, str]:
        program, command, *arguments = shlex.split(line)
        assert (program, command in COMMANDS) == ("alexnet-lab", True)
        source = (str(ROOT / "src" / f"{command}.py"),)
        ended = script.run(*arguments, program=source, cwd=folder, env=usual | variables)
        return ended.returncode, ended.stdout + ended.stderr

    run.folder = folder
    return run


@pytest.mark.system
def test_documented_commands_run_in_order(lab: Any) -> None:
    assert (len(FILES), LINES[0]) == (4, "export PYTHONPATH=.")
    for line in LINES[1:]:
        status, printed = lab(line)
        assert status == 0, f"{line}\n{printed[-3000:]}"
    results = {
        path.parent.name.rpartition(",")[2]: json.loads(path.read_text()) for path in lab.folder.rglob("result.json")
    }
    assert {name: result["status"] for name, result in results.items()} == dict.fromkeys(
        ("mine", "model.width=4", "model.width=16", "ranks"), "finished"
    )
    assert results["ranks"]["world_size"] == 2
    # The convolution has 9 weights and a bias for each map, the linear layer 16 x 16 weights for each map and class.
    assert {name: result["parameters"] for name, result in results.items()} == {
        **dict.fromkeys(("mine", "ranks"), 8 * 10 + 8 * 256 * 2 + 2),
        **{f"model.width={width}": width * 10 + width * 256 * 2 + 2 for width in (4, 16)},
    }
    for name, epochs in (("mine", 3), ("ranks", 2)):
        rows = read_rows(lab.folder / "logs/train/runs" / name / "metrics.csv")
        assert len([row for row in rows if "val/top1" in row]) == epochs
    assert (lab.folder / "logs/train/runs/mine/pictures/filters.png").exists()


@pytest.mark.system
def test_errors_name_the_remedy(lab: Any) -> None:
    run = "logs/train/runs/mine"
    if not (lab.folder / run).exists():
        assert lab(LINES[1])[0] == 0
    checkpoint = f"checkpoint={run}/checkpoints/best.ckpt"
    wrong = {
        f"evaluate {checkpoint}": "model: a checkpoint may not name my_lab.tiny; "
        "modules=NAME allows the classes of a module, and its functions annotated -> Module",
        f"evaluate {checkpoint} modules=another": "model: a checkpoint may not name my_lab.tiny",
        "train --config-dir my_conf model=tinny": "model=tinny: there is no such model, did you mean tiny?",
        "train --config-dir missing model=tiny": f"Additional config directory '{lab.folder}/missing' not found",
        f"train resume={run} trainer.max_epochs=4": "the run was started with experiment=tiny_stripes, which does not "
        "exist here; if it is from a folder of your own, name that again: --config-dir=FOLDER",
    }
    for line, message in wrong.items():
        status, printed = lab(f"alexnet-lab {line}")
        assert (status, printed.partition(message)[0]) == (2, "error: "), printed
    status, printed = lab("alexnet-lab train --config-dir my_conf model=tiny data=stripes", PYTHONPATH="")
    assert status == 2
    assert printed.splitlines()[-1].endswith("the folder of a module of your own must be on PYTHONPATH")


@pytest.mark.system
def test_printed_command_for_other_settings_names_the_folder_again(lab: Any) -> None:
    lab(LINES[1])
    status, printed = lab(f"{LINES[1]} resume=auto trainer.max_epochs=5")
    assert status == 0
    (line,) = [line for line in printed.splitlines() if line.startswith("to continue it with other settings: ")]
    assert " --config-dir my_conf resume=logs/train/runs/mine experiment=tiny_stripes trainer.max_epochs=5" in line
