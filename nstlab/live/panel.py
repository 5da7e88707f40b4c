"""Where a studio's controls are placed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as w

from nstlab.base.errors import InputError, nearest
from nstlab.base.options import GROUPS, START
from nstlab.live.controls import Controls


def panel(
    controls: Controls,
    fields: Sequence[str] | None,
    buttons: w.Widget,
    more: Mapping[str, w.Widget] | None = None,
) -> w.Widget:
    """Place the controls.

    Args:
        controls: of the settings.
        fields: names of those to show, in one column; None for all, in tabs by group.
        buttons: what is placed below the first of them.
        more: other tabs, by their titles.

    Raises:
        InputError: for an unknown name.
    """
    if fields is None:
        widget = _tabs(controls, buttons, more or {})
    else:
        for name in fields:
            if name not in controls.views:
                raise InputError(
                    f"fields: there is no setting '{name}'{nearest(name, list(controls.views))}"
                )
        widget = w.VBox([*controls.widgets(fields), buttons])
    widget.add_class("nst-controls")
    return widget


def _tabs(controls: Controls, buttons: w.Widget, more: Mapping[str, w.Widget]) -> w.Tab:
    """All controls, a tab for each group of fields; pictures come first in theirs."""
    pictures = controls.settings.roles()
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name, _, opt in sorted(
        controls.settings.options(), key=lambda option: option[0] not in pictures
    ):
        groups[opt.group or GROUPS[-1]].append(name)
    start = w.HBox(controls.widgets(groups.pop(START)))
    start.add_class("nst-start")
    tabs = {group.capitalize(): controls.widgets(names) for group, names in groups.items() if names}
    next(iter(tabs.values())).extend([start, buttons])
    tabs |= {title: [widget] for title, widget in more.items()}
    return w.Tab([w.VBox(widgets) for widgets in tabs.values()], titles=tuple(tabs))


def restart_buttons(restart: Callable[[bool], None]) -> w.Widget:
    """Two buttons that begin a new run.

    Args:
        restart: called with whether it begins from the current picture.
    """
    first = w.Button(
        description="Restart", tooltip="Begin again from the first picture that is chosen here"
    )
    current = w.Button(
        description="Restart from current", tooltip="Begin again from the picture as it is"
    )
    first.on_click(lambda _: restart(False))
    current.on_click(lambda _: restart(True))
    for button in (first, current):
        button.layout.width = "auto"
    return w.HBox([first, current])
