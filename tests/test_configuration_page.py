"""docs/configuration.md describes every key of every command, as the files in conf and the signatures have it."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from docs.generator import page
from docs.generator.kinds import kind_text
from docs.generator.markdown import Row, formatted, sentence, table
from pydantic import Field

from alexnet_lab.commands.program import COMMANDS
from alexnet_lab.config.meanings import read_keys

ROOT = Path(__file__).parents[1]
HYDRAS = ("_target_", "_partial_", "_recursive_")
Settings = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs/configuration.md").read_text()


def documented(text: str, heading: str) -> list[list[str]]:
    """The key and the other cells of each row in the tables below a heading."""
    section = re.split(r"^#+ ", text.split(f"\n### {heading}\n")[1], flags=re.MULTILINE)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [[row[0].strip(" `"), *(cell.strip() for cell in row[1:])] for row in rows if len(row) == 4]


def leaves(node: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in node.items():
        if key not in HYDRAS:
            inner = set(value) - set(HYDRAS) if isinstance(value, dict) else set()
            yield from leaves(value, f"{above}{key}.") if inner else [f"{above}{key}"]


def test_page_is_current(text: str) -> None:
    assert text == page.page(), "make docs writes the page"


GROUPS = {
    group: sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    for group in ("model", "data", "optimizer", "scheduler", "trainer", "callbacks", "logger")
}


@pytest.mark.parametrize("place", range(max(map(len, GROUPS.values()))))
def test_every_key_of_every_choice_is_documented(place: int, text: str, settings: Settings) -> None:
    """With one choice of each group at a time, since composing takes time."""
    chosen = {group: choices[place % len(choices)] for group, choices in GROUPS.items()}
    found = settings(*(f"{group}={choice}" for group, choice in chosen.items()), "data.num_classes=2")
    for group in GROUPS:
        rows = documented(text, group)
        assert {*leaves(found[group], f"{group}.")} <= {row[0] for row in rows}
        assert all(map(all, rows))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_has_type_default_and_meaning(command: str, text: str) -> None:
    rows = documented(text, command)
    assert [row[0] for row in rows] == [key.name for key in read_keys(ROOT / f"conf/{command}.yaml")]
    assert all(map(all, rows))


NUMBER = "whole number"
KNOWN = {
    ("train", "seed"): [(f"{NUMBER} (at least 0, below 4294967296)", "`0`")],
    ("predict", "images"): [("text or list of text", "required")],
    ("optimizer", "optimizer.convention"): [("`paper`, `source` or `caffe`", "`paper`")],
    ("checkpoints", "checkpoints.every_minutes"): [("number (above 0)", "`10.0`")],
    ("model", "model.in_channels"): [(NUMBER, "as `data.channels`")],
    ("data", "data.seed"): [
        (NUMBER, "as `seed` fashion_mnist, synthetic"),
        (NUMBER, "as `seed` image_folder, imagenet, imagenette"),
    ],
    ("data", "data.dir"): [
        ("text", "`data/image_folder` image_folder<br>`data/imagenet` imagenet<br>`data/imagenette` imagenette"),
        ("text", "`data/fashion_mnist`"),
    ],
    ("hydra/launcher", "hydra.launcher.jobs_at_once"): [(NUMBER, "`1`")],
}


@pytest.mark.parametrize(("heading", "key"), KNOWN)
def test_known_keys_have_their_types_and_defaults_in_every_row(heading: str, key: str, text: str) -> None:
    found = [(row[1], row[2]) for row in documented(text, heading) if row[0] == key]
    assert found == KNOWN[heading, key]


def conf_with(folder: Path, files: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the page be written from `train.yaml` and these files."""
    files = {"train.yaml": "defaults:\n  - scheduler: step  # the schedule\n", **files}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(page, "CONF", folder)
    monkeypatch.setattr(page, "COMMANDS", ())
    monkeypatch.setattr(page, "PLUGINS", {})


STEP = "_target_: alexnet_lab.optim.schedules.step\n"


def test_key_without_a_meaning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf_with(tmp_path, {"scheduler/step.yaml": f"# Title.\n{STEP}epochs: 3  # length\nfactor: 0.1\n"}, monkeypatch)
    with pytest.raises(ValueError, match=r"scheduler/step\.yaml: factor has 0 meanings; add one behind its value"):
        page.page()


def test_key_with_a_meaning_in_two_other_choices_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "scheduler/step.yaml": "# Title.\n{}\n",
        "scheduler/a.yaml": f"# A.\n{STEP}factor: 0.1  # one thing\n",
        "scheduler/b.yaml": f"# B.\n{STEP}factor: 0.1  # another\n",
        "scheduler/c.yaml": f"# C.\n{STEP}factor: 0.1\n",
    }
    conf_with(tmp_path / "two", files, monkeypatch)
    with pytest.raises(ValueError, match=r"scheduler/c\.yaml: factor has 2 meanings"):
        page.page()
    conf_with(tmp_path / "one", files | {"scheduler/b.yaml": "# B.\n{}\n"}, monkeypatch)
    assert "| `scheduler.factor` | number | `0.1` a, c | One thing. |" in page.page()


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "whole number or null"),
        (float | int, "number"),
        (bool | str, "`true`, `false` or text"),
        (Literal["a", "b"] | list[float], "`a`, `b` or list of numbers"),
        (tuple[float, ...], "list of numbers"),
        (Annotated[float, Field(ge=0, le=1)] | None, "number (at least 0, at most 1) or null"),
        (dict[str, int], "keys"),
    ],
)
def test_types_are_named_in_words(hint: Any, text: str) -> None:
    assert kind_text(hint) == text


def test_names_and_values_in_meanings_are_code() -> None:
    assert sentence("micro-batches per step") == "Micro-batches per step."
    assert (sentence("machines"), sentence("best.ckpt")) == ("Machines.", "`best.ckpt`.")
    assert sentence("null: as recorded, see best.ckpt") == "`null`: as recorded, see `best.ckpt`."
    assert formatted("with val_size=0 (or logs/train/<run>)") == "with `val_size=0` (or `logs/train/<run>`)"
    assert formatted("paper, the paper's own", "`paper` or `caffe`") == "`paper`, the paper's own"
    assert formatted("pixels in [0, 1] <here>") == r"pixels in \[0, 1\] \<here\>"
    assert formatted("a pattern: 'logs/**/lenet-*'") == "a pattern: `logs/**/lenet-*`"


def test_pipe_does_not_end_a_cell() -> None:
    row = Row("k", "text", "`1`", formatted("a|b"))
    assert table([row]).splitlines()[-1] == r"| `k` | text | `1` | a\|b |"
