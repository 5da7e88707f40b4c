"""Which files pictures are: sample pictures by name, and the pictures in a folder."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from nstlab.base.errors import InputError, nearest
from nstlab.base.files import shipped_folder
from nstlab.base.settings import user_path

logger = logging.getLogger("nstlab")
UNDECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # of which Pillow reads the header only
PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle_left",
    "retina",
    "hubble_deep_field",
    "ihc",
)


def style_folder() -> Path:
    """The folder of the project's own paintings."""
    return shipped_folder("data", "style")


def samples() -> dict[str, Path]:
    """{name: file} of every picture that comes with the lab: scikit-image's photos and the
    project's own paintings."""
    # Here, because importing scikit-image takes longer than the rest of this module.
    import skimage.data

    photos = Path(skimage.data.__file__).parent
    found = {path.stem: path for name in PHOTOS for path in photos.glob(f"{name}.*")}
    return found | {path.stem: path for path in sorted(style_folder().glob("*.jpg"))}


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of all formats that Pillow decodes by itself: ".png", ".webp", …"""
    from PIL import Image

    suffixes = Image.registered_extensions().items()  # which loads all of Pillow's plugins
    formats = Image.OPEN.keys() - {*UNDECODED} | {"MPO"}  # which are opened as JPEGs
    return frozenset(suffix for suffix, format in suffixes if format in formats)


def files_in(folder: Path, nested: bool = False) -> list[Path]:
    """The files in a folder and, if `nested`, in its folders, by name.

    Hidden ones, whose names begin with a dot, are left out, as are links to folders. A warning
    names folders that cannot be read."""
    files = []
    for place, folders, names in os.walk(folder, onerror=_warn_unread):
        folders[:] = [name for name in folders if nested and not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _warn_unread(error: OSError) -> None:
    logger.warning("%s: cannot be read (%s); it is left out", error.filename, error.strerror)


def pictures_in(folder: Path, nested: bool = False) -> list[Path]:
    """Those of `files_in` a folder whose suffix says that they are pictures that can be read."""
    return [path for path in files_in(folder, nested) if is_picture(path)]


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file's suffix is that of a format that Pillow decodes by itself."""
    return os.path.splitext(path)[1].lower() in readable_suffixes()


def path_of(source: str | os.PathLike) -> Path:
    """The file that `source` means, a path or the name of a sample picture; a file wins over a
    sample of the same name."""
    path = user_path(source)
    return path if os.path.exists(path) or path.suffix else sample_path(str(source))


def sample_path(name: str) -> Path:
    known = samples()
    if name not in known:
        raise InputError(
            f"no picture '{name}'{nearest(name, list(known))} (a file, or one of "
            f"{', '.join(known)})"
        )
    return known[name]
