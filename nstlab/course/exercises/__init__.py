"""The exercises' checks: each takes an answer and returns a hint, or "" for a right answer.

A check may need more than the answer, such as runs. No hint gives the answer away. Where a function
is asked for, it is tried on random values from a fixed seed. Every file here registers its own.
"""

from __future__ import annotations

import importlib
import pkgutil

from nstlab.course.checks import EXERCISES as EXERCISES
from nstlab.course.checks import check as check

for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(module.name)
