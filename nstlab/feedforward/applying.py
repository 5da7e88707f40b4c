"""Painting the photos of `nstlab apply`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import ApplySettings
from nstlab.pictures import images as im
from nstlab.pictures import outputs, samples

# Where a picture is, its (H, W), the seconds that it took.
Painted = tuple[Path, tuple[int, int], float]
LEAST_CONTRAST = 1 / 255  # between values of a channel, below which a picture shows nothing

logger = logging.getLogger("nstlab")


def apply_model(settings: ApplySettings) -> Iterator[Painted]:
    """Paint the photo, or each photo in the folder, and yield what was written.

    Photos of a folder that cannot be used are named in warnings, and the others painted.

    Args:
        settings: name the model, the photo or folder, and where pictures go.

    Yields:
        (path of the picture, its (H, W), the seconds that it took).

    Raises:
        InputError: before anything is written, for what cannot be used, and for an output that
            would replace an input; at the end, if photos were left out.
    """
    outputs.check_outputs(settings)
    planned = _outputs_of_folder(settings) if settings.folder else _output_of_photo(settings)
    model = StyleModel.load(settings.model)
    painter = model.painter(settings.device)
    mix = model.mixture(settings.painting, settings.mix)
    if settings.folder is None:
        for photo, out in planned.items():
            yield _paint_photo(settings, painter, mix, photo, out)
        return
    files.make_folder(settings.out)
    skipped = 0
    for photo, out in planned.items():
        try:
            painted = _paint_photo(settings, painter, mix, photo, out)
        except InputError as error:
            logger.warning("%s; it is skipped", error)
            skipped += 1
        else:
            yield painted
    if skipped:
        raise InputError(f"photo: {skipped} of {len(planned)} in {settings.photo} were skipped")


def _output_of_photo(settings: ApplySettings) -> dict[Path, Path]:
    """{the photo: file of its picture}; InputError if one of them cannot be used."""
    out = im.check_writable(settings.out, settings.depth == 16)
    photo = samples.path_of(settings.photo)
    im.shape_of(settings.photo)
    return {photo: out}


def _outputs_of_folder(settings: ApplySettings) -> dict[Path, Path]:
    """{photo: file of its picture} of a folder; a warning names the files that are no pictures."""
    folder, out = Path(settings.photo), settings.out
    if out.suffix.lower() in im.FORMATS or (out.exists() and not out.is_dir()):
        raise InputError(f"out: {out} is a file's name; for the photos of a folder, name a folder")
    skipped = sorted({*samples.files_in(folder)} - {*samples.pictures_in(folder)})
    if skipped:
        names = ", ".join(path.name for path in skipped)
        logger.warning("%s: left out, as they are no pictures by their names: %s", folder, names)
    return settings.folder_outputs()


def _paint_photo(
    settings: ApplySettings, painter: Painter, mix: Tensor, source: Path, out: Path
) -> Painted:
    """Paint one photo, and write its picture."""
    start = time.monotonic()
    shape = im.shape_of(source, settings.size)
    photo = im.load_fit(source, shape)
    picture = painter(photo, mix, settings.alpha)
    if _contrast(picture) < LEAST_CONTRAST and _contrast(photo) > 25 * LEAST_CONTRAST:
        raise InputError(f"{source}: its picture is one colour everywhere; the model is damaged")
    im.save(picture, out, settings.to_dict(), settings.depth == 16)
    return out, shape, time.monotonic() - start


def _contrast(picture: Tensor) -> float:
    """The largest difference between two values of a channel."""
    return float((picture.amax((0, 2, 3)) - picture.amin((0, 2, 3))).max())
