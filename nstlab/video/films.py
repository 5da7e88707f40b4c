"""Films painted: pass by pass, each frame kept as soon as it is finished.

So an interrupted film goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.settings import VERSION
from nstlab.pictures import images as im
from nstlab.pictures import outputs
from nstlab.video.clips import clip, pictures
from nstlab.video.film_folder import PHOTOS, Film, times_of
from nstlab.video.filming import FramePainter
from nstlab.video.formats import check_film, check_shown, check_sound
from nstlab.video.reference import PastFrame
from nstlab.video.settings import VideoSettings
from nstlab.video.shots import Shot


@dataclass(frozen=True)
class FrameDone:
    """A frame that is finished.

    Attributes:
        index: of the frame, from 0 on.
        path: of its file.
        facts: its "time" and "until" in seconds, as text, and what its painting gave.
        count: how many frames there are to paint, over all passes; None if that is not known.
        was_kept: whether it was found in the folder, rather than painted now.
    """

    index: int
    path: Path
    facts: dict[str, Any]
    count: int | None
    was_kept: bool


Watch = Callable[[FrameDone], Any]


class _Passes:
    """The passes in which a film is painted.

    In each, a frame is held to those that were painted before it, back to the scene's first.
    """

    def __init__(self, film: Film, painter: FramePainter, watch: Watch | None):
        self.film = film
        self.painter = painter
        self.watch = watch
        self.distances = sorted(set(film.settings.earlier))
        self.past: deque[PastFrame] = deque(maxlen=max(self.distances, default=1))

    def paint_first(self, shots: Iterator[Shot]) -> None:
        """The first pass, in which the clip is read; InputError where it is damaged."""
        film = self.film
        self.past.clear()
        for i, shot in enumerate(shots):
            check_shown(film.settings.out, shot.until - shot.time)
            times = {"time": str(shot.time), "until": str(shot.until)}
            photo_path = film.frame_path(PHOTOS, i)
            if film.settings.passes > 1 and not photo_path.is_file():
                im.save(shot.photo, photo_path)  # for later passes
            self._obtain_frame(1, i, shot.photo, times)

    def repaint(self, pass_number: int) -> None:
        """A later pass: backwards if its number is even."""
        film = self.film
        self.past.clear()
        order = range(len(film.paths))
        for i in order if pass_number % 2 else reversed(order):
            last_path = film.frame_path(pass_number - 1, i)
            times = times_of(film.facts(last_path))
            photo = im.load(film.frame_path(PHOTOS, i))
            self._obtain_frame(pass_number, i, photo, times, im.load(last_path))

    def _obtain_frame(
        self,
        pass_number: int,
        index: int,
        photo: Tensor,
        times: dict[str, str],
        last_pass: Tensor | None = None,
    ) -> None:
        """Take a frame that is kept, or paint and keep it; the next frames are held to it."""
        film = self.film
        path = film.frame_path(pass_number, index)
        was_kept = times_of(film.facts(path)) == times
        if was_kept:
            picture = im.load(path)
        else:
            start = time.monotonic()
            earlier = [self.past[-n] for n in self.distances if n <= len(self.past)]
            painted = self.painter.paint(photo, earlier, last_pass)
            picture = painted.picture  # as the file has it, in 256 levels
            numbers = {"pass": pass_number, "frame": index}
            seconds = time.monotonic() - start
            facts = {**numbers, **times, **painted.facts, "seconds": seconds}
            film.save_frame(picture, path, facts)
        facts = film.facts(path)
        if self.watch is not None:
            self.watch(FrameDone(index, path, facts, film.count, was_kept))
        if facts["begins"]:  # a scene, in which nothing before it is seen
            self.past.clear()
        self.past.append(PastFrame(photo, picture))


def paint_film(settings: VideoSettings, watch: Watch | None = None, wait: bool = False) -> Film:
    """Paint a film and write it. What is kept already is not painted again.

    If it is interrupted or the clip is damaged, the film is written as far as it has come.

    Args:
        settings: of the film.
        watch: called after each frame; to stop there, it raises KeyboardInterrupt.
        wait: for another process that paints the same film, rather than raise InputError.

    Returns:
        The film, with its folder and frames.

    Raises:
        InputError: for what cannot be used or written, before anything is painted where that can be
            known.
        KeyboardInterrupt: if it is interrupted; its message says how far the film has come.
    """
    outputs.check_outputs(settings)
    check_film(settings.out)
    source = clip(settings.clip)
    if settings.model is None:
        im.shape_of(settings.painting)
    check_sound(settings.out, source)
    film = Film(settings, source)
    painter = FramePainter(settings)
    shots = film.shots()
    first = next(shots, None)
    if first is None:
        raise InputError(f"from, to: there is no frame of {source.path} in this range")
    film.path = _folder(film, painter, first.photo)
    with files.locked_results(settings.results, film.path, wait):
        _paint_passes(_Passes(film, painter, watch), itertools.chain([first], shots))
        film.write()
        shutil.rmtree(film.frame_path(PHOTOS, 0).parent)
    return film


def _folder(film: Film, painter: FramePainter, photo: Tensor) -> Path:
    """The film's folder, which the plan of the first frame helps to name."""
    determining = {
        "version": VERSION,
        "settings": film.settings.to_dict(identity=True),
        "clip": _digest(film.clip.path),
        "frame": painter.identity(photo),
    }
    digest = hashlib.sha256(json.dumps(determining, sort_keys=True).encode()).hexdigest()
    return files.make_folder(Path(film.settings.results) / "films") / digest[:16]


def _paint_passes(passes: _Passes, shots: Iterator[Shot]) -> None:
    """Paint all passes; if that ends early, write the film and say how far it has come."""
    film = passes.film
    for pass_number in (PHOTOS, *film.passes):
        files.remove_leftovers(files.make_folder(film.frame_path(pass_number, 0).parent))
    try:
        passes.paint_first(shots)
        for pass_number in film.passes[1:]:
            passes.repaint(pass_number)
    except (InputError, KeyboardInterrupt) as error:
        sentences = [*map(str, error.args)]
        if film.paths:
            sentences.append(_write_partial(film))
        raise type(error)("; ".join(sentences)) from None


def _write_partial(film: Film) -> str:
    """Write what there is of a film, and say how far it has come, or why it cannot be written."""
    try:
        film.write()
    except InputError as error:
        return str(error)
    return f"{film.settings.out} holds what is painted so far, {float(film.end):.2f} s"


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the pictures of a folder."""
    checksum = hashlib.sha256()
    for file_path in pictures(path) if path.is_dir() else [path]:
        with files.regular_file(file_path).open("rb") as file:
            checksum.update(hashlib.file_digest(file, "sha256").digest())
    return checksum.hexdigest()
