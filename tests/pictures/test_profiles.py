"""Colour information: in whichever way a file tells of its colours, they come in as sRGB, or what
is missing is logged once."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from picture_files import chunk, levels, png, written
from PIL import Image, ImageCms

from nstlab.pictures import images as im
from nstlab.pictures import profiles

SRGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
P3 = np.array(
    [
        [0.4865709, 0.2656677, 0.1982173],
        [0.2289746, 0.6917385, 0.0792869],
        [0, 0.0451134, 1.0439444],
    ]
)
ADOBE = np.array(
    [
        [0.5767309, 0.1855540, 0.1881852],
        [0.2973769, 0.6273491, 0.0752741],
        [0.0270343, 0.0706872, 0.9911085],
    ]
)
# in the gamut of sRGB, read as any of them
MUTED = np.random.default_rng(0).integers(70, 180, (20, 24, 3), dtype=np.uint8)
POINTS = {"P3": profiles.PRIMARIES[12], "Adobe": profiles.ADOBE}
CHRM = b"".join(
    struct.pack(">I", round(v * 100000))
    for pair in (POINTS["P3"][3], *POINTS["P3"][:3])
    for v in pair
)
GAMMA = struct.pack(">I", 45455)


def in_srgb(stored, matrix, gamma=None):
    """(H, W, 3) levels of sRGB for stored ones, by matrices from RGB to XYZ (Lindbloom) and the
    curves' formulas."""
    x = stored / 255.0
    linear = (
        np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        if gamma is None
        else x**gamma
    )
    linear = (linear @ (np.linalg.inv(SRGB) @ matrix).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def exif(space, interoperability=None):
    made = Image.Exif()
    made[0x8769] = {40961: space} | ({40965: {1: interoperability}} if interoperability else {})
    return made.tobytes()


def icc(name, gamma=None):
    return profiles._profile("", POINTS[name], gamma and profiles._gamma(gamma))


def avif(primaries, transfer):
    stream = io.BytesIO()
    Image.fromarray(MUTED).save(stream, "AVIF", quality=100, subsampling="4:4:4")
    content = stream.getvalue()
    at = content.index(b"colrnclx") + 8
    return content[:at] + struct.pack(">HH", primaries, transfer) + content[at + 4 :]


def saved(kind, array=MUTED, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def tiff(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="rgb", metadata=None, **options)
    return stream.getvalue()


DEEP = MUTED.astype(np.uint16) * 257
TRANSFER = (301, "H", 256, tuple(round(65535 * (i / 255) ** (563 / 256)) for i in range(256)), True)
CHROMATICITIES = (
    319,
    "2I",
    6,
    tuple(n for p in POINTS["Adobe"][:3] for v in p for n in (round(v * 1000), 1000)),
    True,
)
AS_P3, AS_ADOBE = in_srgb(MUTED, P3), in_srgb(MUTED, ADOBE, 563 / 256)
IN_P3 = {
    "ICC in PNG": saved("PNG", icc_profile=icc("P3")),
    "ICC in TIFF": saved("TIFF", icc_profile=icc("P3")),
    "ICC in 16-bit PNG": png(DEEP, chunk(b"iCCP", b"x\0\0" + zlib.compress(icc("P3")))),
    "ICC in 16-bit TIFF": tiff(DEEP, iccprofile=icc("P3")),
    "ICC over EXIF": saved("PNG", icc_profile=icc("P3"), exif=exif(2)),
    "cHRM": png(MUTED, chunk(b"cHRM", CHRM), chunk(b"gAMA", GAMMA)),
    "cHRM in 16 bits": png(DEEP, chunk(b"cHRM", CHRM)),
    "cICP over gAMA": png(
        MUTED, chunk(b"cICP", b"\x0c\x0d\0\1"), chunk(b"gAMA", struct.pack(">I", 100000))
    ),
    "nclx": avif(12, 13),
}
IN_ADOBE = {
    "ICC": saved("PNG", icc_profile=icc("Adobe", 563 / 256)),
    "EXIF R03": saved("PNG", exif=exif(65535, "R03")),
    "EXIF 2": saved("WEBP", lossless=True, exif=exif(2)),
    "TIFF tags": tiff(MUTED, extratags=[TRANSFER, CHROMATICITIES]),
    "TIFF tags, 16 bits": tiff(DEEP, extratags=[TRANSFER, CHROMATICITIES]),
}


@pytest.mark.parametrize("how", [*IN_P3, *IN_ADOBE])
def test_however_a_file_tells_of_its_colours_they_become_srgb(tmp_path, caplog, how):
    (tmp_path / "picture").write_bytes((IN_P3 | IN_ADOBE)[how])
    expected = AS_P3 if how in IN_P3 else AS_ADOBE
    assert np.abs(expected - MUTED).max() > 8
    off = np.abs(levels(tmp_path / "picture") - expected)
    assert (off.mean() if how == "nclx" else off.max()) < 1.6  # AVIF is lossy
    assert not caplog.messages


PLAIN = {
    "sRGB over gAMA": png(MUTED, chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100000))),
    "gAMA of sRGB": png(MUTED, chunk(b"gAMA", GAMMA)),
    "cICP of sRGB": png(MUTED, chunk(b"cICP", b"\1\x0d\0\1")),
    "EXIF of sRGB": saved("PNG", exif=exif(1)),
    "grey with sRGB": saved(
        "PNG",
        MUTED[..., 0],
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ),
}


