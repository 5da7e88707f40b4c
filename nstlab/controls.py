"""Widgets generated from settings: a control for each field, with its range, unit and help.

    controls = Controls(TransferSettings("coffee", "mosaic"))
    display(controls.box(["size", "pool"]))
    controls.settings()                      # what the controls now say, validated

A field that is new in the settings shows up by itself. What a control cannot know to be wrong, because it depends on other
fields, `settings()` refuses with InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as w

from nstlab.settings import CONVOLUTIONS, Option, RunSettings, kind, layer_name

LABEL_WIDTH = "9.5em"
WIDTH = "24em"


def _text_of(value: Any) -> str:
    """A value as users write it; nothing for None."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(_text_of, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _shape(wanted: type, many: bool, optional: bool, opt: Option, value: Any) -> tuple[type[w.Widget], dict[str, Any]]:
    """(kind of widget, its options) for a field."""
    if wanted is bool:
        return w.Checkbox, {"value": bool(value), "indent": True}
    if opt.parse is layer_name:
        several = {"value": tuple(value), "rows": 5} if many else {"value": value}
        known = dict.fromkeys((*CONVOLUTIONS, *(several["value"] if many else (value,))))  # also relu4_2, if it was chosen
        return (w.SelectMultiple if many else w.Dropdown), {"options": list(known), **several}
    if opt.choices and not opt.or_path:
        return w.Dropdown, {"options": list(opt.choices), "value": value}
    if opt.choices:
        return w.Combobox, {"options": list(opt.choices), "value": str(value), "ensure_option": False}
    if many or optional or wanted is str:
        return w.Text, {"value": _text_of(value), "placeholder": "none" if optional else ""}
    if wanted is int and opt.high is not None and opt.high - opt.low <= 100:
        return w.IntSlider, {"value": value, "min": opt.low, "max": opt.high}
    limits = {"min": opt.low if opt.low is not None else -1e18, "max": opt.high if opt.high is not None else 1e18}
    if wanted is int:
        return w.BoundedIntText, {"value": value, **limits}
    return w.BoundedFloatText, {"value": value, **limits}


def control(name: str, annotation: Any, opt: Option, value: Any) -> w.Widget:
    """The widget for one field, showing a value; its tooltip is the field's help with what is allowed."""
    wanted, many, optional = kind(annotation)
    cls, options = _shape(wanted, many, optional, opt, value)
    bounds = f" ({opt.allowed()})" if opt.low is not None or opt.choices else ""
    unit = f" ({opt.unit})" if opt.unit else ""
    if "continuous_update" in cls.class_trait_names():
        options["continuous_update"] = False  # a value that is being typed is none yet
    return cls(
        description=name.replace("_", " ") + unit, tooltip=opt.help + bounds,
        style={"description_width": LABEL_WIDTH}, layout={"width": WIDTH}, **options,
    )  # fmt: skip


class Controls:
    """The controls of all fields of a recipe's settings, by name, in `widgets`."""

    def __init__(self, settings: RunSettings):
        self._kept = settings
        self.widgets = {
            name: control(name, annotation, opt, getattr(settings, name)) for name, annotation, opt in settings.options()
        }

    def settings(self) -> RunSettings:
        """The settings that the controls show. Raises InputError for values that are not allowed, or not together."""
        changes = {}
        for name, annotation, _ in self._kept.options():
            (_, many, optional), widget, before = kind(annotation), self.widgets[name], getattr(self._kept, name)
            written, value = isinstance(widget, w.Text), widget.value
            if value == (_text_of(before) if written else before):
                continue
            if written and many:
                value = tuple(value.replace(",", " ").split())
            elif written and optional:
                value = value.strip() or None
            changes[name] = value
        return self._kept.replace(**changes)

    def show(self, settings: RunSettings) -> None:
        """Let the controls show other settings of the same recipe."""
        self._kept = settings
        for name, _, _ in settings.options():
            value, widget = getattr(settings, name), self.widgets[name]
            if isinstance(widget, w.SelectMultiple):
                widget.options = list(dict.fromkeys((*widget.options, *value)))
            widget.value = _text_of(value) if isinstance(widget, (w.Text, w.Combobox)) else value

    def observe(self, changed: Callable[[str], None]) -> None:
        """Call it with a field's name when its control is moved."""
        for name, widget in self.widgets.items():
            widget.observe(lambda _, name=name: changed(name), names="value")

    def box(self, names: Iterable[str] | None = None) -> w.VBox:
        """The controls, all or those named, one below the other."""
        return w.VBox([self.widgets[name] for name in names or self.widgets])
