"""Which streams of a file are used; and what is no clip is refused by what it is."""

import logging
import os
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from faults import refusal
from helpers import smooth
from making import make_clip, told
from PIL import Image

from nstlab.pictures import images as im
from nstlab.pictures import opening
from nstlab.video.clips import clip
from nstlab.video.containers import picture_streams
from nstlab.video.writing import write_film

DEFAULT, ARTWORK = av.stream.Disposition.default, av.stream.Disposition.attached_pic


def two_films(path, dispositions, codecs=("mpeg4", "mpeg4")):
    """A file with two streams of pictures, dark and bright ones."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream(codec, rate=10) for codec in codecs]
        for stream, disposition in zip(streams, dispositions, strict=True):
            stream.width, stream.height, stream.pix_fmt, stream.disposition = (
                32,
                32,
                "yuv420p",
                disposition,
            )
        for stream, level in zip(streams, (60, 200), strict=True):
            for _ in range(3):
                out.mux(
                    stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8)))
                )
            out.mux(stream.encode())
    return path


def level(path):
    return float(next(clip(path).frames()).picture.mean())


def test_the_default_pictures_are_used_else_the_first(tmp_path):
    assert level(two_films(tmp_path / "a.mkv", (0, 0))) < 0.4
    assert level(two_films(tmp_path / "b.mkv", (DEFAULT, 0))) < 0.4
    assert level(two_films(tmp_path / "c.mkv", (0, DEFAULT))) > 0.6


def test_artwork_is_no_film(tmp_path):
    streams = [
        SimpleNamespace(index=i, disposition=each, codec_context=object(), frames=0)
        for i, each in enumerate((ARTWORK, 0))
    ]
    found = picture_streams(SimpleNamespace(streams=SimpleNamespace(video=streams)))
    assert [stream.index for stream in found] == [1]


def test_pictures_that_cannot_be_decoded_are_passed_over(tmp_path):
    path = two_films(tmp_path / "a.mkv", (DEFAULT, 0), ("mpeg4", "ffv1"))
    content = path.read_bytes()
    # whose decoder makes nothing of it; that nobody knows
    for other in (b"V_MPEG2".ljust(15, b"\0"), b"V_MPEG4/ISO/XXX"):
        path.write_bytes(content.replace(b"V_MPEG4/ISO/ASP", other))
        assert level(path) > 0.6
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XXXX"))
    assert "has no video stream whose codec FFmpeg knows" in refusal(clip, path)


def two_sounds(path):
    """A film with two tones, of 0.3 s each."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height = 32, 32
        tones = [out.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for _ in range(3):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        out.mux(video.encode())
        for tone in tones:
            for i in range(14):
                wave = av.AudioFrame.from_ndarray(
                    np.full((1, 1024), 0.1, np.float32), "fltp", "mono"
                )
                wave.sample_rate, wave.pts = 48_000, 1024 * i
                out.mux(tone.encode(wave))
            out.mux(tone.encode())
    return path


def test_a_file_is_opened_once_to_find_out_what_it_holds(tmp_path, monkeypatch):
    path = two_sounds(tmp_path / "a.mp4")
    av_open, opened = av.open, []

    def counting(*args, **options):
        opened.append(args)
        return av_open(*args, **options)

    monkeypatch.setattr(av, "open", counting)
    assert clip(path).sounds == (1, 2)
    assert len(opened) == 1


def unknown(content):
    """The content with its first AAC sound in a codec that nobody knows."""
    at = content.index(b"mp4a")
    end = content.index(b"esds", at)
    return content[:at] + b"abcd" + content[at + 4 : end] + b"dcba" + content[end + 4 :]


def test_a_sound_that_can_be_read_is_used_and_without_one_the_film_is_silent(tmp_path, caplog):
    path = two_sounds(tmp_path / "a.mp4")
    assert clip(path).sounds == (1, 2)
    content = unknown(path.read_bytes())
    path.write_bytes(content)
    assert clip(path).sounds == (2,)
    frames = [
        (im.save(smooth(32, 32, i), tmp_path / f"{i}.png"), Fraction(i, 10)) for i in range(3)
    ]
    write_film(tmp_path / "out.mp4", frames, Fraction(3, 10), clip(path))
    assert told(tmp_path / "out.mp4")[3] == pytest.approx(0.3, abs=0.05)
    assert {record.message.partition(": ")[2] for record in caplog.records} == {
        "its first sound cannot be read; another one takes its place"
    }
    caplog.clear()
    path.write_bytes(unknown(content))
    with caplog.at_level(logging.WARNING, "nstlab"):
        found = clip(path)
    assert found.sounds == ()
    assert "its sound cannot be read; the film is silent" in caplog.text
    write_film(tmp_path / "out.mp4", frames, Fraction(3, 10), found)
    assert told(tmp_path / "out.mp4")[2:] == (["h264"], 0.0)


def test_an_animated_avif_is_a_clip_and_not_its_first_picture(tmp_path):
    shades = [Image.new("RGB", (32, 32), (level, level, level)) for level in (60, 120, 180)]
    shades[0].save(tmp_path / "a.avif", save_all=True, append_images=shades[1:], duration=100)
    frames = list(clip(tmp_path / "a.avif").frames())
    assert [round(float(frame.picture.mean()) * 255) for frame in frames] == pytest.approx(
        [60, 120, 180], abs=3
    )


def test_what_is_no_film_is_told_by_what_it_is(tmp_path):
    picture = Image.new("RGB", (32, 32), "red")
    for name in ("a.png", "a.jpg", "a.webp"):
        picture.save(tmp_path / name)
    picture.save(tmp_path / "film.mp4", "PNG")
    shapes = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    shapes[0].save(tmp_path / "moving.webp", save_all=True, append_images=shapes[1:])
    (tmp_path / "a.eps").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    )
    (tmp_path / "a.txt").write_text("nothing é " * 900)
    (tmp_path / "a.nfo").write_text("nothing\n")
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    picture.save(tmp_path / "a.dng", "TIFF")
    for name, says in (
        ("a.png", "a still picture, PNG"), ("a.jpg", "a still picture, JPEG"),
        ("a.webp", "a still picture, WEBP"),
        ("film.mp4", "a still picture, PNG"), ("moving.webp", "an animated WEBP"),
        ("a.eps", "a still picture, EPS"),
        ("a.txt", "a text"), ("a.nfo", "a text"), ("a.mp4", "an empty file"),
        ("a.dng", "a camera's raw picture"), ("a.pdf", "a PDF"),
    ):  # fmt: skip
        assert f"{name}: is not a video ({says}" in refusal(clip, tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_and_a_device_are_not_opened_and_named_once(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    for path in (tmp_path / "a.mp4", Path(os.devnull)):
        assert (
            refusal(clip, path) == f"{path}: is not a regular file but a pipe, a socket or a device"
        )


def test_names_in_another_alphabet_do_not_matter(tmp_path):
    path = make_clip(tmp_path / "a.mkv", [smooth(32, 32, 1)])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Lavf", b"\xff\xfeav"))
    assert len(list(clip(path).frames())) == 1


def test_pixels_and_memory_are_checked_before_a_clip_is_decoded(tmp_path, monkeypatch):
    content = make_clip(
        tmp_path / "a.mp4", [smooth(64, 64, 1)], aspect=Fraction(3, 2), codec="mpeg4"
    ).read_bytes()
    where = content.index(b"pasp") + 4
    for (width, height), says in {
        (600, 1): "38400×64 is too long", (1, 600): "1×64 is too small",
        ((1 << 31) - 1, 1): "more than",
    }.items():  # fmt: skip
        (tmp_path / "b.mp4").write_bytes(
            content[:where] + struct.pack(">II", width, height) + content[where + 8 :]
        )
        assert says in refusal(clip, tmp_path / "b.mp4")

    def never(*args, **kwargs):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("nstlab.video.probing.decoder_of", never)
    monkeypatch.setenv(opening.ALLOWING, "4095")
    assert "64×64 is more than" in refusal(clip, tmp_path / "a.mp4")
    monkeypatch.delenv(opening.ALLOWING)
    monkeypatch.setattr(opening.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert "GB of memory" in refusal(clip, tmp_path / "a.mp4")
