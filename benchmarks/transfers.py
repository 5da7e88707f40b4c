"""What the command makes without options, for the gallery: `python -m benchmarks transfers`.

Five pairs by `nstlab transfer PHOTO PAINTING`, shown as photo, painting and result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nstlab as nst
from nstlab import figures
from nstlab.base.options import option, results_folder
from nstlab.base.settings import Settings
from nstlab.course import report
from nstlab.recipes.prepare import prepare_here
from nstlab.runs import store

PAIRS = (
    ("astronaut", "swirl_strokes"),
    ("chelsea", "mosaic"),
    ("coffee", "fauve_hills"),
    ("rocket", "wave_engraving"),
    ("motorcycle_left", "stained_glass"),
)


@dataclass(frozen=True, kw_only=True)
class TransfersSettings(Settings):
    """Make five pairs with the default settings, and hang them in the gallery."""

    gallery: Path = option(Path("results/gallery"), "folder of the gallery")
    results: Path = results_folder()


def transfers_command(settings: TransfersSettings) -> int:
    """Make the sheet, its text and the gallery's page."""
    grid = []
    seconds = 0.0
    for pair in PAIRS:
        plan = prepare_here(nst.TransferSettings(*pair))
        run, _ = store.Store(settings.results).obtain(plan)
        seconds += run.manifest["result"]["seconds"]
        result = nst.load(run.picture)
        painting = nst.fit(plan.inputs["style"], result.shape[-2:], "area")
        grid.append([plan.inputs["content"], painting, result])
    rows = [f"{photo}, {painting}" for photo, painting in PAIRS]
    sheet = figures.contact_sheet(grid, rows, ("photo", "painting", "result"))
    figures.save_figure(sheet, settings.gallery / "transfers.jpg", report.GALLERY_BYTES)
    text = (
        "## The bare command\n\nWhat `nstlab transfer PHOTO PAINTING` makes, with no option at "
        f"all: five pairs, {max(result.shape[-2:])} px, {seconds / len(PAIRS):.0f} s each on a CPU "
        "with two cores.\n\n![Photos, paintings, results](transfers.jpg)\n\nAgain: `python -m "
        "benchmarks transfers`\n"
    )
    report.hang("transfers", text, settings.gallery)
    return 0
