"""Attacks on reading pictures: any file becomes a picture that keeps the contract, or is refused in
one line.

A few dozen cases, the same ones every time; `NSTLAB_ATTACKS=1000 make test` draws a thousand new
ones.
"""

import io
import os
import struct
import zlib

import numpy as np
import tifffile
import torch
from faults import read_or_refused
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from picture_files import chunk, png
from PIL import Image, ImageCms

from nstlab.pictures import images as im
from nstlab.pictures import labels

FEW = 40
CASES = int(os.environ.get("NSTLAB_ATTACKS", FEW))
COLOURS = np.random.default_rng(0).integers(0, 256, (18, 22, 4), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TEXT = zlib.compress(b"x" * 1_100_000)
EXIF = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 274, 3, 1, 6)
CHUNKS = [  # of a PNG: right, wrong and cut
    *(chunk(b"gAMA", struct.pack(">I", number)) for number in (0, 1, 45455, 100_000, 2**32 - 1)),
    chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
    *(chunk(b"cHRM", bytes([byte]) * 32) for byte in (0, 1, 255)), chunk(b"sRGB", b"\0"),
    *(chunk(b"cICP", bytes([primaries, transfer, 0, 1])) for primaries,
    transfer in ((1, 13), (9, 16), (12, 8), (0, 99))),
    *(chunk(b"iCCP", b"x\0\0" + data) for data in (zlib.compress(PROFILE),
    zlib.compress(PROFILE[:300]), TEXT, b"")),
    *(chunk(b"tRNS", COLOURS.tobytes()[:size]) for size in (0, 1, 2, 6, 256)),
    chunk(b"eXIf", EXIF[6:]), chunk(b"eXIf", b"a"),
    *(chunk(b"iTXt", key + b"\0\1\0\0\0" + TEXT) for key in (b"nstlab", b"XML:com.adobe.xmp")),
    chunk(b"zTXt", b"a\0\0" + TEXT),
    chunk(b"tEXt", b"Raw profile type exif\0\n\n\n4d4d0"),
    chunk(b"acTL", struct.pack(">II", 3, 0)), chunk(b"fcTL", b"1"),
    chunk(b"abCd", b"wrong CRC")[:-1] + b"1", chunk(b"PLTE", COLOURS.tobytes()[:768]),
    chunk(b"PLTE", b"1"),
]  # fmt: skip
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]
FORMATS = [
    "PNG",
    "JPEG",
    "TIFF",
    "WEBP",
    "GIF",
    "BMP",
    "JPEG2000",
    "TGA",
    "PPM",
    "ICO",
    "PCX",
    "SGI",
    "MPO",
    "QOI",
    "DDS",
]
PHOTOMETRICS = ["minisblack", "miniswhite", "rgb", "separated", "cielab", "ycbcr", "cfa", "palette"]
KINDS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8", "c8"]


@st.composite
def encoded(draw):
    """What Pillow writes of a picture in any mode."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    image = Image.fromarray(COLOURS).convert(
        "LA" if mode == "LA" else "RGBA" if mode == "RGBA" else "RGB"
    )
    if mode in ("I;16", "I", "F"):
        numbers = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(
            COLOURS[..., 0].astype(numbers) * draw(st.sampled_from([1, 257, 128]))
        )
    elif mode == "PA":
        image = image.convert("P")
        image.putalpha(Image.fromarray(COLOURS[..., 3]))
    elif image.mode != mode:
        image = image.convert(mode)
    options = {
        "icc_profile": draw(st.sampled_from([None, PROFILE, PROFILE[:300], b"rubbish"])),
        "exif": draw(st.sampled_from([b"", EXIF, EXIF[:-5], b"Exif\0\0rubbish"])),
        "compression": draw(st.sampled_from([None, "tiff_lzw", "tiff_adobe_deflate", "packbits",
        "jpeg"])),
        "save_all": draw(st.booleans()), "append_images": [image],
    }  # fmt: skip
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **{key: value for key, value in options.items() if value})
    except Exception:  # this format does not have this mode, or Pillow takes no such EXIF data
        return png(COLOURS)
    return stream.getvalue()


@st.composite
def png_file(draw):
    """A PNG with any channels and any chunks."""
    array = COLOURS[..., : draw(st.integers(1, 4))]
    array = array.astype(np.uint16) * 257 if draw(st.booleans()) else array
    some = st.lists(st.sampled_from(CHUNKS), max_size=4)
    return png(array, *draw(some), late=b"".join(draw(some)))


@st.composite
def tiff_file(draw):
    """A TIFF of any numbers, in any order, and perhaps with another page."""
    stream, separate, channels = io.BytesIO(), draw(st.booleans()), draw(st.integers(1, 4))
    values = np.moveaxis(COLOURS[..., :channels], 2, 0) if separate else COLOURS[..., :channels]
    values = values.astype(float) * draw(st.sampled_from([1, -1, 1e4, 1e30]))
    options = {
        "photometric": draw(st.sampled_from(PHOTOMETRICS)),
        "planarconfig": "separate" if separate else "contig",
        "compression": draw(st.sampled_from([None, "zlib", "lzma"])),
        "extrasamples": draw(st.sampled_from([None, ["assocalpha"], ["unassalpha"]])),
        "iccprofile": draw(st.sampled_from([None, b"a"])),
        "extratags": [(274, "H", 1, draw(st.integers(0, 9)), True),
        (301, "H", 256, tuple(range(256)), True)], "metadata": None,
    }  # fmt: skip
    try:
        with (
            np.errstate(all="ignore"),
            tifffile.TiffWriter(stream, bigtiff=draw(st.booleans())) as file,
        ):
            values = np.nan_to_num(values).astype(draw(st.sampled_from(KINDS))).squeeze()
            file.write(values, **options, subfiletype=draw(st.sampled_from([0, 1])), subifds=1)
            file.write(
                COLOURS[..., :3].copy(),
                photometric="rgb",
                subfiletype=draw(st.sampled_from([0, 1])),
            )
    except Exception:  # these do not go together
        return png(COLOURS)
    return stream.getvalue()


@st.composite
def damage(draw, content):
    """The content as it is, cut, or with some other bytes, near the beginning or anywhere."""
    how, content = (
        draw(st.sampled_from(["whole", "cut", "beginning", "anywhere"])),
        bytearray(content),
    )
    if how == "cut":
        return bytes(content[: draw(st.integers(0, len(content)))])
    reach = min(len(content), {"whole": 0, "beginning": 300}.get(how, len(content)))
    for _ in range(draw(st.integers(1, 4)) if reach else 0):
        content[draw(st.integers(0, reach - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@hypothesis_settings(
    max_examples=CASES, derandomize=CASES == FEW, suppress_health_check=list(HealthCheck)
)
@given(st.one_of(encoded(), png_file(), tiff_file()).flatmap(damage))
def test_any_file_becomes_a_picture_or_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "picture"
    pictures = [read_or_refused(read, path, content) for read in (im.load, labels.load)]
    for picture in pictures:
        if picture is not None:
            assert (picture.dtype, picture.shape[:2], picture.is_contiguous()) == (
                torch.float32,
                (1, 3),
                True,
            )
            assert bool(((picture >= 0) & (picture <= 1)).all())  # and not NaN
    if pictures[0] is not None:
        assert im.shape_of(path) == pictures[0].shape[-2:]
    for read in (im.verify, im.reopen, im.read_settings, im.format_of):
        read_or_refused(read, path, content)
