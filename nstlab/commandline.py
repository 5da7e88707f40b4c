"""A program made from settings classes: its options, its help, and what happens when something goes wrong.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nstlab.settings import InputError, Option, Settings, field_type


@dataclass(frozen=True)
class Subcommand:
    """One thing that a program does: a function of its settings, one object of each class, that returns the exit code."""

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser(prog: str, command: Subcommand) -> _Parser:
    """The parser of one command's words. It holds only what is given, as text: the settings check it and know the defaults."""
    parser = _Parser(prog=prog, description=command.settings[0].__doc__, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for cls in command.settings:
        for field, (_, annotation, opt) in zip(dataclasses.fields(cls), cls.options(), strict=True):
            _add_option(parser, field, annotation, opt)
    return parser


def _add_option(parser: _Parser, field: dataclasses.Field, annotation: Any, opt: Option) -> None:
    """Add an option for a settings field, or a positional argument if the field has no default."""
    (element, many, _), default = field_type(annotation), field.default
    help = opt.help + ("" if opt.low is None else f" [{opt.allowed()}]")
    if default not in (dataclasses.MISSING, None, ()):
        help += f" (default: {default})"
    help = help.replace("%", "%%")  # which argparse would fill in
    option_names = [name for name in (opt.short, "--" + field.name.rstrip("_").replace("_", "-")) if name]  # --from: from_
    if default is dataclasses.MISSING:
        parser.add_argument(field.name, metavar=field.name.upper(), help=help)
    elif opt.positional:
        parser.add_argument(field.name, metavar=field.name.upper(), nargs="*" if many else "?", help=help)
    elif element is bool and default is not None:
        parser.add_argument(*option_names, dest=field.name, action=argparse.BooleanOptionalAction, help=help)
    elif opt.pairs:
        parser.add_argument(*option_names, dest=field.name, metavar=("NAME", "VALUE"), nargs=2, action="extend", help=help)
    else:
        metavar = _metavar(field.name, element, opt)
        parser.add_argument(*option_names, dest=field.name, metavar=metavar, nargs="*" if many else None, help=help)


def _metavar(name: str, element: type, opt: Option) -> str:
    """The placeholder of an option's value in the help."""
    if opt.choices:
        return "{" + ",".join(opt.choices) + "}" + ("|PATH" if opt.or_path else "")
    last_word = name.rpartition("_")[2].removesuffix("s").upper()
    return {bool: "{True,False}", int: "INT", float: "NUMBER", Path: "PATH"}.get(element, last_word)


def parse(
    commands: Mapping[str, Subcommand], argv: Sequence[str], prog: str, about: str = ""
) -> tuple[Subcommand, list[Settings]]:
    """(the command that the words ask for, its settings). A program with a single command has no word for it.

    Raises InputError for words that cannot be understood, and SystemExit(0) after --help."""
    words = list(argv)
    if len(commands) == 1:
        (command,) = commands.values()
    else:
        top = _Parser(prog=prog, description=about)
        names = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
        for name, each in commands.items():
            names.add_parser(name, help=each.settings[0].__doc__.replace("%", "%%"), add_help=False)
        name = top.parse_args(words[:1] or ["--help"]).command
        if name is None:  # after "--"
            top.error("a command comes first")
        command, prog, words = commands[name], f"{prog} {name}", words[1:]
    found = _found(_parser(prog, command), words)
    made = [cls(**{name: found[name] for name, *_ in cls.options() if name in found}) for cls in command.settings]
    return command, made


def _found(parser: _Parser, words: list[str]) -> dict[str, Any]:
    """The fields that the words give a value. Options may stand between positional arguments; --style_layers will do, too."""
    end = words.index("--") if "--" in words else len(words)  # behind which nothing is an option
    words[:end] = [re.sub(r"^--\w+", lambda option: option[0].replace("_", "-"), word) for word in words[:end]]
    parse = parser.parse_intermixed_args if end == len(words) else parser.parse_args  # the former does not know "--"
    return vars(parse(words))


# --- running ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print one line for the user, on stderr."""
    print(f"nstlab: {text}", file=sys.stderr)


def run_program(commands: Mapping[str, Subcommand], argv: Sequence[str] | None, prog: str, about: str = "") -> int:
    """Run the command that the words (by default the process's own) ask for. Returns the exit code."""
    _prepare_streams()
    logging.basicConfig(format="nstlab: %(message)s")
    logging.getLogger("nstlab").setLevel(logging.INFO)
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)
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


def _terminated(number: int, frame: Any) -> NoReturn:
    """End as after Ctrl-C, with what has been done so far kept: clusters end a job in this way. Only once: that takes time."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


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


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in columns that line up, numbers with four digits."""
    lines = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
