"""Opening: what a file is that is refused, and metadata that never cost a picture."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from faults import refusal
from picture_files import chunk, levels, png
from PIL import Image

from nstlab.base.errors import InputError
from nstlab.cli import main as cli
from nstlab.pictures import images as im
from nstlab.pictures import opening

ARRAY = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(ARRAY).save(stream, kind, **options)
    return stream.getvalue()


def tiff(*pages):
    """A TIFF of pages: (array, options of tifffile)."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for array, options in pages:
            file.write(array, metadata=None, **options)
    return stream.getvalue()


# --- what it is -----------------------------------------------------------------------------------

GREY = ARRAY[..., 0]
RAW = "a camera raw file"
LINEAR = {"photometric": 34892, "subfiletype": 0}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\nshowpage\n"
KINDS = {
    "eps": (EPS, "Ghostscript"),
    "ps": (b"%!PS-Adobe-3.0\n", "Ghostscript"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "svg": (
        b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "an SVG",
    ),
    "wmf": (
        b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x40\0\x40\0\x60\0" + bytes(6) + b"\1\0\x09\0" + bytes(99),
        "a Windows metafile",
    ),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
    "jxl": (b"\xff\x0a\xfa\x7f" + bytes(99), "a JPEG XL picture"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
    "webm": (b"\x1aE\xdf\xa3\x01\0\0\0", "a video"),
    "mpg": (b"\0\0\x01\xba" + bytes(99), "a video"),
    "avi": (b"RIFF\x10\0\0\0AVI LIST", "a video"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), RAW),
    "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", RAW),
    "raf": (b"FUJIFILMCCD-RAW 0201", RAW),
    "orf": (b"IIRO\x08\0\0\0" + bytes(99), RAW),
    "rw2": (b"IIU\0\x18\0\0\0" + bytes(99), RAW),
    "nef": (
        tiff(
            (ARRAY[::4, ::4].copy(), {"photometric": "rgb", "subfiletype": 1}),
            (GREY, {"photometric": "cfa"}),
        ),
        RAW,
    ),
    "dng": (
        tiff((ARRAY, {"photometric": "rgb", "subfiletype": 1}), (ARRAY.astype(np.uint16), LINEAR)),
        RAW,
    ),
    "tif": (
        tiff((ARRAY.astype(np.complex64), {"photometric": "rgb"})),
        "a TIFF of a kind that is not read (3×64 complex bits",
    ),
    "html": (b"<!DOCTYPE html><html>", "a page of the web"),
    "txt": ("Kein Bild, sondern Wörter.\n".encode() * 999, "not a picture but a text file"),
    "empty": (b"", "not a picture but an empty file"),
    "mac": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(99), "not a picture but what a Mac keeps"),
    "utf-16": ("Wörter".encode("utf-16"), "a text file"),
    "hdf": (b"\x89HDF\r\n\x1a\n" + bytes(99), "scientific data"),
    "zip": (b"PK\x03\x04" + bytes(99), "an archive"),
    "psd": (b"8BPS\0\2" + bytes(99), "a Photoshop file"),
    "unknown": (bytes(range(256)), "not a picture (or damaged)"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_is_told_by_what_it_is(tmp_path, monkeypatch, kind):
    content, says = KINDS[kind]
    monkeypatch.setenv("PATH", "")  # no Ghostscript
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert refusal(im.load, path).startswith(f"{path}: is ")
    assert says in refusal(im.load, path)


@pytest.mark.parametrize("read", [im.load, im.shape_of, im.verify, im.read_settings])
@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png"], ids=ascii)
def test_a_name_that_no_file_can_have_is_refused(read, name):
    assert "no file can have this name" in refusal(read, name)


# --- damage ---------------------------------------------------------------------------------------


def wrong(content, at, count=1):
    """The content with bytes that are inverted."""
    part = bytes(byte ^ 255 for byte in content[at : at + count])
    return content[:at] + part + content[at + count :]


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_whose_pixels_are_not_those_that_were_written_is_refused(tmp_path, channels, depth):
    clear = chunk(b"tRNS", bytes(2 * channels))
    whole, path = png(ARRAY[..., :channels].astype(depth), clear), tmp_path / "a.png"
    first, length = whole.index(b"IDAT") + 4, len(whole)
    path.write_bytes(whole)
    for read in (im.load, im.verify, im.reopen, im.format_of):
        read(path)
    places = [whole.index(b"tRNS") + 4, whole.index(b"IHDR") + 9, length - 13]
    for at in (*places, *range(first - 8, length - 12, 97)):
        path.write_bytes(wrong(whole, at))
        for read in (im.load, im.verify, im.reopen, im.format_of):
            assert "is damaged" in refusal(read, path) or "(or damaged)" in refusal(read, path)
    path.write_bytes(wrong(whole, first + 9))
    assert "(its content and a checksum differ)" in refusal(im.load, path)
    assert im.shape_of(path) == (20, 24)  # for which the header is enough


def test_a_png_that_lacks_no_more_than_its_end_is_read(tmp_path):
    whole, path = png(ARRAY), tmp_path / "a.png"
    for cut in (12, 14, 16):
        path.write_bytes(whole[:-cut])
        assert np.array_equal(levels(path).round(), ARRAY)
    path.write_bytes(whole[:-17])
    assert "is damaged" in refusal(im.load, path)


NOISE = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8) // 32 * 32
PACKED = {"rows": {"rowsperstrip": 20}, "tiles": {"tile": (16, 16)}}
PACKED["planes"] = {"planarconfig": "separate"}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("how", PACKED)
def test_a_tiff_whose_pixels_are_not_those_that_were_packed_is_refused(tmp_path, capfd, how, kind):
    array, path = NOISE.astype(kind), tmp_path / "a.tif"
    array = np.moveaxis(array, 2, 0).copy() if how == "planes" else array
    whole = tiff((array, {"photometric": "rgb", "compression": "zlib", **PACKED[how]}))
    path.write_bytes(whole)
    im.load(path)
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    for start, length in places[:: len(places) - 1]:
        for first in range(start + 10, start + length - 4, length // 3):
            path.write_bytes(whole[:first] + bytes(40) + whole[first + 40 :])
            for read in (im.load, im.verify, im.format_of):
                assert "is damaged" in refusal(read, path)
    assert im.shape_of(path) == NOISE.shape[:2]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="libtiff is out of reach")
