"""Painting the photos of `nstlab apply`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from nstlab import files
from nstlab import images as im
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import ApplySettings
from nstlab.settings import InputError

Painted = tuple[Path, tuple[int, int], float]  # where a picture is, its (H, W), the seconds that it took


def applied(settings: ApplySettings) -> Iterator[Painted]:
    """Paint the photo, or each photo in the folder, and yield what was written.

    Raises InputError, before anything is written, for what cannot be used, and for an output that would replace an input."""
    files.check_outputs(settings)
    places = _places(settings)
    model = StyleModel.load(settings.model)
    painter, mix = model.painter(settings.device), model.mixture(settings.painting, settings.mix)
    for source, out in places:
        yield _painted(settings, painter, mix, source, out)


def _places(settings: ApplySettings) -> list[tuple[Path, Path]]:
    """(photo, where its picture goes) of each photo."""
    folder, deep = Path(settings.photo), settings.depth == 16
    if not folder.is_dir():
        found = [(im.path_of(settings.photo), im.check_writable(settings.out, deep))]
    else:
        sources = im.pictures_in(folder)
        if not sources:
            raise InputError(f"photo: there is no picture ({', '.join(im.FORMATS)}) in {folder}")
        if settings.out.suffix.lower() in im.FORMATS or (settings.out.exists() and not settings.out.is_dir()):
            raise InputError(f"out: {settings.out} is a file's name; for the photos of a folder, name a folder")
        found = [(source, settings.out / f"{source.stem}.png") for source in sources]
        if twice := {out for _, out in found if sum(out == other for _, other in found) > 1}:
            raise InputError(f"out: two photos would become {min(twice)}; rename one of them")
    for source, _ in found:
        im.shape_of(source)
    return found


def _painted(settings: ApplySettings, painter: Painter, mix: Tensor, source: Path, out: Path) -> Painted:
    """Paint one photo. What a large one needs is in files."""
    begun, shape = time.monotonic(), im.shape_of(source, settings.size)
    photo = im.load_fit(source, shape, folder=None if painter.fits(shape) else tempfile.gettempdir())
    picture = painter(photo, mix, settings.alpha)
    files.folder(out.parent)
    im.save(picture, out, settings.to_dict(), settings.depth == 16)
    return out, shape, time.monotonic() - begun
