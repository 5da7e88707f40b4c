"""What is kept of a film: its painted frames, each as soon as it is finished, so that an interrupted film goes on.

`results/films/<id>/pass1/000000.png`, …: the id is a hash of the settings, the clip, the painting and the weights. What is
known of a frame is in its file's metadata, and of all in frames.csv. Photos are kept only as long as they are needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas
from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.runs.store import Store
from nstlab.settings import InputError
from nstlab.video.clips import Clip, clip
from nstlab.video.filming import Filming, Seen
from nstlab.video.settings import VideoSettings
from nstlab.video.writing import check_film, write_film

EDITION = 1  # increased where the same settings give other films


@dataclass(frozen=True)
class FrameDone:
    """A frame that is finished. time: in the film, in seconds. count: how many there are to paint, over all passes, as far as
    that is known. found: whether it was kept already."""

    index: int
    time: Fraction
    path: Path
    count: int | None
    about: dict[str, Any]
    found: bool


Watch = Callable[[FrameDone], Any]


class Film:
    """The folder of a film, and the painting of its frames."""

    def __init__(self, settings: VideoSettings, source: Clip, watch: Watch | None):
        self.settings, self.clip, self.watch = settings, source, watch
        self.filming, self.path = Filming(settings), Path()
        self.times: list[Fraction] = []  # of each frame that is kept, in the film
        self.reach = max(settings.earlier, default=0)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the film, even numbers, as codecs want them."""
        height, width = (
            max(2, 2 * round(side / 2)) for side in im.fit_size(self.clip.shape, self.settings.size, self.clip.path)
        )
        return height, width

    @property
    def frames(self) -> list[Tensor]:
        """The pictures of the last pass, (1, 3, H, W)."""
        return [im.load(self.place(self.settings.passes, i)) for i in range(len(self.times))]

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each frame: time, steps, loss, each term, what was seen before."""
        return pandas.read_csv(self.path / "frames.csv")

    @property
    def end(self) -> Fraction:
        """When the last frame ends, in the film's time."""
        return self.times[-1] + self.settings.every / self.clip.rate

    @property
    def count(self) -> int | None:
        """How many frames there are to paint, over all passes, as far as the clip says."""
        if self.clip.count is None:
            return None
        s, rate = self.settings, self.clip.rate
        begin, end = s.span
        last = self.clip.count if end is None else min(self.clip.count, math.ceil(end * rate))
        return max(1, -(-(last - math.ceil(begin * rate)) // s.every)) * s.passes

    def place(self, run: int, index: int) -> Path:
        """Where the frame of a pass is kept; pass 0 is the photo."""
        return self.path / (f"pass{run}" if run else "photos") / f"{index:06}.png"

    def chosen(self) -> Iterator[tuple[Tensor, Fraction]]:
        """(photo, time in the film) of the clip's frames that are painted."""
        (begin, end), found = self.settings.span, 0
        for frame in self.clip.frames():
            if end is not None and frame.time >= end:
                return
            if frame.time >= begin:
                if found % self.settings.every == 0:
                    yield im.quantized(im.resize(frame.picture, self.shape)), frame.time - begin
                found += 1

    def identify(self, photo: Tensor) -> None:
        """Find the film's folder, which the plan of the first frame helps to name."""
        films = files.folder(Path(self.settings.results) / "films")
        made = {"edition": EDITION, "settings": self.settings.to_dict(identity=True), "clip": _digest(self.clip.path)}
        with files.replacing(films / "first.png") as temporary:
            im.save(photo, temporary)
            made["frame"] = self.filming.identity(temporary)
        (films / "first.png").unlink()
        self.path = films / hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]

    # --- painting ---

    def forwards(self, frames: Iterator[tuple[Tensor, Fraction]]) -> None:
        """The first pass, in which the clip is read. Raises InputError where the clip is damaged."""
        window: deque[Seen] = deque(maxlen=self.reach or 1)
        for i, (photo, at) in enumerate(frames):
            if not self.place(0, i).is_file():
                im.save(photo, self.place(0, i))
            window.append(Seen(photo, self.frame(1, i, at, self.behind(window))))
            if self.settings.passes == 1:
                self.place(0, i).unlink()

    def again(self, run: int) -> None:
        """A later pass: backwards if its number is even."""
        window: deque[Seen] = deque(maxlen=self.reach or 1)
        order = range(len(self.times))
        for i in order if run % 2 else reversed(order):
            before = im.load(self.place(run - 1, i))
            window.append(Seen(im.load(self.place(0, i)), self.frame(run, i, self.times[i], self.behind(window), before)))

    def behind(self, window: Sequence[Seen]) -> list[Seen]:
        """The frames of the window that a frame is held to, the nearest first."""
        return [window[-distance] for distance in sorted(set(self.settings.earlier)) if distance <= len(window)]

    def frame(self, run: int, index: int, at: Fraction, earlier: Sequence[Seen], before: Tensor | None = None) -> Tensor:
        """A frame's picture: the one that is kept, or painted now and kept."""
        path = self.place(run, index)
        about = _kept(path)
        found = about is not None
        if about is None:
            begun = time.monotonic()
            painted = self.filming.paint(self.place(0, index), earlier, before)
            about = painted.about | {"seconds": time.monotonic() - begun}
            im.save(painted.picture, path, {"pass": run, "frame": index, **about})
        if run == 1:
            self.times.append(at)
        if self.watch is not None:
            self.watch(FrameDone(index, at, path, self.count, about, found))
        return im.load(path)

    def write(self) -> None:
        """The film, as far as it has come, and the table of its frames."""
        run = max(run for run in range(1, self.settings.passes + 1) if self.place(run, len(self.times) - 1).is_file())
        places = [self.place(run, i) for i in range(len(self.times))]
        places = [path if path.is_file() else self.place(run - 1, i) for i, path in enumerate(places)]
        write_film(self.settings.out, list(zip(places, self.times, strict=True)), self.end, self.clip, self.settings.span[0])
        rows = [{**im.read_settings(path), "time": float(at)} for path, at in zip(places, self.times, strict=True)]
        with files.replacing(self.path / "frames.csv") as temporary:
            pandas.DataFrame(rows).to_csv(temporary, index=False)


def filmed(settings: VideoSettings, watch: Watch | None = None) -> Film:
    """Paint a film and write it. What is kept already is not painted again. watch: called after each frame; to stop there, it
    raises KeyboardInterrupt.

    If it is interrupted or the clip is damaged, the film is written as far as it has come. Raises InputError for what cannot be
    used or written, before anything is painted where that can be known."""
    check_film(settings.out)
    source = clip(settings.clip)
    files.check_apart(settings.out, source.path, "clip")
    if settings.model is None:
        im.shape_of(settings.painting)
    film = Film(settings, source, watch)
    frames = film.chosen()
    if (first := next(frames, None)) is None:
        raise InputError(f"from: there is no frame of {source.path} in this range")
    film.identify(first[0])
    with Store(settings.results).locked(film.path):
        for run in range(settings.passes + 1):
            files.remove_leftovers(files.folder(film.place(run, 0).parent))
        try:
            film.forwards(itertools.chain([first], frames))
            for run in range(2, settings.passes + 1):
                film.again(run)
        except (InputError, KeyboardInterrupt) as error:
            if film.times:
                film.write()
                said = f"{settings.out} has the frames before, {len(film.times)}"
                raise type(error)("; ".join([*map(str, error.args), said])) from None
            raise
        film.write()
        shutil.rmtree(film.place(0, 0).parent)
    return film


def _kept(path: Path) -> dict[str, Any] | None:
    """What is known of a kept frame; None if there is none, or a damaged one."""
    with contextlib.suppress(InputError, OSError):
        im.verify(path)
        return im.read_settings(path) or None
    return None


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder."""
    found = hashlib.sha256()
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        if each.is_file():
            with each.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
