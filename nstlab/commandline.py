"""A program made from settings classes: its options, its help, and what happens when something goes wrong.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130 interrupted.
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
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nstlab import files
from nstlab.settings import InputError, Option, Settings, field_type, printable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOG = "nstlab"  # the name of the lab's log
NEGATIVE = re.compile(r"-(\.?\d.*|nan|inf(inity)?)$", re.IGNORECASE)  # words that are no options


@dataclass(frozen=True)
class Subcommand:
    """One thing that a program does: a function of its settings, one object of each class, that returns the exit code."""

    run: Callable[..., int]
    settings: tuple[type[Settings], ...]


# --- from settings to options -----------------------------------------------------------------------------------


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
    dashed = [re.sub(r"^--\w+", lambda name: name[0].replace("_", "-"), each) for each in words[:end]]
    # argparse cannot have both "--" and options in between. In its place, a flag ends the values of
    # the option before it; nobody can type the flag, since underscores become hyphens.
    parser.add_argument("--_", action="store_true", help=argparse.SUPPRESS)
    behind = ["--_", *map(_Positional, words[end + 1 :])] if end < len(words) else []
    found, unknown = parser.parse_known_intermixed_args(dashed + behind)
    if unknown:
        parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
    return vars(found)


# --- running ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print one line for the user, on stderr."""
    print(f"nstlab: {printable(text)}", file=sys.stderr)


def tell(text: str) -> None:
    """Print one line of a command's results, on stdout."""
    print(printable(text))


def run_program(
    commands: Callable[[], Mapping[str, Subcommand]],
    argv: Sequence[str] | None,
    prog: str,
    about: str = "",
) -> int:
    """Run the command that the words (by default the process's own) ask for. Returns the exit code.

    commands: makes them, once signals are handled, since to import what they need takes a while.
    What cannot be printed, as to a full disk, keeps no command from doing its work."""
    interrupts, words = _Interrupts(), sys.argv[1:] if argv is None else argv
    with _lasting_streams() as stdout, interrupts.handled(whole_process=argv is None):
        code = _run(interrupts, commands, words, prog, about)
        stdout.flush()
        # a closed pipe is no error: whoever reads it (`head`, say) has seen enough
        if code == 0 and stdout.error and not isinstance(stdout.error, BrokenPipeError):
            reason = getattr(stdout.error, "strerror", None) or stdout.error
            say(f"error: the output: {reason}")
            return 2
        return code


def _run(
    interrupts: _Interrupts,
    commands: Callable[[], Mapping[str, Subcommand]],
    words: Sequence[str],
    prog: str,
    about: str,
) -> int:
    """Run a command, and say in one line why it ended if that was before its end."""
    try:
        _prepare_log()
        command, settings = parse(commands(), words, prog, about)
        _check_surroundings()
        files.check_outputs(*settings)
        return command.run(*settings)
    except SystemExit as end:
        if end.code:
            raise
        return 0  # after --help
    except KeyboardInterrupt as interrupt:
        return interrupts.end(*filter(None, interrupt.args))
    except Exception as error:
        if not interrupts.raised:
            say(f"error: {_known_failure(error)}")
            return 2
        if isinstance(error, InputError) and follows(error):  # a full disk, say
            return interrupts.end(str(error))
        return interrupts.end()  # of which a library has made another error


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
    """What is wrong with the input or the machine, such as a full disk; any other error is raised again."""
    if isinstance(error, (InputError, FloatingPointError)):
        return str(error)
    if out_of_memory(error):
        return "out of memory; a smaller --size needs less"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    raise error


def out_of_memory(error: Exception) -> bool:
    """Whether an error, by whatever library, says that memory ran out."""
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|can't allocate|not enough memory", str(error)))


# --- signals ----------------------------------------------------------------------------------------------------


class _Interrupts:
    """The handler of signals while a command runs. raised: whether it has interrupted the command."""

    raised = False

    def __call__(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt, unless one is being handled: to keep what has been done takes time."""
        if not follows(sys.exception()):
            self.raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def handled(self, whole_process: bool) -> Iterator[None]:
        """Let Ctrl-C, and SIGTERM, by which clusters end a job, interrupt the block.

        whole_process: whether only the process's end follows. After an interrupt, signals are then
        ignored for good, since Python would show a traceback of what it does at its end."""
        with handling(self, only_usual=True) as before:
            yield
            if whole_process and self.raised:
                before.clear()

    def end(self, *said: str) -> int:
        """Say that the command was interrupted; return the exit code. More signals are ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is self:
                signal.signal(number, signal.SIG_IGN)
        if logging.getLogger(LOG).isEnabledFor(logging.WARNING):
            say("; ".join(["interrupted", *said]))
        return 130


def follows(error: BaseException | None, kind: type[BaseException] = KeyboardInterrupt) -> bool:
    """Whether an error is of a kind, by default an interrupt, or was raised while one was handled."""
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def handling(handler: Any, only_usual: bool = False) -> Iterator[dict[int, Any]]:
    """Handle signals in the block; yields the handlers that are restored after it.

    only_usual: leave those that somebody else has changed. Only the main thread can handle any."""
    before: dict[int, Any] = {}
    for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
        earlier = signal.getsignal(number)
        usual = earlier in (signal.SIG_DFL, signal.default_int_handler) or isinstance(earlier, _Interrupts)
        if usual or not only_usual:
            before[number] = signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait for the end of the block: for libraries that an interrupt would confuse."""
    waiting: list[int] = []
    with handling(lambda number, frame: waiting.append(number)):
        yield
    for number in waiting[:1]:
        signal.raise_signal(number)


# --- streams ----------------------------------------------------------------------------------------------------


class _LastingStream:
    """A stream that never fails: what cannot be written is dropped. error: why, the first time.

    Control characters, which may come from names of files, are escaped, but for those `kept`."""

    def __init__(self, stream: Any, kept: str):
        self.stream, self.kept, self.error = stream, kept, None

    def write(self, text: str) -> int:
        """Write the text, and return its length."""
        self._try(self.stream.write, printable(text, self.kept))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[..., Any], *args: str) -> None:
        if self.error is not None:
            return
        try:
            action(*args)
        except (OSError, ValueError) as error:
            self.error = error
            with contextlib.suppress(OSError, ValueError, AttributeError):
                # what is still buffered goes nowhere; Python would try and fail again at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[_LastingStream]:
    """Make stdout, which is yielded, and stderr streams that never fail, in the block.

    The shell may have closed them, and they may lack some characters."""
    before = sys.stdout, sys.stderr
    usable = [open(os.devnull, "w", encoding="utf-8") if each is None else each for each in before]  # noqa: SIM115
    for stream in usable:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without α can still show the rest
    sys.stdout, sys.stderr = _LastingStream(usable[0], "\n"), _LastingStream(usable[1], "\n\r\t")
    stdout, stderr = sys.stdout, sys.stderr
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before


class _OneLine(logging.Formatter):
    """Shows a message in one line, whatever names of files are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _prepare_log() -> None:
    """Show warnings and notes of the lab on stderr, and no other package's."""
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter(LOG))
    handler.setFormatter(_OneLine("nstlab: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger(LOG).setLevel(logging.INFO)


def hush() -> None:
    """Let this process tell of errors only: another one tells the rest, also of an interrupt."""
    logging.getLogger(LOG).setLevel(logging.ERROR)


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in columns that line up, numbers with four digits."""
    lines = [[printable(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
