"""Notebooks that are run where nobody can use widgets: pictures take their place."""

from __future__ import annotations

import os
from typing import Any

from nstlab.base.settings import is_whole_number
from nstlab.figures.sheets import contact_sheet
from nstlab.recipes.base import RunSettings
from nstlab.recipes.prepare import prepare

# Environment variable: notebooks show pictures, which take so many steps, in place of widgets.
STATIC = "NSTLAB_STATIC"
STATIC_STEPS = 60  # its usual value


def static() -> int:
    """How many steps the pictures take that are shown in place of widgets; 0 to show widgets.

    The environment variable STATIC says so; anything but a whole number counts as 0.
    """
    value = os.environ.get(STATIC, "")
    return int(value) if is_whole_number(value) else 0


def still(settings: RunSettings, device: str) -> dict[str, Any]:
    """The studio where nobody can use it: its inputs, and the picture after its first steps.

    Returns:
        What Jupyter displays, by MIME type.
    """
    plan = prepare(settings.replace(steps=min(settings.steps, static())), device)
    result = plan.solve()
    pictures = {name: plan.inputs[role] for name, role in settings.roles().items()} | {
        "result": result.image
    }
    title = f"The studio is live in JupyterLab; here, what its first {result.steps} steps make"
    return {
        "image/png": contact_sheet([[*pictures.values()]], [""], [*pictures], title)._repr_png_(),
        "text/plain": title,
    }
