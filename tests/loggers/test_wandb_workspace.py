"""`compare wandb=ENTITY/PROJECT workspace=NAME`: W&B's real client, with a server on this machine."""

import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from tests.runs.recorded_runs import settings
from wandb_server import ServedRun, Server

from alexnet_lab.commands.compare import compare
from alexnet_lab.errors import UserError
from alexnet_lab.report import wandb_workspace

Compare = Callable[..., str]


@pytest.fixture
def compared(composed: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> Compare:
    """The output of the command."""

    def run(*overrides: str) -> str:
        compare(composed("compare", *overrides))
        output = capsys.readouterr()
        assert output.err == ""
        return output.out

    return run


def served(number: int, **more: Any) -> ServedRun:
    history = [
        {"_step": 0, "epoch": 0, "trainer/global_step": 5, "train/loss_step": 2.0},
        {"_step": 1, "epoch": 0, "trainer/global_step": 10, "train/loss_step": 1.5, "train/loss": 1.7, "val/top1": 0.4},
        {"_step": 2, "epoch": 1, "trainer/global_step": 10, "test/top1": 0.5},
    ]
    facts = {"parameters": 61_706, "macs": 416_520}
    summary = {"test/top1": {"max": 0.5}, "val/top1": {"max": 0.4}, "seconds": 12.5, **facts}
    return ServedRun(f"id{number}", settings(seed=number % 2, **more) | facts, summary, history)


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {
        one["name"]: [{"type": panel["viewType"], **panel["config"]} for panel in one["panels"]] for one in sections
    }


def test_workspace_has_the_panels_and_groups_of_the_page(compared: Compare, server: Server) -> None:
    server.runs = [served(0), served(1), served(2, lr=0.2), served(3, lr=0.2)]
    output = compared("wandb=me/alexnet", "workspace=my comparison")
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "alexnet", "my comparison")
    address = f"{server.url}/me/alexnet?nw={view['name'].removeprefix('nw-').removesuffix('-v')}"
    assert output.splitlines()[-1] == f"written: {address}"

    spec = json.loads(view["spec"])
    found = panels(spec)
    assert found["Learning curves"] == [
        {"type": "Run History Line Plot", "chartTitle": name, "xAxis": axis, "metrics": [name]}
        for name, axis in (
            ("train/loss", "epoch"),
            ("val/top1", "epoch"),
            ("train/loss_step", "trainer/global_step"),
        )
    ]
    assert [panel["metrics"] for panel in found["Results"]] == [
        ["summary_metrics.test/top1.max"],
        ["summary_metrics.val/top1.max"],
    ]
    assert [(panel["xAxis"], panel["yAxis"]) for panel in found["Accuracy and cost"]] == [
        (f"summary:{cost}", "summary:test/top1.max") for cost in ("seconds", "parameters", "macs")
    ]
    assert found["Settings that differ"] == [{"type": "Run Comparer", "diffOnly": "split"}]
    assert found["Pictures"][0]["mediaKeys"] == ["pictures/predictions"]

    (runs,) = spec["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "optimizer.value.lr"}]
    assert runs["sort"]["keys"] == [{"key": {"section": "summary", "name": "test/top1.max"}, "ascending": False}]
    assert runs["runFeed"]["columnOrder"] == [
        "run:displayName",
        "summary:test/top1.max",
        "summary:val/top1.max",
        "config:optimizer.value.lr",
    ]
    assert runs["filters"]["filters"] == []
    assert spec["section"]["settings"]["shouldAutoGeneratePanels"] is False


def test_workspace_of_filtered_runs_shows_these_runs_alone(compared: Compare, server: Server) -> None:
    server.runs = [served(0, lr=0.1), served(1, lr=0.2)]
    compared("wandb=me/alexnet", "workspace=a", "wandb_filters={state:finished}")
    (runs,) = json.loads(server.views[0]["spec"])["section"]["runSets"]
    assert [one["value"] for one in runs["filters"]["filters"]] == [["id0", "id1"]]
    assert runs["grouping"] == []  # each row of the table has one run


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["runs=logs", "workspace=a"], "workspace=a is saved in a W&B project; name it: wandb=ENTITY/PROJECT"),
        (["wandb=me/alexnet", "workspace=''"], "workspace takes a name, such as workspace=comparison"),
        (["wandb=me/alexnet", "workspace=3"], "workspace=3: workspace takes text or null"),
    ],
)
def test_wrong_workspace_is_reported_before_anything_is_read(
    compared: Compare, overrides: list[str], line: str
) -> None:
    with pytest.raises(UserError) as raised:
        compared(*overrides)
    assert str(raised.value) == line


def test_missing_package_is_named_with_its_extra(compared: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(wandb_workspace, "find_spec", find)
    with pytest.raises(UserError, match=r"workspace=a needs the package wandb-workspaces: pip install .*\[workspace\]"):
        compared("wandb=me/alexnet", "workspace=a")


def test_name_that_wandb_refuses_is_reported(compared: Compare, server: Server) -> None:
    server.runs = [served(0)]
    with pytest.raises(UserError, match="workspace=\U0001f600: W&B does not take this name \\(Emojis are not"):
        compared("wandb=me/alexnet", "workspace='\U0001f600'")


@pytest.mark.parametrize(
    ("manner", "line"),
    [("answers", "wandb=me/none: the project has no run"), ("refuses", "wandb=me/none: ")],
)
def test_project_that_cannot_be_read_is_reported_in_one_line(
    compared: Compare, server: Server, manner: str, line: str
) -> None:
    server.manner = manner
    with pytest.raises(UserError) as raised:
        compared("wandb=me/none", "workspace=a")
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("bare")
def test_without_a_login_one_line_says_so(compared: Compare) -> None:
    with pytest.raises(UserError, match="wandb=me/alexnet: not logged in; run `wandb login` first"):
        compared("wandb=me/alexnet", "workspace=a")
