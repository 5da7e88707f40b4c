"""What all pages have in common: how their scripts are put together, and what they may send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget

from nstlab.base import jsonfiles
from nstlab.base.settings import InputError

PAGE = Path(__file__).parent / "page"
LINE = {"type": "string", "maxLength": 1000}

Messages = Mapping[str, Mapping[str, dict[str, Any]]]  # {what to do: {field: its JSON Schema}}


def source(*names: str) -> str:
    """The text of a page's files, one after the other. (Of paths, anywidget keeps every widget
    alive, to reload its files.)"""
    return "".join((PAGE / name).read_text(encoding="utf-8") for name in names)


class Page(anywidget.AnyWidget):
    """A widget with a page of its own. Traits go one way, to the browser; messages come back."""

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore what the browser says of the traits."""

    def close(self) -> None:
        """Remove the widget, and its layout, which ipywidgets would keep."""
        self.layout.close()
        super().close()


def count(buffers: int) -> dict[str, Any]:
    """The schema of a message's `buffers`, of which there are so many."""
    return {"enum": [buffers]}


def check_message(content: Any, buffers: Sequence[Any], known: Messages) -> None:
    """Raise InputError, in one line, unless a message is {"do": one of those that are known} with
    its fields; the number of its buffers counts as a field, `buffers`."""
    do = content.get("do") if isinstance(content, dict) else None
    if not isinstance(do, str) or do not in known:
        raise InputError(
            f"the page has sent a message that is unknown here (known: {', '.join(known)})"
        )
    try:
        jsonfiles.check(content | {"buffers": len(buffers)}, jsonfiles.object_with(**known[do]))
    except ValueError as error:
        raise InputError(
            f"the page has sent a message '{do}' that cannot be used: {error}"
        ) from None


def sendable(text: str) -> str:
    """The text in one line, without what cannot be sent to a page."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").splitlines())
