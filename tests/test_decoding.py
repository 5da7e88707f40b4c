"""Decoding: the same pixels however a picture is read, memory in proportion to what is used, and nothing waited for."""

import os
import struct
import subprocess
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import refusal
from PIL import ExifTags, Image

from nstlab import decoding
from nstlab import images as im
from nstlab.settings import FITS


def written(image, path, **options):
    image.save(path, **options)
    return path


@pytest.fixture
def narrow(monkeypatch):
    """Pictures become numbers a few rows at a time."""
    monkeypatch.setattr(decoding, "BAND", 100)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("size", [None, 31, 64, 90])
def test_a_picture_read_by_parts_is_the_same_to_the_bit(tmp_path, monkeypatch, mode, size):
    drawn = np.random.default_rng(0).integers(0, 256, (64, 50, 3), dtype=np.uint8)
    deep = {"I;16": drawn[..., 0].astype(np.uint16) * 200, "F": drawn[..., 0].astype(np.float32)}
    image = Image.fromarray(deep[mode]) if mode in deep else Image.fromarray(drawn).convert(mode)
    path = written(image, tmp_path / "a.tif")
    whole = im.load(path, size)
    full = im.load(path)
    monkeypatch.setattr(decoding, "BAND", 100)
    assert torch.equal(im.load(path, size), whole)
    assert torch.equal(whole, full if size is None else im.resize(full, whole.shape[-2:]))


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_painting_is_read_as_it_is_used(tmp_path, narrow, how, scale, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    drawn = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    path = written(Image.fromarray(drawn), tmp_path / "a.png", exif=exif)
    assert torch.equal(im.load_fit(path, (40, 33), how, scale), im.fit(im.load(path), (40, 33), how, scale))
    assert im.shape_of(path) == im.load(path).shape[-2:]
    assert im.shape_of(path, 48) == im.load(path, 48).shape[-2:]


def behind_the_pixels(path, kind, data):
    """Put a chunk of a PNG where some programs put it: after the pixels."""
    content = path.read_bytes()
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content[:-12] + chunk + content[-12:])
    return path


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("how", ["exif", "xmp", "tiff"])
def test_an_orientation_that_is_told_late_or_elsewhere_turns_the_shape_too(tmp_path, how):
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if how == "exif":
        path = behind_the_pixels(written(drawn, tmp_path / "a.png"), b"eXIf", exif.tobytes()[6:])
    elif how == "xmp":
        path = behind_the_pixels(written(drawn, tmp_path / "a.png"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
    else:
        path = written(drawn, tmp_path / "a.tif", tiffinfo={700: XMP.encode()})
    upright = im.load(written(drawn.transpose(Image.Transpose.ROTATE_270), tmp_path / "b.png"))
    assert torch.equal(im.load(path), upright)
    assert im.shape_of(path) == (64, 40)
    assert torch.equal(im.load_fit(path, (30, 30), "crop"), im.fit(upright, (30, 30), "crop"))


PEAK = r"""
import re, sys
from pathlib import Path
from nstlab import images as im
def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
im.load(sys.argv[2], 64)
before = peak()
im.load(sys.argv[1], 64) if sys.argv[3] == "photo" else im.load_fit(sys.argv[1], (64, 64))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory, as Linux tells it")
@pytest.mark.parametrize(
    ("kind", "mode", "bytes_a_pixel", "role"),
    [("png", "L", 1.5, "photo"), ("png", "RGB", 4.5, "painting"), ("jpg", "RGB", 0.5, "photo")],
)
def test_a_large_picture_takes_little_more_memory_than_its_decoder(tmp_path, photo, kind, mode, bytes_a_pixel, role):
    small, side = im.save(photo, tmp_path / "small.png"), 8000
    large = written(Image.new(mode, (side, side)), tmp_path / f"large.{kind}")
    done = subprocess.run([sys.executable, "-c", PEAK, large, small, role], capture_output=True, text=True, check=True)
    assert int(done.stdout) < bytes_a_pixel * side**2 + 80e6


def test_a_large_jpeg_that_its_decoder_shrinks_looks_the_same(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    im.save(im.sample("coffee", 600), path)
    whole = im.load(path, 100)
    monkeypatch.setattr(decoding, "LARGE", 100_000)
    shrunk = im.load(path, 100)
    assert shrunk.shape == whole.shape
    assert 0 < (shrunk - whole).abs().mean() < 0.01


def test_a_picture_beyond_the_free_memory_is_refused_before_it_is_decoded(tmp_path, photo, monkeypatch):
    path = im.save(photo, tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr(decoding.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert "GB are free" in refusal(im.load, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
@pytest.mark.parametrize("read", [im.load, im.shape_of, im.read_settings, im.reopen, im.verify])
def test_a_pipe_or_a_device_is_refused_rather_than_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        assert "is not a regular file" in refusal(read, path)
