"""The plots of the page as plotly figures (dicts of `data` and `layout`): learning curves and scatter plot.

Plain dicts: plotly's classes validate each curve, 1.3 s per 1,000, and plotly express needs pandas. Plotly interprets
some HTML in texts, so the users' names are escaped here.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alexnet_lab.report.curves import Curves, Metric, Points, metrics, points
from alexnet_lab.runs.groups import Group
from alexnet_lab.runs.run import FIGURES

Plot = dict[str, Any]

MOST_RUNS_IN_PANELS = 40  # with more runs, one panel and a menu: hundreds of curves in each of ten panels are slow
FEW_POINTS = 30
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#db2777", "#65a30d", "#475569", "#92400e")
DASHES = ("solid", "dash", "dot", "dashdot")
GRID = "#e5e7eb"
SCATTER_X = ("seconds", "parameters", "macs", "images_per_second", "epochs")
SCATTER_Y = ("test/top1", "test/top5", "best_val/top1", "best_val/top5", "val/top1", "val/top5")


def learning_curves(groups: Sequence[Group]) -> Plot | None:
    """A panel for each metric, or with many runs one panel with a menu; None if there is no curve."""
    curves = [Curves(group.name, [(run.name, points(run)) for run in group.runs]) for group in groups]
    found = metrics(curves)
    if not found:
        return None
    few = sum(len(group.runs) for group in groups) <= MOST_RUNS_IN_PANELS
    return _panels(curves, found) if few else _menu(curves, found)


def _panels(groups: Sequence[Curves], found: Sequence[Metric]) -> Plot:
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    layout = _layout(height=70 + 290 * rows, grid={"rows": rows, "columns": columns, "pattern": "independent"})
    layout["grid"] |= {"xgap": 0.12, "ygap": 0.24}
    data: list[Plot] = []
    first_over: dict[str, str] = {}
    for position, metric in enumerate(found, start=1):
        number = "" if position == 1 else str(position)
        layout[f"xaxis{number}"] = _axis_style(metric.over)
        layout[f"yaxis{number}"] = _axis_style(metric.name)
        # One zoom for all panels over the same axis.
        shared = first_over.setdefault(metric.over, f"x{number}")
        if shared != f"x{number}":
            layout[f"xaxis{number}"]["matches"] = shared
        for trace in _traces(groups, metric):
            data.append(trace | {"xaxis": f"x{number}", "yaxis": f"y{number}"})
    _one_legend_entry_per_group(data)
    return {"data": data, "layout": layout}


def _menu(groups: Sequence[Curves], found: Sequence[Metric]) -> Plot:
    first = next((metric for metric in found if metric.name == "val/top1"), found[0])
    data = list(_traces(groups, first, keep_empty=True))
    _one_legend_entry_per_group(data)
    buttons = []
    for metric in found:
        curves = [known.get(metric.name, Points()).over(metric.over) for group in groups for _, known in group.runs]
        change = {"x": [x for x, _ in curves], "y": [y for _, y in curves]}
        titles = {"xaxis.title.text": metric.over, "yaxis.title.text": metric.name}
        ranges = {"xaxis.autorange": True, "yaxis.autorange": True}
        buttons.append(_button(metric.name, [change, titles | ranges]))
    layout = _layout(height=640, xaxis=_axis_style(first.over), yaxis=_axis_style(first.name))
    layout["updatemenus"] = [_dropdown(buttons, active=found.index(first), x=0)]
    return {"data": data, "layout": layout}


def _traces(groups: Sequence[Curves], metric: Metric, keep_empty: bool = False) -> Iterable[Plot]:
    for position, group in enumerate(groups):
        for name, known in group.runs:
            x, y = known.get(metric.name, Points()).over(metric.over)
            if not x and not keep_empty:
                continue
            yield {
                "type": "scatter",
                "mode": "lines+markers" if len(x) <= FEW_POINTS else "lines",
                "marker": {"size": 4},
                "line": {"width": 1.6, **_look(position)},
                "x": x,
                "y": y,
                "name": _escape(group.name),
                "legendgroup": str(position),
                "hovertemplate": f"{_template(name)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
            }


def scatter(groups: Sequence[Group]) -> Plot | None:
    """Accuracy over time, parameters or MACs, one point per run, with menus for both axes; None without metrics."""
    values = [group.figures for group in groups]
    known = {key for group in values for one in group for key in one}
    across, up = [key for key in SCATTER_X if key in known], [key for key in SCATTER_Y if key in known]
    if not across or not up:
        return None
    data: list[Plot] = [
        {
            "type": "scatter",
            "mode": "markers",
            "marker": {"size": 11, "color": _look(position)["color"], "line": {"width": 1, "color": "white"}},
            "x": [one.get(across[0]) for one in values[position]],
            "y": [one.get(up[0]) for one in values[position]],
            "name": _escape(group.name),
            "text": [_escape(run.name) for run in group.runs],
            "hovertemplate": "%{text}<br>%{x:,.4~g}, %{y:.4f}<extra></extra>",
        }
        for position, group in enumerate(groups)
    ]
    layout = _layout(height=520, xaxis=_axis_style(_title(across[0])), yaxis=_axis_style(_title(up[0])))
    layout["updatemenus"] = [
        _dropdown([_choice(key, "y", values) for key in up], active=0, x=0),
        _dropdown([_choice(key, "x", values) for key in across], active=0, x=0.22),
    ]
    layout["xaxis"] |= _scale(values, across[0])
    return {"data": data, "layout": layout}


def _choice(key: str, axis: str, values: Sequence[Sequence[Mapping[str, float]]]) -> Plot:
    change = {axis: [[one.get(key) for one in group] for group in values]}
    titles: Plot = {f"{axis}axis.title.text": _title(key), f"{axis}axis.autorange": True}
    if axis == "x":
        titles |= {f"xaxis.{name}": value for name, value in _scale(values, key).items()}
    return _button(f"{'over ' if axis == 'x' else ''}{_title(key)}", [change, titles])


def _scale(values: Sequence[Sequence[Mapping[str, float]]], key: str) -> Plot:
    """Logarithmic if the values span more than a factor of ten, with ticks at 1, 2 and 5."""
    known = [one[key] for group in values for one in group if key in one]
    logarithmic = bool(known) and min(known) > 0 and max(known) > 10 * min(known)
    return {"type": "log", "dtick": "D2", "tickformat": "~s"} if logarithmic else {"type": "linear", "dtick": None}


def _one_legend_entry_per_group(data: Iterable[Plot]) -> None:
    seen: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["legendgroup"] not in seen
        seen.add(trace["legendgroup"])


def _look(position: int) -> dict[str, str]:
    return {
        "color": COLOURS[position % len(COLOURS)],
        "dash": DASHES[position // len(COLOURS) % len(DASHES)],
    }


def _layout(height: int, **more: Any) -> Plot:
    return {
        "height": height,
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"},
        "showlegend": True,
        "legend": {"font": {"size": 12}, "tracegroupgap": 0, "itemsizing": "constant"},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        **more,
    }


def _axis_style(title: str) -> Plot:
    line = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": "#9ca3af", "showline": True, "ticks": "outside"}
    return {"title": {"text": _escape(title), "standoff": 8}, "tickcolor": "#9ca3af", "automargin": True, **line}


def _dropdown(buttons: Sequence[Plot], active: int, x: float) -> Plot:
    place = {"x": x, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"buttons": list(buttons), "active": active, "bgcolor": "white", "bordercolor": GRID, **place}


def _button(label: str, arguments: Sequence[Any]) -> Plot:
    return {"label": _escape(label), "method": "update", "args": list(arguments)}


def _title(key: str) -> str:
    return next(figure.title for figure in FIGURES if figure.key == key)


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _template(text: str) -> str:
    """Escaped for plotly's templates, in which %{...} is a variable."""
    return _escape(text).replace("%{", "%&#123;")