@pytest.mark.parametrize("compression", ["group4", "tiff_lzw"])
def test_a_decoder_says_nothing_of_its_own(tmp_path, capfd, compression):
    image, path = Image.fromarray(NOISE), tmp_path / "a.tif"
    image = image.convert("1") if compression == "group4" else image
    image.save(path, compression=compression)
    whole = path.read_bytes()
    path.write_bytes(wrong(whole, 100, 200))
    with contextlib.suppress(InputError):
        im.load(path)
    assert capfd.readouterr().err == ""


# --- metadata -------------------------------------------------------------------------------------


def segment(kind, data):
    """A part of a JPEG."""
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data


def entry(tag, kind, count, value):
    return struct.pack("<HHII", tag, kind, count, value)


TEXT = zlib.compress(b"x" * 2_000_000)
# GPS far away, and cut
TURNED = (
    b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + entry(274, 3, 1, 6) + entry(34853, 4, 1, 1 << 30)
)
PNG_CHUNKS = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + TEXT),
    "iTXt of ours": chunk(b"iTXt", b"nstlab\0\1\0\0\0" + TEXT),
    "zTXt unknown": chunk(b"zTXt", b"a\0\7" + TEXT),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + TEXT),
    "raw EXIF": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nno"),
    "EXIF": chunk(b"eXIf", b"rubbish"),
    "pHYs": chunk(b"pHYs", b"1"),
    "tRNS": chunk(b"tRNS", b"1"),
    "gAMA": chunk(b"gAMA", b"1"),
    "cHRM": chunk(b"cHRM", b"1"),
    "sRGB": chunk(b"sRGB", b""),
    "cICP": chunk(b"cICP", b"1"),
    "iCCP": chunk(b"iCCP", b"x\0\0" + TEXT),
    "acTL": chunk(b"acTL", b"1"),
    "fcTL": chunk(b"fcTL", b"1"),
    "wrong CRC": chunk(b"tIME", b"1234567")[:-4] + b"1234",
    "private": chunk(b"abCd", bytes(99))[:-4] + b"1234",
}
JPEG_SEGMENTS = {
    "EXIF": segment(0xE1, b"Exif\0\0rubbish that is long"),
    "EXIF cut": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<\xff\xfe"),
    "ICC cut": segment(0xE2, b"ICC_PROFILE\0"),
    "ICC of two": segment(0xE2, b"ICC_PROFILE\0\1\2abc"),
    "MPF": segment(0xE2, b"MPF\0xx"),
    "JFIF": segment(0xE0, b"JFIF\0"),
    "IPTC": segment(0xED, b"Photoshop 3.0\x008BIM\1\1"),
    "Adobe": segment(0xEE, b"Adobe"),
}


@pytest.mark.parametrize("late", [False, True])
def test_metadata_of_a_png_that_are_not_needed_cost_nothing(tmp_path, late):
    for name, part in PNG_CHUNKS.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(png(ARRAY, late=part) if late else png(ARRAY, part))
        assert np.array_equal(levels(path).round(), ARRAY), name
        assert im.read_settings(path) == {}
        assert im.format_of(path) == "PNG"
        assert im.verify(path) == (20, 24)


