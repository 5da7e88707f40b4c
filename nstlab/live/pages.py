"""The scripts of the pages: what all have in common, and then each one's own."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def script(name: str) -> str:
    """The script of a page, made from elements.js and the file of that name."""
    return "".join((HERE / part).read_text(encoding="utf-8") for part in ("elements.js", name))
