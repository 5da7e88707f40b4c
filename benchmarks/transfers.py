"""What the command makes without options, for the gallery: `python -m benchmarks.transfers`.

Five pairs by `nstlab transfer PHOTO PAINTING`, shown as photo, painting and result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

import nstlab as nst
from nstlab import figures
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


@dataclass
class Options:
    """Make five pairs with the default settings, and hang them in the gallery."""

    gallery: Path = Path("results/gallery")
    results: Path = Path("results")
    """folder in which runs are kept"""


def main(options: Options) -> None:
    """Make the sheet, its text and the gallery's page."""
    grid, seconds = [], 0.0
    for pair in PAIRS:
        plan = prepare_here(nst.TransferSettings(*pair))
        run, _ = store.Store(options.results).obtain(plan)
        seconds += run.manifest["result"]["seconds"]
        result = nst.load(run.picture)
        grid.append(
            [
                plan.inputs["content"],
                nst.fit(plan.inputs["style"], result.shape[-2:], "area"),
                result,
            ]
        )
    rows, columns = (
        [f"{photo}, {painting}" for photo, painting in PAIRS],
        ("photo", "painting", "result"),
    )
    figures.save_figure(
        figures.contact_sheet(grid, rows, columns),
        options.gallery / "transfers.jpg",
        report.GALLERY_BYTES,
    )
    text = (
        "## The bare command\n\nWhat `nstlab transfer PHOTO PAINTING` makes, with no option at "
        "all: five pairs, "
        f"{max(result.shape[-2:])} px, {seconds / len(PAIRS):.0f} s each on a CPU with two "
        "cores.\n\n"
        "![Photos, paintings, results](transfers.jpg)\n\nAgain: `python -m benchmarks.transfers`\n"
    )
    report.hang("transfers", text, options.gallery)


if __name__ == "__main__":
    main(tyro.cli(Options))
