"""Controls for settings: one value, of which all widgets are views.

    settings = TransferSettings("coffee", "mosaic")
    controls = Controls(settings, changed=lambda names: print(names, controls.settings))
    display(*controls.widgets(["size", "pool"]))

`controls.settings` always holds settings that are allowed. A widget that is moved changes them, and
all widgets then show them. What is not allowed is refused, with the reason, and the widget shows
the old value again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets as w

from nstlab.base.errors import InputError
from nstlab.base.names import ANY_NETWORKS, PRECISIONS, WEIGHTS
from nstlab.base.settings import Settings
from nstlab.live.special import NEEDED, SPECIAL
from nstlab.live.views import View, field_view
from nstlab.networks.architectures import architecture
from nstlab.recipes.base import RunSettings


class Controls:
    """Settings, such as those of a recipe, and a view for each field.

    Args:
        settings: what is shown at first.
        menus: choices to offer for some fields, such as sample pictures.
        changed: called with the names of the fields that were changed.
        refused: called with the reason why a widget's new value is not allowed.

    Attributes:
        settings: what is shown now.
        views: by the fields' names; some fields share one.
        lock: held while settings change, since threads show some and widgets send others.
    """

    def __init__(
        self,
        settings: Settings,
        menus: Mapping[str, Sequence[str]] | None = None,
        changed: Callable[[Sequence[str]], None] = lambda names: None,
        refused: Callable[[InputError], None] = lambda error: None,
    ):
        self.settings = settings
        self.changed = changed
        self.refused = refused
        self.lock = threading.RLock()
        self._showing = False  # whether widgets move because settings are shown
        self.views: dict[str, View] = {}
        names = {name for name, *_ in settings.options()}
        for fields, make in SPECIAL.items():
            if names.issuperset(fields):
                self.views |= dict.fromkeys(fields, make())
        for name, annotation, opt in settings.options():
            if name not in self.views:
                self.views[name] = field_view(
                    name, annotation, opt, getattr(settings, name), (menus or {}).get(name, ())
                )
        for view in set(self.views.values()):
            view.watch(partial(self._take, view))
        self.show(settings)

    def change(self, **values: Any) -> None:
        """Change fields as a user does, so that `changed` is called.

        Args:
            values: new ones, by the fields' names.

        Raises:
            InputError: if one is not allowed; nothing has changed.
        """
        with self.lock:
            before = self.settings
            values = {name: before.validate(name, value) for name, value in values.items()}
            if isinstance(before, RunSettings):
                values = dependent_values(before, values) | values
            self.show(before.replace(**values))
            names = [
                name for name in self.views if getattr(before, name) != getattr(self.settings, name)
            ]
            if names:
                self.changed(names)

    def show(self, settings: Settings) -> None:
        """Show other settings of the same class. `changed` is not called."""
        with self.lock:
            self.settings, self._showing = settings, True
            try:
                for view in set(self.views.values()):
                    view.show(settings)
                for name, needed in NEEDED.items():
                    if name in self.views:
                        self.views[name].widget.layout.display = (
                            None if needed(settings) else "none"
                        )
            finally:
                self._showing = False

    def close_in(self, owner: w.Widget) -> None:
        """Close all that a widget contains, and the controls that it does not show."""
        controls = [view.widget for view in self.views.values()]
        for widget in parts_of(owner, *controls) - {owner}:
            widget.unobserve_all()
            widget.close()

    def widgets(self, names: Sequence[str]) -> list[w.Widget]:
        """The widgets of these fields, each once, the special ones first."""
        special = [name for fields in SPECIAL for name in fields if name in names]
        return list(dict.fromkeys(self.views[name].widget for name in (*special, *names)))

    def _take(self, view: View) -> None:
        """Take over what a view shows, since the user has moved its widget."""
        with self.lock:
            if self._showing:
                return
            try:
                self.change(**view.changes(self.settings))
            except InputError as error:
                self.show(self.settings)
                self.refused(error)


def dependent_values(settings: RunSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of other fields that must change together with these.

    Of other style layers, those that stay keep their weights, and new ones get the mean of all.
    Another number of paintings has no shares yet, and other regions no weights; regions are found
    or given, not both. Another network has weights of its own, and cannot always rescale its
    pooling or be computed in 16 bits.

    Args:
        settings: as they are.
        values: new ones, by the fields' names.
    """
    dependent: dict[str, Any] = {}
    if values.get("network", settings.network) != settings.network:
        if not architecture(values["network"]).blocks:
            dependent = {"rescale_pool": False, "precision": PRECISIONS[0]}
        if settings.weights not in ANY_NETWORKS:
            dependent["weights"] = WEIGHTS[0]
    if {"mask", "regions"} & values.keys():
        dependent["region_weights"] = ()
    if values.get("regions", 1) > 1:
        dependent |= {"mask": None, "painting_mask": None}
    if "more_paintings" in values and len(values["more_paintings"]) != len(settings.more_paintings):
        dependent |= {"mix": (), "mix_layers": ()}
    weights = getattr(settings, "style_weights", ())
    if weights and "style_layers" in values:
        by_layer = dict(zip(settings.style_layers, weights, strict=True))
        mean = sum(weights) / len(weights)
        dependent["style_weights"] = tuple(
            by_layer.get(layer, mean) for layer in values["style_layers"]
        )
    return dependent


def parts_of(*widgets: w.Widget) -> set[w.Widget]:
    """Widgets, all that they contain, and their layouts and styles."""
    parts = {widget for widget in widgets if isinstance(widget, w.Widget)}
    for widget in tuple(parts):
        parts |= parts_of(
            *getattr(widget, "children", ()),
            getattr(widget, "layout", None),
            getattr(widget, "style", None),
        )
    return parts
