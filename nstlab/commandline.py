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

from nstlab.settings import InputError, Option, Settings, field_type


@dataclass(frozen=True)
class Subcommand:
    """One thing that a program does: a function of its settings, one object of each class, that returns the exit code."""

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options -----------------------------------------------------------------------------------


def _metavar(name: str, element: type, many: bool, opt: Option, positional: bool) -> str:
    """The placeholder of a value in the help."""
    if opt.pairs:
        return "NAME VALUE"
    if positional:
        one = name.upper()
    elif opt.choices:
        one = "{" + ",".join(opt.choices) + "}" + ("|PATH" if opt.or_path else "")
    else:
        last_word = name.rpartition("_")[2].removesuffix("s").upper()
        one = {bool: "{True,False}", int: "INT", float: "NUMBER", Path: "PATH"}.get(element, last_word)
    return f"{one} [{one} ...]" if many else one


def _option(field: dataclasses.Field, annotation: Any, opt: Option) -> tuple[str, Any, Any]:
    """(name, type, default) of a settings field as tyro shall see it: as text, which the settings themselves check."""
    (element, many, _), default = field_type(annotation), field.default
    required = default is dataclasses.MISSING
    positional = required or opt.positional
    flag = element is bool and default is not None
    arg = tyro.conf.arg(
        aliases=[opt.short] if opt.short else None,
        help=opt.help + ("" if opt.low is None else f" [{opt.allowed()}]"),
        help_behavior_hint="" if required or default in (None, ()) else f"(default: {default})",
        metavar=None if flag else _metavar(field.name, element, many, opt, positional),
    )
    kept: Any = bool if flag else str
    if opt.pairs:
        kept, default = tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]], ()
    elif many:
        kept, default = tuple[str, ...], tuple(map(str, default))
    elif default is None:
        kept = str | None
    elif not (flag or required):
        default = str(default)
    if positional:
        kept = tyro.conf.Positional[kept]
    return field.name, Annotated[kept, arg], dataclasses.field(default=default)


def _spec(name: str, classes: Sequence[type[Settings]]) -> type:
    """The dataclass that tyro shall fill for a command: the fields of all its settings classes."""
    options = [
        _option(field, annotation, opt)
        for cls in classes
        for field, (_, annotation, opt) in zip(dataclasses.fields(cls), cls.options(), strict=True)
    ]
    spec = dataclasses.make_dataclass(name, options, kw_only=True)
    spec.__doc__ = classes[0].__doc__
    return spec


def _one_line(box: str) -> str:
    """The first sentence of an error that tyro puts in a box, as one line: what stands above the first rule inside."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    return " ".join(" ".join(itertools.takewhile(lambda line: not line.startswith(("─", "╰")), lines)).split())


def parse(
    commands: Mapping[str, Subcommand], argv: Sequence[str], prog: str, about: str = ""
) -> tuple[Subcommand, list[Settings]]:
    """(the command that the words ask for, its settings). A program with a single command has no word for it.

    Raises InputError for words that cannot be understood, and SystemExit(0) after --help."""
    specs = {name: _spec(name, command.settings) for name, command in commands.items()}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            if len(specs) == 1:
                found = tyro.cli(*specs.values(), prog=prog, args=list(argv))
            else:
                args = list(argv) or ["--help"]
                found = tyro.extras.subcommand_cli_from_dict(specs, prog=prog, description=about, args=args)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(f"{_one_line(errors.getvalue())}; see {prog} --help") from None
    command = commands[type(found).__name__]
    made = []
    for cls in command.settings:
        values = {name: getattr(found, name) for name, *_ in cls.options()}
        values |= {name: tuple(itertools.chain(*values[name])) for name, _, opt in cls.options() if opt.pairs}
        made.append(cls(**values))
    return command, made


# --- running ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print one line for the user, on stderr."""
    print(f"nstlab: {text}", file=sys.stderr)


def run_program(commands: Mapping[str, Subcommand], argv: Sequence[str] | None, prog: str, about: str = "") -> int:
    """Run the command that the words (by default the process's own) ask for. Returns the exit code."""
    _prepare_streams()
    logging.basicConfig(format="nstlab: %(message)s")
    logging.getLogger("nstlab").setLevel(logging.INFO)
    try:
        command, settings = parse(commands, sys.argv[1:] if argv is None else argv, prog, about)
        code = command.run(*settings)
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        say(f"error: {error}")
    except KeyboardInterrupt as interrupt:
        say("; ".join(["interrupted", *interrupt.args]))
        return 130
    except BrokenPipeError:  # whoever reads our output (`head`, say) has seen enough
        _discard_output()
        return 0
    except Exception as error:
        if out_of_memory(error):
            say("error: out of memory; a smaller --size needs less")
        elif isinstance(error, OSError):  # the disk is full or gone, say
            _discard_output()
            say(f"error: {error.filename or 'the output'}: {error.strerror or error}")
        else:
            raise
    return 2


def out_of_memory(error: Exception) -> bool:
    """Whether an error, by whatever library, says that memory ran out."""
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|can't allocate|not enough memory", str(error)))


def _prepare_streams() -> None:
    """Make stdout and stderr usable even if the shell has closed them, or if they cannot show some characters."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")  # a terminal without α can still show the rest


def _discard_output() -> None:
    """Send what is still buffered for stdout, which fails, nowhere: Python would try again, and fail again, at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
