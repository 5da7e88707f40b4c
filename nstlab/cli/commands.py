"""The lab's own commands: sweeps, runs, notebooks, models, films, weights, this machine.

Each function carries out one command and returns its exit code. It imports only what it needs, so
that help is there at once.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError, printable
from nstlab.base.names import DOWNLOADS, RAFT
from nstlab.base.options import option, results_folder
from nstlab.base.settings import Settings
from nstlab.cli import console
from nstlab.cli.program import Subcommand
from nstlab.course.settings import NotebooksSettings, SweepSettings
from nstlab.feedforward.settings import ApplySettings, ExportSettings, LearnSettings
from nstlab.networks.architectures import ARCHITECTURES, DEFAULT_NETWORK, known_network
from nstlab.pictures import outputs
from nstlab.video.settings import VideoSettings

RUN_ACTIONS = ("list", "show", "rm")
LISTED = ("id", "recipe", "size", "steps_done", "loss", "seconds", "created")  # of the list of runs


def network_option(default: str | None, help: str, more: tuple[str, ...] = ()) -> Any:
    """The field that names a network.

    Args:
        default: its value.
        help: what it is for.
        more: networks that are allowed beside the classifiers.
    """

    def parse(name: str) -> str:
        return name if name in more else known_network(name)

    return option(default, help, choices=(*ARCHITECTURES, *more), parse=parse)


@dataclass(frozen=True, kw_only=True)
class FetchSettings(Settings):
    """Download optional weights and check their hash. Nothing else ever downloads anything."""

    network: str = network_option(
        DEFAULT_NETWORK, f"whose weights; {RAFT} is for films with --flow raft", (RAFT,)
    )
    weights: str = option(
        DOWNLOADS[0], "imagenet: torchvision's; caffe: the original VGG19", choices=DOWNLOADS
    )


@dataclass(frozen=True)
class RunsSettings(Settings):
    """List the runs, films and learnings that are kept, show some of them, or remove some."""

    action: str = option(RUN_ACTIONS[0], "what to do", choices=RUN_ACTIONS, positional=True)
    ids: tuple[str, ...] = option(
        (), "what to show or remove; the first letters of an id are enough", positional=True
    )
    results: Path = results_folder()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action == "list" and self.ids:
            raise InputError(f"runs list: takes no ids; given: {' '.join(self.ids)}")
        if self.action != "list" and not self.ids:
            raise InputError(
                f"runs {self.action}: needs an id, or several; `nstlab runs` lists them"
            )


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Print versions, devices, weights and samples of this machine; or a network's layers."""

    network: str | None = network_option(None, "the network")


def sweep_command(settings: SweepSettings) -> int:
    """Carry out an experiment with a progress bar, write its sheet, print its claims."""
    outputs.check_outputs(settings)
    from tqdm import tqdm

    from nstlab.course import report
    from nstlab.course.claims import table
    from nstlab.course.experiment import carry_out

    if settings.gallery is not None:
        report.check_gallery(settings.gallery)  # before anything runs
    with tqdm(unit="run", dynamic_ncols=True, disable=None) as bar:

        def show(case: Any, step: Any, run: Any) -> None:
            if run is None:
                bar.set_postfix_str(printable(f"{case}: step {step.index}, loss {step.loss:.4g}"))
                return
            state = "found" if run.found else f"done in {run.result['seconds']:.0f} s"
            bar.write(printable(f"nstlab: {case}: {state}"), file=sys.stderr)
            bar.update()

        try:
            outcome = carry_out(settings, show)
        except KeyboardInterrupt:
            advice = "what is finished is kept; to go on, run the same command again"
            raise KeyboardInterrupt(advice) from None
    print(table(outcome.claims), end="\n\n")
    console.tell(", ".join(map(str, report.write(settings, outcome))))
    return 0


def runs_command(settings: RunsSettings) -> int:
    """List, show or remove runs."""
    from nstlab.runs import index

    if not os.path.isdir(settings.results):
        raise InputError(f"results: there is no folder {settings.results}")
    if settings.action == "rm":
        for folder in index.remove_runs(settings.ids, settings.results):
            console.tell(f"{folder}: removed")
    elif settings.action == "show":
        for row in [index.details(run_id, settings.results) for run_id in settings.ids]:
            width = max(map(len, row))
            for key, value in row.items():
                console.tell(f"{key:{width}}  {value}")
            print()
    else:
        _list_runs(settings.results)
    return 0


def _list_runs(results: Path) -> None:
    """Print tables of runs, and of films and learnings if there are any; and what is unfinished."""
    from nstlab.runs import index

    runs = [[row[name] for name in LISTED] for row in index.rows(results)]
    console.print_table([LISTED, *runs])
    others = index.other_rows(results)
    if others:
        print()
        console.print_table([list(others[0]), *(list(row.values()) for row in others)])
    for folder in index.unfinished(results):
        console.tell(f"{folder}: under way or interrupted")


