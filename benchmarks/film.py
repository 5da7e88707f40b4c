"""The rows about films: how much less they flicker than frames that are painted alone, at what
style error and in what time.

`python -m benchmarks.film [--clip FILE] [--gallery FOLDER]` measures a scene whose motion is known,
and a clip of one's own; for the gallery it shows frames that are painted alone beside the film.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from torch import Tensor

from benchmarks.scene import BenchSettings, Row
from nstlab.base import files
from nstlab.course import report as gallery
from nstlab.pictures import images as im
from nstlab.pictures import sizes
from nstlab.video.filmed import Film, paint_film
from nstlab.video.flow import dis, end_point_error, reliable, temporal_error
from nstlab.video.moving import MovingScene
from nstlab.video.settings import VideoSettings

SIZE = 512
FRAMES = 12
# over those of frames that are painted alone
MOST = {"temporal error": 0.2, "style error": 1.1, "seconds a frame": 0.35}
GIF_SIDE, GIF_COLOURS, GIF_BYTES = 256, 64, 1_000_000

# (flow to the frame before, where it can be relied on) of each frame but the first
Motion = Sequence[tuple[Tensor, Tensor]]


def film(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A scene whose motion is known exactly."""
    with tempfile.TemporaryDirectory() as folder:
        clip, motion = scene(Path(folder), SIZE)
        yield flow_row(clip, motion)
        given = {"size": SIZE, "parameters": ("weights", options.weights), "device": device.type}
        yield compared(
            "a known motion",
            VideoSettings(str(clip), "swirl_strokes", **given),
            Path(folder),
            motion,
        )[0]


def scene(folder: Path, size: int) -> tuple[Path, Motion]:
    """A clip of FRAMES frames, 16 : 9 and so many pixels wide, and its motion."""
    pictures = [im.sample(name, 800) for name in ("coffee", "chelsea")]
    moving = MovingScene(*pictures, (2 * round(9 * size / 32), size))
    return moving.write(folder / "clip", FRAMES), [
        (moving.flow(t), moving.visible(t)) for t in range(1, FRAMES)
    ]


def flow_row(clip: Path, motion: Motion) -> Row:
    """How far the flows that are found end from the true ones, where what is seen was seen
    before."""
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


def found_motion(film: Film) -> Motion:
    """The motion of a clip as it is found in its photos."""
    photos = [shot.photo for shot in film.shots()]
    pairs = [(dis(b, a), dis(a, b)) for a, b in itertools.pairwise(photos)]
    return [(flow, reliable(flow, back)) for flow, back in pairs]


def compared(
    name: str, settings: VideoSettings, folder: Path, motion: Motion | None = None
) -> tuple[Row, list[Film]]:
    """(the row of a clip, its films: of frames that are painted alone, and held to each other).
    Later frames are measured."""
    films, found = [], []
    for kind, changes in (("alone", {"earlier": ()}), ("held", {})):
        made = paint_film(
            settings.replace(out=folder / f"{kind}.mp4", results=folder / "results", **changes)
        )
        motion = found_motion(made) if motion is None else motion
        frames = made.frames
        errors = [
            temporal_error(b, a, *of)
            for (a, b), of in zip(itertools.pairwise(frames), motion, strict=True)
        ]
        rows = made.table.iloc[1:]
        found.append(
            (sum(errors) / len(errors), float(rows["style"].mean()), float(rows["seconds"].mean()))
        )
        films.append(made)
    alone, held = (dict(zip(MOST, each, strict=True)) for each in found)
    values = {f"{which}, over alone": held[which] / alone[which] for which in MOST}
    values |= {f"{which}, held": value for which, value in held.items()}
    met = all(held[which] <= most * alone[which] for which, most in MOST.items())
    return Row(
        f"film, {name}", values, ", ".join(f"{which} {most}" for which, most in MOST.items()), met
    ), films


def beside(films: Sequence[Film], out: Path) -> Path:
    """An animation with the photos, the frames that are painted alone, and the film."""
    shape = sizes.fit_size(films[0].shape, GIF_SIDE)
    pictures, photos = [], (shot.photo for shot in films[0].shots())
    for shown in zip(photos, *(film.frames for film in films), strict=True):
        pictures.append(im.to_pil(torch.cat([im.resize(each, shape) for each in shown], -2)))
    palette = pictures[0].quantize(GIF_COLOURS)
    pictures = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    with files.replacing(out) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=120, loop=0
        )
    return out


@dataclass(frozen=True)
class Options:
    """Measure films. clip: one of your own, besides the scene. gallery: where the animation
    goes."""

    clip: str | None = None
    size: int = SIZE
    to: float = 0.48
    painting: str = "swirl_strokes"
    gallery: Path | None = None


def main(options: Options) -> None:
    """Print the rows, and hang the animation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, motion = scene(folder, options.size)
        print(flow_row(clip, motion))
        row, films = compared(
            "a known motion",
            VideoSettings(str(clip), options.painting, size=options.size),
            folder,
            motion,
        )
        print(row, flush=True)
        if options.gallery is not None:
            path = beside(films, options.gallery / "film.gif")
            print(f"{path}: {path.stat().st_size} bytes, of at most {GIF_BYTES}")
            gallery.hang("film", text(row), options.gallery)
        if options.clip is not None:
            own = VideoSettings(options.clip, options.painting, size=options.size, to=options.to)
            print(compared("a clip", own, folder)[0])


def text(row: Row) -> str:
    """The gallery's part."""
    numbers = ", ".join(
        f"{name} {value:.2g}" for name, value in row.values.items() if "over" in name
    )
    return (
        "## A film that does not flicker\n\nA photo that is moved, enlarged and turned, and a "
        "disc that moves before it: the "
        "clip; its frames painted each alone; the film of `nstlab video`, whose frames are held "
        "to those before (Ruder, "
        "Dosovitskiy, Brox 2016).\n\n![The clip, frames painted alone, the film](film.gif)\n\n"
        f"{numbers.capitalize()}. Again: `python -m benchmarks.film --gallery results/gallery`\n"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
