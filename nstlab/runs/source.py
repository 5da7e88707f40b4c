"""Settings as the code that makes them: Python, and a command line."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from nstlab.recipes.base import RunSettings
from nstlab.settings import DEVICES


def said(settings: RunSettings) -> dict[str, Any]:
    """The fields that have to be said to get these settings; all others follow from them or are the defaults."""
    fields = {name: getattr(settings, name) for name, *_ in settings.options()}
    for name in list(fields):
        rest = {other: value for other, value in fields.items() if other != name}
        try:
            if type(settings).from_dict(rest) == settings:
                fields = rest
        except ValueError:  # it cannot be left out
            continue
    return fields


def python(settings: RunSettings, device: str = DEVICES[0]) -> str:
    """A script that carries out the run and shows its picture."""
    fields = "".join(f"    {name}={value!r},\n" for name, value in _required_first(settings).items())
    where = "" if device == DEVICES[0] else f", {device!r}"
    home, name = type(settings).__module__, type(settings).__name__
    ours = home.startswith("nstlab.")
    return (
        "import nstlab as nst\n"
        + ("" if ours else f"from {home} import {name}\n")
        + f"\nsettings = {'nst.' if ours else ''}{name}(\n{fields})\n"
        f"plan = nst.prepare(settings{where})\n"
        "for step in plan.steps():\n"
        "    print(step.index, step.loss)\n"
        'nst.save(step.best(), "picture.png")\n'
    )


def command(settings: RunSettings, device: str = DEVICES[0]) -> str:
    """The same run as a line for a shell."""
    words, required = [], _required(settings)
    for name, value in said(settings).items():
        if name not in required:
            words += _option("--" + name.replace("_", "-"), value, plain=name not in settings._conventional())
    words += [] if device == DEVICES[0] else ["--device", device]
    pictures = [str(getattr(settings, name)) for name in required]
    if any(picture.startswith("-") for picture in pictures):
        return shlex.join(["nstlab", settings.recipe, *words, "--", *pictures])
    return shlex.join(["nstlab", settings.recipe, *pictures, *words])


def _option(flag: str, value: Any, plain: bool) -> list[str]:
    """An option's words. plain: a bool is said by the flag alone."""
    if isinstance(value, bool) and plain:
        return [flag if value else flag.replace("--", "--no-")]
    values = [str(v) for v in (value if isinstance(value, tuple) else (value,))]
    return [f"{flag}={values[0]}"] if len(values) == 1 and values[0].startswith("-") else [flag, *values]


def _required(settings: RunSettings) -> list[str]:
    """The fields without a default, in order."""
    return [f.name for f in dataclasses.fields(settings) if f.default is dataclasses.MISSING]


def _required_first(settings: RunSettings) -> dict[str, Any]:
    fields, first = said(settings), _required(settings)
    return {name: fields[name] for name in first} | {name: v for name, v in fields.items() if name not in first}
