"""Executes docs/alexnet.ipynb in place: `python -m docs.generator.notebook`."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parents[1] / "alexnet.ipynb"
LONGEST = 1800
"""Time limit of a cell, in s."""


def executed(path: Path) -> NotebookNode:
    """The notebook with the outputs of its cells, executed in its folder by this Python.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    # Without the times, and with the pieces of a stream joined: only what has changed differs from the last version.
    client = NotebookClient(
        notebook, timeout=LONGEST, kernel_name="python3", resources=folder, record_timing=False, coalesce_streams=True
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}  # its version is this Python's
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(NOTEBOOK), NOTEBOOK)
