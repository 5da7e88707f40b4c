"""Painting the photos of `nstlab apply`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from nstlab.base import files
from nstlab.base.settings import InputError
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import ApplySettings
from nstlab.pictures import images as im
from nstlab.pictures import outputs, samples

# Where a picture is, its (H, W), the seconds that it took.
Painted = tuple[Path, tuple[int, int], float]
LEAST = 1 / 255  # difference in a picture that shows anything

logger = logging.getLogger("nstlab")


def apply_model(settings: ApplySettings) -> Iterator[Painted]:
    """Paint the photo, or each photo in the folder, and yield what was written.

    Photos of a folder that cannot be used are named in warnings, and the others painted.
    Raises: InputError, before anything is written, for what cannot be used, and for an output that
    would replace an input; at the end, if photos were left out.
    """
    outputs.check_outputs(settings)
    places = _places(settings)
    model = StyleModel.load(settings.model)
    painter = model.painter(settings.device)
    mix = model.mixture(settings.painting, settings.mix)
    if not Path(settings.photo).is_dir():
        yield _painted(settings, painter, mix, *places[0])
        return
    files.make_folder(settings.out)
    skipped = 0
    for source, out in places:
        try:
            painted = _painted(settings, painter, mix, source, out)
        except InputError as error:
            logger.warning("%s; it is skipped", error)
            skipped += 1
        else:
            yield painted
    if skipped:
        raise InputError(f"photo: {skipped} of {len(places)} in {settings.photo} were skipped")


def _places(settings: ApplySettings) -> list[tuple[Path, Path]]:
    """(photo, where its picture goes) of each photo."""
    folder = Path(settings.photo)
    if folder.is_dir():
        found = _places_of(folder, settings.out)
    else:
        out = im.check_writable(settings.out, settings.depth == 16)
        found = [(samples.path_of(settings.photo), out)]
        im.shape_of(settings.photo)
    return found


def _places_of(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    """Those of the photos of a folder, in another one. Photos that differ in their suffix alone
    keep it, so that none takes the place of another."""
    if out.suffix.lower() in im.FORMATS or (out.exists() and not out.is_dir()):
        raise InputError(f"out: {out} is a file's name; for the photos of a folder, name a folder")
    sources = samples.pictures_in(folder)
    others = ", ".join(path.name for path in sorted({*samples.files_in(folder)} - {*sources}))
    if others:
        logger.warning("%s: left out, as they are no pictures by their names: %s", folder, others)
    if not sources:
        raise InputError(f"photo: there is no picture in {folder}")
    stems = Counter(source.stem.casefold() for source in sources)
    alone = [stems[source.stem.casefold()] == 1 for source in sources]
    names = [f"{s.stem if one else s.name}.png" for s, one in zip(sources, alone, strict=True)]
    counts = Counter(map(str.casefold, names))
    if twice := [name for name in names if counts[name.casefold()] > 1]:
        places = zip(sources, map(str.casefold, names), strict=True)
        same = " and ".join(source.name for source, name in places if name == twice[0].casefold())
        raise InputError(f"out: {same} would become {out / twice[0]}; rename one of them")
    return [(source, out / name) for source, name in zip(sources, names, strict=True)]


def _painted(
    settings: ApplySettings, painter: Painter, mix: Tensor, source: Path, out: Path
) -> Painted:
    """Paint one photo."""
    begun = time.monotonic()
    shape = im.shape_of(source, settings.size)
    photo = im.load_fit(source, shape)
    picture = painter(photo, mix, settings.alpha)
    if _range(picture) < LEAST and _range(photo) > 25 * LEAST:
        raise InputError(f"{source}: its picture is one colour everywhere; the model is damaged")
    im.save(picture, out, settings.to_dict(), settings.depth == 16)
    return out, shape, time.monotonic() - begun


def _range(picture: Tensor) -> float:
    """How much the values of a picture's channels differ at most."""
    return float((picture.amax((0, 2, 3)) - picture.amin((0, 2, 3))).max())
