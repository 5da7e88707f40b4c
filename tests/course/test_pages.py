"""Pages of executed notebooks, which are read without a network."""

import re

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nstlab.course.pages import PageExporter


def test_a_page_has_its_formulas_and_pictures_and_loads_nothing():
    text = "Where $G_{ij}$ is\n\n$$G = \\tfrac1M F F^\\top$$\n\n[a link](https://example.org)"
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "a picture"})
    widget = new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "no widget"}
    )
    state = "application/vnd.jupyter.widget-state+json"
    cells = [new_markdown_cell(text), new_code_cell("1 + 1", outputs=[picture, widget])]
    page, _ = PageExporter().from_notebook_node(new_notebook(cells=cells, metadata={"widgets": {state: {"state": {}}}}))
    assert len(re.findall("<math[ >]", page)) == 2
    assert "\\tfrac" not in page
    assert "data:image/png" in page
    assert re.findall("<script[^>]*>", page) == [f'<script type="{state}">']  # data, which nothing runs
    assert re.findall(r"""(?:src|href|url)[=(]["']?(https?:[^"')]*)""", page) == ["https://example.org"]
