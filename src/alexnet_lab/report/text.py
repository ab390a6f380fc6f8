"""The comparison as text: on the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alexnet_lab.report import pivot
from alexnet_lab.report.intervals import Difference, p_text
from alexnet_lab.report.table import Comparison
from alexnet_lab.runs.groups import Group, Sample
from alexnet_lab.runs.recipe import published_text
from alexnet_lab.runs.run import Run

METHODS = {
    "Welch": "w: Welch's t over the seeds of both groups",
    "Student": "s: Student's t with the standard deviation of the group that has several seeds",
    "images": "i: single runs; covers the choice of the test images, not the seeds",
    "paired": "paired: single runs image by image, p of McNemar's test; covers the choice of the images, not the seeds",
}
AS_WIDE_AS_NEEDED = 10_000


def header(comparison: Comparison) -> list[tuple[str, bool]]:
    """The titles of the columns, and whether a column contains numbers."""
    titles = [("run", False)]
    if any(group.status != "finished" for group in comparison.groups):
        titles.append(("status", False))
    if any(len(group.runs) > 1 for group in comparison.groups):
        titles.append(("n", True))
    for figure in comparison.figures:
        titles.append((figure.title, True))
        if figure.key in comparison.stated:
            titles.append((f"published {figure.title.removeprefix('final ')}", True))
        if figure.key in comparison.compared:
            titles.append((f"difference {figure.title.removeprefix('final ')}", True))
    return titles + [(name, False) for name in comparison.settings.values()]


def rows(comparison: Comparison, joint: str = " ") -> Iterator[list[str]]:
    """The cells of each group; `joint` separates a value from its standard deviation or interval."""
    titles = {title for title, _ in header(comparison)}
    for group in comparison.groups:
        cells = [group.name]
        if "status" in titles:
            cells.append(group.status)
        if "n" in titles:
            cells.append(str(len(group.runs)))
        for figure in comparison.figures:
            cells.append(sample_text(group.samples.get(figure.key), figure.text, joint))
            if figure.key in comparison.stated:
                cells.append(published_text(comparison.published[group.name].get(figure.key), f"{joint}± "))
            if figure.key in comparison.compared:
                cells.append(difference_text(comparison, group, figure.key, joint))
        yield cells + [group.settings.get(key, "") for key in comparison.settings]


def sample_text(sample: Sample | None, text: str, joint: str = " ") -> str:
    """`0.8124 ± 0.0122`: mean and standard deviation."""
    if sample is None:
        return ""
    spread = sample.deviation
    # A count that is equal in all runs, such as the parameters, is shown without a standard deviation.
    shown = spread is not None and (spread > 0 or text == ".4f")
    return f"{sample.mean:{text}}" + (f"{joint}± {spread:{text}}" if shown else "")


def difference_text(comparison: Comparison, group: Group, key: str, joint: str = " ") -> str:
    """`+0.0121 [-0.0030, +0.0272] w`: the difference, its interval and the name of the method."""
    if group is comparison.baseline:
        return "baseline"
    found: Difference | None = comparison.differences[group.name].get(key)
    if found is None:
        return ""
    if found.low is None or found.high is None or found.method is None:
        return f"{found.value:+.4f}"
    chance = "" if found.p is None else f", p {p_text(found.p)}"
    label = METHODS[found.method].partition(":")[0]
    return f"{found.value:+.4f}{joint}[{found.low:+.4f}, {found.high:+.4f}] {label}{chance}"


def notes(comparison: Comparison) -> list[str]:
    """Explanations of the table, one line each."""
    lines = []
    if any(len(group.runs) > 1 for group in comparison.groups):
        lines.append("±: standard deviation over n seeds")
    methods = {found.method for known in comparison.differences.values() for found in known.values() if found.method}
    if comparison.baseline:
        explained = "; ".join(text for method, text in METHODS.items() if method in methods)
        level = f"{100 * comparison.confidence:.10g}%"
        lines.append(
            f"differences to {comparison.baseline.name}"
            + (f", [{level} confidence interval] {explained}" if methods else ", without intervals")
        )
    return lines


def _shown(comparison: Comparison, joint: str) -> tuple[int, list[tuple[str, bool]], list[list[str]], list[str]]:
    """The number of columns that name a row, the titles, the cells and the notes, of the pivot where there is one."""
    if not comparison.pivot:
        return 1, header(comparison), list(rows(comparison, joint)), notes(comparison)
    first, (heads, cells) = len(comparison.pivot.keys[0]), pivot.table(comparison.pivot, joint)
    titles = [(head, place >= first) for place, head in enumerate(heads)]
    return first, titles, cells, list(pivot.notes(comparison.pivot))


def print_table(comparison: Comparison, console: Console) -> None:
    """Print the table or the pivot; if wider than the terminal, in several parts that repeat the first columns."""
    first, titles, cells, lines = _shown(comparison, joint="\n")
    print_parts(titles, cells, console, first)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for run in broken(comparison.runs):
        line = f"{run.status}: {run.name}: {run.error}" if run.error else f"{run.status}: {run.name}"
        # The error may contain control characters, which could move the cursor or change colours.
        line = "".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in line)
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_parts(
    titles: Sequence[tuple[str, bool]],
    cells: Sequence[Sequence[str]],
    console: Console,
    first: int = 1,
    pipe: int = AS_WIDE_AS_NEEDED,
) -> None:
    """Print a table; if wider than the terminal or a pipe's `pipe` columns, in parts that repeat the `first` ones."""
    limit = console.width if console.is_terminal else pipe
    # Rich ignores the width of a dumb terminal and takes 80 characters.
    styled = console.is_terminal and not console.is_dumb_terminal
    wide = Console(file=console.file, width=AS_WIDE_AS_NEEDED, force_terminal=styled)
    chosen = [*range(first)]
    for column in range(first, len(titles)):
        if len(chosen) > first and wide.measure(_part(titles, cells, [*chosen, column])).maximum > limit:
            _print(_part(titles, cells, chosen), wide)
            chosen = [*range(first)]
        chosen.append(column)
    _print(_part(titles, cells, chosen), wide)


