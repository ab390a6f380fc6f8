"""The page: one file that loads nothing, escaped names, thinned curves, pictures."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.runs.recorded_runs import rows, settings, write_run

from alexnet_lab.errors import UserError
from alexnet_lab.report import page
from alexnet_lab.report.curves import thin
from alexnet_lab.report.plots import MOST_RUNS_IN_PANELS, learning_curves, scatter
from alexnet_lab.report.table import compare_runs
from alexnet_lab.runs.groups import group_runs
from alexnet_lab.runs.run import read_runs

EVIL = "<img src=x onerror=alert(1)>"


def html_of(folder: Path, **options: Any) -> str:
    return page.html(compare_runs(read_runs([str(folder)]), **options))


def without_plotly(text: str) -> str:
    from plotly.offline import get_plotlyjs

    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "")


def test_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "a", pictures=("conv1_filters",))
    text = without_plotly(html_of(tmp_path))
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:" in text
    assert not re.search(r"https?://|<link|@import|\bsrc=\"(?!data:)", text)


def test_texts_of_runs_are_escaped_in_every_section(tmp_path: Path) -> None:
    folder = tmp_path / "<b>x"
    config = settings(recipe=None, note=EVIL, **{EVIL: "1"})
    write_run(folder, config, rows(0.8), ('<i>"x',), status="failed", error=f"</script>{EVIL}")
    write_run(tmp_path / "b", settings(note="plain"))
    (folder / "metrics.csv").write_text(f"epoch,step,{EVIL},val/top1\n0,1,1.0,0.5\n1,2,2.0,0.6\n")
    text = without_plotly(html_of(tmp_path))
    assert "<img src=x" not in text
    assert "<b>x" not in text
    assert text.count("<script") == text.count("</script>")
    assert 'alt="&lt;i&gt;&quot;x"' in text
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text


def test_names_in_plots_are_escaped_for_plotly_too(tmp_path: Path) -> None:
    write_run(tmp_path / "<i>%{x}", settings())
    groups = group_runs(read_runs([str(tmp_path)]))
    for plot in (learning_curves(groups), scatter(groups)):
        assert plot is not None
        said = json.dumps(plot)
        assert "<i>" not in said
        assert "%{x}&lt;" not in said
    curves = learning_curves(groups)
    assert curves is not None
    assert curves["data"][0]["hovertemplate"].startswith("&lt;i&gt;%&#123;x}")


def test_pictures_are_embedded_side_by_side_for_all_runs(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, pictures=("conv1_filters", "confusion"))
    text = html_of(tmp_path)
    content = base64.b64encode((tmp_path / "a" / "pictures" / "confusion.png").read_bytes()).decode()
    assert text.count(f"data:image/png;base64,{content}") == 2
    assert re.findall(r"<h3>(.*?)</h3>", text) == ["confusion", "conv1 filters"]


def test_reason_of_a_failed_run_is_shown_and_no_section_is_empty(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="failed", error="the loss is not finite in epoch 3")
    text = html_of(tmp_path)
    assert "<pre>the loss is not finite in epoch 3</pre>" in text
    assert 'id="pictures"' not in text


def test_every_metric_has_a_panel_with_a_curve_per_run_and_one_legend_entry_per_group(tmp_path: Path) -> None:
    for model in ("lenet", "caffenet"):
        for seed in range(2):
            write_run(tmp_path / f"{model}-{seed}", settings(model, seed))
    plot = learning_curves(group_runs(read_runs([str(tmp_path)])))
    assert plot is not None
    titles = [axis["title"]["text"] for name, axis in plot["layout"].items() if name.startswith("yaxis")]
    assert titles == [
        *("train/loss", "val/loss", "train/top1", "val/top1", "train/top5", "val/top5"),
        *("lr", "train/loss_step"),
    ]
    assert len(plot["data"]) == 8 * 4
    assert [trace["name"] for trace in plot["data"] if trace["showlegend"]] == ["caffenet-*", "lenet-*"]
    top1 = next(trace for trace in plot["data"] if trace["yaxis"] == "y4")
    assert top1["x"] == [1, 2, 3]
    assert top1["y"] == pytest.approx([row["val/top1"] for row in rows(0.8) if "val/top1" in row])
    steps = next(trace for trace in plot["data"] if trace["yaxis"] == "y8")
    assert steps["x"] == [50, 100, 150, 200, 250, 300]


def test_many_runs_share_one_panel_with_a_menu_of_all_metrics(tmp_path: Path) -> None:
    for number in range(MOST_RUNS_IN_PANELS + 1):
        write_run(tmp_path / f"r{number}", settings(lr=number + 1))
    plot = learning_curves(group_runs(read_runs([str(tmp_path)])))
    assert plot is not None
    assert len(plot["data"]) == MOST_RUNS_IN_PANELS + 1
    (menu,) = plot["layout"]["updatemenus"]
    labels = [button["label"] for button in menu["buttons"]]
    assert labels[menu["active"]] == plot["layout"]["yaxis"]["title"]["text"] == "val/top1"
    assert len(labels) == 8
    loss = menu["buttons"][labels.index("train/loss_step")]["args"]
    assert loss[0]["x"][0] == [50, 100, 150, 200, 250, 300]
    assert loss[1]["xaxis.title.text"] == "step"


def test_long_curve_is_thinned_and_keeps_its_ends_and_its_peaks() -> None:
    points = [(float(i), 0.0) for i in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    points[54_322] = (54_322.0, -9.0)
    thinned = thin(points)
    assert len(thinned) <= 400
    assert thinned[0] == points[0]
    assert thinned[-1] == points[-1]
    assert {points[54_321], points[54_322]} <= set(thinned)
    assert thin(points[:400]) == points[:400]


def test_scatter_has_each_run_and_menus_of_both_axes(tmp_path: Path) -> None:
    write_run(tmp_path / "a", settings("lenet"), rows(0.8), seconds=10.0)
    write_run(tmp_path / "b", settings("caffenet"), rows(0.9), seconds=1000.0, parameters=60_965_224)
    plot = scatter(group_runs(read_runs([str(tmp_path)])))
    assert plot is not None
    assert [(trace["x"], trace["y"]) for trace in plot["data"]] == [([10.0], [0.8]), ([1000.0], [0.9])]
    assert plot["layout"]["xaxis"]["type"] == "log"
    up, across = plot["layout"]["updatemenus"]
    assert up["buttons"][0]["label"] == "test top-1"
    assert [button["label"] for button in across["buttons"]][:3] == ["over time (s)", "over parameters", "over MACs"]
    assert across["buttons"][1]["args"][0] == {"x": [[61_706.0], [60_965_224.0]]}


def test_missing_plotly_is_reported_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package plotly: pip install -e '.\[compare\]'"):
        page.require_plotly()
