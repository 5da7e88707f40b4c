"""The command line, generated from the settings classes: `nstlab transfer PHOTO PAINTING --size 256 …`.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130 interrupted.
Only what a command needs is imported, so that `nstlab --help` answers at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstlab import commandline
from nstlab.commandline import Command
from nstlab.course.settings import NotebooksSettings, SweepSettings
from nstlab.method.names import DOWNLOADS
from nstlab.recipes.base import RunSettings, known
from nstlab.settings import DEVICES, RESULTS, InputError, Settings, option

RUN_ACTIONS = ("list", "show", "rm")


@dataclass(frozen=True, kw_only=True)
class JobSettings(Settings):
    """Where and how a run is carried out. None of it changes the picture."""

    out: Path = option(Path("out.png"), "where the picture goes: .png, .jpg or .tif")
    results: Path = option(Path(RESULTS), "folder in which runs are kept")
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    resume: bool = option(True, "take up the same run if it is kept there; --no-resume computes it anew")
    frames: int = option(0, "keep this many progress pictures, and an animated GIF beside the output", low=0, high=500)

    @property
    def animation(self) -> Path:
        """Where the progress pictures go as a GIF."""
        return self.out.with_suffix(".gif")


@dataclass(frozen=True, kw_only=True)
class FetchSettings(Settings):
    """Download what the lab can do without, checked by hash. Nothing else ever downloads anything."""

    weights: str = option(DOWNLOADS[0], "imagenet: torchvision's; caffe: the original ones", choices=DOWNLOADS)


@dataclass(frozen=True)
class RunsSettings(Settings):
    """List the runs that are kept; show some of them; remove some."""

    action: str = option(RUN_ACTIONS[0], "what to do", choices=RUN_ACTIONS, positional=True)
    ids: tuple[str, ...] = option((), "of runs, for show and rm; as much of them as is unique", positional=True)
    results: Path = option(Path(RESULTS), "folder in which runs are kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action == "list" and self.ids:
            raise InputError(f"runs list: takes no ids; given: {' '.join(self.ids)}")
        if self.action != "list" and not self.ids:
            raise InputError(f"runs {self.action}: needs an id or more; `nstlab runs` lists them")


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Print versions, devices, and the weights found on this machine."""


DESCRIPTION = "Neural style transfer (Gatys, Ecker, Bethge 2016): repaint a photo in the style of a painting."


# --- commands ---------------------------------------------------------------------------------------------------