def _print(table: Table, console: Console) -> None:
    """Print the table without trailing blanks, which a narrower terminal would wrap."""
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    console.file.write("\n".join(lines).strip("\n") + "\n\n")


def broken(runs: Sequence[Run]) -> list[Run]:
    """The runs that did not finish, and those that are only partly readable."""
    return [run for run in runs if run.status != "finished" or run.error]


def markdown(comparison: Comparison) -> str:
    """The table or the pivot, the notes and the runs that did not finish."""
    _, titles, cells, explained = _shown(comparison, joint=" ")
    lines = markdown_table(titles, cells)
    lines += ["", *(f"- {_plain(note)}" for note in explained)]
    lines += [f"- {run.status}: {_plain(run.name)}: {_plain(run.error or '')}" for run in broken(comparison.runs)]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(titles: Sequence[tuple[str, bool]], cells: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    rule = "|" + "".join("---:|" if right else "---|" for _, right in titles)
    return [_line(title for title, _ in titles), rule, *map(_line, cells)]


def as_csv(comparison: Comparison) -> str:
    """One row per group or cell of the pivot, with full keys and unrounded numbers; standard deviations and intervals
    have columns."""
    table = [dict(_record(comparison, group)) for group in comparison.groups]
    if comparison.pivot:
        table = list(pivot.records(comparison.pivot))
    return csv_text(table)


def csv_text(table: Sequence[Mapping[str, Any]]) -> str:
    """The records as CSV, with a column for each key that occurs."""
    columns = list(dict.fromkeys(column for record in table for column in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _record(comparison: Comparison, group: Group) -> Iterator[tuple[str, Any]]:
    yield from {"run": group.name, "status": group.status, "n": len(group.runs)}.items()
    yield "seed", group.settings.get("seed", "")
    yield from ((key, group.settings.get(key, "")) for key in comparison.settings)
    for figure in comparison.figures:
        sample = group.samples.get(figure.key)
        yield figure.key, sample.mean if sample else ""
        yield f"{figure.key} deviation", "" if sample is None or sample.deviation is None else sample.deviation
        if figure.key in comparison.stated:
            stated = comparison.published[group.name].get(figure.key, {})
            yield f"{figure.key} published", stated.get("value", "")
        if figure.key in comparison.compared:
            found = comparison.differences[group.name].get(figure.key)
            for part in ("value", "low", "high", "method", "p"):
                value = getattr(found, part, None)
                yield f"{figure.key} difference {part}", "" if value is None else value
    yield "error", "; ".join(run.error for run in group.runs if run.error)


def _part(titles: Sequence[tuple[str, bool]], cells: Sequence[Sequence[str]], columns: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in columns:
        title, right = titles[column]
        table.add_column(
            escape(title.replace(" top-", "\ntop-")), justify="right" if right else "left", no_wrap=True, vertical="top"
        )
    for row in cells:
        table.add_row(*(escape(row[column]) for column in columns))
    return table


def _line(cells: Any) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """`text` escaped for a Markdown table cell."""
    marks = {"|": "\\|", "*": "\\*", "<": "&lt;", "`": "\\`", "[": "\\["}
    return " ".join("".join(marks.get(letter, letter) for letter in text).split())
