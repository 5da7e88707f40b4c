"""The command line, generated from the settings classes: `nstlab transfer PHOTO PAINTING --size 256 …`.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130 interrupted.
Only what a command needs is imported, so that `nstlab --help` answers at once.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from nstlab.settings import (
    DEVICES,
    RECIPES,
    BenchSettings,
    FetchSettings,
    InfoSettings,
    InputError,
    JobSettings,
    NotebooksSettings,
    Option,
    RunSettings,
    RunsSettings,
    Settings,
    SweepSettings,
    TrainSettings,
    kind,
)

COMMANDS: dict[str, tuple[type[Settings], ...]] = {
    **{name: (settings, JobSettings) for name, settings in RECIPES.items()},
    "sweep": (SweepSettings,),
    "runs": (RunsSettings,),
    "notebooks": (NotebooksSettings,),
    "fetch": (FetchSettings,),
    "info": (InfoSettings,),
    "train-embedded": (TrainSettings,),
    "bench": (BenchSettings,),
}
DESCRIPTION = "Neural style transfer (Gatys, Ecker, Bethge 2016): repaint a photo in the style of a painting."


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


def parse(argv: Sequence[str]) -> tuple[str, list[Settings]]:
    """(command, its settings). Raises InputError for what cannot be understood, SystemExit(0) for --help."""
    specs = {name: _spec(name, classes) for name, classes in COMMANDS.items()}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            found = tyro.extras.subcommand_cli_from_dict(
                specs, prog="nstlab", description=DESCRIPTION, args=list(argv) or ["--help"]
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(f"{_one_line(errors.getvalue())}; see nstlab --help") from None
    name = next(name for name, spec in specs.items() if isinstance(found, spec))
    values = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    for field in [field for cls in COMMANDS[name] for field, _, opt in cls.options() if opt.pairs]:
        values[field] = tuple(itertools.chain.from_iterable(values[field]))
    return name, [cls(**{field: values[field] for field, *_ in cls.options()}) for cls in COMMANDS[name]]


# --- commands ---------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"nstlab: {text}", file=sys.stderr)


def _finish(stored: Any, job: JobSettings, settings: RunSettings, how: str) -> None:
    """Put the picture (and the animation) where the user wants them, and say so in one line."""
    from nstlab import images as im
    from nstlab.engine import Status

    picture, result, places = im.reopen(stored.picture), stored.manifest["result"], [str(job.out)]
    if job.frames:  # first, since more can be wrong with it
        frames = itertools.chain(map(im.reopen, stored.some_frames(job.frames)), [picture])
        places.append(str(im.save_gif(frames, picture.shape[-2:], job.animation)))
    im.save(picture, job.out, settings.to_dict())
    events = "; ".join(result["events"]) or "none"
    why = "" if result["status"] == Status.FINISHED else f" ({result['status']})"
    print(
        f"{' and '.join(places)}: {how}, {result['steps']} steps{why}, {result['evaluations']} evaluations, "
        f"loss {result['loss']:.4g}, events: {events}"
    )


def run_recipe(settings: RunSettings, job: JobSettings) -> int:
    """Carry out one recipe with a progress bar; a run that is kept already is not computed again."""
    from nstlab import files, recipes
    from nstlab import images as im
    from nstlab.store import Store

    im.check_writable(job.out)
    places = [job.out]
    if job.frames:
        places.append(files.check_place(job.animation))
    for place, (name, path) in itertools.product(places, settings.files.items()):
        if files.same(place, path):
            raise InputError(f"{place}: is the {name}, which would be lost; another --out is needed")
    plan, store = recipes.prepare_here(settings, job.device), Store(job.results)
    stored = store.find(plan, job.frames) if job.resume else None
    if stored is not None:
        _finish(stored, job, settings, f"found in {stored.folder}")
        return 0
    plan.check_memory()
    try:
        stored = _drain(store.run(plan, job.resume, job.frames), plan)
    except KeyboardInterrupt:
        best = store.partial(plan) / "best.png"
        if best.is_file():
            im.save(im.reopen(best), job.out, settings.to_dict())
            _say(f"interrupted; the best picture so far is {job.out}; to go on, run the same command again (--resume)")
        else:
            _say("interrupted")
        return 130
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise InputError("out of memory: " + plan.memory_message(plan.memory_needed() // 2, found=False)) from None
    _finish(stored, job, settings, f"done in {stored.manifest['result']['seconds']:.0f} s")
    return 0


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|can't allocate|not enough memory", str(error)))


def _drain(steps: Any, plan: Any) -> Any:
    """Show the steps as a progress bar with loss and terms; return what the generator returns."""
    from tqdm import tqdm

    with contextlib.closing(steps), tqdm(total=plan.total, unit="step", dynamic_ncols=True, disable=None) as bar:
        try:
            while True:
                step = next(steps)
                bar.update(step.index - bar.n)
                terms = " ".join(f"{name} {value:.3g}" for name, value in step.terms.items())
                bar.set_postfix_str(f"loss {step.loss:.4g}, {terms}", refresh=False)
                if step.event:
                    bar.write(f"nstlab: step {step.index}: {step.event}", file=sys.stderr)
        except StopIteration as end:
            return end.value


def sweep(settings: SweepSettings) -> int:
    """Carry out an experiment with a progress bar, write its sheet, print its claims."""
    from tqdm import tqdm

    from nstlab.experiments import report

    with tqdm(total=report.check(settings), unit="run", dynamic_ncols=True, disable=None) as bar:

        def show(case: Any, step: Any, done: Any) -> None:
            if done is None:
                bar.set_postfix_str(f"{case}: step {step.index}, loss {step.loss:.4g}")
                return
            seconds = done.run.manifest["result"]["seconds"]
            bar.write(f"nstlab: {case}: {'found' if done.found else f'done in {seconds:.0f} s'}", file=sys.stderr)
            bar.update()

        try:
            runs = report.carry_out(settings, show)
        except KeyboardInterrupt:
            _say("interrupted; what is finished is kept; to go on, run the same command again")
            return 130
    claims = report.claims(settings, runs)
    print(report.table(claims), end="\n\n")
    print(*report.write(settings, runs, claims), sep=", ")
    return 0


def runs(settings: RunsSettings) -> int:
    """List, show or remove runs."""
    from nstlab import index

    if not os.path.isdir(settings.results):
        raise InputError(f"results: there is no folder {settings.results}")
    if settings.action == "rm":
        for folder in index.remove(settings.ids, settings.results):
            print(f"{folder}: removed")
    elif settings.action == "show":
        for row in [index.row(index.find(each, settings.results)) for each in settings.ids]:
            width = max(map(len, row))
            print("\n".join(f"{key:{width}}  {value}" for key, value in row.items()), end="\n\n")
    else:
        columns = ("id", "recipe", "size", "steps_done", "loss", "seconds", "created")
        found = [
            [f"{v:.4g}" if isinstance(v := row[c], float) else str(v) for c in columns] for row in index.rows(settings.results)
        ]
        widths = [max(map(len, column)) for column in zip(columns, *found, strict=True)]
        for line in (columns, *found):
            print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
        for folder in index.unfinished(settings.results):
            print(f"{folder}: under way or interrupted")
    return 0


def notebooks(settings: NotebooksSettings) -> int:
    """Run the notebooks with a progress bar each, or list them."""
    from nstlab.lessons import notebooks as lessons

    if settings.action == "list":
        print(*lessons.known(), sep="\n")
        return 0
    for executed, page, seconds in lessons.run(settings):
        print(f"{executed}, {page}: done in {seconds:.0f} s")
    return 0


def fetch(settings: FetchSettings) -> int:
    """Download weights into torch's folder, with a progress bar."""
    from tqdm import tqdm

    from nstlab import weights

    download = weights.DOWNLOADS[settings.weights]
    with tqdm(unit="B", unit_scale=True, desc=settings.weights, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        path = weights.fetch(download, progress)
    print(f"{path}: there, hash checked; use it with --weights {settings.weights}")
    return 0


def train_embedded(settings: TrainSettings) -> int:
    """Train the embedded network with a progress bar for each stage, and judge it."""
    from nstlab.embedded import training

    with contextlib.ExitStack() as bars:
        path = training.make(settings, _Stages(bars))
    print(f"{path}: done ({path.stat().st_size / 1e6:.1f} MB); use it with --weights {path}")
    return 0


class _Stages:
    """A progress bar for each stage of a training."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack, self.bars = stack, {}

    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None:
        from tqdm import tqdm

        if stage not in self.bars:
            bar = tqdm(total=total, desc=stage, unit="step", dynamic_ncols=True, disable=None)
            self.bars[stage] = self.stack.enter_context(bar)
        bar = self.bars[stage]
        bar.update(done - bar.n)
        kinds: dict[str, list[float]] = {}
        for name, value in values.items():
            kinds.setdefault(name.split()[0], []).append(value)
        bar.set_postfix_str(" ".join(f"{name} {sum(v) / len(v):.3g}" for name, v in kinds.items()), refresh=False)


def bench(settings: BenchSettings) -> int:
    """Print the table of measurements."""
    from nstlab.bench import report

    report.run(settings)
    return 0


def info(settings: InfoSettings) -> int:
    """Versions, devices, memory, weights and sample pictures on this machine."""
    import platform
    from importlib.metadata import version

    import torch

    from nstlab import images, recipes, weights

    print("nstlab", version("nstlab"), "- python", platform.python_version(), "- torch", torch.__version__)
    for name in DEVICES[1:]:
        with contextlib.suppress(InputError):
            print(f"device   {name}: {_room(recipes.device(name))}")
    for name, download in weights.DOWNLOADS.items():
        found = (
            download.path if download.path.is_file() else f"not here; nstlab fetch --weights {name} ({download.megabytes} MB)"
        )
        print(f"weights  {name}: {found}")
    embedded = weights.load("embedded")
    print(f"weights  embedded: {embedded.metadata.get('title', '')}; the ImageNet VGG19 remains the reference")
    print("samples ", ", ".join(images.samples()))
    return 0


def _room(device: Any) -> str:
    """What a device computes in, and the largest pictures that fit there."""
    from nstlab import memory, recipes, weights
    from nstlab.network import VGG19

    nets = {"embedded": VGG19("embedded"), "VGG19": VGG19(weights.random_weights(0))}
    sides = [f"{recipes.largest_square(net.to(device), device)} px with {name}" for name, net in nets.items()]
    arithmetic = nets["embedded"].arithmetic.name
    return f"{memory.available(device) / 1e9:.1f} GB free, {arithmetic}; room for a square of {', '.join(sides)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _prepare_streams()
    logging.basicConfig(format="nstlab: %(message)s")
    logging.getLogger("nstlab").setLevel(logging.INFO)
    commands = dict.fromkeys(RECIPES, run_recipe) | {
        "sweep": sweep,
        "runs": runs,
        "notebooks": notebooks,
        "fetch": fetch,
        "info": info,
        "train-embedded": train_embedded,
        "bench": bench,
    }
    try:
        name, made = parse(sys.argv[1:] if argv is None else argv)
        code = commands[name](*made)
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        _forget(sys.stdout)
        return 0
    except Exception as error:
        if _out_of_memory(error):
            _say("error: out of memory; a smaller --size needs less")
        elif isinstance(error, OSError):  # a disk that is full or gone, say
            _forget(sys.stdout)
            _say(f"error: {error.filename or 'the output'}: {error.strerror or error}")
        else:
            raise
        return 2


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
