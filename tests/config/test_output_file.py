"""The output file of a command is checked before the work begins."""

from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.config.output_file import check_output
from alexnet_lab.errors import UserError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "old.csv").write_text("old")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("value", [None, "new.csv", "NEW.CSV", "old.csv", "./a.b.csv"])
def test_writable_file_is_accepted_and_the_check_leaves_no_file(here: Path, value: Any) -> None:
    check_output("out", value, [".csv"])
    assert sorted(path.name for path in here.iterdir()) == ["folder.csv", "old.csv"]
    assert (here / "old.csv").read_text() == "old"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("new.txt", "out=new.txt: the name must end in .csv or .md"),
        ("", "is a folder"),
        (".csv", "the name must end in .csv or .md"),
        ("folder.csv", "is a folder; name a file in it"),
        ("nowhere/new.csv", "there is no folder nowhere"),
        ("old.csv/new.csv", "there is no folder old.csv"),
        ("/proc/new.csv", r"no file can be written in /proc \(No such file or directory\)"),
        (["a.csv"], "takes the name of one file"),
        ({"a": 1}, "takes the name of one file"),
        (3, "takes the name of one file"),
    ],
)
def test_unwritable_file_is_refused(here: Path, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_output("out", value, [".csv", ".md"])


def test_pipe_is_not_replaced_by_a_file(here: Path) -> None:
    import os

    os.mkfifo(here / "pipe.csv")
    with pytest.raises(UserError, match="not a regular file"):
        check_output("out", "pipe.csv", [".csv"])


def test_missing_folder_is_accepted_only_if_the_command_creates_it(here: Path) -> None:
    check_output("out", "a/b/new.csv", [".csv"], makes_folder=True)
    assert not (here / "a").exists()
    with pytest.raises(UserError, match=r"there is no folder old\.csv/b"):
        check_output("out", "old.csv/b/new.csv", [".csv"], makes_folder=True)