def _finish(stored: Any, job: JobSettings, settings: RunSettings, how: str) -> None:
    """Put the picture (and the animation) where the user wants them, and say so in one line."""
    from nstlab import images as im
    from nstlab.method.engine import Status

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
    from tqdm import tqdm

    from nstlab import files
    from nstlab import images as im
    from nstlab.recipes import plan as recipes
    from nstlab.runs.store import Store

    im.check_writable(job.out)
    places = [job.out]
    if job.frames:
        places.append(files.check_place(job.animation))
    for place, (name, path) in itertools.product(places, settings.files.items()):
        if files.same(place, path):
            raise InputError(f"{place}: is the {name}, which would be lost; another --out is needed")
    plan, store = recipes.prepare_here(settings, job.device), Store(job.results)
    try:
        with tqdm(total=plan.total, unit="step", dynamic_ncols=True, disable=None) as bar:
            stored, found = store.insist(plan, lambda step: _tell(bar, step), job.resume, job.frames)
    except KeyboardInterrupt:
        best = store.partial(plan) / "best.png"
        if best.is_file():
            im.save(im.reopen(best), job.out, settings.to_dict())
            commandline.say(
                f"interrupted; the best picture so far is {job.out}; to go on, run the same command again (--resume)"
            )
        else:
            commandline.say("interrupted")
        return 130
    except Exception as error:
        if not commandline.out_of_memory(error):
            raise
        raise InputError("out of memory: " + plan.memory_message(plan.memory_needed() // 2, found=False)) from None
    how = f"found in {stored.folder}" if found else f"done in {stored.manifest['result']['seconds']:.0f} s"
    _finish(stored, job, settings, how)
    return 0


def _tell(bar: Any, step: Any) -> None:
    """Move the progress bar to a step, with its loss and terms."""
    bar.update(step.index - bar.n)
    terms = " ".join(f"{name} {value:.3g}" for name, value in step.terms.items())
    bar.set_postfix_str(f"loss {step.loss:.4g}, {terms}", refresh=False)
    if step.event:
        bar.write(f"nstlab: step {step.index}: {step.event}", file=sys.stderr)


def sweep(settings: SweepSettings) -> int:
    """Carry out an experiment with a progress bar, write its sheet, print its claims."""
    from tqdm import tqdm

    from nstlab.course import report
    from nstlab.course.experiments import experiment

    chosen = experiment(settings)
    with tqdm(total=len(chosen.cases), unit="run", dynamic_ncols=True, disable=None) as bar:

        def show(case: Any, step: Any, done: Any) -> None:
            if done is None:
                bar.set_postfix_str(f"{case}: step {step.index}, loss {step.loss:.4g}")
                return
            seconds = done.run.manifest["result"]["seconds"]
            bar.write(f"nstlab: {case}: {'found' if done.found else f'done in {seconds:.0f} s'}", file=sys.stderr)
            bar.update()

        try:
            runs = chosen.run(show)
        except KeyboardInterrupt:
            commandline.say("interrupted; what is finished is kept; to go on, run the same command again")
            return 130
    claims = list(chosen.claims(runs))
    print(report.table(claims), end="\n\n")
    print(*report.write(chosen, runs, claims), sep=", ")
    return 0


def runs(settings: RunsSettings) -> int:
    """List, show or remove runs."""
    from nstlab.runs import index

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
    from nstlab.course import notebooks as lessons

    if settings.action == "list":
        print(*lessons.available(), sep="\n")
        return 0
    for executed, page, seconds in lessons.execute(settings):
        print(f"{executed}, {page}: done in {seconds:.0f} s")
    return 0


def fetch(settings: FetchSettings) -> int:
    """Download weights into torch's folder, with a progress bar."""
    from tqdm import tqdm

    from nstlab import downloads
    from nstlab.method import weights

    download = weights.DOWNLOADS[settings.weights]
    with tqdm(unit="B", unit_scale=True, desc=settings.weights, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        path = downloads.fetch(download, progress)
    print(f"{path}: there, hash checked; use it with --weights {settings.weights}")
    return 0


def info(settings: InfoSettings) -> int:
    """Versions, devices, memory, weights and sample pictures on this machine."""
    import platform
    from importlib.metadata import version

    import torch

    from nstlab import images
    from nstlab.method import weights
    from nstlab.recipes import plan as recipes

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
    from nstlab.method import memory, weights
    from nstlab.method.fast.arithmetic import arithmetic_of
    from nstlab.method.network import VGG19
    from nstlab.recipes import plan as recipes

    nets = {"embedded": VGG19("embedded"), "VGG19": VGG19(weights.random_weights(0))}
    sides = [f"{recipes.largest_square(net.to(device), device)} px with {name}" for name, net in nets.items()]
    arithmetic = arithmetic_of(nets["embedded"]).name
    return f"{memory.available(device) / 1e9:.1f} GB free, {arithmetic}; room for a square of {', '.join(sides)}"


def commands() -> dict[str, Command]:
    """{name: command}: one for each recipe, and the lab's own."""
    return {
        **{name: Command(run_recipe, (settings, JobSettings)) for name, settings in known().items()},
        "sweep": Command(sweep, (SweepSettings,)),
        "runs": Command(runs, (RunsSettings,)),
        "notebooks": Command(notebooks, (NotebooksSettings,)),
        "fetch": Command(fetch, (FetchSettings,)),
        "info": Command(info, (InfoSettings,)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return commandline.run(commands(), argv, "nstlab", DESCRIPTION)
