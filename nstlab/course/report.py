"""Carry an experiment out, and show it: its sheet, its loss curves, its table of claims; and the gallery of them all.

Everything is read from stored runs. `results/sweeps/<id>-<budget>/` gets `sheet.png`, `loss.png`, `claims.md`.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from nstlab import figures, files
from nstlab import images as im
from nstlab.course.base import Base, Claim, Experiment, Seen, label_of, reach
from nstlab.course.experiments import EXPERIMENTS, feature_maps, low_to_high
from nstlab.course.settings import SweepSettings
from nstlab.method import weights
from nstlab.method.names import WEIGHTS
from nstlab.runs.sweep import Report, dask
from nstlab.settings import InputError

FIRST = ("transfers",)  # parts of the gallery before the experiments
WIDEST = 5  # pictures in a line of a sheet with one axis


def check(options: SweepSettings) -> int:
    """How many cases there are; InputError for what would be found out only after the runs."""
    if options.gallery is not None:
        files.check_place(options.gallery / "README.md")
    experiment, base = EXPERIMENTS[options.experiment], Base.of(options)
    if experiment.sweep is None:
        count, enough = 0, len(low_to_high(base)) > 1
    else:
        made = experiment.sweep(base)
        count = len(made.cases)
        enough = len({case.settings for case in made.cases}) == count and all(len(axis) > 1 for axis in made.axes.values())
    if not enough:
        last = reach(options.weights)[-1]
        raise InputError(f"{experiment.id}: the weights '{options.weights}' end at {last}, too early for what is compared")
    return count


def carry_out(options: SweepSettings, report: Report | None = None, executor: Executor | None = None) -> list[Seen]:
    """The experiment's finished runs, in the order of its cases; none if it needs none."""
    experiment = EXPERIMENTS[options.experiment]
    if experiment.sweep is None:
        return []
    sweep = experiment.sweep(Base.of(options))
    with contextlib.ExitStack() as stack:
        if options.dask is not None and executor is None:
            executor = stack.enter_context(dask(options.dask, options.device))
        return [Seen(done) for done in sweep.run(options.results, executor, options.device, report)]


def claims(options: SweepSettings, runs: Sequence[Seen]) -> list[Claim]:
    """What the runs say of the experiment's claims."""
    return EXPERIMENTS[options.experiment].claims(runs, Base.of(options))


def table(found: Sequence[Claim]) -> str:
    """Claims as Markdown."""
    lines = ["| claim | number | holds |", "|---|---|---|"]
    return "\n".join(lines + [f"| {c.text} | {c.number} | {'yes' if c.holds else '**no**'} |" for c in found])


# --- figures ----------------------------------------------------------------------------------------------------


def sheet(options: SweepSettings, runs: Sequence[Seen]) -> figures.Shown:
    """The experiment at a glance."""
    experiment, base = EXPERIMENTS[options.experiment], Base.of(options)
    title = f"{experiment.id}  {experiment.title}"
    if not runs:
        return figures.feature_maps(feature_maps(base), photo=im.load(base.photo, base.size), title=title)
    inputs = {name: getattr(runs[0], name) for name in runs[0].settings.roles()}
    rows, columns, grid = _grid(runs)
    return figures.contact_sheet(grid, rows, columns, title, inputs)


