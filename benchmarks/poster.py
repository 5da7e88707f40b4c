"""A poster of 24 megapixels for the gallery: `python -m benchmarks.poster`.

One run of `nstlab transfer` with a limit of memory, from a photo and a painting that is painted at
twice its usual size; shown reduced, and in three parts as large as they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

from nstlab.course import report

DATA = Path(__file__).parent.parent / "data"
PAIR = ("coffee", "swirl_strokes")
PAINTED = 2048  # px: long side of the painting
PARTS = ((1800, 500), (3300, 2300), (500, 2900))  # left, top
SIDE = 480  # px, of each part
GAP = 12  # px between them


@dataclass
class Options:
    """Make a poster, and hang it in the gallery."""

    size: int = 6000
    memory: float = 3.0
    """GB that the run may take"""
    gallery: Path = Path("results/gallery")
    results: Path = Path("results")
    """folder in which runs are kept"""


def main(options: Options) -> None:
    """Make the poster, the pictures of it and the gallery's page."""
    sys.path.insert(0, str(DATA))
    from paint import picture  # the paintings' own program, which is no package

    painting, out = options.results / f"{PAIR[1]}_{PAINTED}.png", options.results / "poster.png"
    picture(PAIR[1], PAINTED).save(painting)
    words = [
        PAIR[0],
        painting,
        "--size",
        options.size,
        "--memory",
        options.memory,
        "--out",
        out,
        "--results",
        options.results,
    ]
    subprocess.run([sys.executable, "-m", "nstlab", "transfer", *map(str, words)], check=True)
    with Image.open(out) as poster:
        width, height = poster.size
        seconds = _seconds(options.results)
        scale = options.size / 6000
        parts = [
            poster.crop((x, y, x + SIDE, y + SIDE))
            for x, y in ((scale * x, scale * y) for x, y in PARTS)
        ]
        across = len(parts) * SIDE + (len(parts) - 1) * GAP
        whole = poster.resize((across, round(across * height / width)), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (across, whole.height + GAP + SIDE), "white")
    sheet.paste(whole)
    for i, part in enumerate(parts):
        sheet.paste(part, (i * (SIDE + GAP), whole.height + GAP))
    for quality in range(90, 40, -5):
        sheet.save(options.gallery / "poster.jpg", quality=quality)
        if (options.gallery / "poster.jpg").stat().st_size <= 2 * report.GALLERY_BYTES:
            break
    text = (
        f"## A poster\n\n{width} × {height} px, {width * height / 1e6:.0f} megapixels, in tiles, "
        f"within {options.memory:g} GB "
        f"and {seconds / 60:.0f} minutes on a CPU with two cores. Below the whole, three parts as "
        "large as they are.\n\n"
        "![The poster, reduced, and three parts of it](poster.jpg)\n\nAgain: `python -m "
        "benchmarks.poster`\n"
    )
    report.hang("poster", text, options.gallery)


def _seconds(results: Path) -> float:
    """How long the newest run below a folder took."""
    manifest = max(
        (results / "runs" / "transfer").glob("*/manifest.json"),
        key=lambda path: path.stat().st_mtime,
    )
    return json.loads(manifest.read_text(encoding="utf-8"))["result"]["seconds"]


if __name__ == "__main__":
    main(tyro.cli(Options))