def notebooks_command(settings: NotebooksSettings) -> int:
    """Run the notebooks, each with a progress bar, or list them."""
    outputs.check_outputs(settings)
    from nstlab.course import notebooks

    if settings.action == "list":
        print(*(path.stem for path in notebooks.select(settings.names)), sep="\n")
        return 0
    for executed, page, seconds in notebooks.execute(settings):
        console.tell(f"{executed}, {page}: done in {seconds:.0f} s")
    return 0


def learn_command(settings: LearnSettings) -> int:
    """Learn to paint, with a progress bar; say where the model and its pictures are."""
    from tqdm import tqdm

    from nstlab.feedforward.training import train

    began = time.monotonic()
    last = None
    with tqdm(total=settings.steps, unit="batch", dynamic_ncols=True, disable=None) as bar:

        def show(step: Any) -> None:
            nonlocal last
            last = step
            bar.update(step.index - bar.n)
            terms = " ".join(f"{name} {value:.3g}" for name, value in step.terms.items())
            bar.set_postfix_str(f"loss {step.loss:.3g}, {terms}", refresh=False)

        folder = train(settings, show)
    outcome = "was learnt already"
    if last is not None:
        outcome = f"learnt in {time.monotonic() - began:.0f} s, loss {last.loss:.3g}"
    console.tell(f"{settings.out}: {outcome}; curves and pictures are in {folder}")
    return 0


def video_command(settings: VideoSettings) -> int:
    """Paint a film, with a progress bar that shows the newest frame's file."""
    from tqdm import tqdm

    from nstlab.video.films import paint_film

    began = time.monotonic()
    painted = 0
    with tqdm(unit="frame", dynamic_ncols=True, disable=None) as bar:

        def show(frame: Any) -> None:
            nonlocal painted
            painted += not frame.was_kept
            bar.total = frame.count
            bar.update()
            bar.set_postfix_str(printable(f"{frame.path}"), refresh=False)

        try:
            film = paint_film(settings, show)
        except KeyboardInterrupt as interrupt:
            advice = "to go on, run the same command again"
            raise KeyboardInterrupt(*interrupt.args, advice) from None
    outcome = "painted already"
    if painted:
        outcome = f"painted now: {painted}, in {time.monotonic() - began:.0f} s"
    console.tell(
        f"{settings.out}: {float(film.end):.2f} s, frames: {len(film.times)}, {outcome}; they are "
        f"in {film.path}"
    )
    return 0


def apply_command(settings: ApplySettings) -> int:
    """Paint one photo, or all in a folder."""
    from nstlab.feedforward.applying import apply_model

    for out, shape, seconds in apply_model(settings):
        console.tell(f"{out}: {shape[1]}×{shape[0]}, painted in {seconds:.2f} s")
    return 0


def export_command(settings: ExportSettings) -> int:
    """Write a model as an ONNX file."""
    from nstlab.feedforward.export import export_onnx

    shapes = "photo (1, 3, H, W) and mix (1, paintings) in, picture (1, 3, H, W) out"
    console.tell(f"{export_onnx(settings)}: {shapes}")
    return 0


def fetch_command(settings: FetchSettings) -> int:
    """Download weights into torch's folder, with a progress bar."""
    from tqdm import tqdm

    from nstlab.networks import downloads, sources

    download = sources.download(settings.network, settings.weights)
    with tqdm(unit="B", unit_scale=True, desc=download.path.name, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        path = downloads.fetch(download, progress)
    options = {DEFAULT_NETWORK: f"--weights {settings.weights}", RAFT: "--flow raft"}
    use = options.get(settings.network, f"--network {settings.network}")
    console.tell(f"{path}: complete, its hash is right; use it with {use}")
    return 0


def info_command(settings: InfoSettings) -> int:
    """Print what there is on this machine, or what layers a network has."""
    from nstlab.cli import info

    if settings.network is None:
        info.print_machine()
    else:
        info.print_network(settings.network)
    return 0


COMMANDS = {
    "learn": Subcommand(learn_command, (LearnSettings,)),
    "apply": Subcommand(apply_command, (ApplySettings,)),
    "export": Subcommand(export_command, (ExportSettings,)),
    "video": Subcommand(video_command, (VideoSettings,)),
    "sweep": Subcommand(sweep_command, (SweepSettings,)),
    "runs": Subcommand(runs_command, (RunsSettings,)),
    "notebooks": Subcommand(notebooks_command, (NotebooksSettings,)),
    "fetch": Subcommand(fetch_command, (FetchSettings,)),
    "info": Subcommand(info_command, (InfoSettings,)),
}
