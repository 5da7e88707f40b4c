"""Pages of executed notebooks, which are read without a network."""

import io
import re

import pytest
import torch
from helpers import CHROMIUM
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from nstlab.course.pages import PageExporter
from nstlab.figures import animation


def test_a_page_has_its_formulas_and_pictures_and_loads_nothing():
    text = "Where $G_{ij}$ is\n\n$$G = \\tfrac1M F F^\\top$$\n\n[a link](https://example.org)"
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "a picture"})
    widget = new_output(
        "display_data",
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "no widget"},
    )
    state = "application/vnd.jupyter.widget-state+json"
    cells = [new_markdown_cell(text), new_code_cell("1 + 1", outputs=[picture, widget])]
    page, _ = PageExporter().from_notebook_node(
        new_notebook(cells=cells, metadata={"widgets": {state: {"state": {}}}})
    )
    assert len(re.findall("<math[ >]", page)) == 2
    assert "\\tfrac" not in page
    assert "data:image/png" in page
    # data, which nothing runs
    assert re.findall("<script[^>]*>", page) == [f'<script type="{state}">']
    assert re.findall(r"""(?:src|href|url)[=(]["']?(https?:[^"')]*)""", page) == [
        "https://example.org"
    ]


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_browser_without_a_network_shows_formulas_and_films_and_asks_for_nothing(tmp_path):
    film = animation.film([torch.zeros(1, 3, 16, 24), torch.ones(1, 3, 16, 24)], [2.0, 1.0])
    output = new_output("display_data", {"text/html": film._repr_html_()})
    cells = [new_markdown_cell("$$\\sum_i x_i^2$$"), new_code_cell("film", outputs=[output])]
    cells.append(new_code_cell("answer = 42", metadata={"tags": ["solution"]}))
    page, _ = PageExporter().from_notebook_node(new_notebook(cells=cells))
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    playwright, asked = pytest.importorskip("playwright.sync_api"), []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        shown = context.new_page()
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(f"file://{tmp_path / 'page.html'}", wait_until="networkidle")
        width = shown.evaluate("document.querySelector('img').naturalWidth")
        total, letter = (
            shown.locator(f"math {name}").first.bounding_box() for name in ("munder", "mi")
        )
        hidden = not shown.get_by_text("42").is_visible()
        shown.get_by_text("Solution").click()
        assert hidden
        assert shown.get_by_text("42").is_visible()
        browser.close()
    assert width == Image.open(io.BytesIO(film.data)).width
    # the index is under the sign: MathML is laid out
    assert total["height"] > 1.5 * letter["height"] > 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
