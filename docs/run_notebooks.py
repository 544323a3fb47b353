"""Execute the notebooks into site-notebooks/, outputs and all; those in git stay without outputs.

``python docs/run_notebooks.py [NAME …]``. ``make docs`` shows the executed ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPO = Path(__file__).resolve().parent.parent


def run(path: Path, seconds: int = 1800) -> nbformat.NotebookNode:
    """Execute a notebook, away from the checkout; an error of a cell is raised with its text."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=seconds, kernel_name="python3")
    return client.execute()


if __name__ == "__main__":
    out = REPO / "site-notebooks"
    out.mkdir(exist_ok=True)
    for notebook in sorted((REPO / "docs" / "notebooks").glob("*.ipynb")):
        if len(sys.argv) == 1 or notebook.stem in sys.argv[1:]:
            nbformat.write(run(notebook), out / notebook.name)
            print(f"ran {notebook.name}")
