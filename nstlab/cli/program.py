"""A program made from settings classes: its options, its help, and how errors are told.

Exit codes: 0 done; 2 bad input (one line on stderr says what is wrong and what is allowed); 130 if
the command was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nstlab.base.errors import InputError
from nstlab.base.options import Option, field_type
from nstlab.base.settings import Settings
from nstlab.base.signals import Interrupts, stems_from
from nstlab.cli.console import LOG, lasting_streams, prepare_log, say

NEGATIVE = re.compile(r"-(\.?\d.*|nan|inf(inity)?)$", re.IGNORECASE)  # words that are no options


@dataclass(frozen=True)
class Subcommand:
    """One thing that a program does.

    Attributes:
        run: called with one object of each settings class, returns the exit code.
        settings: the classes; the first one's docstring is the command's help.
    """

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options ---------------------------------------------------------------------


class _Positional(str):
    """A word from behind "--": no option, whatever it looks like."""


class _Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and exit."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._negative_number_matcher = NEGATIVE  # argparse's own takes -1e3 for an option
        self.register("type", None, str)  # of a _Positional, too

    def _parse_optional(self, word: str) -> Any:
        return None if isinstance(word, _Positional) else super()._parse_optional(word)

    def error(self, message: str) -> NoReturn:
        """Raise InputError with the message, and where help is."""
        raise InputError(f"{message}; see {self.prog} --help")


def _parser(prog: str, command: Subcommand) -> _Parser:
    """The parser of one command's words: what is given, as text, which the settings check."""
    parser = _Parser(
        prog=prog,
        description=command.settings[0].__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for cls in command.settings:
        for field, (_, annotation, opt) in zip(dataclasses.fields(cls), cls.options(), strict=True):
            try:
                _add_option(parser, field, annotation, opt)
            except argparse.ArgumentError:
                raise InputError(
                    f"{prog}: two settings are called '{field.name}'; the recipe needs another "
                    "name for its own"
                ) from None
    return parser


def _add_option(parser: _Parser, field: dataclasses.Field, annotation: Any, opt: Option) -> None:
    """Add an option for a settings field, or a positional argument if the field has no default."""
    element, many, _ = field_type(annotation)
    default = field.default
    help = _help(opt, default)
    if default is dataclasses.MISSING:
        parser.add_argument(field.name, metavar=field.name.upper(), help=help)
        return
    if opt.positional:
        nargs = "*" if many else "?"
        parser.add_argument(field.name, metavar=field.name.upper(), nargs=nargs, help=help)
        return
    details: dict[str, Any] = {"dest": field.name, "help": help}
    if element is bool and default is not None:
        details |= {"action": argparse.BooleanOptionalAction}
    elif opt.pairs:
        details |= {"metavar": ("NAME", "VALUE"), "nargs": 2, "action": "extend"}
    else:
        metavar = _metavar(field.name, element, opt)
        details |= {"metavar": metavar, "nargs": "*" if many else None}
    name = "--" + field.name.rstrip("_").replace("_", "-")  # --from: from_
    parser.add_argument(*([opt.short, name] if opt.short else [name]), **details)


def _help(opt: Option, default: Any) -> str:
    """An option's help, with its bounds and its default."""
    help = opt.help
    if opt.low is not None:
        help += f" [{opt.allowed()}]"
    if default not in (dataclasses.MISSING, None, ()):
        help += f" (default: {default})"
    return help.replace("%", "%%")  # which argparse would fill in


def _metavar(name: str, element: type, opt: Option) -> str:
    """The placeholder of an option's value in the help."""
    if opt.choices:
        choices = "{" + ",".join(opt.choices) + "}"
        if opt.or_path:
            return f"{choices}|PATH"
        return f"{choices}|{opt.unit.upper()}" if opt.parse is not None and opt.unit else choices
    last_word = name.rpartition("_")[2].removesuffix("s").upper()
    return {bool: "{True,False}", int: "INT", float: "NUMBER", Path: "PATH"}.get(element, last_word)


def parse(
    commands: Mapping[str, Subcommand], argv: Sequence[str], prog: str, description: str = ""
) -> tuple[Subcommand, list[Settings]]:
    """Find the command that words ask for.

    Args:
        commands: by name; a program with a single command has no word for it.
        argv: the words.
        prog: name of the program, for its help.
        description: what it does.

    Returns:
        (the command, its settings).

    Raises:
        InputError: for words that cannot be understood.
        SystemExit: with 0, after --help.
    """
    if len(commands) == 1:
        (command,) = commands.values()
        words = list(argv)
    else:
        name = _command_name(commands, argv, prog, description)
        command = commands[name]
        prog = f"{prog} {name}"
        words = list(argv[1:])
    values = _values(_parser(prog, command), words)
    settings = [
        cls(**{name: values[name] for name, *_ in cls.options() if name in values})
        for cls in command.settings
    ]
    return command, settings


def _command_name(
    commands: Mapping[str, Subcommand], argv: Sequence[str], prog: str, description: str
) -> str:
    """The first word, which names a command; without any, print the help and exit."""
    parser = _Parser(prog=prog, description=description)
    names = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, command in commands.items():
        help = command.settings[0].__doc__.replace("%", "%%")
        names.add_parser(name, help=help, add_help=False)
    name = parser.parse_args(list(argv[:1]) or ["--help"]).command
    if name is None:  # after "--"
        parser.error("a command comes first")
    return name


def _values(parser: _Parser, words: list[str]) -> dict[str, Any]:
    """{field: its value, as text} of the fields that the words name.

    Options may stand between positional arguments; --style_layers is --style-layers.
    """
    end = words.index("--") if "--" in words else len(words)  # behind which nothing is an option
    options = [
        re.sub(r"^--\w+", lambda name: name[0].replace("_", "-"), word) for word in words[:end]
    ]
    # Argparse cannot have both "--" and options in between. In its place, a flag ends the values of
    # the option before it; nobody can type the flag, since underscores become hyphens.
    parser.add_argument("--_", action="store_true", help=argparse.SUPPRESS)
    if end < len(words):
        options += ["--_", *map(_Positional, words[end + 1 :])]
    values, unknown = parser.parse_known_intermixed_args(options)
    if unknown:
        parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
    return vars(values)


# --- running --------------------------------------------------------------------------------------


def run_program(
    commands: Callable[[], Mapping[str, Subcommand]],
    argv: Sequence[str] | None,
    prog: str,
    description: str = "",
) -> int:
    """Run the command that words ask for.

    What cannot be printed, as to a full disk, keeps no command from doing its work.

    Args:
        commands: makes them, once signals are handled, since to import what they need takes a
            while.
        argv: the words; None for the process's own.
        prog: name of the program, for its help.
        description: what it does.

    Returns:
        The exit code.
    """
    interrupts = Interrupts()
    words = sys.argv[1:] if argv is None else argv
    with lasting_streams() as stdout, interrupts.handle(whole_process=argv is None):
        code = _run(interrupts, commands, words, prog, description)
        stdout.flush()
        # A closed pipe is no error: whoever reads it (`head`, say) has seen enough.
        if code == 0 and stdout.error and not isinstance(stdout.error, BrokenPipeError):
            reason = getattr(stdout.error, "strerror", None) or stdout.error
            say(f"error: the output: {reason}")
            return 2
        return code


def _run(
    interrupts: Interrupts,
    commands: Callable[[], Mapping[str, Subcommand]],
    words: Sequence[str],
    prog: str,
    description: str,
) -> int:
    """Run a command, and say in one line why it ended if that was before its end."""
    try:
        prepare_log()
        command, settings = parse(commands(), words, prog, description)
        _check_environment()
        return command.run(*settings)
    except SystemExit as end:
        if end.code:
            raise
        return 0  # after --help
    except KeyboardInterrupt as interrupt:
        return _end(interrupts, *filter(None, interrupt.args))
    except Exception as error:
        if not interrupts.raised:
            say(f"error: {_known_failure(error)}")
            return 2
        if isinstance(error, InputError) and stems_from(error):  # a full disk, say
            return _end(interrupts, str(error))
        return _end(interrupts)  # of which a library has made another error


def _end(interrupts: Interrupts, *details: str) -> int:
    """Say that the command was interrupted; return the exit code. More signals are ignored."""
    interrupts.ignore_more()
    if logging.getLogger(LOG).isEnabledFor(logging.WARNING):
        say("; ".join(["interrupted", *details]))
    return 130


def _check_environment() -> None:
    """Raise InputError where a library would end the process, or say more than a line."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the current folder is gone ({error.strerror}); go to another") from None
    names = [name for name in os.environ if name.startswith("TQDM_")]
    if not names:
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from tqdm import tqdm  # which reads them now

            with tqdm(total=1, disable=False) as bar:
                bar.update()
    except Exception as error:  # whatever a bar of such a form can raise
        raise InputError(
            f"{', '.join(names)}: no progress bar can be shown like this ({error})"
        ) from None


def _known_failure(error: Exception) -> str:
    """What is wrong with the input or the machine; any other error is raised again."""
    if isinstance(error, (InputError, FloatingPointError)):
        return str(error)
    if out_of_memory(error):
        return "out of memory; a smaller --size needs less"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    raise error


def out_of_memory(error: Exception) -> bool:
    """Whether an error, by whatever library, says that memory ran out."""
    return isinstance(error, MemoryError) or bool(
        re.search(r"out of memory|can't allocate|not enough memory", str(error))
    )
