"""The regions of photo and painting, shown as colours over both, and made with a brush."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
import traitlets as t
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.live.pages import Messages, Page, buffer_count
from nstlab.live.viewer import jpeg
from nstlab.live.views import View
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.pictures.labels import PALETTE
from nstlab.pictures.labels import load as load_labels
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan

SIDE = 384  # px: long side of the pictures that one brushes on
ROLES = ("content", "style")  # whose regions they are
# Settings without regions.
NONE: dict[str, Any] = {"mask": None, "painting_mask": None, "regions": 1}

Labelled = tuple[str, Tensor, Tensor | None]  # name, picture, its label picture
Loader = Callable[[], list[Labelled]]
# What of settings concerns regions: {name: file} of photo and painting, their label pictures, and
# how many regions are to be found.
Concern = tuple[dict[str, str], tuple[str | None, str | None], int]
MESSAGES: Messages = {
    "look": {},
    "regions": {"buffers": buffer_count(2)},
    "no regions": {},
}  # that its page sends


class Brush(Page):
    """The page.

    It sends {"do": "look"} when it is first seen; {"do": "regions"} with two label pictures, of
    photo and painting, as PNG, that are to be used; and {"do": "no regions"}.
    """

    script = "brush.js"
    style = "brush.css"

    # Photo and painting: [{"name", "picture": JPEG, "labels": PNG, or nothing}].
    pictures = t.List().tag(sync=True)
    palette = t.List(list(PALETTE)).tag(sync=True)


class RegionsView(View):
    """The label pictures of the settings, or those that a run has found, over their pictures."""

    def __init__(self) -> None:
        super().__init__("mask", Brush())
        self._shown: Concern | None = None  # whose pictures are shown
        self._run = 0  # the number of the last run
        # The regions that it has found, and what they were found for.
        self._found: tuple[Concern, Loader] | None = None
        self._load: Loader | None = None  # what is to be shown when somebody looks
        self._is_seen = False
        # What is to be shown is changed by the page's thread and by the session's.
        self._changing = threading.Lock()

    def watch(self, moved: Callable[[], None]) -> None:
        """Do nothing: what the page sends goes to the studio, which keeps files."""

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        """Nothing: see `watch`."""
        return {}

    def show(self, settings: RunSettings) -> None:
        """Show the regions of these settings, if they are others than before."""
        concern = _concern(settings)
        if concern != self._shown:
            self._shown = concern
            last = self._found  # which the session's thread may replace
            if last is not None and last[0] == concern:
                self._offer(last[1])
            else:
                files, labels, _ = concern
                self._offer(partial(_read, files, labels))
        elif self._is_seen:
            self.look()  # again, if it has failed

    def show_found(self, plan: Plan, number: int) -> None:
        """Show the regions that a run has found; nothing if it has not looked for any.

        Args:
            plan: of the run.
            number: of the run; each is shown once.
        """
        if number == self._run:
            return
        self._run = number
        self._found = None
        if plan.settings.regions > 1:
            # Not the plan, whose memory the next run needs.
            masks = plan.inputs["mask"], plan.inputs["painting_mask"]
            load = partial(_load_found, plan.settings, plan.start.shape[-2:], masks)
            self._found = _concern(plan.settings), load
            self._offer(load)

    def forget(self) -> None:
        """Show the pictures anew next time, without what was painted over them."""
        self._shown = None

    def look(self) -> None:
        """Show what is to be shown, now and from now on, since somebody sees the page."""
        self._is_seen = True
        load = self._load
        if load is None:
            return
        with contextlib.suppress(InputError):  # why not is said when a run begins
            pictures = [
                {"name": name, "picture": jpeg(picture, SIDE), "labels": _png(labels, picture)}
                for name, picture, labels in load()
            ]
            with self._changing:
                if self._load is load:  # else another thread has offered newer ones
                    self._load = None
                    self.widget.pictures = pictures

    def _offer(self, load: Loader) -> None:
        with self._changing:
            self._load = load
        if self._is_seen:
            self.look()


def _concern(settings: RunSettings) -> Concern:
    files = {name: getattr(settings, name) for name in map(settings.field_of, ROLES)}
    return files, (settings.mask, settings.painting_mask), settings.regions


def _read(files: Mapping[str, str], labels: tuple[str | None, str | None]) -> list[Labelled]:
    """Photo and painting with their labels, from files."""
    pairs = zip(files.items(), labels, strict=True)
    return [
        (name, im.load(file, SIDE), None if label is None else load_labels(label))
        for (name, file), label in pairs
    ]


def _load_found(
    settings: RunSettings, shape: Sequence[int], masks: Sequence[Tensor]
) -> list[Labelled]:
    """Photo and painting with the regions that a run of shape (H, W) has found."""
    return [
        (settings.field_of(role), *_with_labels(settings.inputs[role], shape, labels))
        for role, labels in zip(ROLES, masks, strict=True)
    ]


def _with_labels(entry: Any, shape: Sequence[int], labels: Tensor) -> tuple[Tensor, Tensor]:
    """(a whole input picture, its labels), of labels for the part of it that a run has used."""
    picture = im.load(entry.source, SIDE)
    (top, left, height, width), _ = sizes.fit_geometry(
        picture.shape[-2:], shape, entry.fit, entry.scale
    )
    bottom = picture.shape[-2] - top - height
    right = picture.shape[-1] - left - width
    part = F.interpolate(labels, (height, width), mode="nearest")
    return picture, F.pad(part, (left, right, top, bottom), mode="replicate")


def _png(labels: Tensor | None, picture: Tensor) -> bytes:
    """Labels in the shape of their picture, as PNG, with no colours between theirs."""
    if labels is None:
        return b""
    buffer = io.BytesIO()
    im.to_pil(F.interpolate(labels, picture.shape[-2:], mode="nearest")).save(buffer, "PNG")
    return buffer.getvalue()
