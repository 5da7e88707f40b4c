"""Colour information of picture files: whatever they say of their colours becomes a conversion to
sRGB, or is told.

A file says it in an ICC profile, in code points (cICP of PNG, nclx of AVIF), in gamma and
chromaticities (PNG, TIFF, EXIF), or by the name of Adobe RGB in EXIF data. All but a profile is
made into one, so that there is one way to convert.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from nstlab.pictures import tiff
from nstlab.pictures.opening import say
from nstlab.pictures.splicing import LONGEST
from nstlab.pictures.tiff import Tags

Convert = Callable[[Image.Image], Image.Image]
Curve = Callable[[np.ndarray], np.ndarray]
Points = tuple[tuple[float, float], ...]  # chromaticities (x, y) of red, green, blue and white

D65 = (0.3127, 0.3290)
D50 = (0.3457, 0.3585)
SRGB: Points = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
ADOBE: Points = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
PRIMARIES: dict[int, Points] = {  # by their code points (ITU-T H.273)
    1: SRGB,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
}
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}  # by the code points of transfers
LIKE_SRGB = (1, 2, 6, 13, 14, 15)  # shown as sRGB everywhere, those of video, too
UNSPECIFIED = 2
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
NEAR = 0.005  # by which chromaticities may differ from sRGB's and be meant as those
NEAR_GAMMA = 0.05  # part by which 1 / gamma may differ from that of sRGB, as in libpng
BOXED = ("AVIF", "HEIF", "JPEG2000", "BMP")
TAKEN = "its colours are taken for sRGB"


def conversion(path: Path, image: Image.Image, mode: str, exact: bool) -> Convert | None:
    """What converts a picture, or a part of it, to sRGB; None if nothing is to be done, or can be,
    which is told.

    mode: that of its colours, L, RGB, CMYK or LAB. exact: whether a conversion that hardly changes
    anything is made, too."""
    if mode == "LAB":
        return _by(ImageCms.createProfile("LAB"), mode)
    profile = _stored(path, image)
    if profile is None:
        if mode == "CMYK":
            say(path, "CMYK without a colour profile; its colours are only about right")
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        space = {"GRAY": "L"}.get(space, space)
        if space == mode or (space, mode) == ("RGB", "L"):
            convert = _by(source, space)
            return (
                convert
                if (exact and space == mode) or mode == "CMYK" or _changes(convert, mode)
                else None
            )
        problem = f"is one for {space}, not for {mode}"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        problem = "cannot be read"
    say(
        path,
        f"its colour profile {problem}; "
        f"{'its colours are only about right' if mode == 'CMYK' else TAKEN}",
    )
    return None


def _stored(path: Path, image: Image.Image) -> bytes | None:
    """The profile of a picture, or one that says what else is told of its colours; None for those
    of sRGB."""
    boxes = _in_boxes(path, image)
    profile = image.info.get("icc_profile", boxes.get("profile"))
    if "icc_profile" in image.info and not profile:
        return b""  # it has one, which Pillow cannot read
    if points := image.info.get("cicp") or boxes.get("nclx"):
        if image.format == "PNG" or profile is None:
            profile = _of_code_points(path, *points[:2]) or profile
            if points[3:] == (0,):
                say(
                    path,
                    "its colours are said to be in the range of video, 16 to 235; they are taken "
                    "as they are",
                )
    elif profile is None and "srgb" not in image.info:
        profile = _of_chunks(path, image) or _of_tags(path, image.info.get("tags"))
    return profile


def _by(source: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile, mode: str) -> Convert:
    """A conversion by a profile for pictures of a mode."""
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    return lambda image: ImageCms.applyTransform(
        image if image.mode == mode else image.convert(mode), transform
    )


def _changes(convert: Convert, mode: str) -> bool:
    """Whether a conversion changes colours by more than it rounds."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        colours = steps[None, :, None].repeat(3, 2)
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    given = Image.fromarray(colours[..., 0] if mode == "L" else colours)
    return bool(np.abs(np.asarray(convert(given)).astype(int) - colours).max() > 2)


# --- what files say -------------------------------------------------------------------------------


def _of_chunks(path: Path, image: Image.Image) -> bytes | None:
    """A profile for the gamma and the chromaticities of a PNG."""
    gamma = image.info.get("gamma")
    points = image.info.get("chromaticity")
    if image.format != "PNG" or (gamma is None and points is None):
        return None
    if gamma is not None and not 0.1 <= gamma <= 10:
        say(path, f"its gamma, {gamma:g}, cannot be used; {TAKEN}")
        return None
    pairs = (
        SRGB if points is None else ((*zip(points[2::2], points[3::2], strict=True), points[:2]))
    )
    curve = _gamma(1 / gamma) if gamma is not None and abs(gamma * 2.2 - 1) > NEAR_GAMMA else None
    return _profile(path, pairs, curve)


def _of_code_points(path: Path, primaries: int, transfer: int) -> bytes | None:
    if transfer not in (*LIKE_SRGB, *GAMMAS) or primaries not in (*PRIMARIES, UNSPECIFIED):
        kind = {16: "PQ, high dynamic range", 18: "HLG, high dynamic range"}.get(
            transfer, f"{primaries}/{transfer}"
        )
        say(path, f"its colours ({kind}) cannot be converted; they are taken for sRGB")
        return None
    curve = _gamma(GAMMAS[transfer]) if transfer in GAMMAS else None
    return _profile(path, PRIMARIES.get(primaries, SRGB), curve)


