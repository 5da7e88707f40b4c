"""What all pages have in common: how their scripts are bundled, and what they may send."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as t

from nstlab.base import jsonfiles
from nstlab.base.errors import InputError

FOLDER = Path(__file__).parent / "page"
LINE = {"type": "string", "maxLength": 1000}  # the JSON Schema of a name or an id
IMPORT = re.compile(r'^import .* from "\./(.+)";\n', re.MULTILINE)

Messages = Mapping[str, Mapping[str, dict[str, Any]]]  # {what to do: {field: its JSON Schema}}


def bundle(name: str) -> str:
    """A page's script and the modules that it imports, each once, as one module.

    Jupyter runs a widget's script from a blob, where relative imports lead nowhere.

    Args:
        name: a module of the folder `page`; its imports fill one line each.
    """
    modules: dict[str, str] = {}

    def add(name: str) -> None:
        text = (FOLDER / name).read_text(encoding="utf-8")
        for imported in IMPORT.findall(text):
            if imported not in modules:
                add(imported)
        modules[name] = IMPORT.sub("", text)

    add(name)
    *imported, page = modules.values()
    return "\n".join([re.sub("^export ", "", text, flags=re.M) for text in imported] + [page])


class Page(anywidget.AnyWidget):
    """A widget with a page of its own. Traits go one way, to the browser; messages come back.

    Its files are read when it is made, so that an author sees an edited page by making the widget
    again. (Given paths, anywidget would keep every widget alive.)

    Attributes:
        script, style: names of its files in the folder `page`.
    """

    script: ClassVar[str]
    style: ClassVar[str]
    _esm = t.Unicode().tag(sync=True)
    _css = t.Unicode().tag(sync=True)

    def __init__(self, **traits: Any):
        css = (FOLDER / self.style).read_text(encoding="utf-8")
        super().__init__(_esm=bundle(self.script), _css=css, **traits)

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Ignore what the browser says of the traits."""

    def close(self) -> None:
        """Remove the widget, and its layout, which ipywidgets would keep."""
        self.layout.close()
        super().close()


def buffer_count(count: int) -> dict[str, Any]:
    """The schema of a message's field `buffers`, which stands for how many it has."""
    return {"enum": [count]}


def check_message(content: Any, buffers: Sequence[Any], messages: Messages) -> None:
    """Check what a page has sent.

    Args:
        content: should be {"do": one of `messages`} and that message's fields.
        buffers: the binary parts; how many counts as a field, `buffers`.
        messages: all that this page may send.

    Raises:
        InputError: for anything else, in one line.
    """
    do = content.get("do") if isinstance(content, dict) else None
    if not isinstance(do, str) or do not in messages:
        raise InputError(
            f"the page has sent a message that is unknown here (known: {', '.join(messages)})"
        )
    try:
        jsonfiles.check(content | {"buffers": len(buffers)}, jsonfiles.object_with(**messages[do]))
    except ValueError as error:
        raise InputError(
            f"the page has sent a message '{do}' that cannot be used: {error}"
        ) from None


def single_line(text: str) -> str:
    """The text in one line, without what cannot be sent to a page."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").splitlines())
