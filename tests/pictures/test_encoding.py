"""Pictures written with 16 bits: read again by Pillow and tifffile, and by the PNG
specification."""

import io
import struct
import zlib

import numpy as np
import tifffile
import torch
from faults import refusal
from helpers import smooth
from PIL import Image, ImageCms

from nstlab.pictures import images as im


def pixels_of(png: bytes) -> np.ndarray:
    """(H, W, 3) of a 16-bit RGB PNG whose rows are all filtered by what is above."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) == (16, 2)
    packed, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        name, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0] == zlib.crc32(
            name + data
        )
        packed += data if name == b"IDAT" else b""
        place += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 6 * width)
    assert (rows[:, 0] == 2).all()
    plain = rows[:, 1:].cumsum(0, dtype=np.uint8)
    return plain.reshape(-1).view(">u2").reshape(height, width, 3)


def test_16_bits_come_back_with_profile_and_settings(tmp_path):
    picture = smooth(37, 41, 0)
    exact = (picture[0].permute(1, 2, 0) * 65535).round().numpy()
    for name, read in (
        ("a.png", lambda path: pixels_of(path.read_bytes())),
        ("a.tif", tifffile.imread),
    ):
        path = im.save(picture, tmp_path / name, {"beta": 2.5}, deep=True)
        found = read(path)
        assert (found.shape, found.dtype.itemsize) == ((37, 41, 3), 2)
        assert np.array_equal(found, exact)
        assert im.read_settings(path) == {"beta": 2.5}
        with Image.open(path) as image:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert torch.allclose(im.load(tmp_path / "a.png"), picture, atol=1 / 255)
    assert "a.jpg: a JPEG has 8 bits" in refusal(im.save, picture, tmp_path / "a.jpg", deep=True)
