"""A poster of 24 megapixels for the gallery: `python -m benchmarks poster`.

One run of `nstlab transfer` with a limit of memory, from a photo and a painting that is painted at
twice its usual size; shown reduced, and in three parts as large as they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nstlab.base.options import option, results_folder
from nstlab.base.settings import Settings
from nstlab.course import report

DATA = Path(__file__).parent.parent / "data"
PAIR = ("coffee", "swirl_strokes")
PAINTED = 2048  # px: long side of the painting
SIZE = 6000  # px: long side of the poster
PARTS = ((1800, 500), (3300, 2300), (500, 2900))  # left, top in a poster of this size
SIDE = 480  # px, of each part
GAP = 12  # px between them


@dataclass(frozen=True, kw_only=True)
class PosterSettings(Settings):
    """Make a poster, and hang it in the gallery."""

    size: int = option(SIZE, "long side", low=1024, high=20_000, unit="px")
    memory: float = option(3.0, "gigabytes that the run may take", low=0.5)
    gallery: Path = option(Path("results/gallery"), "folder of the gallery")
    results: Path = results_folder()


def poster_command(settings: PosterSettings) -> int:
    """Make the poster, the pictures of it and the gallery's page."""
    out = settings.results / "poster.png"
    _paint(settings, out)
    with Image.open(out) as poster:
        width, height = poster.size
        sheet = _sheet(poster, settings.size / SIZE)
    for quality in range(90, 40, -5):
        sheet.save(settings.gallery / "poster.jpg", quality=quality)
        if (settings.gallery / "poster.jpg").stat().st_size <= 2 * report.GALLERY_BYTES:
            break
    text = (
        f"## A poster\n\n{width} × {height} px, {width * height / 1e6:.0f} megapixels, in tiles, "
        f"within {settings.memory:g} GB and {_seconds(settings.results) / 60:.0f} minutes on a CPU "
        "with two cores. Below the whole, three parts as large as they are.\n\n![The poster, "
        "reduced, and three parts of it](poster.jpg)\n\nAgain: `python -m benchmarks poster`\n"
    )
    report.hang("poster", text, settings.gallery)
    return 0


def _paint(settings: PosterSettings, out: Path) -> None:
    """Make the painting, and run `nstlab transfer`."""
    sys.path.insert(0, str(DATA))
    from paint import picture  # the paintings' own program, which is no package

    painting = settings.results / f"{PAIR[1]}_{PAINTED}.png"
    picture(PAIR[1], PAINTED).save(painting)
    options = {
        "--size": settings.size,
        "--memory": settings.memory,
        "--out": out,
        "--results": settings.results,
    }
    words = [PAIR[0], str(painting)]
    for name, value in options.items():
        words += [name, str(value)]
    subprocess.run([sys.executable, "-m", "nstlab", "transfer", *words], check=True)


def _sheet(poster: Image.Image, scale: float) -> Image.Image:
    """The poster, reduced, and below it its PARTS, which lie `scale` times as far."""
    width = len(PARTS) * SIDE + (len(PARTS) - 1) * GAP
    height = round(width * poster.height / poster.width)
    sheet = Image.new("RGB", (width, height + GAP + SIDE), "white")
    sheet.paste(poster.resize((width, height), Image.Resampling.LANCZOS))
    for i, (left, top) in enumerate(PARTS):
        x, y = scale * left, scale * top
        part = poster.crop((x, y, x + SIDE, y + SIDE))
        sheet.paste(part, (i * (SIDE + GAP), height + GAP))
    return sheet


def _seconds(results: Path) -> float:
    """How long the newest run below a folder took."""
    manifest = max(
        (results / "runs" / "transfer").glob("*/manifest.json"),
        key=lambda path: path.stat().st_mtime,
    )
    return json.loads(manifest.read_text(encoding="utf-8"))["result"]["seconds"]
