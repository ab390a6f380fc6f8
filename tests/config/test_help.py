"""`--help` prints the text of the command's primary config with the groups of the configuration folders."""

import sys
from pathlib import Path

import pytest

from alexnet_lab.config.help import requested_help
from alexnet_lab.config.meanings import read_groups, read_keys
from alexnet_lab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))


def help_of(command: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | None:
    monkeypatch.setattr(sys, "argv", [f"src/{command}.py", *arguments])
    return requested_help(CONF, command)


def groups(text: str) -> dict[str, list[str]]:
    lines = [line.partition(": ") for line in text.splitlines() if line.partition(": ")[0].replace("/", "").isalpha()]
    return {group: options.split(", ") for group, _, options in lines}


def test_help_names_every_group_and_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of("train", monkeypatch, "--help")
    assert text is not None
    listed = groups(text)
    for folder in (path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"):
        assert listed[folder.name] == sorted(path.stem for path in folder.glob("*.yaml"))
    assert "launcher" not in text


def test_help_lists_only_groups_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    of_train = {key.name for key in read_groups(CONF / "train.yaml")}
    for command, own in (("evaluate", {"trainer"}), ("prepare", {"model", "data"}), ("describe", of_train)):
        text = help_of(command, monkeypatch, "--help")
        assert text is not None
        assert {name for name in groups(text) if (CONF / name).is_dir()} == own


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_key_with_its_default_and_meaning(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(command, monkeypatch, "--help")
    assert text is not None
    words = " ".join(text.split())
    for key in read_keys(CONF / f"{command}.yaml"):
        default = "..." if "${" in key.default else key.default
        assert key.meaning
        assert f"{key.name}={default} {key.meaning}" in words
    assert max(map(len, text[text.index("with their defaults") :].splitlines()), default=0) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_no_unfilled_placeholder(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(command, monkeypatch, "-h")
    assert text is not None
    assert f"python src/{command}.py" in text
    assert "$" not in text.replace("${folder}", "")  # in the meaning of a key


def test_config_dir_adds_its_groups_and_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model/mine.yaml", "own/x.yaml", "own/deeper/y.yaml", "own/notes.txt", "hydra/launcher/z.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    monkeypatch.chdir(tmp_path.parent)
    text = help_of("train", monkeypatch, "--help", "--config-dir", tmp_path.name)
    assert text is not None
    listed = groups(text)
    assert {"mine", "lenet"} <= set(listed["model"])
    assert (listed["own"], listed["own/deeper"]) == (["x"], ["y"])
    assert "launcher" not in text


def test_config_dir_that_does_not_exist_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--config-dir=nowhere: there is no such folder"):
        help_of("train", monkeypatch, "--help", "--config-dir", "nowhere")


def test_help_is_printed_for_a_line_with_a_wrong_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert help_of("train", monkeypatch, "modle=lenet", "--help") == help_of("train", monkeypatch, "--help")


@pytest.mark.parametrize("arguments", [["model=lenet"], ["--cfg", "job"], ["--help", "--config-name", "describe"]])
def test_all_other_help_is_left_to_hydra(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert help_of("train", monkeypatch, *arguments) is None
