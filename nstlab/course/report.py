"""What an experiment leaves on disk: its sheet, its curves and its claims beside the runs, and its part of the gallery.

`results/sweeps/<id>-<budget>/` gets `sheet.png`, `loss.png` and `claims.md`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nstlab import figures, files
from nstlab.course.base import Runs
from nstlab.course.experiment import Claim, Experiment
from nstlab.course.experiments import EXPERIMENTS
from nstlab.course.settings import SweepSettings
from nstlab.method import weights
from nstlab.method.names import WEIGHTS

BEFORE = ("transfers",)  # parts of the gallery before the experiments
GALLERY_BYTES = 300_000  # of a picture in the gallery, at most


def table(claims: Sequence[Claim]) -> str:
    """Claims as a Markdown table."""
    lines = ["| claim | number | holds |", "|---|---|---|"]
    return "\n".join(lines + [f"| {c.text} | {c.number} | {'yes' if c.holds else '**no**'} |" for c in claims])


def write(experiment: Experiment, runs: Runs, claims: Sequence[Claim]) -> list[Path]:
    """Sheet, curves and claims beside the runs; and in the gallery, if the options name one. Returns what was written."""
    options = experiment.options
    folder = files.folder(Path(options.results) / "sweeps" / f"{options.experiment}-{options.budget}")
    sheet, curves = experiment.sheet(runs), experiment.curves(runs)
    written = [figures.save_figure(sheet, folder / "sheet.png")]
    if curves is not None:
        written.append(figures.save_figure(curves, folder / "loss.png"))
    written.append(_write_text(folder / "claims.md", table(claims) + "\n"))
    if options.gallery is None:
        return written
    if options.weights not in WEIGHTS:
        return written + hang(f"{experiment.id}-{Path(options.weights).stem}", _aside(experiment, claims), options.gallery)
    pictures = {f"{experiment.id}.jpg": sheet}
    if curves is not None and experiment.terms:
        pictures[f"{experiment.id}-loss.jpg"] = curves
    for name, picture in pictures.items():
        written.append(figures.save_figure(picture, options.gallery / name, GALLERY_BYTES))
    return written + hang(experiment.id, _part(experiment, list(pictures), claims, runs), options.gallery)


def _write_text(path: Path, text: str) -> Path:
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


# --- the gallery ------------------------------------------------------------------------------------------------


def hang(name: str, text: str, gallery: Path) -> list[Path]:
    """Write a part of the gallery, in Markdown, and make the gallery's page anew from all its parts.

    name: one of BEFORE, or an experiment's id, which a hyphen and more may follow."""
    (gallery / "parts").mkdir(exist_ok=True)
    part = _write_text(gallery / "parts" / f"{name}.md", text)
    parts = []
    for name in (*BEFORE, *EXPERIMENTS):
        parts += [gallery / "parts" / f"{name}.md", *sorted((gallery / "parts").glob(f"{name}-*.md"))]
    page = "\n".join([HEAD, *(path.read_text(encoding="utf-8") for path in parts if path.is_file())])
    return [part, _write_text(gallery / "README.md", page)]


def _part(experiment: Experiment, pictures: Sequence[str], claims: Sequence[Claim], runs: Runs) -> str:
    """An experiment's part of the gallery."""
    shown = "\n".join(f"![{experiment.title}]({name})" for name in pictures)
    again = f"{_made_with(experiment, runs)}. Again: `{_command(experiment.options)}`"
    heading = f"## {experiment.id}  {experiment.title}"
    return "\n\n".join([heading, experiment.question, shown, table(claims), again]) + "\n"


def _aside(experiment: Experiment, claims: Sequence[Claim]) -> str:
    """The claims with weights from a file, which stand below those of the usual weights."""
    base, name = experiment.base, Path(experiment.options.weights).stem
    layers = f"content {' '.join(base.content)}, style {' '.join(base.style)}"
    return f"The same with the weights `{name}` ({layers}, unless varied):\n\n{table(claims)}\n"


def _made_with(experiment: Experiment, runs: Runs) -> str:
    """The pictures, their size, the time they took, and the weights."""
    base = experiment.base
    if not runs:
        return f"{base.photo}, {2 * base.size} px; weights: {weights.load(base.weights).source}"
    manifest, settings = runs[0].stored.manifest, runs[0].settings
    pictures = ", ".join(getattr(settings, name) for name in settings.roles())
    seconds = sum(run.result["seconds"] for run in runs)
    device = manifest["environment"]["device"].partition(":")[0].upper()
    return (
        f"{pictures}, {base.size} px, {len(runs)} runs of {base.steps} steps (unless varied), "
        f"{seconds:.0f} s on a {device}; weights: {manifest['weights_source']}"
    )


def _command(options: SweepSettings) -> str:
    """The command that makes an experiment's part of the gallery again."""
    defaults = SweepSettings(experiment=options.experiment)
    words = ["nstlab", "sweep", options.experiment]
    for name, _, opt in SweepSettings.options():
        if opt.identity and getattr(options, name) != getattr(defaults, name):
            words += [f"--{name}", str(getattr(options, name))]
    return shlex.join([*words, "--gallery", "results/gallery"])


HEAD = """# Gallery

The classic experiments, each with its claims and the numbers that confirm or refute them. Pictures, tables and this page are
made by the command below each; runs are kept in `results/`, so that a second time costs nothing. Thresholds are ours where the
sources give none. The [notebooks](../../notebooks/README.md) teach and vary them, with the same runs.
"""