@pytest.mark.parametrize("how", PLAIN)
def test_what_is_srgb_by_any_name_is_not_touched(tmp_path, caplog, how):
    (tmp_path / "picture").write_bytes(PLAIN[how])
    expected = np.repeat(MUTED[..., :1], 3, 2) if how.startswith("grey") else MUTED
    assert np.array_equal(levels(tmp_path / "picture").round(), expected)
    assert not caplog.messages


@pytest.mark.parametrize("deep", [False, True])
def test_gamma_is_applied_to_grey_and_under_transparency(tmp_path, deep):
    stored = MUTED[..., :1]
    expected = in_srgb(np.repeat(stored, 3, 2), SRGB, 1.0)
    array = stored.astype(np.uint16) * 257 if deep else stored
    path = tmp_path / "picture"
    path.write_bytes(png(array, chunk(b"gAMA", struct.pack(">I", 100000))))
    assert np.abs(levels(path) - expected).max() < 1.6
    clear = np.concatenate([array, np.full_like(array, np.iinfo(array.dtype).max)], 2)
    clear[:5, :, 1] = 0
    path.write_bytes(png(clear, chunk(b"gAMA", struct.pack(">I", 100000))))
    expected[:5] = 255
    assert np.abs(levels(path) - expected).max() < 1.6


CMYK = np.full((20, 24, 4), (0, 200, 100, 30), np.uint8)
SAID = {
    "rubbish": (saved("PNG", icc_profile=b"rubbish"), "its colour profile cannot be read"),
    "cut": (saved("JPEG", icc_profile=icc("P3")[:300]), "its colour profile cannot be read"),
    "broken chunk": (png(MUTED, chunk(b"iCCP", b"x")), "its colour profile cannot be read"),
    "for grey": (
        saved("PNG", icc_profile=icc("P3").replace(b"RGB ", b"GRAY", 1)),
        "its colour profile is one for L, not for RGB",
    ),
    "gamma of 0": (png(MUTED, chunk(b"gAMA", bytes(4))), "its gamma, 0, cannot be used"),
    "chromaticities of 0": (
        png(MUTED, chunk(b"cHRM", bytes(32))),
        "its chromaticities cannot be used",
    ),
    "PQ": (
        png(MUTED, chunk(b"cICP", b"\x09\x10\0\1")),
        "its colours (PQ, high dynamic range) cannot be converted",
    ),
    "range of video": (
        png(MUTED, chunk(b"cICP", b"\1\1\0\0")),
        "its colours are said to be in the range of video",
    ),
    "HLG": (avif(9, 18), "its colours (HLG, high dynamic range) cannot be converted"),
    "uncalibrated": (saved("PNG", exif=exif(65535)), "its colours are uncalibrated"),
    "CMYK": (b"", "CMYK without a colour profile"),
    "CMYK, RGB profile": (b"", "its colour profile is one for RGB, not for CMYK"),
}


@pytest.mark.parametrize("how", SAID)
def test_colour_information_that_is_missing_or_not_applied_is_said_once_for_a_file(
    tmp_path, caplog, how
):
    content, says = SAID[how]
    path = tmp_path / "picture"
    path.write_bytes(content)
    if how.startswith("CMYK"):
        profile = {"icc_profile": icc("P3")} if "RGB" in how else {}
        written(Image.fromarray(CMYK, "CMYK"), path, format="TIFF", **profile)
    first = im.load(path)
    im.load(path, 22)
    assert first.shape == (1, 3, 20, 24)
    (message,) = caplog.messages
    assert message.startswith(f"{path}: {says}")


def test_lab_is_converted_in_8_and_16_bits(tmp_path, caplog):
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(Image.fromarray(MUTED), srgb, lab, outputMode="LAB")
    shallow = levels(written(image, tmp_path / "a.tif"))
    stored = np.asarray(image) ^ np.uint8([0, 128, 128])  # a and b are signed in a TIFF
    tifffile.imwrite(
        tmp_path / "b.tif", stored * np.uint16([257, 256, 256]), photometric="cielab", metadata=None
    )
    assert np.abs(shallow - MUTED).max() < 7  # of Lab in 8 bits
    assert np.abs(levels(tmp_path / "b.tif") - MUTED).max() < 7  # of Lab in 8 bits
    assert not caplog.messages
