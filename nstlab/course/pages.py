"""Executed notebooks as pages that need no network: MathML, folded solutions, no script."""

from __future__ import annotations

from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class MathRenderer(IPythonRenderer):
    """Markdown as Jupyter shows it, with formulas as MathML, which needs no script."""

    def block_math(self, body: str) -> str:
        """A formula on lines of its own: LaTeX -> MathML."""
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        """A formula in a line: LaTeX -> MathML."""
        return convert(body)


class PageExporter(HTMLExporter):
    """Jupyter's own page, without its scripts for formulas, diagrams and widgets."""

    raw_template = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_css -%}{{ super() }}
<style>
.jp-InputArea pre {white-space: pre-wrap}
summary {margin: 0 0 1em 7em; cursor: pointer}
</style>
{%- endblock -%}
{%- block codecell -%}
{%- if "solution" in cell.metadata.get("tags", []) -%}
<details><summary>Solution</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}"""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown -> HTML; pictures attached to the cell are embedded."""
        attachments = getattr(context.get("cell"), "attachments", {})
        renderer = MathRenderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)
