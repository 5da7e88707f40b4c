"""Deep pictures: whatever their depth, sign, order and photometric meaning, they look as they do in
8 bits."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from faults import refusal
from picture_files import chunk, levels, png
from PIL import Image, ImageCms

from nstlab.pictures import images as im

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
COLOURS[:5, :, 3], COLOURS[5:10, :, 3] = 0, 255
RGB, GREY, ALPHA = COLOURS[..., :3], COLOURS[..., :1], COLOURS[..., 3:] / 255.0
THREE = np.repeat(GREY, 3, 2)
WIDE = {np.uint16: 257, np.uint32: 0x01010101, np.uint64: 0x0101010101010101}
SCALES = {
    np.int8: 127,
    np.int16: 32767,
    np.int32: 2**31 - 1,
    np.float16: 1,
    np.float32: 255,
    np.float64: 65535,
}


def over_white(colours):
    return colours * ALPHA + 255 * (1 - ALPHA)


def wide(array, kind):
    """The same levels as numbers of another type, whose largest is white."""
    if kind in WIDE:
        return array.astype(kind) * kind(WIDE[kind])
    scaled = array / 255.0 * SCALES[kind]
    return (scaled.round() if np.dtype(kind).kind == "i" else scaled).astype(kind)


def tiff(path, array, **options):
    tifffile.imwrite(path, array, metadata=None, **options)
    return path


@pytest.mark.parametrize("kind", [*WIDE, *SCALES], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "planes"])
def test_a_tiff_of_any_kind_of_numbers_looks_as_it_does_in_8_bits(
    tmp_path, caplog, kind, photometric
):
    stored = wide(GREY if photometric.startswith("min") else RGB, kind)
    if photometric == "planes":
        stored, options = (
            np.moveaxis(stored, 2, 0).copy(),
            {"photometric": "rgb", "planarconfig": "separate"},
        )
    else:
        options = {"photometric": photometric}
    expected = THREE if photometric.startswith("min") else RGB
    if photometric == "miniswhite":
        expected = 255 - expected.astype(float)
    for more in ({"byteorder": ">"}, {"compression": "zlib", "tile": (16, 16)}):
        found = levels(tiff(tmp_path / "a.tif", stored.squeeze(), **options, **more))
        assert np.abs(found - expected).max() < (1.2 if kind is np.int8 else 0.1)
    assert not caplog.messages


def lzw(data: bytes) -> bytes:
    """The data in the LZW of TIFFs, without shortening them: codes of 9 bits, and a clear code
    (256) before there are more."""
    codes = [
        code for first in range(0, len(data), 200) for code in (256, *data[first : first + 200])
    ]
    bits = "".join(f"{code:09b}" for code in (*codes, 257))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


@pytest.mark.parametrize("compression", ["none", "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha", ""])
def test_alpha_of_a_tiff_is_straight_or_premultiplied_in_any_depth(
    tmp_path, kind, compression, alpha
):
    """Also by LZW, in which Pillow keeps 8 bits of premultiplied colours."""
    colours = RGB * ALPHA if alpha == "assocalpha" else RGB
    stored = np.concatenate([colours, COLOURS[..., 3:]], 2)[..., : 4 if alpha else 3]
    stored = np.round(stored * (257.0 if kind is np.uint16 else 1.0)).astype(kind)
    options = {
        "photometric": "rgb",
        "extrasamples": [alpha] if alpha else [],
        "compression": compression,
    }
    data = stored if compression == "none" else iter([lzw(stored.tobytes())])
    path = tiff(
        tmp_path / "a.tif", data, shape=stored.shape, dtype=kind, rowsperstrip=20, **options
    )
    zlib, lzw_ = (struct.pack("<HHII", 259, 3, 1, code) for code in (8, 5))
    path.write_bytes(path.read_bytes().replace(zlib, lzw_))  # since tifffile writes no LZW
    shallow = kind is np.uint8 or (compression == "zlib" and alpha == "assocalpha")
    assert np.abs(levels(path) - (over_white(RGB) if alpha else RGB)).max() < (
        2 if shallow else 0.1
    )


def test_a_png_keeps_16_bits_with_alpha_and_with_a_transparent_colour(tmp_path):
    path = tmp_path / "a.png"
    fine = np.random.default_rng(1).integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    path.write_bytes(png(fine))
    assert np.abs(levels(path) - fine / 257).max() < 1e-3
    assert np.abs(im.reopen(path)[0].permute(1, 2, 0).numpy() - fine / 65535).max() < 1e-6
    for channels, expected in (
        (COLOURS, over_white(RGB)),
        (COLOURS[..., [0, 3]], over_white(THREE)),
    ):
        path.write_bytes(png(wide(channels, np.uint16)))
        assert np.abs(levels(path) - expected).max() < 0.1
    for array in (fine, fine[..., :1]):
        clear = array[3, 4].astype(">u2").tobytes()
        path.write_bytes(png(array, chunk(b"tRNS", clear.rjust(2 * array.shape[2], b"\0"))))
        expected = np.where((array == array[3, 4]).all(2, keepdims=True), 255, array / 257)
        assert np.abs(levels(path) - expected).max() < 1e-3
        assert (levels(path)[3, 4] == 255).all()


@pytest.mark.parametrize("orientation", [1, 5, 6, 8])
def test_deep_pictures_are_turned(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(RGB)
    image.save(tmp_path / "a.png", exif=exif)
    deep = wide(RGB, np.uint16)
    (tmp_path / "b.png").write_bytes(png(deep, chunk(b"eXIf", exif.tobytes()[6:])))
    tiff(tmp_path / "c.tif", deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    for name in ("b.png", "c.tif"):
        assert np.abs(levels(tmp_path / name) - levels(tmp_path / "a.png")).max() < 1e-3
        assert im.shape_of(tmp_path / name) == im.shape_of(tmp_path / "a.png")


def test_cmyk_in_16_bits_is_that_in_8(tmp_path):
    for kind in (np.uint8, np.uint16):
        tiff(
            tmp_path / f"{kind.__name__}.tif",
            COLOURS.astype(kind) * kind(257 if kind is np.uint16 else 1),
            photometric="separated",
        )
    assert np.abs(levels(tmp_path / "uint8.tif") - levels(tmp_path / "uint16.tif")).max() == 0


def test_alpha_beside_colours_in_which_pillow_expects_none(tmp_path):
    white, clear = 255 - GREY[..., :1], np.full_like(GREY[..., :1], 255)
    clear[:5] = 0
    options = {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
    tiff(
        tmp_path / "grey.tif",
        np.concatenate([white, clear], 2),
        photometric="miniswhite",
        **options,
    )
    expected = THREE.copy()
    expected[:5] = 255
    assert np.abs(levels(tmp_path / "grey.tif") - expected).max() < 0.1
    tiff(
        tmp_path / "cmyk.tif",
        np.concatenate([COLOURS, clear], 2),
        photometric="separated",
        **options,
    )
    tiff(tmp_path / "opaque.tif", COLOURS, photometric="separated")
    expected = levels(tmp_path / "opaque.tif")
    expected[:5] = 255
    assert np.abs(levels(tmp_path / "cmyk.tif") - expected).max() < 0.1


@pytest.mark.parametrize("compression", ["none", "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("extras", [("unspecified", "unassalpha"), ("unspecified", "assocalpha")])
def test_alpha_counts_although_another_sample_is_before_it(tmp_path, kind, extras, compression):
    for colours in (RGB, GREY):
        seen = np.round(colours * ALPHA) if "assocalpha" in extras else colours
        stored = np.concatenate([seen, 255 - GREY, COLOURS[..., 3:]], 2).astype(kind)
        stored *= np.iinfo(kind).max // 255
        options = {"extrasamples": extras, "compression": compression, "planarconfig": "contig"}
        options["photometric"] = "rgb" if colours is RGB else "minisblack"
        path = tiff(tmp_path / "a.tif", stored, **options)
        assert np.abs(levels(path) - over_white(colours)).max() < 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_a_png_in_any_depth(tmp_path, bits):
    row = np.arange(24) % (1 << bits)
    packed = np.packbits(
        np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
    ).tobytes()
    header, pixels = (
        struct.pack(">IIBBBBB", 24, 20, bits, 0, 0, 0, 0),
        zlib.compress((b"\0" + packed) * 20),
    )
    chunks = ((b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", pixels), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
    )
    expected = np.where(row == 1, 255, row * 255 / ((1 << bits) - 1))
    assert np.abs(levels(tmp_path / "a.png") - expected[:, None]).max() < 0.6


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_compressed_deep_grey_is_read_whoever_decodes_it(tmp_path, mode, compression):
    stored = (
        GREY[..., 0].astype(np.uint16) * 257
        if mode == "I;16"
        else GREY[..., 0].astype(np.float32) / 255
    )
    Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression)
    assert np.abs(levels(tmp_path / "a.tif") - THREE).max() < 0.1


# --- alpha that says nothing ----------------------------------------------------------------------


def hidden(kind):
    """A file of RGB with an alpha of 0 everywhere."""
    clear = COLOURS.copy()
    clear[..., 3] = 0
    stream, image = io.BytesIO(), Image.fromarray(clear)
    if kind == "16-bit PNG":
        return png(clear.astype(np.uint16) * 257)
    if kind == "palette":
        image = Image.fromarray(GREY[..., 0] // 2, "P")
        image.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
        image.save(stream, "PNG", transparency=bytes(256))
    elif kind == "LA":
        image.convert("LA").save(stream, "PNG")
    elif kind == "premultiplied":
        tifffile.imwrite(
            stream, clear, photometric="rgb", extrasamples=["assocalpha"], metadata=None
        )
    else:
        image.save(stream, kind, lossless=True, exact=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", ["PNG", "WEBP", "TIFF", "TGA", "16-bit PNG", "palette", "LA", "premultiplied"]
)
def test_alpha_of_0_everywhere_says_nothing_if_there_are_colours(tmp_path, caplog, kind):
    path = tmp_path / "picture"
    path.write_bytes(hidden(kind))
    expected = {
        "palette": THREE // 2,
        "LA": np.asarray(Image.fromarray(RGB).convert("L").convert("RGB")),
    }.get(kind, RGB)
    assert np.abs(levels(path) - expected).max() < 0.1
    im.load_fit(path, (16, 16), "crop")
    assert caplog.messages == [
        f"{path}: is transparent everywhere; its colours are used as if it were not"
    ]


def test_a_clear_canvas_of_one_colour_is_white(tmp_path, caplog):
    Image.new("RGBA", (24, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (levels(tmp_path / "a.png") == 255).all()
    assert not caplog.messages


# --- what is refused ------------------------------------------------------------------------------


def test_what_no_decoder_reads_is_refused_by_name(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tiff(tmp_path / "a.tif", RGB.astype(np.int16), photometric="cielab", iccprofile=srgb)
    assert (
        "is a TIFF of a kind that is not read (3×16 signed bits, photometric 8, compression 1)"
        in refusal(im.load, path)
    )
    cut = tiff(path, wide(RGB, np.uint16), photometric="rgb", compression="zlib").read_bytes()
    path.write_bytes(cut.replace(cut[-40:], bytes(40)))
    assert "is damaged or cut short" in refusal(im.load, path)
