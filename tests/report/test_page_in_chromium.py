"""The page in a real browser: it draws curves, a legend click hides them, no console errors, no network requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.chromium import Chromium
from tests.runs.recorded_runs import rows, settings, write_run

from alexnet_lab.report import page
from alexnet_lab.report.table import compare_runs
from alexnet_lab.runs.run import read_runs

pytestmark = pytest.mark.system

DRAWN = "[...document.querySelectorAll('#curves-plot .scatterlayer .js-line')].filter(e => e.getAttribute('d')).length"
EVIL = "</script><img src=x onerror=document.title=1>"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    browser = Chromium(tmp_path / "profile")
    yield browser
    browser.close()


def make_page(folder: Path, **options: str) -> Path:
    path = folder / "compare.html"
    path.write_text(page.html(compare_runs(read_runs([str(folder)]), **options)), encoding="utf-8")
    return path


def test_page_works_in_a_browser_without_a_network(chromium: Chromium, tmp_path: Path) -> None:
    for model in ("lenet", "caffenet"):
        for seed in range(2):
            pictures = ("conv1_filters",)
            write_run(tmp_path / "runs" / f"{model}-s{seed}", settings(model, seed), rows(0.8 + seed / 100), pictures)
    write_run(tmp_path / "runs" / "<b>evil", settings(note=EVIL), [], status="failed", error=EVIL)
    path = make_page(tmp_path / "runs", baseline="lenet-s*")
    chromium.open(path)

    # Eight metrics of four runs; the failed one logged nothing.
    chromium.wait(f"{DRAWN} === 32")
    assert chromium.evaluate("document.querySelectorAll('#scatter-plot .scatterlayer .point').length") == 4

    chromium.click("#curves-plot .legendtoggle")
    chromium.wait(f"{DRAWN} === 16")
    hidden = "document.getElementById('curves-plot')._fullData.filter(t => t.visible === 'legendonly')"
    assert chromium.evaluate(f"[...new Set({hidden}.map(t => t.name))]") == ["caffenet-s*"]
    chromium.click("#curves-plot .legendtoggle")
    chromium.wait(f"{DRAWN} === 32")

    zoomed = "Plotly.relayout('curves-plot', {'xaxis.range': [1, 2]}).then(p => p._fullLayout.xaxis4.range)"
    assert chromium.evaluate(zoomed) == [1, 2]

    heads = chromium.evaluate("[...document.querySelectorAll('#settings th')].map(e => e.textContent)")
    assert heads == ["run", "model", "model.norm", "model.activation", "seed", "note"]
    said = chromium.evaluate("document.querySelector('#settings table').innerText")
    assert "caffenet" in said
    assert "lenet" in said

    first = "document.querySelector('#results tbody td').textContent"
    chromium.click("#results th[data-column='0']")
    assert chromium.evaluate(first) == "<b>evil"
    chromium.click("#results th[data-column='0']")
    assert chromium.evaluate(first) == "lenet-s*"

    pictures = "[...document.querySelectorAll('#pictures img')]"
    chromium.wait(f"{pictures}.length === 4 && {pictures}.every(e => e.naturalWidth === 320)")
    assert chromium.evaluate("document.querySelector('#failed pre').textContent") == EVIL
    assert chromium.evaluate("document.title") == "Comparison of runs"
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def test_menus_change_the_axes_of_the_scatter(chromium: Chromium, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", settings("lenet"), rows(0.8))
    write_run(tmp_path / "runs" / "b", settings("caffenet"), rows(0.9), parameters=60_965_224)
    chromium.open(make_page(tmp_path / "runs"))
    chromium.wait("document.querySelectorAll('#scatter-plot .scatterlayer .point').length === 2")
    chromium.click("#scatter-plot .updatemenu-header", 1)
    chromium.wait("document.querySelectorAll('#scatter-plot .updatemenu-dropdown-button').length > 1")
    chromium.click("#scatter-plot .updatemenu-dropdown-button", 1)
    plot = "document.getElementById('scatter-plot')"
    chromium.wait(f"{plot}._fullLayout.xaxis.title.text === 'parameters'")
    assert chromium.evaluate(f"{plot}._fullLayout.xaxis.type") == "log"
    assert chromium.evaluate(f"{plot}._fullData.map(t => t.x[0])") == [60_965_224, 61_706]
    assert chromium.complaints == []


def test_page_of_two_hundred_runs_stays_usable(chromium: Chromium, tmp_path: Path) -> None:
    for number in range(200):
        config = settings(seed=number % 4, lr=number // 4 + 1)
        write_run(tmp_path / "runs" / f"r{number}", config, rows(0.5 + number / 1000, epochs=90, steps=450))
    path = make_page(tmp_path / "runs")
    chromium.open(path)
    chromium.wait(f"{DRAWN} === 200")
    chromium.click("#curves-plot .legendtoggle")
    chromium.wait(f"{DRAWN} === 196")
    chromium.click("#curves-plot .updatemenu-header")
    chromium.wait("document.querySelectorAll('#curves-plot .updatemenu-dropdown-button').length === 8")
    chromium.click("#curves-plot .updatemenu-dropdown-button")
    chromium.wait("document.getElementById('curves-plot')._fullLayout.yaxis.title.text === 'train/loss'")
    assert chromium.evaluate(DRAWN) == 196
    assert chromium.complaints == []
