"""What of a painting's features is its style, other than the Gram matrix: one file each, named as
users write it (`mmd_poly.py` is "mmd-poly"), with a class `Statistic` on `Style`. Imports nothing
heavy."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nstlab.method.terms import Style

GRAM = "gram"


def names() -> tuple[str, ...]:
    """All statistics, the paper's first."""
    return GRAM, *sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def kind(name: str) -> type[Style]:
    """The term of a statistic."""
    if name == GRAM:
        from nstlab.method.terms import Style

        return Style
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").Statistic
