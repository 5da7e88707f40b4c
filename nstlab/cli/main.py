"""The command line, made from the settings classes: `nstlab transfer PHOTO PAINTING --size 256 …`.

Exit codes: 0 done, 2 bad input (one line on stderr says what is wrong and what is allowed), 130
interrupted. Each command imports only what it needs, so that `nstlab --help` answers at once.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nstlab.base import files
from nstlab.base.errors import InputError, printable
from nstlab.base.options import option, results_folder
from nstlab.base.settings import MAX_SIDE, MIN_SIDE, TILES, OutputSettings, is_whole_number
from nstlab.cli import console, program
from nstlab.cli.commands import COMMANDS
from nstlab.cli.program import Subcommand
from nstlab.pictures import outputs
from nstlab.recipes.base import RunSettings, known

DESCRIPTION = (
    "Neural style transfer (Gatys, Ecker, Bethge 2016): repaint a photo in the style of a painting."
)


def _tile(value: str) -> str:
    """One of TILES, or a side in pixels."""
    if is_whole_number(value) and MIN_SIDE <= int(value) <= MAX_SIDE:
        return value
    if value in TILES:
        return value
    side = f"the tiles' side, {MIN_SIDE} px or more"
    raise InputError(f"tile: '{value}' is not one of {', '.join(TILES)}, or {side}")


@dataclass(frozen=True, kw_only=True)
class JobSettings(OutputSettings):
    """Where and how a run is carried out. None of it changes the picture."""

    out: Path = option(Path("out.png"), "where the picture goes: .png, .jpg or .tif", output=True)
    results: Path = results_folder()
    resume: bool = option(
        True, "use the same run if it was kept, finished or not; --no-resume computes it anew"
    )
    tile: str = option(
        TILES[0],
        "compute features in tiles; auto: where memory is short; or the tiles' side",
        unit="px",
        choices=TILES,
        parse=_tile,
    )
    memory: float | None = option(
        None, "gigabytes that the run may take (default: what is free)", low=0.5
    )
    frames: int = option(
        0,
        "keep this many progress pictures, and an animated GIF beside the output",
        low=0,
        high=500,
    )

    @property
    def animation(self) -> Path:
        """Where the animation goes, if there is one."""
        return self.out.with_suffix(".gif")

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """The picture, and the animation."""
        return {"out": (self.out, self.animation) if self.frames else (self.out,)}


# --- recipes --------------------------------------------------------------------------------------


def recipe_command(settings: RunSettings, job: JobSettings) -> int:
    """Carry out one recipe, on several processes if torchrun has started them."""
    outputs.check_outputs(settings, job)
    if os.environ.get("WORLD_SIZE", "").strip() in ("", "1"):
        return _carry_out(settings, job)
    # PyTorch logs forty lines about a lost connection, which comes back as an exception, too.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read once, when PyTorch is loaded
    if os.environ.get("RANK", "").strip() not in ("", "0"):
        console.hush()  # the first rank tells the user what is to be told
    from nstlab.method.fast.ranks import Team

    with Team.join() as team:
        if not team.leads:
            return _serve(settings, job, team)
        code = _carry_out(settings, job, team)
        team.broadcast(do="end")
        return code


def _serve(settings: RunSettings, job: JobSettings, team: Any) -> int:
    """Evaluate tiles for the first rank, which tells the user all that is to be told."""
    from nstlab.method.fast.serving import serve

    try:
        plan = _prepare(settings, job, team)
        serve(plan.objective, plan.net, plan.start, plan.tiling)
    except Exception as error:
        team.fail(error)
        is_known = isinstance(error, (InputError, OSError)) or program.out_of_memory(error)
        if team.heartbeats.outlives_first() and is_known:
            return 2
        raise
    return 0


def _carry_out(settings: RunSettings, job: JobSettings, team: Any = None) -> int:
    """Carry out one recipe with a progress bar; a finished run that was kept is a cache hit."""
    from nstlab.recipes.capacity import memory_message
    from nstlab.runs.store import Store

    files.make_folder(job.results)  # before the outputs are tried, one of which may have its name
    _check_outputs(job)
    plan = _prepare(settings, job, team)
    store = Store(job.results)
    try:
        stored, is_cache_hit = _obtain(store, plan, job)
    except KeyboardInterrupt:
        best = store.partial(plan) / "best.png"
        if not best.is_file():
            raise
        _save_best(best, settings, job)
        raise KeyboardInterrupt(
            f"the best picture so far is {job.out}; to go on, run the same command again (--resume)"
        ) from None
    except Exception as error:
        if isinstance(error, InputError) or not program.out_of_memory(error):
            raise
        message = memory_message(plan, plan.memory_needed() // 2, measured=False)
        raise InputError(f"out of memory: {message}") from None
    seconds = stored.manifest["result"]["seconds"]
    outcome = f"found in {stored.folder}" if is_cache_hit else f"done in {seconds:.0f} s"
    _write_outputs(stored, settings, job, outcome)
    return 0


def _obtain(store: Any, plan: Any, job: JobSettings) -> tuple[Any, bool]:
    """(the stored run, whether it was found), with a progress bar."""
    from tqdm import tqdm

    with tqdm(total=plan.total, unit="step", dynamic_ncols=True, disable=None) as bar:
        return store.obtain(
            plan,
            lambda step: _show_step(bar, step),
            job.frames,
            job.resume,
            strict=True,
            deep=job.depth == 16,
        )


def _save_best(path: Path, settings: RunSettings, job: JobSettings) -> None:
    """Put the best picture of an interrupted run where the user wants the picture."""
    from nstlab.pictures import images as im

    im.save(im.reopen(path), job.out, settings.to_dict(), job.depth == 16)


def _prepare(settings: RunSettings, job: JobSettings, team: Any) -> Any:
    """The plan; say what it needs if it is a large one. team: the processes, if there are many."""
    from nstlab.recipes.capacity import MemoryBudget
    from nstlab.recipes.prepare import prepare

    budget = MemoryBudget(job.tile, job.memory)
    if team is not None:
        budget = replace(budget, team=team)
    plan = prepare(settings, job.device, budget)
    if plan.tiling is not None and (team is None or team.leads):
        size = f"{plan.shape[1]}×{plan.shape[0]}"
        memory = f"{plan.memory_needed() / 1e9:.2f} GB of memory"
        suffix = ", pictures on the host" if plan.on_host else ""
        console.say(f"{size} in tiles, with {memory} for the run{suffix}")
    return plan


def _check_outputs(job: JobSettings) -> None:
    """Raise InputError, before any work, if an output cannot be written."""
    from nstlab.pictures import images as im

    im.check_writable(job.out, deep=job.depth == 16)
    if job.frames:
        files.check_writable(job.animation)


def _show_step(bar: Any, step: Any) -> None:
    """Move the progress bar to a step, with its loss and terms."""
    bar.update(step.index - bar.n)
    terms = " ".join(f"{name} {value:.3g}" for name, value in step.terms.items())
    bar.set_postfix_str(printable(f"loss {step.loss:.4g}, {terms}"), refresh=False)
    if step.event:
        bar.write(f"nstlab: step {step.index}: {step.event}", file=sys.stderr)


def _write_outputs(stored: Any, settings: RunSettings, job: JobSettings, outcome: str) -> None:
    """Put the picture (and the animation) where the user wants them, and say so in one line."""
    from nstlab.method.steps import Status
    from nstlab.pictures import images as im

    deep = job.depth == 16
    try:
        picture = im.reopen(stored.deep_picture if deep else stored.picture)
    except InputError as error:
        raise InputError(f"{error}; --no-resume computes it anew") from None
    paths = str(job.out)
    if job.frames:  # first, because more can go wrong with it
        frames = itertools.chain(map(im.reopen, stored.some_frames(job.frames)), [picture])
        paths += f" and {im.save_gif(frames, picture.shape[-2:], job.animation)}"
    im.save(picture, job.out, settings.to_dict(), deep)
    result = stored.manifest["result"]
    status = "" if result["status"] == Status.FINISHED else f" ({result['status']})"
    console.tell(
        f"{paths}: {outcome}, {result['steps']} steps{status}, {result['evaluations']} "
        f"evaluations, loss {result['loss']:.4g}, events: {'; '.join(result['events']) or 'none'}"
    )


# --- the program ----------------------------------------------------------------------------------


def commands() -> dict[str, Subcommand]:
    """{name: subcommand}: one for each recipe, then the lab's own."""
    recipes = {
        name: Subcommand(recipe_command, (settings, JobSettings))
        for name, settings in known().items()
    }
    return recipes | COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, by default that of the process's words; return the exit code."""
    return program.run_program(commands, argv, "nstlab", DESCRIPTION)
