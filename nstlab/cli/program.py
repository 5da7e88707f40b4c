"""A program made from settings classes: its options, its help, and what happens when something goes
wrong.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130
interrupted.
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

from nstlab.base.settings import InputError, Option, Settings, field_type
from nstlab.base.signals import Interrupts, stems_from
from nstlab.cli.console import LOG, lasting_streams, prepare_log, say
from nstlab.pictures import outputs

NEGATIVE = re.compile(r"-(\.?\d.*|nan|inf(inity)?)$", re.IGNORECASE)  # words that are no options


@dataclass(frozen=True)
class Subcommand:
    """One thing that a program does: a function of its settings, one object of each class, that
    returns the exit code."""

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options ---------------------------------------------------------------------


class _Positional(str):
    """A word from behind "--": no option, whatever it looks like."""


class _Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and exit."""

    def __init__(self, **how: Any):
        super().__init__(**how)
        self._negative_number_matcher = NEGATIVE  # argparse's own takes -1e3 for an option
        self.register("type", None, str)  # of a _Positional, too

    def _parse_optional(self, word: str) -> Any:
        return None if isinstance(word, _Positional) else super()._parse_optional(word)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser(prog: str, command: Subcommand) -> _Parser:
    """The parser of one command's words. It holds only what is given, as text: the settings check
    it and know the defaults."""
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
                what = f"{prog}: two settings are called '{field.name}'"
                raise InputError(f"{what}; the recipe needs another name for its own") from None
    return parser


def _add_option(parser: _Parser, field: dataclasses.Field, annotation: Any, opt: Option) -> None:
    """Add an option for a settings field, or a positional argument if the field has no default."""
    (element, many, _), default = field_type(annotation), field.default
    help = opt.help + ("" if opt.low is None else f" [{opt.allowed()}]")
    if default not in (dataclasses.MISSING, None, ()):
        help += f" (default: {default})"
    help = help.replace("%", "%%")  # which argparse would fill in
    # --from: from_
    option_names = [
        name for name in (opt.short, "--" + field.name.rstrip("_").replace("_", "-")) if name
    ]
    if default is dataclasses.MISSING:
        parser.add_argument(field.name, metavar=field.name.upper(), help=help)
    elif opt.positional:
        parser.add_argument(
            field.name, metavar=field.name.upper(), nargs="*" if many else "?", help=help
        )
    elif element is bool and default is not None:
        parser.add_argument(
            *option_names, dest=field.name, action=argparse.BooleanOptionalAction, help=help
        )
    elif opt.pairs:
        parser.add_argument(
            *option_names,
            dest=field.name,
            metavar=("NAME", "VALUE"),
            nargs=2,
            action="extend",
            help=help,
        )
    else:
        metavar = _metavar(field.name, element, opt)
        parser.add_argument(
            *option_names, dest=field.name, metavar=metavar, nargs="*" if many else None, help=help
        )


def _metavar(name: str, element: type, opt: Option) -> str:
    """The placeholder of an option's value in the help."""
    if opt.choices:
        return "{" + ",".join(opt.choices) + "}" + ("|PATH" if opt.or_path else "")
    last_word = name.rpartition("_")[2].removesuffix("s").upper()
    return {bool: "{True,False}", int: "INT", float: "NUMBER", Path: "PATH"}.get(element, last_word)


def parse(
    commands: Mapping[str, Subcommand], argv: Sequence[str], prog: str, about: str = ""
) -> tuple[Subcommand, list[Settings]]:
    """(the command that the words ask for, its settings). A program with a single command has no
    word for it.

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
        command = commands[name]
        prog = f"{prog} {name}"
        words = words[1:]
    found = _found(_parser(prog, command), words)
    made = [
        cls(**{name: found[name] for name, *_ in cls.options() if name in found})
        for cls in command.settings
    ]
    return command, made


def _found(parser: _Parser, words: list[str]) -> dict[str, Any]:
    """The fields that the words give a value. Options may stand between positional arguments;
    --style_layers will do, too."""
    end = words.index("--") if "--" in words else len(words)  # behind which nothing is an option
    dashed = [
        re.sub(r"^--\w+", lambda name: name[0].replace("_", "-"), each) for each in words[:end]
    ]
    # Argparse cannot have both "--" and options in between. In its place, a flag ends the values of
    # the option before it; nobody can type the flag, since underscores become hyphens.
    parser.add_argument("--_", action="store_true", help=argparse.SUPPRESS)
    behind = ["--_", *map(_Positional, words[end + 1 :])] if end < len(words) else []
    found, unknown = parser.parse_known_intermixed_args(dashed + behind)
    if unknown:
        parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
    return vars(found)


# --- running --------------------------------------------------------------------------------------


def run_program(
    commands: Callable[[], Mapping[str, Subcommand]],
    argv: Sequence[str] | None,
    prog: str,
    about: str = "",
) -> int:
    """Run the command that the words (by default the process's own) ask for. Returns the exit code.

    commands: makes them, once signals are handled, since to import what they need takes a while.
    What cannot be printed, as to a full disk, keeps no command from doing its work."""
    interrupts = Interrupts()
    words = sys.argv[1:] if argv is None else argv
    with lasting_streams() as stdout, interrupts.installed(whole_process=argv is None):
        code = _run(interrupts, commands, words, prog, about)
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
    about: str,
) -> int:
    """Run a command, and say in one line why it ended if that was before its end."""
    try:
        prepare_log()
        command, settings = parse(commands(), words, prog, about)
        _check_surroundings()
        outputs.check_outputs(*settings)
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


def _end(interrupts: Interrupts, *said: str) -> int:
    """Say that the command was interrupted; return the exit code. More signals are ignored."""
    interrupts.ignore_more()
    if logging.getLogger(LOG).isEnabledFor(logging.WARNING):
        say("; ".join(["interrupted", *said]))
    return 130


def _check_surroundings() -> None:
    """Raise InputError where a library would end the process, or say more than a line."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the current folder is gone ({error.strerror}); go to another") from None
    if not (names := [name for name in os.environ if name.startswith("TQDM_")]):
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            from tqdm import tqdm  # which reads them now

            with tqdm(total=1, disable=False) as bar:
                bar.update()
    except Exception as error:  # whatever a bar of such a form can raise
        said = f"{', '.join(names)}: no progress bar can be shown like this ({error})"
        raise InputError(said) from None


def _known_failure(error: Exception) -> str:
    """What is wrong with the input or the machine, such as a full disk; any other error is raised
    again."""
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
