"""Every notebook runs from top to bottom, at a small size."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_notebook_runs_and_shows_its_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("size, steps = 256, 60", "size, steps = 64, 3")
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = [kind for output in shown for kind in output.get("data", {})]
    if path.stem == "00_studio":  # which paints nothing where nobody looks
        assert "application/vnd.jupyter.widget-view+json" in kinds
    else:
        assert kinds.count("image/png") >= 3
    assert not any(output.output_type == "stream" and "Warning" in output.text for output in shown)
