"""Statistics of style other than the Gram matrix.

There is one file for each, named as users write it (`mmd_poly.py` is "mmd-poly"), with a class
`Statistic` on `Style`. Imports nothing heavy.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nstlab.method.terms import Style

GRAM = "gram"


def names() -> tuple[str, ...]:
    """The names of all statistics as users write them, the paper's first."""
    return GRAM, *sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def kind(name: str) -> type[Style]:
    """The class of a statistic's term.

    Args:
        name: one of `names()`.
    """
    if name == GRAM:
        from nstlab.method.terms import Style

        return Style
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").Statistic
