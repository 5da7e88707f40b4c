"""What a file is that is no picture we read, told by how it begins."""

from __future__ import annotations

import codecs
import contextlib
import re

HEAD = 1 << 12  # bytes by which a file is told
READABLE = "PNG, JPEG, TIFF, WebP and the like"
RAW = "a camera raw file; develop it first, into a TIFF or a JPEG"
NEVER = {  # what Pillow takes for a picture and is none that it can read, by how the file begins
    rb"\0\0\x01[\xb3\xba]": "a video",
    rb"\x89HDF|GRIB|BUFR": "scientific data (HDF5, GRIB or BUFR)",
    rb"II\*\0.{4}CR": RAW,
}
UNLOADABLE = {  # what it reads with other programs' help only
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS or PostScript file, which only Ghostscript can read",
    rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF": "a Windows metafile (WMF, EMF), which only Windows "
    "can read",
}
UNKNOWN = {  # and what it does not know
    rb"%PDF": "a PDF",
    rb".{4}ftyp(avif|avis)": "an AVIF picture that this Pillow cannot read (or damaged)",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "a HEIC picture, which Pillow reads with a plugin only; save "
    "it as JPEG",
    rb".{4}ftypcrx|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|\0MRM|FOVb|II\x1a\0\0\0HEAPCCDR": RAW,
    rb"\0\0\0\x0cJXL |\xff\x0a": "a JPEG XL picture, which Pillow reads with a plugin only",
    rb".{4}(ftyp|moov|mdat|wide)|RIFF.{4}(AVI |WAVE)"
    rb"|\x1aE\xdf\xa3|FLV\x01|OggS|ID3|0&\xb2u|G.{187}G": "a video, or sound",
    rb"(\xef\xbb\xbf)?\s*(<\?xml.*?|<!--.*?)?<(!DOCTYPE )?svg": "an SVG, a drawing; export "
    "it as PNG",
    rb"\s*<(!doctype )?html": "a page of the web, not a picture",
    rb"8BPS": "a Photoshop file of a kind that Pillow cannot read; save it as TIFF",
    rb"v/1\x01|#\?(RADIANCE|RGBE)": "a picture with high dynamic range (EXR or HDR); save "
    "it as TIFF",
    rb"gimp xcf": "a file of GIMP (XCF); export it as PNG",
    rb"\x00\x05\x16[\x00\x07]": "not a picture but what a Mac keeps beside one",
    rb"\xff\xfe|\xfe\xff": "not a picture but a text file",  # UTF-16
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!": "an archive, not a picture",
}


class Refused(ValueError):
    """The file cannot be read for what it is, which the message says: "a camera raw file; …"."""


def refused_kind(head: bytes) -> str:
    """What a file is that Pillow takes for a picture and cannot read; "" for others.

    Args:
        head: its first HEAD bytes.
    """
    return _matching(head, NEVER)


def unloadable_kind(head: bytes) -> str:
    """What a file is that Pillow reads with other programs' help only; "" for others."""
    return _matching(head, UNLOADABLE)


def unknown_kind(head: bytes) -> str:
    """What a file is that Pillow does not know, as the end of "is …"."""
    if not head:
        return "not a picture but an empty file"
    kind = _matching(head, UNLOADABLE | UNKNOWN)
    if kind:
        return kind
    if _is_text(head):
        return "not a picture but a text file"
    return "not a picture (or damaged)"


def _matching(head: bytes, kinds: dict[bytes, str]) -> str:
    """The first of the kinds whose beginning the file has, or ""."""
    for beginning, kind in kinds.items():
        if re.match(beginning, head, re.DOTALL | re.IGNORECASE):
            return kind
    return ""


def _is_text(head: bytes) -> bool:
    """Whether it is text in UTF-8; its last letter may be cut."""
    with contextlib.suppress(UnicodeDecodeError):
        text, _ = codecs.utf_8_decode(head, "strict", False)
        return re.fullmatch(r"[^\0-\x08\x0e-\x1a\x1c-\x1f]*", text) is not None
    return False
