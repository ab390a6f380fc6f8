"""The comparison as one HTML file that contains everything: plotly's script, the data and the pictures.

Names, settings and errors come from users. Every text is escaped, and the page's security policy forbids loading
anything.
"""

import base64
import html as markup
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from alexnet_lab.command_line import install
from alexnet_lab.errors import UserError
from alexnet_lab.report import pivot, plots
from alexnet_lab.report.table import Comparison
from alexnet_lab.report.text import broken, header, notes, rows
from alexnet_lab.runs.groups import ABSENT, Group, differing
from alexnet_lab.runs.run import Run

TEMPLATE = Path(__file__).with_name("page.html")
MOST_PICTURE_BYTES = 64 * 2**20
# No button uploads the data.
CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}

Section = tuple[str, str, str, str]  # id, title, explanation, content in HTML


def require_plotly() -> None:
    """Raise `UserError` if plotly is not installed; the terminal, CSV and Markdown do not need it."""
    if find_spec("plotly") is None:
        raise UserError(f"out=*.html needs the package plotly: {install('compare')}; *.csv and *.md do not")


def html(comparison: Comparison) -> str:
    """The text of the page. Raises `UserError` if plotly is not installed."""
    require_plotly()
    from plotly.offline import get_plotlyjs

    states = Counter(run.status for run in comparison.runs)
    lead = f"{len(comparison.runs)} runs: " + ", ".join(f"{number} {state}" for state, number in states.items())
    return filled("Comparison of runs", lead, _sections(comparison), get_plotlyjs())


def filled(title: str, lead: str, sections: Iterable[Section], script: str = "") -> str:
    """The text of a page with those `sections` that have content; `script` goes into its head."""
    shown = [section for section in sections if section[3]]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        lead=lead,
        plotly=script,
        links=" ".join(f'<a href="#{name}">{title}</a>' for name, title, _, _ in shown),
        sections="\n".join(
            f'<section id="{name}"><h2>{title}</h2><p>{explanation}</p>{content}</section>'
            for name, title, explanation, content in shown
        ),
    )


