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
    """{name: file} of the pictures of the lab: scikit-image's photos and our paintings."""
    # Here, because importing scikit-image takes longer than the rest of this module.
    import skimage.data

    photos = Path(skimage.data.__file__).parent
    paths = [path for name in PHOTOS for path in photos.glob(f"{name}.*")]
    paths += sorted(style_folder().glob("*.jpg"))
    return {path.stem: path for path in paths}


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of all formats that Pillow decodes by itself: ".png", ".webp", …"""
    from PIL import Image

    suffixes = Image.registered_extensions().items()  # which loads all of Pillow's plugins
    formats = Image.OPEN.keys() - {*UNDECODED} | {"MPO"}  # which are opened as JPEGs
    return frozenset(suffix for suffix, format in suffixes if format in formats)


def files_in(folder: Path, nested: bool = False) -> list[Path]:
    """The files in a folder, sorted by name.

    Hidden ones, whose names begin with a dot, are left out, as are links to folders. A warning
    names folders that cannot be read.

    Args:
        nested: also those in its folders.
    """
    files = []
    for parent, folders, names in os.walk(folder, onerror=_warn_unread):
        folders[:] = [name for name in folders if nested and not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _warn_unread(error: OSError) -> None:
    logger.warning("%s: cannot be read (%s); it is left out", error.filename, error.strerror)


def pictures_in(folder: Path, nested: bool = False) -> list[Path]:
    """Those of `files_in` that `is_picture`."""
    return [path for path in files_in(folder, nested) if is_picture(path)]


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file's suffix is that of a format that Pillow decodes by itself."""
    return os.path.splitext(path)[1].lower() in readable_suffixes()


def path_of(source: str | os.PathLike) -> Path:
    """The file that a path or the name of a sample picture means.

    A file wins over a sample of the same name.

    Raises:
        InputError: for a name without a suffix that is neither.
    """
    path = user_path(source)
    return path if os.path.exists(path) or path.suffix else sample_path(str(source))


def sample_path(name: str) -> Path:
    """The file of a sample picture.

    Raises:
        InputError: if there is no sample of that name.
    """
    paths = samples()
    if name not in paths:
        raise InputError(
            f"no picture '{name}'{nearest(name, list(paths))} (a file, or one of "
            f"{', '.join(paths)})"
        )
    return paths[name]
