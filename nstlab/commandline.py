"""From settings classes to a program: its options, its help, and what happens when something goes wrong.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from nstlab.settings import InputError, Option, Settings, kind


@dataclass(frozen=True)
class Command:
    """What a command does, called with its settings, one of each class; it returns the exit code."""

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options -----------------------------------------------------------------------------------


def _metavar(name: str, wanted: type, opt: Option, positional: bool) -> str:
    if positional:
        return name.upper()
    if opt.choices:
        return "{" + ",".join(opt.choices) + "}" + ("|PATH" if opt.or_path else "")
    return {bool: "{True,False}", int: "INT", float: "NUMBER", Path: "PATH"}.get(
        wanted, name.rpartition("_")[2].removesuffix("s").upper()
    )


def _spec(name: str, classes: Sequence[type[Settings]]) -> type:
    """A dataclass for tyro with the fields of the settings classes. Values stay text; the settings check them."""
    required, rest = [], []
    for cls in classes:
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for field, annotation, opt in cls.options():
            (wanted, many, _), default = kind(annotation), defaults[field]
            missing = default is dataclasses.MISSING
            positional = missing or opt.positional
            plain = wanted is bool and default is not None
            hint = "" if missing or default in (None, ()) else f"(default: {default})"
            metavar = _metavar(field, wanted, opt, positional)
            arg = tyro.conf.arg(
                aliases=[opt.short] if opt.short else None,
                help=opt.help + (f" [{opt.allowed()}]" if opt.low is not None else ""),
                help_behavior_hint=hint,
                metavar="NAME VALUE" if opt.pairs else None if plain else f"{metavar} [{metavar} ...]" if many else metavar,
            )
            kept: Any = bool if plain else tuple[str, ...] if many else str
            if opt.pairs:
                kept, default = tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]], ()
            kept = tyro.conf.Positional[kept] if positional else kept if default is not None else kept | None
            if missing:
                required.append((field, Annotated[kept, arg]))
            else:
                text = tuple(map(str, default)) if many else str(default)
                rest.append((field, Annotated[kept, arg], default if plain or default is None else text))
    spec = dataclasses.make_dataclass(name, required + rest, frozen=True)
    spec.__doc__ = classes[0].__doc__
    return spec


def _one_line(text: str) -> str:
    """tyro's boxed error as one line: its title, and what stands there up to the next rule."""
    lines = [line.strip("╭╮╰╯│─ ") for line in text.splitlines()]
    parts = [list(part) for rule, part in itertools.groupby(lines, lambda line: not line.strip("-")) if not rule]
    (title, *body), *rest = parts or [[""]]
    said = " ".join(body or (rest[0] if rest else []))
    return re.sub(r"\s+", " ", said if said.startswith(title) else f"{title}: {said}").strip(": ")


def parse(
    commands: Mapping[str, Command] | Command, argv: Sequence[str], prog: str, about: str = ""
) -> tuple[Command, list[Settings]]:
    """(the command that is meant, its settings). Raises InputError for what cannot be understood, SystemExit(0) for --help."""
    alone = isinstance(commands, Command)
    known = {prog: commands} if alone else commands
    specs = {name: _spec(name, command.settings) for name, command in known.items()}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            if alone:
                found = tyro.cli(specs[prog], prog=prog, args=list(argv))
            else:
                args = list(argv) or ["--help"]
                found = tyro.extras.subcommand_cli_from_dict(specs, prog=prog, description=about, args=args)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(f"{_one_line(errors.getvalue())}; see {prog} --help") from None
    command = next(known[name] for name, spec in specs.items() if isinstance(found, spec))
    values = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    for field in [field for cls in command.settings for field, _, opt in cls.options() if opt.pairs]:
        values[field] = tuple(itertools.chain.from_iterable(values[field]))
    return command, [cls(**{field: values[field] for field, *_ in cls.options()}) for cls in command.settings]


# --- running ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(f"nstlab: {text}", file=sys.stderr)


def run(commands: Mapping[str, Command] | Command, argv: Sequence[str] | None, prog: str, about: str = "") -> int:
    """Run the command that the words ask for (by default the process' own); returns the exit code."""
    _prepare_streams()
    logging.basicConfig(format="nstlab: %(message)s")
    logging.getLogger("nstlab").setLevel(logging.INFO)
    try:
        command, made = parse(commands, sys.argv[1:] if argv is None else argv, prog, about)
        code = command.run(*made)
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        _forget(sys.stdout)
        return 0
    except Exception as error:
        if out_of_memory(error):
            say("error: out of memory; a smaller --size needs less")
        elif isinstance(error, OSError):  # a disk that is full or gone, say
            _forget(sys.stdout)
            say(f"error: {error.filename or 'the output'}: {error.strerror or error}")
        else:
            raise
        return 2


def out_of_memory(error: Exception) -> bool:
    """Whether that is what it says, whoever raised it."""
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|can't allocate|not enough memory", str(error)))


def _prepare_streams() -> None:
    """See to it that there are streams to write to, also where the shell has closed them or they lack some letters."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")  # a terminal without α can still show the rest


def _forget(stream: Any) -> None:
    """Let what is still to be written to a stream that fails go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
