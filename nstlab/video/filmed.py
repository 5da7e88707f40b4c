"""What is kept of a film: its painted frames, each as soon as it is finished, so that an
interrupted film goes on.

`results/films/<id>/pass1/000000.png`, …: the id is a hash of the settings, the clip, the painting
and the weights. What is known of a frame is in its file's metadata, and of all in frames.csv.
Photos are kept only as long as they are needed.
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
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.jsonfiles import NUMBER, WHOLE, object_with
from nstlab.base.settings import VERSION, InputError
from nstlab.pictures import images as im
from nstlab.pictures import outputs
from nstlab.video.clips import Clip, clip, pictures
from nstlab.video.filming import Filming, Seen
from nstlab.video.settings import VideoSettings
from nstlab.video.writing import check_film, check_shown, check_sound, film_shape, write_film

SECONDS = {"type": "string", "pattern": r"^\d{1,40}(/[1-9]\d{0,39})?$"}  # a Fraction
ABOUT = object_with(  # what is known of a frame, besides its loss and terms
    **{"pass": WHOLE, "frame": WHOLE, "time": SECONDS, "until": SECONDS},
    begins={"type": "boolean"},
    seen=NUMBER,
    seconds=NUMBER,
) | {"additionalProperties": NUMBER}


@dataclass(frozen=True)
class Shot:
    """A frame of the clip that is painted: (1, 3, H, W), in the film's size; when it is shown, and
    until when, in the film's time."""

    photo: Tensor
    time: Fraction
    until: Fraction


@dataclass(frozen=True)
class FrameDone:
    """A frame that is finished. about: its "time" and "until" in seconds, as text, and what its
    painting gave. count: how many frames there are to paint, over all passes, as far as that is
    known. found: whether it was kept already."""

    index: int
    path: Path
    about: dict[str, Any]
    count: int | None
    found: bool


Watch = Callable[[FrameDone], Any]


