"""What is kept of a film: its painted frames, with what is known of each, and a table of all.

`results/films/<id>/pass1/000000.png`, …: the id is a hash of the settings, the clip, the painting
and the weights. What is known of a frame is in its file's metadata, and of all in frames.csv.
Photos are kept only as long as they are needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas
from torch import Tensor

from nstlab.base import files, jsonfiles
from nstlab.base.jsonfiles import NUMBER, WHOLE, object_with
from nstlab.pictures import images as im
from nstlab.video.clips import Clip
from nstlab.video.formats import film_shape
from nstlab.video.settings import VideoSettings
from nstlab.video.shots import Shot, shot_count, shots
from nstlab.video.writing import write_film

SECONDS = {"type": "string", "pattern": r"^\d{1,40}(/[1-9]\d{0,39})?$"}  # a Fraction
FACTS = object_with(  # what is known of a frame, besides its loss and terms
    **{"pass": WHOLE, "frame": WHOLE, "time": SECONDS, "until": SECONDS},
    begins={"type": "boolean"},
    seen=NUMBER,
    seconds=NUMBER,
) | {"additionalProperties": NUMBER}
PHOTOS = 0  # the number of the pass that has the photos


class Film:
    """The folder of a film, and its frames so far.

    Args:
        settings: of the film.
        clip: that is painted.

    Raises:
        InputError: for a clip of proportions that pictures may not have.
    """

    def __init__(self, settings: VideoSettings, clip: Clip):
        self.settings = settings
        self.clip = clip
        self.shape = film_shape(clip.shape, settings.size, clip.path)  # (H, W)
        self.path = Path()  # of the folder, once it is known
        self._facts: dict[Path, dict[str, Any]] = {}  # of frames that are whole

    def shots(self) -> Iterator[Shot]:
        """The frames of the clip that are painted, see `shots.shots`."""
        return shots(self.clip, self.settings, self.shape)

    @property
    def count(self) -> int | None:
        """How many frames there are to paint, over all passes; None if the clip does not say."""
        count = shot_count(self.clip, self.settings)
        return None if count is None else count * self.settings.passes

    # --- one frame ---

    @property
    def passes(self) -> range:
        """The numbers of the passes, from 1 on."""
        return range(1, self.settings.passes + 1)

    def frame_path(self, pass_number: int, index: int) -> Path:
        """The file of a pass's frame, or of its photo if the pass is PHOTOS."""
        folder = "photos" if pass_number == PHOTOS else f"pass{pass_number}"
        return self.path / folder / f"{index:06}.png"

    def facts(self, path: Path) -> dict[str, Any]:
        """What is known of a kept frame, see FACTS; {} if it is missing, damaged or misplaced."""
        if path not in self._facts and path.is_file():
            with contextlib.suppress(ValueError, OSError):
                shape = im.verify(path)
                facts = im.read_settings(path)
                jsonfiles.check(facts, FACTS)
                if shape == self.shape and self._belongs(path, facts):
                    self._facts[path] = facts
        return self._facts.get(path, {})

    def _belongs(self, path: Path, facts: dict[str, Any]) -> bool:
        """Whether a frame is where it is kept, and is shown at the same time in all passes."""
        if self.frame_path(facts["pass"], facts["frame"]) != path:
            return False
        first = facts if facts["pass"] == 1 else self.facts(self.frame_path(1, facts["frame"]))
        rises = Fraction(facts["time"]) <= Fraction(facts["until"])
        return rises and times_of(facts) == times_of(first)

    def save_frame(self, picture: Tensor, path: Path, facts: dict[str, Any]) -> None:
        """Keep a painted frame, (1, 3, H, W) sRGB in [0, 1], with its facts, see FACTS."""
        im.save(picture, path, facts)
        self._facts[path] = facts

    # --- all frames ---

    @property
    def paths(self) -> list[Path]:
        """The files of all frames so far, each of the last pass that has it; their times rise."""
        paths: list[Path] = []
        while True:
            path = self._newest(len(paths))
            if path is None or (paths and self._time(path) <= self._time(paths[-1])):
                return paths
            paths.append(path)

    def _newest(self, index: int) -> Path | None:
        """The file of a frame, of the last pass that has it."""
        for pass_number in reversed(self.passes):
            path = self.frame_path(pass_number, index)
            if self.facts(path):
                return path
        return None

    def _time(self, path: Path) -> Fraction:
        """When a known frame is shown, in seconds."""
        return Fraction(self._facts[path]["time"])

    @property
    def frames(self) -> list[Tensor]:
        """The pictures of all frames so far, (1, 3, H, W) sRGB in [0, 1]."""
        return [im.load(path) for path in self.paths]

    @property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds."""
        return [self._time(path) for path in self.paths]

    @property
    def end(self) -> Fraction:
        """When the last frame ends, in seconds."""
        return Fraction(self._facts[self.paths[-1]]["until"])

    @property
    def table(self) -> pandas.DataFrame:
        """One row for each frame: time, steps, loss, each term, what was seen before."""
        return pandas.read_csv(self.path / "frames.csv")

    def write(self) -> None:
        """Write the film, as far as it has come, and the table of its frames.

        Raises:
            InputError: if the film cannot be written.
        """
        timed_paths = [(path, self._time(path)) for path in self.paths]
        begin, _ = self.settings.span
        write_film(self.settings.out, timed_paths, self.end, self.clip, begin)
        rows = [{**self._facts[path], "time": float(time)} for path, time in timed_paths]
        with files.replacing(self.path / "frames.csv") as temporary:
            pandas.DataFrame(rows).drop(columns="until").to_csv(temporary, index=False)


def times_of(facts: dict[str, Any]) -> dict[str, str]:
    """When a frame is shown and until when, of all that is known of it."""
    return {name: facts[name] for name in ("time", "until") if name in facts}