def test_metadata_of_a_jpeg_that_are_not_needed_cost_nothing(tmp_path):
    plain = encoded("JPEG", quality=95)
    (tmp_path / "plain.jpg").write_bytes(plain)
    for name, part in JPEG_SEGMENTS.items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(plain[:2] + part + plain[2:])
        assert np.array_equal(levels(path), levels(tmp_path / "plain.jpg")), name
        assert im.shape_of(path) == (20, 24)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_counts_although_the_rest_of_the_exif_data_is_damaged(tmp_path, kind):
    path = tmp_path / "picture"
    path.write_bytes(encoded(kind, exif=b"Exif\0\0" + TURNED))
    assert im.shape_of(path) == im.load(path).shape[-2:] == (24, 20)


def test_metadata_of_an_avif_that_keep_it_from_being_opened_are_left_out(tmp_path):
    exif = Image.Exif()
    exif[271] = "a maker"
    content = encoded("AVIF", exif=exif.tobytes())
    at = content.rindex(b"MM\0*" if b"MM\0*" in content else b"II*\0")
    (tmp_path / "a.avif").write_bytes(content)
    (tmp_path / "b.avif").write_bytes(content[:at] + b"none" + content[at + 4 :])
    assert np.array_equal(levels(tmp_path / "a.avif"), levels(tmp_path / "b.avif"))


def test_tags_of_a_tiff_that_are_not_needed_cost_nothing(tmp_path):
    far, odd = (
        [(tag, "I", 1, 1 << 30, True) for tag in (34665, 34853)],
        [(700, "H", 1, 5, True), (33723, "B", 1, 255, True)],
    )
    (tmp_path / "a.tif").write_bytes(tiff((ARRAY, {"photometric": "rgb", "extratags": far + odd})))
    assert np.array_equal(levels(tmp_path / "a.tif").round(), ARRAY)


# --- pages ----------------------------------------------------------------------------------------

LARGER = np.tile(ARRAY, (2, 2, 1))
RGB = {"photometric": "rgb"}
THUMBNAIL, MASK = RGB | {"subfiletype": 1}, {"photometric": "minisblack", "subfiletype": 4}
PAGES = {
    "thumbnail, picture within it": [(ARRAY, THUMBNAIL | {"subifds": 1}), (LARGER, RGB)],
    "thumbnail, picture": [(ARRAY, THUMBNAIL), (LARGER, RGB | {"compression": "zlib"})],
    "picture, mask": [(LARGER, RGB), (np.tile(GREY > 99, (3, 3)), MASK)],
    "picture, larger thumbnail": [(LARGER, RGB), (np.tile(ARRAY, (3, 3, 1)), THUMBNAIL)],
    "thumbnail, deep picture": [(ARRAY, THUMBNAIL), (LARGER.astype(np.uint16) * 257, RGB)],
}


@pytest.mark.parametrize("pages", PAGES)
def test_the_largest_full_page_of_a_tiff_is_read(tmp_path, caplog, pages):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(*PAGES[pages]))
    assert np.array_equal(levels(path).round(), LARGER)
    assert im.shape_of(path) == LARGER.shape[:2]
    assert not caplog.messages


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO"])
def test_pictures_that_are_left_out_are_told_once(tmp_path, caplog, kind):
    path = tmp_path / "picture"
    path.write_bytes(
        encoded(kind, save_all=True, append_images=[Image.new("RGB", (24, 20), "red")])
    )
    first, _ = levels(path), im.load(path)
    assert np.abs(first - ARRAY).mean() < 60
    which = "largest" if kind == "TIFF" else "first"
    assert caplog.messages == [f"{path}: has 2 pictures; the {which} one is used"]


# --- how many pixels ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["²", "１２", "-5", "0", " 5", "1e9", "many", "9" * 5000, "5\n"])
def test_an_odd_number_of_allowed_pixels_is_refused_in_one_line(
    tmp_path, monkeypatch, capsys, text
):
    path = tmp_path / "a.png"
    path.write_bytes(png(ARRAY))
    monkeypatch.setenv(opening.ALLOWING, text)
    assert cli.main(["transfer", str(path), str(path), "--out", str(tmp_path / "out.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert opening.ALLOWING in line
    assert len(line) < 200


def test_no_or_another_number_of_allowed_pixels_counts(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(ARRAY))
    monkeypatch.setenv(opening.ALLOWING, "")
    assert im.load(path).shape == (1, 3, 20, 24)
    monkeypatch.setenv(opening.ALLOWING, "479")
    assert "24×20 is more than 0.000479 million pixels" in refusal(im.load, path)
