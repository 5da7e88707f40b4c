"""What all pages have in common: how their scripts are put together, and what they may send."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget

from nstlab.base import files
from nstlab.base.settings import InputError

PAGE = Path(__file__).parent / "page"
IMPORT = re.compile(r'^import .+ from "\./(.+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=function|const|class)", re.MULTILINE)
LINE = {"type": "string", "maxLength": 1000}

Messages = Mapping[str, Mapping[str, dict[str, Any]]]  # {what to do: {field: its JSON Schema}}


def script(name: str) -> str:
    """A page's script, with the files that it imports in place of its imports.

    A widget's page is a single module: a browser could not find other files beside it.
    """
    text = _read(name)
    imported = [EXPORT.sub("", _read(file)) for file in IMPORT.findall(text)]
    return "".join([*imported, IMPORT.sub("", text)])


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


class Page(anywidget.AnyWidget):
    """A widget with a page of its own. Traits go one way, to the browser; messages come back.

    Its files are read whenever one is made: after a change, run the cell again.
    """

    SCRIPT: ClassVar[str]  # in the folder PAGE
    STYLE: ClassVar[str]

    @property
    def _esm(self) -> str:
        return script(self.SCRIPT)

    @property
    def _css(self) -> str:
        return _read(self.STYLE)

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore what the browser says of the traits."""

    def close(self) -> None:
        """Remove the widget, and its layout, which ipywidgets would keep."""
        self.layout.close()
        super().close()


def count(buffers: int) -> dict[str, Any]:
    """The schema of a message's `buffers`, of which there are so many."""
    return {"enum": [buffers]}


def check_message(content: Any, buffers: Sequence[Any], messages: Messages) -> None:
    """Raise InputError, in one line, unless a message is {"do": one of those that are known} with
    its fields; the number of its buffers counts as a field, `buffers`."""
    do = content.get("do") if isinstance(content, dict) else None
    if not isinstance(do, str) or do not in messages:
        raise InputError(
            f"the page has sent a message that is unknown here (known: {', '.join(messages)})"
        )
    try:
        files.check_json(content | {"buffers": len(buffers)}, files.object_with(**messages[do]))
    except ValueError as error:
        raise InputError(
            f"the page has sent a message '{do}' that cannot be used: {error}"
        ) from None


def sendable(text: str) -> str:
    """The text in one line, without what cannot be sent to a page."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").splitlines())
