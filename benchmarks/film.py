"""The rows about films: how much less they flicker than frames that are painted alone.

Beside that stand the style error and the time. `python -m benchmarks film` measures a scene whose
motion is known, and a clip of one's own; for the gallery it shows frames that are painted alone
beside the film.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.scene import BenchSettings, Row
from nstlab.base import files
from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.course import report
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.video.films import Film, paint_film
from nstlab.video.flow import dis, end_point_error, reliable, temporal_error
from nstlab.video.moving import MovingScene
from nstlab.video.settings import VideoSettings

SIZE = 512
FRAMES = 12
# over those of frames that are painted alone
MOST = {"temporal error": 0.2, "style error": 1.1, "seconds a frame": 0.35}
GIF_SIDE = 256  # px: long side of a frame
GIF_COLOURS = 64
GIF_BYTES = 1_000_000  # at most

# (flow to the frame before, where it can be relied on) of each frame but the first
Motion = Sequence[tuple[Tensor, Tensor]]


def film(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A scene whose motion is known exactly."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, motion = scene(folder, SIZE)
        yield flow_row(clip, motion)
        settings = VideoSettings(
            str(clip),
            "swirl_strokes",
            size=SIZE,
            parameters=("weights", options.weights),
            device=device.type,
        )
        yield compared("a known motion", settings, folder, motion)[0]


def scene(folder: Path, size: int) -> tuple[Path, Motion]:
    """A clip of FRAMES frames, 16 : 9, and its motion.

    Args:
        folder: where it is written.
        size: px, its width.
    """
    pictures = [im.sample(name, 800) for name in ("coffee", "chelsea")]
    moving = MovingScene(*pictures, (2 * round(9 * size / 32), size))
    motion = [(moving.flow(t), moving.visible(t)) for t in range(1, FRAMES)]
    return moving.write(folder / "clip", FRAMES), motion


def flow_row(clip: Path, motion: Motion) -> Row:
    """How far estimated flows end from the true ones, where what is seen was seen before."""
    photos = [im.load(path) for path in sorted(clip.iterdir())]
    errors = [
        end_point_error(dis(b, a), *true)
        for (a, b), true in zip(itertools.pairwise(photos), motion, strict=True)
    ]
    return Row(
        "optical flow",
        {"end-point error, px": sum(errors) / len(errors)},
        "0.25 px at most",
        max(errors) < 0.25,
    )


def estimated_motion(film: Film) -> Motion:
    """The motion of a clip as it is estimated from its photos."""
    photos = [shot.photo for shot in film.shots()]
    flows = [(dis(b, a), dis(a, b)) for a, b in itertools.pairwise(photos)]
    return [(flow, reliable(flow, back)) for flow, back in flows]


def compared(
    name: str, settings: VideoSettings, folder: Path, motion: Motion | None = None
) -> tuple[Row, list[Film]]:
    """Paint a clip with frames that are painted alone, and held to each other.

    Args:
        name: of the row.
        settings: of the film.
        folder: where films and runs go.
        motion: of the clip; None to estimate it.

    Returns:
        (the row, both films).
    """
    films = []
    numbers = {}
    for kind, changes in (("alone", {"earlier": ()}), ("held", {})):
        film = paint_film(
            settings.replace(out=folder / f"{kind}.mp4", results=folder / "results", **changes)
        )
        motion = estimated_motion(film) if motion is None else motion
        films.append(film)
        numbers[kind] = measured(film, motion)
    alone = numbers["alone"]
    film_numbers = numbers["held"]
    values = {f"{number}, over alone": film_numbers[number] / alone[number] for number in MOST}
    values |= {f"{number}, held": value for number, value in film_numbers.items()}
    target = ", ".join(f"{number} {most}" for number, most in MOST.items())
    met = all(film_numbers[number] <= most * alone[number] for number, most in MOST.items())
    return Row(f"film, {name}", values, target, met), films


def measured(film: Film, motion: Motion) -> dict[str, float]:
    """The numbers of MOST, of a film's frames after the first."""
    errors = [
        temporal_error(b, a, flow, mask)
        for (a, b), (flow, mask) in zip(itertools.pairwise(film.frames), motion, strict=True)
    ]
    later = film.table.iloc[1:]
    return {
        "temporal error": sum(errors) / len(errors),
        "style error": float(later["style"].mean()),
        "seconds a frame": float(later["seconds"].mean()),
    }


def write_beside(films: Sequence[Film], out: Path) -> Path:
    """Write an animation: above the photos, then the frames painted alone, below the film."""
    shape = sizes.fit_size(films[0].shape, GIF_SIDE)
    photos = (shot.photo for shot in films[0].shots())
    pictures = []
    for row in zip(photos, *(film.frames for film in films), strict=True):
        pictures.append(im.to_pil(torch.cat([im.resize(frame, shape) for frame in row], -2)))
    palette = pictures[0].quantize(GIF_COLOURS)
    first, *others = [
        picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    with files.replacing(out) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=120, loop=0)
    return out


@dataclass(frozen=True, kw_only=True)
class FilmSettings(Settings):
    """Measure films, of a scene whose motion is known and of a clip of your own."""

    clip: str | None = option(None, "a clip of your own, besides the scene", paths=True)
    size: int = option(SIZE, "long side", low=64, high=4096, unit="px")
    to: float = option(0.48, "where the clip ends, in seconds")
    painting: str = option("swirl_strokes", "a picture file, or the name of a sample", paths=True)
    gallery: Path | None = option(None, "folder of the gallery, for an animation")


def film_command(settings: FilmSettings) -> int:
    """Print the rows, and hang the animation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, motion = scene(folder, settings.size)
        print(flow_row(clip, motion))
        film = VideoSettings(str(clip), settings.painting, size=settings.size)
        row, films = compared("a known motion", film, folder, motion)
        print(row, flush=True)
        if settings.gallery is not None:
            path = write_beside(films, settings.gallery / "film.gif")
            print(f"{path}: {path.stat().st_size} bytes, of at most {GIF_BYTES}")
            report.hang("film", text(row), settings.gallery)
        if settings.clip is not None:
            film = film.replace(clip=settings.clip, to=settings.to)
            print(compared("a clip", film, folder)[0])
    return 0


def text(row: Row) -> str:
    """The gallery's part."""
    numbers = ", ".join(
        f"{name} {value:.2g}" for name, value in row.values.items() if "over" in name
    )
    return (
        "## A film that does not flicker\n\nA photo that is moved, enlarged and turned, and a "
        "disc that moves before it: the clip; its frames painted each alone; the film of `nstlab "
        "video`, whose frames are held to those before (Ruder, Dosovitskiy, Brox 2016).\n\n![The "
        "clip, frames painted alone, the film](film.gif)\n\n"
        f"{numbers.capitalize()}. Again: `python -m benchmarks film --gallery results/gallery`\n"
    )