class Film:
    """The folder of a film, and the painting of its frames."""

    def __init__(self, settings: VideoSettings, source: Clip, watch: Watch | None):
        self.settings, self.clip, self.watch = settings, source, watch
        self.shape = film_shape(source.shape, settings.size, source.path)  # (H, W)
        self.filming = Filming(settings)
        self.path = Path()
        self.reach = max(settings.earlier, default=1)
        self._known: dict[Path, dict[str, Any]] = {}  # of kept frames

    # --- what there is of it ---

    @property
    def places(self) -> list[Path]:
        """The files of all frames so far, each of the last pass that has it; their times rise."""
        found: list[Path] = []
        while newest := next(
            filter(self.known, (self.place(run, len(found)) for run in self.passes[::-1])), None
        ):
            if found and not self._time(found[-1]) < self._time(newest):
                break
            found.append(newest)
        return found

    def _time(self, path: Path) -> Fraction:
        """When a known frame begins, in seconds."""
        return Fraction(self._known[path]["time"])

    @property
    def frames(self) -> list[Tensor]:
        """Their pictures, (1, 3, H, W)."""
        return [im.load(path) for path in self.places]

    @property
    def times(self) -> list[Fraction]:
        """When each begins, in seconds."""
        return [self._time(path) for path in self.places]

    @property
    def end(self) -> Fraction:
        """When the last one ends."""
        return Fraction(self._known[self.places[-1]]["until"])

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each frame: time, steps, loss, each term, what was seen before."""
        return pandas.read_csv(self.path / "frames.csv")

    @property
    def count(self) -> int | None:
        """How many frames there are to paint, over all passes, as far as the clip says."""
        if self.clip.length is None:
            return None
        begin, end = self.settings.span
        shown = min(self.clip.length, self.clip.length if end is None else end) - begin
        return (
            max(1, math.ceil(math.ceil(shown * self.clip.rate) / self.settings.every))
            * self.settings.passes
        )

    @property
    def passes(self) -> range:
        """The numbers of the passes; pass 0 are the photos."""
        return range(1, self.settings.passes + 1)

    def place(self, run: int, index: int) -> Path:
        """Where the frame of a pass is kept."""
        return self.path / (f"pass{run}" if run else "photos") / f"{index:06}.png"

    def known(self, path: Path) -> dict[str, Any]:
        """What is known of a kept frame; nothing if there is none, or one that is not whole or
        another's."""
        if path not in self._known and path.is_file():
            with contextlib.suppress(ValueError, OSError):
                shape = im.verify(path)
                about = im.read_settings(path)
                jsonfiles.check(about, ABOUT)
                if shape == self.shape and self._fits(path, about):
                    self._known[path] = about
        return self._known.get(path, {})

    def _fits(self, path: Path, about: dict[str, Any]) -> bool:
        """Whether a frame belongs where it is kept, and is shown at the same time in all passes."""
        run = about["pass"]
        index = about["frame"]
        if self.place(run, index) != path:
            return False
        first = about if run == 1 else self.known(self.place(1, index))
        rises = Fraction(about["time"]) <= Fraction(about["until"])
        return rises and _times(about) == _times(first)

    # --- painting ---

    def shots(self) -> Iterator[Shot]:
        """The clip's frames that are painted, each once it is known how long it is shown. What the
        clip has of them before it is damaged comes first, then InputError."""
        (begin, end), error = self.settings.span, None
        shot: Shot | None = None
        chosen = (frame for frame in self.clip.frames(self.shape) if frame.until > begin)
        if end is not None:
            chosen = itertools.takewhile(lambda frame: frame.time < end, chosen)
        try:
            for i, frame in enumerate(chosen):
                until = (frame.until if end is None else min(frame.until, end)) - begin
                if i % self.settings.every == 0:
                    if shot is not None:
                        yield shot
                    shot = Shot(
                        im.quantize(frame.picture), max(frame.time - begin, Fraction(0)), until
                    )
                elif shot is not None:
                    shot = replace(shot, until=until)
        except InputError as damaged:
            error = damaged
        if shot is not None:
            yield shot
        if error is not None:
            raise error

    def identify(self, photo: Tensor) -> None:
        """Find the film's folder, which the plan of the first frame helps to name."""
        made = {
            "version": VERSION,
            "settings": self.settings.to_dict(identity=True),
            "clip": _digest(self.clip.path),
            "frame": self.filming.identity(photo),
        }
        name = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        self.path = files.make_folder(Path(self.settings.results) / "films") / name

    def forwards(self, shots: Iterator[Shot]) -> None:
        """The first pass, in which the clip is read. Raises InputError where the clip is
        damaged."""
        window: deque[Seen] = deque(maxlen=self.reach)
        for i, shot in enumerate(shots):
            check_shown(self.settings.out, shot.until - shot.time)
            shown = {"time": str(shot.time), "until": str(shot.until)}
            if self.settings.passes > 1 and not self.place(0, i).is_file():
                im.save(shot.photo, self.place(0, i))  # for later passes
            painted = self.frame(1, i, shot.photo, shown, self.behind(window))
            self.remember(window, Seen(shot.photo, painted), self.place(1, i))

    def again(self, run: int) -> None:
        """A later pass: backwards if its number is even."""
        window: deque[Seen] = deque(maxlen=self.reach)
        order = range(len(self.places))
        for i in order if run % 2 else reversed(order):
            before = self.place(run - 1, i)
            shown = _times(self.known(before))
            photo = im.load(self.place(0, i))
            painted = self.frame(run, i, photo, shown, self.behind(window), im.load(before))
            self.remember(window, Seen(photo, painted), self.place(run, i))

    def remember(self, window: deque[Seen], seen: Seen, path: Path) -> None:
        """Add a frame to those that the next are held to, alone if a scene began with it."""
        if self.known(path)["begins"]:
            window.clear()
        window.append(seen)

    def behind(self, window: Sequence[Seen]) -> list[Seen]:
        """The frames of the window that a frame is held to, the nearest first."""
        return [
            window[-distance]
            for distance in sorted(set(self.settings.earlier))
            if distance <= len(window)
        ]

    def frame(
        self,
        run: int,
        index: int,
        photo: Tensor,
        shown: dict[str, str],
        earlier: Sequence[Seen],
        before: Tensor | None = None,
    ) -> Tensor:
        """A frame's picture: the one that is kept, or painted now and kept."""
        path = self.place(run, index)
        found = _times(self.known(path)) == shown
        if found:
            picture = im.load(path)
        else:
            begun = time.monotonic()
            painted = self.filming.paint(photo, earlier, before)
            about = {
                "pass": run,
                "frame": index,
                **shown,
                **painted.about,
                "seconds": time.monotonic() - begun,
            }
            picture = painted.picture  # as the file has it, in 256 levels
            im.save(picture, path, about)
            self._known[path] = about
        if self.watch is not None:
            self.watch(FrameDone(index, path, self.known(path), self.count, found))
        return picture

    def write(self) -> None:
        """The film, as far as it has come, and the table of its frames."""
        shown = list(zip(self.places, self.times, strict=True))
        write_film(self.settings.out, shown, self.end, self.clip, self.settings.span[0])
        rows = [{**self._known[path], "time": float(at)} for path, at in shown]
        with files.replacing(self.path / "frames.csv") as temporary:
            pandas.DataFrame(rows).drop(columns="until").to_csv(temporary, index=False)

    def written(self) -> str:
        """Write it, and say how far it has come, or why it could not be written."""
        try:
            self.write()
        except InputError as error:
            return str(error)
        return f"{self.settings.out} holds what is painted so far, {float(self.end):.2f} s"


def paint_film(settings: VideoSettings, watch: Watch | None = None, wait: bool = False) -> Film:
    """Paint a film and write it. What is kept already is not painted again.

    If it is interrupted or the clip is damaged, the film is written as far as it has come.

    Args:
        watch: called after each frame; to stop there, it raises KeyboardInterrupt.
        wait: for another process that paints the same film, rather than raise InputError.

    Raises:
        InputError: for what cannot be used or written, before anything is painted where that can be
            known.
    """
    check_film(settings.out)
    source = clip(settings.clip)
    outputs.check_outputs(settings)
    if settings.model is None:
        im.shape_of(settings.painting)
    check_sound(settings.out, source)
    film = Film(settings, source, watch)
    shots = film.shots()
    if (first := next(shots, None)) is None:
        raise InputError(f"from, to: there is no frame of {source.path} in this range")
    film.identify(first.photo)
    with files.locked_results(settings.results, film.path, wait):
        for run in (0, *film.passes):
            files.remove_leftovers(files.make_folder(film.place(run, 0).parent))
        try:
            film.forwards(itertools.chain([first], shots))
            for run in film.passes[1:]:
                film.again(run)
        except (InputError, KeyboardInterrupt) as error:
            said = [film.written()] if film.places else []
            raise type(error)("; ".join([*map(str, error.args), *said])) from None
        film.write()
        shutil.rmtree(film.place(0, 0).parent)
    return film


def _times(about: dict[str, Any]) -> dict[str, str]:
    """When a frame is shown and until when, of all that is known of it."""
    return {name: about[name] for name in ("time", "until") if name in about}


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the pictures of a folder."""
    found = hashlib.sha256()
    for each in pictures(path) if path.is_dir() else [path]:
        with files.regular_file(each).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
