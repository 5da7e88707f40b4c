"""Settings as the code that makes them: a Python script, and a command for a shell."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from nstlab.base.settings import DEVICES
from nstlab.recipes.base import RunSettings


def needed_fields(settings: RunSettings) -> dict[str, Any]:
    """The fields, those without a default first, that must be given to get these settings.

    The others follow from them.
    """
    names = [*_required(settings), *(name for name, *_ in settings.options())]
    fields = {name: getattr(settings, name) for name in names}
    for name in names:
        rest = {other: value for other, value in fields.items() if other != name}
        try:
            if type(settings).from_dict(rest) == settings:
                fields = rest
        except ValueError:  # the field cannot be left out
            continue
    return fields


def python(settings: RunSettings, device: str = DEVICES[0]) -> str:
    """A script that carries out the run and saves its picture."""
    module = type(settings).__module__
    name = type(settings).__name__
    if module.startswith("nstlab."):
        imports = "import nstlab as nst\n"
        name = f"nst.{name}"
    else:
        imports = f"import nstlab as nst\nfrom {module} import {name}\n"
    fields = "".join(
        f"    {field}={value!r},\n" for field, value in needed_fields(settings).items()
    )
    where = "" if device == DEVICES[0] else f", {device!r}"
    return f"""{imports}
settings = {name}(
{fields})
plan = nst.prepare(settings{where})
for step in plan.steps():
    print(step.index, step.loss)
nst.save(step.best(), "picture.png")
"""


def command(settings: RunSettings, device: str = DEVICES[0]) -> str:
    """The same run as a command for a shell."""
    words = []
    fields = needed_fields(settings)
    pictures = [str(fields.pop(name)) for name in _required(settings)]
    for name, value in fields.items():
        words += _option(
            "--" + name.replace("_", "-"), value, is_flag=name not in settings._conventional()
        )
    if device != DEVICES[0]:
        words += ["--device", device]
    if any(picture.startswith("-") for picture in pictures):
        return shlex.join(["nstlab", settings.recipe, *words, "--", *pictures])
    return shlex.join(["nstlab", settings.recipe, *pictures, *words])


def _option(name: str, value: Any, is_flag: bool) -> list[str]:
    """An option and its values as words.

    A bool that `is_flag` has no value: --normalize or --no-normalize.
    """
    if isinstance(value, bool) and is_flag:
        return [name if value else name.replace("--", "--no-")]
    values = [str(item) for item in (value if isinstance(value, tuple) else (value,))]
    if len(values) == 1 and values[0].startswith("-"):
        return [f"{name}={values[0]}"]
    return [name, *values]


def _required(settings: RunSettings) -> list[str]:
    """The fields without a default."""
    return [f.name for f in dataclasses.fields(settings) if f.default is dataclasses.MISSING]
