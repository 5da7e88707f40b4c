"""What an experiment leaves on disk: sheet, curves, claims, and its part of the gallery.

`results/sweeps/<id>-<budget>/` gets `sheet.png`, `loss.png` and `claims.md`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nstlab import figures
from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.names import WEIGHTS
from nstlab.course.claims import table
from nstlab.course.experiment import Outcome
from nstlab.course.settings import EXPERIMENT_IDS, SweepSettings
from nstlab.networks import weights

BEFORE = ("transfers", "poster", "paintings", "film")  # parts of the gallery before the experiments
GALLERY_BYTES = 300_000  # of a picture in the gallery, at most


def write(options: SweepSettings, outcome: Outcome) -> list[Path]:
    """Write sheet, curves and claims beside the runs; and into the gallery, if there is one.

    Args:
        options: which experiment, its parameters, and where the gallery is.
        outcome: what its cells left behind.

    Returns:
        The files.
    """
    folder = files.make_folder(options.folder)
    sheets = {"sheet": outcome.sheet}
    if outcome.curves is not None:
        sheets["loss"] = outcome.curves
    paths = [figures.save_figure(figure, folder / f"{name}.png") for name, figure in sheets.items()]
    paths.append(_write_text(folder / "claims.md", table(outcome.claims) + "\n"))
    if options.gallery is None:
        return paths
    if options.weights not in WEIGHTS:
        name = f"{options.experiment}-{Path(options.weights).stem}"
        return paths + hang(name, _aside(options, outcome), options.gallery)
    pictures = [
        figures.save_figure(figure, options.gallery_pictures[name], GALLERY_BYTES)
        for name, figure in sheets.items()
    ]
    part = _part(options, outcome, [options.gallery_pictures[name].name for name in sheets])
    return paths + pictures + hang(options.experiment, part, options.gallery)


def _write_text(path: Path, text: str) -> Path:
    with files.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


# --- the gallery ----------------------------------------------------------------------------------


def check_gallery(gallery: Path) -> None:
    """Raise InputError if the gallery's page cannot be written, or would replace another page."""
    page = files.check_writable(gallery / "README.md")
    if page.is_file():
        text = page.read_bytes()[: len(HEAD)].decode(errors="replace")
        if text.split()[:20] != HEAD.split()[:20]:
            raise InputError(
                f"gallery: {page} is not a gallery's page, and would be lost; choose another folder"
            )


def hang(name: str, text: str, gallery: Path) -> list[Path]:
    """Write a part of the gallery, and make the gallery's page anew from all its parts.

    Args:
        name: one of BEFORE, or an experiment's id, which a hyphen and more may follow.
        text: the part, in Markdown.
        gallery: its folder.

    Returns:
        The files.

    Raises:
        InputError: see `check_gallery`.
    """
    check_gallery(gallery)
    folder = files.make_folder(gallery / "parts")
    part = _write_text(folder / f"{name}.md", text)
    texts = [HEAD]
    for title in (*BEFORE, *EXPERIMENT_IDS):
        paths = [folder / f"{title}.md", *sorted(folder.glob(f"{title}-*.md"))]
        texts += [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    return [part, _write_text(gallery / "README.md", "\n".join(texts))]


def _part(options: SweepSettings, outcome: Outcome, pictures: Sequence[str]) -> str:
    """An experiment's part of the gallery."""
    answer = outcome.answer[0].upper() + outcome.answer[1:]
    paragraphs = [
        f"## {outcome.title}",
        f"{outcome.guess.question} {answer}.",
        "\n".join(f"![{outcome.title}]({name})" for name in pictures),
        table(outcome.claims),
        f"{_made_with(outcome)}. Again: `{_command(options)}`",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _aside(options: SweepSettings, outcome: Outcome) -> str:
    """The claims with weights from a file, which stand below those of the usual weights."""
    lesson = outcome.lesson
    name = Path(options.weights).stem
    layers = f"content {' '.join(lesson.content_layers)}, style {' '.join(lesson.style_layers)}"
    return (
        f"The same with the weights `{name}` ({layers}, unless "
        f"varied):\n\n{table(outcome.claims)}\n"
    )


def _made_with(outcome: Outcome) -> str:
    """The pictures, their size, the time they took, and the weights."""
    lesson = outcome.lesson
    runs = outcome.runs
    if not runs:
        source = weights.load(lesson.options.weights).source
        return f"{lesson.options.photo}, {2 * lesson.size} px; weights: {source}"
    manifest = runs[0].stored.manifest
    settings = runs[0].settings
    pictures = ", ".join(Path(getattr(settings, name)).stem for name in settings.roles())
    seconds = sum(run.result["seconds"] for run in runs)
    device = manifest["environment"]["device"].partition(":")[0].upper()
    return (
        f"{pictures}, {lesson.size} px, {len(runs)} runs of {lesson.steps} steps (unless varied), "
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

The classic experiments, each with its claims and the numbers that confirm or refute them.
Pictures, tables and this page are made by the command below each; runs are kept in `results/`, so
that a second time costs nothing. Thresholds are ours where the sources give none. The
[notebooks](../../notebooks/README.md) teach and vary them, with the same runs.
"""
