"""The regions of photo and painting, shown as colours over both; they are made and changed with a
brush."""

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

from nstlab.base.settings import InputError
from nstlab.live.pages import Messages, Page, count, source
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


# What its page sends.
MESSAGES: Messages = {"look": {}, "regions": {"buffers": count(2)}, "no regions": {}}


class Brush(Page):
    """The page. It sends {"do": "look"} when it is first seen, {"do": "regions"} with the label
    pictures of photo and painting as PNG, which are to be used, and {"do": "no regions"}."""

    _esm = source("elements.js", "brush.js")
    _css = source("brush.css")

    # Photo and painting: [{"name", "picture": JPEG, "labels": PNG, or nothing}].
    pictures = t.List().tag(sync=True)
    palette = t.List(list(PALETTE)).tag(sync=True)


class RegionsView(View):
    """The label pictures of the settings, or those that a run has found, over photo and
    painting."""

    def __init__(self) -> None:
        super().__init__("mask", Brush())
        self._shown: Any = None  # the settings that concern it, of what is shown
        self._run = 0  # the number of the last run
        # What it has found, and for which such settings.
        self._found: tuple[Any, Loader] | None = None
        self._load: Loader | None = None  # what is to be shown when somebody looks
        self._seen = False
        # What is to be shown is changed by the page's thread and by the session's.
        self._changing = threading.Lock()

    def watch(self, moved: Callable[[], None]) -> None:
        """What the page sends goes to the studio, which keeps files."""

    def changes(self, settings: RunSettings) -> dict[str, Any]:
        return {}

    def show(self, settings: RunSettings) -> None:
        files, labels, _ = concern = _concern(settings)
        if concern != self._shown:
            self._shown, found = concern, self._found
            looked = found is not None and found[0] == concern
            self._offer(found[1] if looked else partial(_read, files, labels))
        elif self._seen:
            self.look()  # again, if it has failed

    def found(self, plan: Plan, number: int) -> None:
        """Show the regions that run `number` has found; nothing if it has not looked for any."""
        if number != self._run:
            self._run, self._found = number, None
            if plan.settings.regions > 1:
                # Not the plan, whose memory the next run needs.
                masks = plan.inputs["mask"], plan.inputs["painting_mask"]
                load = partial(_of_run, plan.settings, plan.start.shape[-2:], masks)
                self._found = _concern(plan.settings), load
                self._offer(load)

    def forget(self) -> None:
        """Show the pictures anew next time, since what was painted over them is not wanted."""
        self._shown = None

    def look(self) -> None:
        """Show what there is, and from now on what comes, since somebody sees the page."""
        self._seen, load = True, self._load
        if load is None:
            return
        with contextlib.suppress(InputError):  # why not is said when a run begins
            pictures = [
                {"name": name, "picture": jpeg(picture, SIDE), "labels": _png(labels, picture)}
                for name, picture, labels in load()
            ]
            with self._changing:
                if self._load is load:  # else another thread has offered newer ones
                    self._load, self.widget.pictures = None, pictures

    def _offer(self, load: Loader) -> None:
        with self._changing:
            self._load = load
        if self._seen:
            self.look()


def _concern(settings: RunSettings) -> tuple[dict[str, str], tuple[str | None, str | None], int]:
    """({name: file} of photo and painting, their label pictures, how many regions are to be
    found)."""
    files = {name: getattr(settings, name) for name in map(settings.field_of, ROLES)}
    return files, (settings.mask, settings.painting_mask), settings.regions


def _read(files: Mapping[str, str], labels: tuple[str | None, str | None]) -> list[Labelled]:
    """Photo and painting with their labels, from files."""
    pairs = zip(files.items(), labels, strict=True)
    return [
        (name, im.load(file, SIDE), None if label is None else load_labels(label))
        for (name, file), label in pairs
    ]


def _of_run(settings: RunSettings, shape: Sequence[int], masks: Sequence[Tensor]) -> list[Labelled]:
    """The same, of regions that a run of shape (H, W) has found; in the whole painting, of which it
    may have used a part."""
    made = []
    for role, labels in zip(ROLES, masks, strict=True):
        each = settings.inputs[role]
        picture = im.load(each.source, SIDE)
        (top, left, height, width), _ = sizes.fit_geometry(
            picture.shape[-2:], shape, each.fit, each.scale
        )
        part = F.interpolate(labels, (height, width), mode="nearest")
        down = picture.shape[-2] - top - height
        across = picture.shape[-1] - left - width
        made.append(
            (
                settings.field_of(role),
                picture,
                F.pad(part, (left, across, top, down), mode="replicate"),
            )
        )
    return made


def _png(labels: Tensor | None, picture: Tensor) -> bytes:
    """Labels in the shape of their picture, with their colours as they are."""
    if labels is None:
        return b""
    buffer = io.BytesIO()
    im.to_pil(F.interpolate(labels, picture.shape[-2:], mode="nearest")).save(buffer, "PNG")
    return buffer.getvalue()
