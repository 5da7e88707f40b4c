"""Colour information of picture files: it becomes a conversion to sRGB, or is told.

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
from nstlab.pictures.opening import warn_once
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
TAKEN_FOR_SRGB = "its colours are taken for sRGB"
ONLY_ABOUT_RIGHT = "its colours are only about right"


def conversion(path: Path, image: Image.Image, mode: str, exact: bool) -> Convert | None:
    """The conversion of a picture, or a part of it, to sRGB.

    What cannot be used of its colour information is logged.

    Args:
        path: the picture's file.
        image: the picture, opened by `opening.opened`.
        mode: that of its colours, L, RGB, CMYK or LAB.
        exact: convert even where that hardly changes anything.

    Returns:
        The conversion, or None if nothing is to be done, or can be.
    """
    if mode == "LAB":
        return _by(ImageCms.createProfile("LAB"), mode)
    profile = _stored_profile(path, image)
    if profile is None:
        if mode == "CMYK":
            warn_once(path, f"CMYK without a colour profile; {ONLY_ABOUT_RIGHT}")
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        space = {"GRAY": "L"}.get(space, space)
        if space == mode or (space, mode) == ("RGB", "L"):
            convert = _by(source, space)
            is_needed = mode == "CMYK" or (exact and space == mode) or _changes(convert, mode)
            return convert if is_needed else None
        problem = f"is one for {space}, not for {mode}"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        problem = "cannot be read"
    consequence = ONLY_ABOUT_RIGHT if mode == "CMYK" else TAKEN_FOR_SRGB
    warn_once(path, f"its colour profile {problem}; {consequence}")
    return None


def _stored_profile(path: Path, image: Image.Image) -> bytes | None:
    """The profile of a picture, or one made of its other colour information; None for sRGB."""
    boxes = _in_boxes(path, image)
    profile = image.info.get("icc_profile", boxes.get("profile"))
    if "icc_profile" in image.info and not profile:
        return b""  # it has one, which Pillow cannot read
    if code_points := image.info.get("cicp") or boxes.get("nclx"):
        if image.format == "PNG" or profile is None:
            profile = _of_code_points(path, *code_points[:2]) or profile
            if code_points[3:] == (0,):
                warn_once(
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
    image = Image.fromarray(colours[..., 0] if mode == "L" else colours)
    return bool(np.abs(np.asarray(convert(image)).astype(int) - colours).max() > 2)


# --- what files say -------------------------------------------------------------------------------


def _of_chunks(path: Path, image: Image.Image) -> bytes | None:
    """A profile for the gamma and the chromaticities of a PNG."""
    gamma = image.info.get("gamma")
    points = image.info.get("chromaticity")
    if image.format != "PNG" or (gamma is None and points is None):
        return None
    if gamma is not None and not 0.1 <= gamma <= 10:
        warn_once(path, f"its gamma, {gamma:g}, cannot be used; {TAKEN_FOR_SRGB}")
        return None
    chromaticities = SRGB
    if points is not None:  # white comes first
        chromaticities = (*zip(points[2::2], points[3::2], strict=True), points[:2])
    curve = None
    if gamma is not None and abs(gamma * 2.2 - 1) > NEAR_GAMMA:
        curve = _gamma(1 / gamma)
    return _profile(path, chromaticities, curve)


def _of_code_points(path: Path, primaries: int, transfer: int) -> bytes | None:
    """A profile for code points of ITU-T H.273."""
    if transfer not in (*LIKE_SRGB, *GAMMAS) or primaries not in (*PRIMARIES, UNSPECIFIED):
        names = {16: "PQ, high dynamic range", 18: "HLG, high dynamic range"}
        kind = names.get(transfer, f"{primaries}/{transfer}")
        warn_once(path, f"its colours ({kind}) cannot be converted; they are taken for sRGB")
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
    curves = _curves(tags)
    if len(points) == 6 or curves:
        chromaticities = SRGB
        if len(points) == 6:
            white = tags.values(tiff.WHITE)
            white = white if len(white) == 2 else D65
            chromaticities = (*zip(points[::2], points[1::2], strict=True), white)
        return _profile(path, chromaticities, *(curves or [None]))
    if space == 65535:
        warn_once(
            path, f"its colours are uncalibrated and it has no colour profile; {TAKEN_FOR_SRGB}"
        )
    return None


def _curves(tags: Tags) -> list[Curve]:
    """The transfer curve of a TIFF, or one for each channel; none if it has none."""
    table = np.array(tags.values(tiff.TRANSFER))
    if len(table) < 2:
        return []
    count = 3 if len(table) % 3 == 0 else 1
    return [_table(values) for values in np.split(table, count)]


def _in_boxes(path: Path, image: Image.Image) -> dict[str, Any]:
    """What Pillow passes over: code points of AVIF, "nclx"; the "profile" of JPEG 2000 and BMP."""
    if image.format not in BOXED:
        return {}
    with path.open("rb") as file:
        head = file.read(LONGEST)
    if image.format != "BMP" and (match := re.search(rb"colrnclx(.{4})", head, re.DOTALL)):
        return {"nclx": struct.unpack(">HH", match[1])}
    if image.format == "JPEG2000" and (match := re.search(rb"(.{4})colr\x02..", head, re.DOTALL)):
        return {"profile": head[match.end() : match.start() + struct.unpack(">I", match[1])[0]]}
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
    """An ICC profile, or None if it would be sRGB's, or if the chromaticities cannot be used.

    points: chromaticities of red, green, blue and white. curves: from stored to linear values, one
    for all channels or one for each; None is sRGB's."""
    if np.abs(np.array(points) - np.array(SRGB)).max() <= NEAR and not any(curves):
        return None
    xyz = _primaries(points)
    if xyz is None:
        warn_once(path, f"its chromaticities cannot be used; {TAKEN_FOR_SRGB}")
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
    header = struct.pack(">I4xI", size, 0x02100000) + b"mntrRGB XYZ "
    header = (header.ljust(36, b"\0") + b"acsp").ljust(68, b"\0") + _xyz(_white(D50))[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(round(float(v) * 65536) for v in values))


def _white(point: Sequence[float]) -> np.ndarray:
    """XYZ of a white, Y = 1."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _primaries(points: Sequence[Sequence[float]]) -> np.ndarray | None:
    """(3, 3) whose columns are XYZ, at the white of profiles (D50), of red, green and blue.

    None if the chromaticities are no colours."""
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
