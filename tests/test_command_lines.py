"""Printed command lines can be pasted: the shell and Hydra read the original values back."""

import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from alexnet_lab.command_line import HEAD, command, install, override, typed, usual_command
from alexnet_lab.config.arguments import command_head

ROOT = Path(__file__).parents[1]
PARSER = OverridesParser.create()
ODD = [
    *("", "a b", "~", "~/a", "é", "猫", "#1", "a;b", "a!b", "a=b", "a,b", "it's", 'a"b', "[a]", "{a}", "(a)", "$HOME"),
    *("${seed}", r"\${seed}", r"a\b", "a\\", "a\\\"'", "\\\\", "`a`", "<a>", "a|b", "a&b", "a*b", "a?", "%20", "a:b"),
    *("true", "NULL", "12", "1e3", "-1", "inf", "nan", " a ", "a\tb", "a\nb", "\\\n", "1_000", "??", "@", "-x", "^"),
]


def read_back(text: str) -> Any:
    """The value of an override in the configuration."""
    return OmegaConf.to_container(OmegaConf.create({"value": PARSER.parse_override(text).value()}), resolve=True)[
        "value"
    ]


def texts() -> list[str]:
    draw = random.Random(0)
    parts = [*"ab1.~é猫 #;!=,'\"[](){}$\\/:@&|^`<>*?%+-\t\n", "${", "\\${", "\\\\", "true", "1e3"]
    return [*ODD, *("".join(draw.choices(parts, k=draw.randint(1, 8))) for _ in range(1000))]


def test_hydra_reads_any_text_back() -> None:
    assert [text for text in texts() if read_back(override("k", text)) != text] == []


def test_sweep_reads_any_text_back() -> None:
    def swept(text: str) -> Any:
        ((job,),) = BasicSweeper.split_arguments(PARSER.parse_overrides([override("k", text)]), None)
        return read_back(job[0])

    assert [text for text in texts() if swept(text) != text] == []


def test_shell_reads_any_text_back() -> None:
    lines = [typed("k", text) for text in ODD]
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {' '.join(lines)}"], capture_output=True, text=True, check=True
    )
    assert [read_back(word) for word in done.stdout.split("\0")[:-1]] == ODD


@pytest.mark.parametrize(
    "value", [1, 2.5, 1e-05, True, False, None, ["a b", 1, ["c,d"]], {"a": "x=y"}, Path("/a b"), "/plain/path-1.ckpt"]
)
def test_other_values_are_read_back(value: Any) -> None:
    assert read_back(override("k", value)) == (str(value) if isinstance(value, Path) else value)


def test_plain_paths_are_not_quoted() -> None:
    assert typed("resume", "/a/logs/train/runs/mine") == "resume=/a/logs/train/runs/mine"
    assert typed("run", "no_lrn,seed=0") == """'run="no_lrn,seed=0"'"""


def test_command_begins_like_the_users_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEAD, raising=False)
    assert command("train", override("run", "a b")) == """python src/train.py 'run="a b"'"""
    monkeypatch.setenv(HEAD, "'/a b/python' '../my lab/src/train.py'")
    assert shlex.split(command("prepare")) == ["/a b/python", "../my lab/src/prepare.py"]
    assert install("slurm") == "pip install -e '.[slurm]'"
    monkeypatch.setenv(HEAD, "'../my lab/bin/alexnet-lab' train")
    assert command("prepare", "data=imagenet") == "'../my lab/bin/alexnet-lab' prepare data=imagenet"
    assert install("slurm") == f"{shlex.quote(sys.executable)} -m pip install 'alexnet-lab[slurm]'"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('extras = ["optuna"], directory = "/my code"', "'alexnet-lab[optuna,slurm] @ file:///my%20code'"),
        ('editable = "/code"', "--editable '/code[slurm]'"),
        ('path = "/a.whl"', "'alexnet-lab[slurm] @ file:///a.whl'"),
        ('git = "https://host/a?rev=v1"', "'alexnet-lab[slurm] @ git+https://host/a@v1'"),
        ('specifier = "==1.0"', "'alexnet-lab[slurm]'"),
    ],
)
def test_uv_tool_gets_an_extra_from_where_it_has_the_package(
    source: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HEAD, "alexnet-lab train")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "uv-receipt.toml").write_text(f'[tool]\nrequirements = [{{ name = "alexnet-lab", {source} }}]\n')
    assert install("slurm") == f"uv tool install --force {line}"
    assert usual_command("results", "-m") == "python src/results.py -m"


@pytest.mark.parametrize(
    ("program", "head"),
    [
        ("src/train.py", "python src/train.py"),
        ("/a b/src/train.py", "python '/a b/src/train.py'"),
        ("{}/bin/alexnet-lab", "alexnet-lab train"),
        ("bin/alexnet-lab", "alexnet-lab train"),
        ("other/alexnet-lab", "other/alexnet-lab train"),
        ("{}/src/alexnet_lab/__main__.py", "python -m alexnet_lab train"),
    ],
)
def test_start_of_a_command_line_is_the_users(
    program: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("bin", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "alexnet-lab").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u"])
    monkeypatch.setattr(sys, "argv", [program.format(tmp_path), "seed=1"])
    assert command_head("train") == head


def documented() -> list[str]:
    """Every command line in the documentation and the help, and every command between backquotes."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("conf/**/*.yaml"), *ROOT.glob("src/**/*.py")]
    found = []
    for path in files:
        text = re.sub(r"\$\{command:(\w+)\}", r"python src/\1.py", path.read_text())
        found += re.findall(r"^[# ]*(python src/.*)", text, re.MULTILINE)
        found += re.findall(r"`(python src/[^`]*)`", text)
    return found


def words_of(line: str) -> list[str]:
    """The arguments, without the trailing comment."""
    words = shlex.split(re.split(r" {2,}| #| \\$|--cfg", line)[0])[2:]
    return [word.strip("[]") if word.startswith("[") else word for word in words if word != "..."]


def test_documented_commands_are_read_by_the_shell_and_by_hydra() -> None:
    lines = documented()
    assert len(lines) > 60
    unread = []
    for line in lines:
        try:
            PARSER.parse_overrides([word for word in words_of(line) if not word.startswith("-")])
        except (ValueError, HydraException) as error:
            unread.append((line, str(error)))
    assert unread == []


def test_messages_quote_values_in_commands() -> None:
    """Commands with inserted values are built by `command`, `override` and `typed`, which quote."""
    pattern = re.compile(r"""f(["']).*(?:python |\w+\.py)[^"']*=\{""")
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in ROOT.glob("src/**/*.py")
        for line in path.read_text().splitlines()
        if pattern.search(line)
    ]
    assert wrong == []