def _of_tags(path: Path, tags: Tags | None) -> bytes | None:
    """A profile for what a TIFF or EXIF data say."""
    if tags is None:
        return None
    exif = tags.directory(tiff.EXIF)
    space = exif.first(tiff.COLOUR_SPACE, 0) if exif else 0
    interoperability = exif.directory(tiff.INTEROPERABILITY) if exif else None
    if space == 2 or (interoperability and bytes(interoperability.values(1))[:3] == b"R03"):
        return _profile(path, ADOBE, _gamma(563 / 256))
    points = tags.values(tiff.PRIMARIES)
    white = tags.values(tiff.WHITE)
    table = np.array(tags.values(tiff.TRANSFER))
    if len(points) == 6 or len(table) > 1:
        pairs = (
            (*zip(points[::2], points[1::2], strict=True), white if len(white) == 2 else D65)
            if len(points) == 6
            else SRGB
        )
        # One table, or one for each channel.
        length = len(table) // 3 if len(table) % 3 == 0 else len(table)
        curves = (
            [_table(part) for part in np.split(table, len(table) // length)]
            if len(table) > 1
            else [None]
        )
        return _profile(path, pairs, *curves)
    if space == 65535:
        say(path, f"its colours are uncalibrated and it has no colour profile; {TAKEN}")
    return None


def _in_boxes(path: Path, image: Image.Image) -> dict[str, Any]:
    """Colour information that Pillow passes over: code points of AVIF, "nclx", and the profile of
    JPEG 2000 and of BMP."""
    if image.format not in BOXED:
        return {}
    with path.open("rb") as file:
        head = file.read(LONGEST)
    if image.format != "BMP" and (found := re.search(rb"colrnclx(.{4})", head, re.DOTALL)):
        return {"nclx": struct.unpack(">HH", found[1])}
    if image.format == "JPEG2000" and (found := re.search(rb"(.{4})colr\x02..", head, re.DOTALL)):
        return {"profile": head[found.end() : found.start() + struct.unpack(">I", found[1])[0]]}
    if image.format == "BMP" and head[70:74] == b"DEBM" and len(head) >= 134:  # an embedded profile
        offset, size = struct.unpack("<II", head[126:134])
        return {"profile": head[14 + offset : 14 + offset + size]}
    return {}


# --- profiles that are made -----------------------------------------------------------------------


def _gamma(exponent: float) -> Curve:
    return lambda x: x**exponent


def _srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _table(values: np.ndarray) -> Curve:
    return lambda x: np.interp(x, np.linspace(0, 1, len(values)), values / 65535)


def _profile(path: Path, points: Sequence[Sequence[float]], *curves: Curve | None) -> bytes | None:
    """An ICC profile of chromaticities (red, green, blue, white) and curves from stored to linear
    values, one for all or one each, None for that of sRGB. None if that is sRGB, and, which is
    told, for chromaticities of no colours."""
    if np.abs(np.array(points) - np.array(SRGB)).max() <= NEAR and not any(curves):
        return None
    xyz = _primaries(points)
    if xyz is None:
        say(path, f"its chromaticities cannot be used; {TAKEN}")
        return None
    x = np.linspace(0, 1, 4096)
    tables = [
        np.round((curve or _srgb)(x).clip(0, 1) * 65535).astype(">u2").tobytes() for curve in curves
    ]
    tags = {b"wtpt": _xyz(_white(D50))}
    for index, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = _xyz(xyz[:, index])
        tags[name + b"TRC"] = b"curv" + struct.pack(">II", 0, len(x)) + tables[index % len(tables)]
    return _icc(tags)


def _icc(tags: dict[bytes, bytes]) -> bytes:
    """The bytes of an ICC profile (version 2) of a display."""
    table = b""
    data = b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = start + len(data)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28s12s",
        size,
        b"",
        0x02100000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"",
        b"acsp",
        b"",
        b"",
    )
    header = header[:68] + _xyz(_white(D50))[8:] + header[80:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(round(float(v) * 65536) for v in values))


def _white(point: Sequence[float]) -> np.ndarray:
    """XYZ of a white, Y = 1."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _primaries(points: Sequence[Sequence[float]]) -> np.ndarray | None:
    """(3, 3): XYZ, at the white of profiles (D50), of red, green and blue, in its columns; None if
    they are no colours."""
    if min(y for _, y in points) <= 0.001 or max(max(pair) for pair in points) > 2:
        return None
    whites = _white(points[3])
    colours = np.stack([_white(pair) for pair in points[:3]], 1)
    if abs(np.linalg.det(colours)) < 1e-3:
        return None
    source = BRADFORD @ whites
    target = BRADFORD @ _white(D50)
    if np.abs(source).min() < 1e-3:
        return None
    adapted = np.linalg.inv(BRADFORD) @ np.diag(target / source) @ BRADFORD
    xyz = adapted @ (colours * np.linalg.solve(colours, whites))
    return xyz if np.isfinite(xyz).all() and np.abs(xyz).max() < 4 else None
