"""Decoding: what can be read comes in right and in little memory, what cannot is refused in one
line, without waiting."""

import io
import itertools
import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import damaged, read_or_refused, refusal
from picture_files import chunk, levels, written
from PIL import ExifTags, Image, ImageCms
from torch.testing import assert_close

from nstlab.base.settings import FITS, MIN_SIDE
from nstlab.pictures import decoding, opening
from nstlab.pictures import images as im

COLOURS = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 40, 90]]
RAMP = np.linspace(0, 1, 480).reshape(20, 24)  # grey


def blocks(height: int = 24, width: int = 36) -> np.ndarray:
    """(H, W, 3) uint8: six flat areas, three across and two down, each of another colour."""
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    return np.array(COLOURS, dtype=np.uint8)[rows[:, None] * 3 + columns]


def speckle(height: int = 40, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8 of noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def turned(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


# --- pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: np.swapaxes(a, 0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.swapaxes(a[::-1, ::-1], 0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(
    "array",
    [blocks(), (RAMP * 255).astype(np.uint8), (RAMP * 65535).astype(np.uint16)],
    ids=["RGB", "L", "I;16"],
)
def test_exif_orientation_is_applied(tmp_path, orientation, undo, kind, array):
    """Pillow scrambles uncompressed grey TIFFs that it maps into memory and then turns; it must not
    map them."""
    path = written(array, tmp_path / f"a.{kind}", exif=turned(orientation))
    upright = written(np.ascontiguousarray(undo(array)), tmp_path / f"b.{kind}")
    assert torch.equal(im.load(path), im.load(upright))
    assert im.shape_of(path) == im.shape_of(upright)


def test_transparency_is_laid_over_white(tmp_path):
    alpha = Image.fromarray(np.repeat(np.uint8([[0] * 10 + [128] * 5 + [255] * 5]), 20, axis=0))
    for mode in ("RGBA", "LA"):
        image = Image.new(mode, (20, 20), (100,) * len(mode))
        image.putalpha(alpha)
        expected = np.float32([255] * 10 + [(100 * 128 + 255 * 127) / 255] * 5 + [100] * 5)
        assert_close(levels(written(image, tmp_path / "a.png"))[5, :, 0], expected, atol=1, rtol=0)


@pytest.mark.parametrize(
    ("stored", "top", "kinds"),
    [
        ((RAMP * 255).astype(np.uint8), 255, ["png", "tif"]),
        ((RAMP * 65535).astype(np.uint16), 65535, ["png", "tif"]),
        (np.full((20, 24), 200, np.uint16), 65535, ["png"]),
        ((RAMP * 1).astype(np.float32), 1, ["tif"]),
        ((RAMP * 255).astype(np.float32), 255, ["tif"]),
        ((RAMP * 65535).astype(np.float32), 65535, ["tif"]),
        (np.tile([False, True], (20, 12)), 1, ["png"]),
        (np.array([[np.nan, np.inf, -np.inf] * 8, *RAMP[1:]], np.float32), 1, ["tif"]),
    ],
    ids=["8", "16", "dark", "to 1", "to 255", "to 65535", "1", "holes"],
)
def test_grey_has_three_equal_channels_and_is_neither_clipped_nor_dimmed_even_with_holes(
    tmp_path, stored, top, kinds
):
    expected = (
        torch.from_numpy(np.nan_to_num(stored / np.float64(top), posinf=0, neginf=0))
        .float()
        .expand(1, 3, -1, -1)
    )
    for kind in kinds:
        assert_close(im.load(written(stored, tmp_path / f"a.{kind}")), expected, atol=1e-6, rtol=0)


# --- colour profiles ------------------------------------------------------------------------------


def profile(space: str = "sRGB") -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the red and the green primary exchanged: (r, g, b) there is (g, r, b) in sRGB."""
    made, swap = bytearray(profile()), {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for i in range(struct.unpack(">I", made[128:132])[0]):  # the table of tags: name, offset, size
        name = bytes(made[132 + 12 * i : 136 + 12 * i])
        made[132 + 12 * i : 136 + 12 * i] = swap.get(name, name)
    return bytes(made)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_embedded_profile_is_converted_to_srgb(tmp_path, mode):
    path = written(
        Image.fromarray(blocks()).convert(mode), tmp_path / "a.png", icc_profile=swapped_profile()
    )
    stored = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    assert_close(levels(path), stored[..., [1, 0, 2]], atol=1, rtol=0)


BLOCKS = Image.fromarray(blocks())
PALETTE = Image.fromarray(np.repeat(np.uint8([[0] * 10 + [1] * 10]), 20, axis=0), "P")
PALETTE.putpalette([10, 20, 30, 200, 100, 50])
PARTLY = np.repeat(np.uint8([[[255, 255, 255]] * 10 + [[200, 100, 50]] * 10]), 20, axis=0)
WHITE_FOR_RED = np.where((blocks() == COLOURS[0]).all(2, keepdims=True), 255, blocks())
RED, CMYK = Image.new("RGB", (20, 20), "red"), Image.new("CMYK", (20, 20), (0, 255, 255, 0))
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (20, 20), "blue")]}
# profiles that cannot be used, or change nothing
UNUSED = b"rubbish", profile()[:200], profile("LAB"), profile()


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected", "tolerance"),
    [(BLOCKS, kind, {}, blocks(), 0) for kind in ("PNG", "BMP", "GIF", "TIFF", "PPM", "TGA")]
    + [(BLOCKS, "WEBP", {"lossless": True}, blocks(), 0)]
    + [
        (BLOCKS, kind, {"icc_profile": each}, blocks(), 1)
        for kind, each in itertools.product(("PNG", "TIFF"), UNUSED)
    ]
    + [(PALETTE, kind, {"transparency": 0}, PARTLY, 0) for kind in ("PNG", "GIF")]
    + [(BLOCKS, "PNG", {"transparency": (255, 0, 0)}, WHITE_FOR_RED, 0)]
    + [(CMYK, kind, {}, np.asarray(RED), 3) for kind in ("JPEG", "TIFF")]
    + [(RED, "GIF", FRAMES, np.asarray(RED), 0)],  # the first picture of an animation
)
def test_whatever_the_format_pixels_come_in_right_and_keep_the_contract(
    tmp_path, image, kind, options, expected, tolerance
):
    path = written(image, tmp_path / "picture", format=kind, **options)
    assert_close(levels(path), expected.astype(np.float32), atol=max(tolerance, 1e-4), rtol=0)
    picture = im.load(path)
    assert (picture.shape, picture.dtype, picture.is_contiguous()) == (
        (1, 3, *expected.shape[:2]),
        torch.float32,
        True,
    )
    assert im.shape_of(path) == expected.shape[:2]
    assert im.format_of(path) == kind


# --- what is refused ------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header that claims a size, and no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def encoded(kind: str, height: int = 40, width: int = 60) -> bytes:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    stream = io.BytesIO()
    Image.fromarray(speckle(height, width)).save(stream, kind)
    return stream.getvalue()


NEARLY = int((opening.MAX_PIXELS * 0.95) ** 0.5)  # Pillow's own limit must not be the lower one


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a picture"),
        (b"This is no picture.\n" * 50, "is not a picture"),
        (encoded("PNG")[:2000], "cut short"),
        (encoded("JPEG")[:2000], "cut short"),
        (encoded("PNG")[:20], ""),
        (encoded("JPEG")[:10], ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (bomb(32, 32), ""),
        (bomb(NEARLY, NEARLY), ""),
        (bomb(60000, 60000), "more than 175 million pixels"),
        (bomb(13300, 13300), "13300×13300 is more than 175 million pixels"),
        (encoded("PNG", 15, 40), f"40×15 is too small; both sides must have {MIN_SIDE} px"),
        (encoded("PNG", 40, 15), f"15×40 is too small; both sides must have {MIN_SIDE} px"),
        (encoded("PNG", 1, 1), "1×1 is too small"),
        (encoded("PNG", 16, 129), "129×16 is too long; the ratio of its sides may be at most 8"),
        (encoded("PNG", 129, 16), "16×129 is too long; the ratio of its sides may be at most 8"),
    ],
    ids=range(16),
)
def test_what_is_damaged_too_small_or_too_large_is_refused_by_name(tmp_path, content, says):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    message = refusal(im.load, path)
    assert message.startswith(f"{path}: {says if says[:1].isdigit() else ''}")
    assert says in message
    assert ("million pixels" in message) == ("million pixels" in says)


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "TGA", "PPM", "ICO"]
)
def test_a_file_that_is_cut_or_has_wrong_bytes_is_read_or_refused_but_never_breaks(tmp_path, kind):
    path = tmp_path / "odd"
    for content in damaged(encoded(kind), reach=300):
        picture = read_or_refused(im.load, path, content)
        assert picture is None or (
            picture.shape[:2] == (1, 3) and 0 <= picture.min() <= picture.max() <= 1
        )


def test_what_is_no_file_or_may_not_be_read_is_refused_by_name(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = written(blocks(), tmp_path / "a.png")
    assert refusal(im.load, tmp_path / "missing.png") == f"{tmp_path / 'missing.png'}: no such file"
    assert refusal(im.load, tmp_path) == f"{tmp_path}: is a folder; a file is needed"
    assert f"{path / 'b.png'}: cannot be read" in refusal(im.load, path / "b.png")
    for name in ("x" * 300 + ".png", "x" * 300):
        assert "xxx" in refusal(im.load, name)
    monkeypatch.setattr(Image, "open", forbidden)
    assert refusal(im.load, path) == f"{path}: may not be read"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
@pytest.mark.parametrize(
    "read", [im.load, im.shape_of, im.format_of, im.read_settings, im.reopen, im.verify]
)
def test_a_pipe_or_a_device_is_refused_rather_than_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        assert "is not a regular file" in refusal(read, path)


def test_more_pixels_than_are_allowed_or_fit_into_memory_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    path = written(blocks(32, 40), tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(opening.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert "GB are free" in refusal(im.load, path)
    monkeypatch.setattr(opening, "MAX_PIXELS", 1000)
    assert refusal(im.load, path).startswith(f"{path}: 40×32 is more than")


# --- in parts and in little memory ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("size", [None, 31, 64, 90])
def test_a_picture_read_by_parts_is_the_same_to_the_bit(tmp_path, monkeypatch, mode, size):
    drawn = speckle(64, 50)
    deep = {"I;16": drawn[..., 0].astype(np.uint16) * 200, "F": drawn[..., 0].astype(np.float32)}
    path = written(
        deep[mode] if mode in deep else Image.fromarray(drawn).convert(mode), tmp_path / "a.tif"
    )
    whole, full = im.load(path, size), im.load(path)
    monkeypatch.setattr(decoding, "BAND", 100)
    assert torch.equal(im.load(path, size), whole)
    assert torch.equal(whole, full if size is None else im.resize(full, whole.shape[-2:]))


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_painting_is_read_as_it_is_used(tmp_path, monkeypatch, how, scale, orientation):
    monkeypatch.setattr(decoding, "BAND", 100)
    path = written(speckle(70, 90), tmp_path / "a.png", exif=turned(orientation))
    assert torch.equal(
        im.load_fit(path, (40, 33), how, scale), im.fit(im.load(path), (40, 33), how, scale)
    )
    assert im.shape_of(path, 48) == im.load(path, 48).shape[-2:]


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("how", ["exif", "xmp", "tiff"])
def test_an_orientation_that_is_told_late_or_elsewhere_turns_the_shape_too(tmp_path, how):
    drawn, path = (
        Image.fromarray(speckle(40, 64)),
        tmp_path / ("a.tif" if how == "tiff" else "a.png"),
    )
    written(drawn, path, **({"tiffinfo": {700: XMP}} if how == "tiff" else {}))
    if how != "tiff":  # behind the pixels, where some programs put it
        name, data = (
            (b"eXIf", turned(6).tobytes()[6:])
            if how == "exif"
            else (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        )
        content = path.read_bytes()
        path.write_bytes(content[:-12] + chunk(name, data) + content[-12:])
    upright = im.load(written(drawn.transpose(Image.Transpose.ROTATE_270), tmp_path / "b.png"))
    assert torch.equal(im.load(path), upright)
    assert im.shape_of(path) == (64, 40)
    assert torch.equal(im.load_fit(path, (30, 30), "crop"), im.fit(upright, (30, 30), "crop"))


PEAK = r"""
import re, sys
from pathlib import Path
from nstlab.pictures import images as im
def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
im.load(sys.argv[2], 64)
before = peak()
im.load(sys.argv[1], 64) if sys.argv[3] == "photo" else im.load_fit(sys.argv[1], (64, 64))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory, as Linux tells it")
@pytest.mark.parametrize(
    ("kind", "mode", "side", "bytes_a_pixel", "role"),
    [
        ("png", "L", 6000, 1.5, "photo"),
        ("png", "RGB", 5000, 4.5, "painting"),
        ("jpg", "RGB", 8000, 0.5, "photo"),
    ],
)
def test_a_large_picture_takes_little_more_memory_than_its_decoder(
    tmp_path, photo, kind, mode, side, bytes_a_pixel, role
):
    small = im.save(photo, tmp_path / "small.png")
    large = written(Image.new(mode, (side, side)), tmp_path / f"large.{kind}")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, large, small, role], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < bytes_a_pixel * side**2 + 80e6


def test_a_large_jpeg_that_its_decoder_shrinks_looks_the_same(tmp_path, monkeypatch):
    path = im.save(im.sample("coffee", 600), tmp_path / "a.jpg")
    whole = im.load(path, 100)
    monkeypatch.setattr(decoding, "LARGE", 100_000)
    shrunk = im.load(path, 100)
    assert shrunk.shape == whole.shape
    assert 0 < (shrunk - whole).abs().mean() < 0.01
