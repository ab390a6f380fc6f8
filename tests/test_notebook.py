"""docs/alexnet.ipynb, executed in a copy of the project, with shortened trainings."""

import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from docs.generator.notebook import NOTEBOOK, executed
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def printed(notebook: NotebookNode) -> str:
    return "".join(one.text for one in outputs(notebook) if one.output_type == "stream")


def pictures(notebook: NotebookNode) -> list[str]:
    kinds = [kind for one in outputs(notebook) for kind in one.get("data", {})]
    return sorted(kind.removeprefix("image/") for kind in kinds if kind.startswith("image/"))


def missing_numbers(notebook: NotebookNode) -> list[str]:
    """The numbers of the articles' verdicts that no output contains."""
    text = printed(notebook)
    sides = ["96 x 55 x 55", "96 x 27 x 27", "256 x 13 x 13", "384 x 6 x 6", "384 x 3 x 3", "256 x 1 x 1"]
    networks = ["25,678,184", "60,965,224", "62,378,344", "61,100,840", "14,591,685", "5,797,317", "60,967,976"]
    wanted = [*sides, *networks, "224 gives 6400 values", "conv2: (256, 48, 5, 5), groups 2, parameters 307,456"]
    wanted += [
        "46,764,746     758",
        "187,058,984       561 MB",
        "61,706 parameters",
        "224 gives 54\n",
        "0.5945",
        "0.2000",
    ]
    wanted += ["alexnet_original,norm1,LocalResponseNorm,96x55x55", "caffenet,norm1,LocalResponseNorm,96x27x27"]
    return [one for one in wanted if one not in text]


def test_committed_notebook_has_its_outputs_and_no_path_of_a_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 1.5e6
    assert missing_numbers(notebook) == []
    assert {"svg+xml", "png"} <= set(pictures(notebook))
    assert [one for one in outputs(notebook) if one.output_type == "error" or one.get("name") == "stderr"] == []
    assert re.findall(r"/(?:work|tmp|root|home|Users)/", json.dumps([dict(one) for one in outputs(notebook)])) == []


def test_links_of_the_notebook_lead_to_files() -> None:
    text = "\n".join(
        cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "markdown"
    )
    linked = re.findall(r"\]\((?!https:)([^)#]+)", text)
    assert "articles.md" in linked
    assert [one for one in linked if not (NOTEBOOK.parent / one).is_file()] == []


@pytest.mark.system
def test_notebook_runs_in_a_fresh_copy_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, home = tmp_path / "project", tmp_path / "home"
    for name in ("src", "conf", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    monkeypatch.setenv("ALEXNET_LAB_HOME", str(home))
    monkeypatch.setenv("ALEXNET_LAB_NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("PYTHONPATH", str(copy / "src"))
    path = copy / "docs/alexnet.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint(sys.executable, alexnet_lab.__file__)"))
    nbformat.write(notebook, path)

    done = executed(path)
    assert missing_numbers(done) == []
    assert f"{sys.executable} {copy}/src/alexnet_lab/__init__.py" in printed(done)
    committed = nbformat.read(NOTEBOOK, as_version=4)
    assert pictures(done) == pictures(committed)
    runs = sorted(home.glob("logs/train/runs/*/result.json"))
    assert [json.loads(run.read_text())["status"] for run in runs] == ["finished"] * 3
    assert not (copy / "logs").exists()