def _grid(runs: Sequence[Seen]) -> tuple[list[str], list[list[str]], list[list]]:
    """(labels of rows, labels of columns in each row, pictures): the last axis goes across, the others down; a single axis
    is broken into lines."""
    labels = [list(run.case.labels.items()) for run in runs]
    if len(labels[0]) == 1:
        lines = -(-len(runs) // WIDEST)
        across = -(-len(runs) // lines)
        parts = [runs[i : i + across] for i in range(0, len(runs), across)]
        columns = [[_short(*next(iter(run.case.labels.items()))) for run in part] for part in parts]
        return [""] * lines, columns, [[run.picture for run in part] for part in parts]
    rows: dict[str, list[Seen]] = {}
    for run, each in zip(runs, labels, strict=True):
        rows.setdefault(", ".join(_short(*pair) for pair in each[:-1]), []).append(run)
    columns = [[_short(*list(run.case.labels.items())[-1]) for run in part] for part in rows.values()]
    return list(rows), columns, [[run.picture for run in part] for part in rows.values()]


def _short(axis: str, text: str) -> str:
    """A label with its axis' name where the text alone would not say what it is."""
    with contextlib.suppress(ValueError):
        return f"{axis} {float(text):g}"
    return text


def curves(options: SweepSettings, runs: Sequence[Seen]) -> figures.Shown | None:
    """Losses by evaluations of all runs; None if there are none."""
    if not runs:
        return None
    experiment = EXPERIMENTS[options.experiment]
    terms = experiment.curves or ("loss",)
    histories = {label_of(run): run.history for run in runs}
    return figures.loss_curves(histories, terms, title=f"{experiment.id}  {experiment.title}")


# --- files ------------------------------------------------------------------------------------------------------


def write(options: SweepSettings, runs: Sequence[Seen], found: Sequence[Claim]) -> list[Path]:
    """Sheet, curves and claims beside the runs; and into the gallery, if one is named."""
    folder = files.folder(Path(options.results) / "sweeps" / f"{options.experiment}-{options.budget}")
    overview, losses = sheet(options, runs), curves(options, runs)
    written = [figures.save(overview, folder / "sheet.png")]
    if losses is not None:
        written.append(figures.save(losses, folder / "loss.png"))
    written.append(_text(folder / "claims.md", table(found) + "\n"))
    if options.gallery is not None:
        written += _hang(options, options.gallery, overview, losses, found, runs)
    return written


def _text(path: Path, text: str) -> Path:
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def command(options: SweepSettings) -> str:
    """What makes the experiment's part of the gallery again."""
    defaults = SweepSettings(experiment=options.experiment)
    words = ["nstlab", "sweep", options.experiment]
    for name, _, opt in SweepSettings.options():
        if opt.identity and getattr(options, name) != getattr(defaults, name):
            words += [f"--{name}", str(getattr(options, name))]
    return shlex.join([*words, "--gallery", "results/gallery"])


def _hang(
    options: SweepSettings,
    gallery: Path,
    overview: figures.Shown,
    losses: figures.Shown | None,
    found: Sequence[Claim],
    runs: Sequence[Seen],
) -> list[Path]:
    """The experiment's pictures and text in the gallery, and the gallery's README made anew from all that hang there.

    Of weights from a file only the claims are shown, below those of the usual ones."""
    if options.weights not in WEIGHTS:
        return hang(f"{options.experiment}-{Path(options.weights).stem}", _aside(options, found), gallery)
    experiment = EXPERIMENTS[options.experiment]
    pictures = [figures.save(overview, gallery / f"{experiment.id}.jpg", figures.LARGEST)]
    if losses is not None and experiment.curves:
        pictures.append(figures.save(losses, gallery / f"{experiment.id}-loss.jpg", figures.LARGEST))
    text = _part(options, experiment, pictures, found, runs)
    return [*pictures, *hang(experiment.id, text, gallery)]


def hang(name: str, text: str, gallery: Path) -> list[Path]:
    """A part of the gallery, in Markdown, and the gallery's page made anew. `name`: one of FIRST, or an experiment's id, which
    may be followed by a hyphen and more."""
    (gallery / "parts").mkdir(exist_ok=True)
    return [_text(gallery / "parts" / f"{name}.md", text), _text(gallery / "README.md", _readme(gallery))]


def _part(
    options: SweepSettings, experiment: Experiment, pictures: Sequence[Path], found: Sequence[Claim], runs: Sequence[Seen]
) -> str:
    """An experiment's part of the gallery."""
    shown = "\n".join(f"![{experiment.title}]({path.name})" for path in pictures)
    again = f"{_made(options, runs)}. Again: `{command(options)}`"
    return "\n\n".join([f"## {experiment.id}  {experiment.title}", experiment.question, shown, table(found), again]) + "\n"


def _made(options: SweepSettings, runs: Sequence[Seen]) -> str:
    """With what, and in what time."""
    base = Base.of(options)
    if not runs:
        return f"{base.photo}, {2 * base.size} px; weights: {weights.load(base.weights).source}"
    manifest, settings = runs[0].done.run.manifest, runs[0].settings
    pictures = [getattr(settings, name) for name in settings.roles()]
    seconds = sum(run.result["seconds"] for run in runs)
    device = manifest["environment"]["device"].partition(":")[0].upper()
    return (
        f"{', '.join(pictures)}, {base.size} px, {len(runs)} runs of {base.steps} steps (unless varied), "
        f"{seconds:.0f} s on a {device}; weights: {manifest['weights_source']}"
    )


def _aside(options: SweepSettings, found: Sequence[Claim]) -> str:
    """The claims with weights from a file."""
    base = Base.of(options)
    layers = f"content {' '.join(base.content)}, style {' '.join(base.style)}"
    return f"The same with the weights `{Path(options.weights).stem}` ({layers}, unless varied):\n\n{table(found)}\n"


def _readme(gallery: Path) -> str:
    """Head and parts, in order."""
    files = [
        path
        for name in (*FIRST, *EXPERIMENTS)
        for path in (gallery / "parts" / f"{name}.md", *sorted((gallery / "parts").glob(f"{name}-*.md")))
    ]
    return "\n".join([HEAD, *(path.read_text(encoding="utf-8") for path in files if path.is_file())])


HEAD = """# Gallery

The classic experiments, each with its claims and the numbers that confirm or refute them. Pictures, tables and this page are
made by the command below each; runs are kept in `results/`, so that a second time costs nothing. Thresholds are ours where the
sources give none. The [notebooks](../../notebooks/README.md) teach and vary them, with the same runs.
"""
