"""What a recipe's fields are made with: their groups, and those that several recipes have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from nstlab.base.options import GROUPS, option

DRAWN = ("noise", "white", "grey", "rings")  # first pictures that are made from nothing
FAST = "fast"  # a transfer's first picture, painted in one pass
# All first pictures, with those that are pictures of a recipe.
INITS = (*DRAWN, "content", "style", "matched", FAST)

# Makers of fields, one for each group of settings.
live_field, start_field, picture_field, region_field, network_field, optimizer_field = (
    partial(option, group=group) for group in GROUPS
)


def picture(role: str) -> Any:
    """Make the field for a picture that is read; `role` is its name in `inputs`."""
    return picture_field(help="a picture file, or the name of a sample", identity=False, role=role)


def first_picture(
    default: str | None, help: str = "first picture", own: Sequence[str] = ("content", "style")
) -> Any:
    """Make the field for the first picture of a run: one that is DRAWN, one of the recipe's `own`
    pictures, or a file."""
    return start_field(default, help, choices=(*DRAWN, *own), or_path=True, reserved=INITS)


def length(default: int | None, more: str = "") -> Any:
    """Make the field for the number of steps; `more` is added to its help."""
    help = f"optimizer steps at the full size, about one evaluation each{more}"
    return optimizer_field(default, help, low=0, high=1_000_000)


def content_weight() -> Any:
    """Make the field for α."""
    help = "content weight α (default: the convention's)"
    return live_field(None, help, low=0, high=1e12, log=True)


def style_weight() -> Any:
    """Make the field for β."""
    help = "style weight β (default: the convention's)"
    return live_field(None, help, low=0, high=1e15, log=True)