def _sections(comparison: Comparison) -> Iterable[Section]:
    if comparison.pivot:
        heads, lines = pivot.table(comparison.pivot)
        cells = ["<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in line) + "</tr>" for line in lines]
        content = table([f"<th>{escaped(head)}</th>" for head in heads], cells)
        yield (
            "pivot",
            escaped(pivot.title(comparison.pivot)),
            "<br>".join(map(escaped, pivot.notes(comparison.pivot))),
            content,
        )
    explanation = "<br>".join(map(escaped, ["Click a column header to sort.", *notes(comparison)]))
    yield "results", "Results", explanation, _results(comparison)
    curves = plots.learning_curves(comparison.groups)
    usage = "Click a legend entry to hide it, double-click to hide all others. Drag to zoom, double-click to reset."
    yield "curves", "Learning curves", usage, _plot(curves, "curves-plot")
    points = plots.scatter(comparison.groups)
    yield "scatter", "Accuracy and cost", "The menus choose the axes.", _plot(points, "scatter-plot")
    yield (
        "settings",
        "Settings that differ",
        "Values that most runs do not have are marked.",
        _settings(comparison.groups),
    )
    pictures, left_out = _pictures(comparison.runs)
    note = f"{left_out} pictures are left out to limit the size of the page." if left_out else "One per run."
    yield "pictures", "Pictures", note, pictures
    yield "failed", "Runs that did not finish", "And runs that are only partly readable.", _broken(comparison.runs)


def _results(comparison: Comparison) -> str:
    titles = header(comparison)
    lines = []
    for group, cells in zip(comparison.groups, rows(comparison), strict=True):
        line = []
        for (title, right), cell in zip(titles, cells, strict=True):
            first, _, rest = cell.partition(" ") if right else (cell, "", "")
            attributes = ' class="number"' if right else f' title="{escaped(cell)}"'
            if right and first:
                attributes += f' data-value="{escaped(first.replace(",", ""))}"'
            if title == "status":
                content = f'<span class="status {group.status}">{group.status}</span>'
            elif title.startswith("difference") and rest:
                content = f'<span class="{_direction(rest)}">{escaped(first)}</span>{_soft(rest)}'
            else:
                content = escaped(first) + _soft(rest)
            line.append(f"<td{attributes}>{content}</td>")
        lines.append(f"<tr>{''.join(line)}</tr>")
    heads = [
        f'<th data-column="{column}"{" class=number" if right else ""}>{escaped(title)}</th>'
        for column, (title, right) in enumerate(titles)
    ]
    return table(heads, lines)


def _soft(text: str) -> str:
    return f' <span class="spread">{escaped(text)}</span>' if text else ""


def _direction(interval: str) -> str:
    """The CSS class of a difference whose interval, `[low, high] method`, excludes zero."""
    low, high = interval.strip("[").partition("]")[0].split(", ")
    if low.startswith("+") and float(low) > 0:
        return "up"
    return "down" if high.startswith("-") and float(high) < 0 else ""


def _settings(groups: Sequence[Group]) -> str:
    known = [group.settings for group in groups]
    keys = differing(known)
    lines = []
    usual = {key: Counter(one.get(key, ABSENT) for one in known).most_common(1)[0] for key in keys}
    for group in groups:
        cells = [f"<td>{escaped(group.name)}</td>"]
        for key in keys:
            text = group.settings.get(key, ABSENT)
            value, number = usual[key]
            marked = ' class="other"' if 2 * number > len(groups) and text != value else ""
            cells.append(f"<td{marked}>{escaped(text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["<th>run</th>", *(f"<th>{escaped(key.removesuffix('._target_'))}</th>" for key in keys)]
    common = [f"{key}: {value}" for key, value in known[0].items() if key not in keys] if known else []
    shared = (
        f"<details><summary>{len(common)} settings shared by all</summary><pre>{escaped(chr(10).join(common))}</pre>"
    )
    return (table(heads, lines) if keys else "<p>None.</p>") + (f"{shared}</details>" if common else "")


def _pictures(runs: Sequence[Run]) -> tuple[str, int]:
    """The pictures by name, side by side for all runs; and how many were left out to limit the size of the page."""
    by_name: dict[str, list[str]] = {}
    embedded, left_out = 0, 0
    for run in runs:
        for path in run.pictures:
            try:
                content = path.read_bytes()
            except OSError:
                content = b""
            if not content or embedded + len(content) > MOST_PICTURE_BYTES:
                left_out += 1
                continue
            embedded += len(content)
            data = base64.b64encode(content).decode("ascii")
            image = f'<img alt="{escaped(path.stem)}" src="data:image/png;base64,{data}">'
            by_name.setdefault(path.stem, []).append(
                f"<figure>{image}<figcaption>{escaped(run.name)}</figcaption></figure>"
            )
    return "".join(
        f'<h3>{escaped(name.replace("_", " "))}</h3><div class="pictures">{"".join(found)}</div>'
        for name, found in sorted(by_name.items())
    ), left_out


def _broken(runs: Sequence[Run]) -> str:
    lines = [
        f'<tr><td>{escaped(run.name)}</td><td><span class="status {run.status}">{run.status}</span></td>'
        f"<td><pre>{escaped(run.error or 'no end is recorded: still running, or killed')}</pre></td></tr>"
        for run in broken(runs)
    ]
    return table(["<th>run</th>", "<th>status</th>", "<th>reason</th>"], lines) if lines else ""


def _plot(plot: dict[str, Any] | None, name: str) -> str:
    if plot is None:
        return ""
    from plotly.io import to_html

    # For some thousand curves, plotly's validation would take longer than everything else.
    return str(to_html(plot, CONFIG, include_plotlyjs=False, full_html=False, div_id=name, validate=False))


def table(heads: Sequence[str], lines: Sequence[str]) -> str:
    table = f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def escaped(text: str) -> str:
    return markup.escape(text)
