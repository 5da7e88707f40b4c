"""Films out: any shape, any sound, any times; what fails loses nothing, and is found out before
anything is painted."""

import errno
import io
import itertools
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from faults import refusal
from helpers import smooth
from hypothesis import example, given, settings
from hypothesis import strategies as st
from making import make_clip, told
from PIL import Image, ImageSequence

from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.video import sound, writing
from nstlab.video.clips import clip
from nstlab.video.formats import check_shown, check_sound, film_shape
from nstlab.video.writing import write_film

END = Fraction(3, 10)


@pytest.fixture
def pictures():
    return [smooth(32, 32, seed) for seed in range(3)]


@pytest.fixture
def kept(pictures, tmp_path):
    """(file, time) of each picture."""
    return [
        (im.save(each, tmp_path / f"{i}.png"), Fraction(i, 10)) for i, each in enumerate(pictures)
    ]


@pytest.fixture
def sounding(pictures, tmp_path):
    """A clip with a sound."""
    return make_clip(tmp_path / "clip.mp4", pictures, sound="aac")


def without_codec(path, count=1):
    """The file, whose first sounds are now of a codec that nobody knows."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"mp4a", b"apac", count).replace(b"esds", b"dapa", count))
    return path


def with_two_sounds(path):
    """The file, with its sound twice."""
    with av.open(str(path)) as source, av.open(str(path.with_stem("two")), "w") as made:
        first, sound = source.streams.video[0], source.streams.audio[0]
        into = {stream: made.add_stream_from_template(stream) for stream in (first, sound)}
        more = made.add_stream_from_template(sound)
        for packet in source.demux():
            if packet.dts is None:
                continue
            stream, data = packet.stream, bytes(packet)
            for target in [into[stream], *([more] if stream is sound else [])]:
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base, copy.stream = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    target,
                )
                made.mux(copy)
    return path.with_stem("two")


@settings(max_examples=40)
@given(st.integers(16, 3000), st.floats(1 / 8, 8), st.integers(16, 3000))
@example(16, 8.0, 131)
@example(16, 1 / 8, 131)
def test_the_shape_of_a_film_is_even_near_what_was_asked_for_and_allowed_for_pictures(
    side, aspect, size
):
    shape = (side, max(16, round(side * aspect)))
    if max(shape) > 8 * min(shape) or round(min(shape) * size / max(shape)) < 16:
        refusal(film_shape, shape, size)
        return
    height, width = film_shape(shape, size)
    assert height % 2 == width % 2 == 0
    assert 16 <= min(height, width) <= max(height, width) <= 8 * min(height, width)
    assert abs(max(height, width) - size) <= 4
    assert abs(min(height, width) - size * min(shape) / max(shape)) <= 1.5


def test_a_clip_that_is_too_long_is_refused_by_its_name():
    assert refusal(film_shape, (300, 30), 64, "a.mp4").startswith("a.mp4: 30×300 is too long")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_sound_that_nobody_knows_makes_a_silent_film_and_is_told_before(
    kept, sounding, tmp_path, caplog, suffix
):
    out, source = tmp_path / f"out{suffix}", clip(without_codec(sounding))
    check_sound(out, source)
    assert "silent" in caplog.text
    write_film(out, kept, END, source)
    count, _, codecs, _ = told(out)
    assert (count, len(codecs)) == (3, 1)


def test_the_next_sound_takes_the_place_of_one_that_cannot_be_used(
    kept, sounding, tmp_path, caplog
):
    out, source = tmp_path / "out.mp4", clip(without_codec(with_two_sounds(sounding)))
    check_sound(out, source)
    assert caplog.text.count("another one takes its place") == 1
    write_film(out, kept, END, source)
    assert told(out)[2:] == (["h264", "aac"], pytest.approx(0.3, abs=0.1))


def test_a_sound_that_can_be_used_needs_no_words(kept, sounding, tmp_path, caplog):
    for name in ("out.mp4", "out.webm", "out.gif", "out"):
        check_sound(tmp_path / name, clip(sounding))
    assert caplog.text == ""


def broken_after(count, error):
    """Packets of which the one after so many raises an error."""

    def packets(source, stream):
        for i, packet in enumerate(source.demux(stream)):
            if i == count:
                raise error
            yield packet

    return packets


def test_a_sound_that_fails_on_the_way_costs_the_sound_but_not_the_film(
    kept, sounding, tmp_path, monkeypatch, caplog
):
    out, source = tmp_path / "out.mp4", clip(sounding)
    monkeypatch.setattr(sound, "TRIAL_PACKETS", 2)
    monkeypatch.setattr(
        sound, "_packets", broken_after(9, av.error.ExternalError(1, "no more sound"))
    )
    write_film(out, kept, END, source)
    assert (told(out)[0], len(told(out)[2])) == (3, 1)
    assert caplog.text.count("has no sound, which cannot be written (no more sound)") == 1
    out.write_bytes(b"an older film")
    full = av.error.OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(sound, "_packets", broken_after(9, full))
    assert "out.mp4: cannot be written (No space left on device)" in refusal(
        write_film, out, kept, END, source
    )
    assert out.read_bytes() == b"an older film"


def test_a_file_that_is_damaged_further_on_gives_its_sound_until_there(caplog):
    class Source:
        name = "a.mp4"

        def demux(self, stream):
            yield from "ab"
            raise av.error.InvalidDataError(1, "invalid data")

    assert list(sound._packets(Source(), None)) == ["a", "b"]
    assert "a.mp4: the sound ends where the file is damaged" in caplog.text


def test_a_sound_may_change_its_form_on_the_way(tmp_path):
    def waves():
        for rate, layout, channels in ((48_000, "mono", 1), (44_100, "stereo", 2)):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, rate // 10 * channels), np.int16), "s16", layout
            )
            frame.sample_rate, frame.pts, frame.time_base = (
                rate,
                0 if channels == 1 else rate // 10,
                Fraction(1, rate),
            )
            yield frame

    with av.open(io.BytesIO(), "w", format="mp4") as container:
        made = container.add_stream("aac", rate=48_000, layout="stereo")
        packets = list(sound._encoded(made, waves()))
    assert max(
        packet.pts * packet.time_base for packet in packets if packet.pts is not None
    ) > Fraction(15, 100)


@pytest.mark.parametrize(
    ("name", "seconds"), [("a.gif", 656), ("a.mp4", 30_000), ("a.webm", 10**15)]
)
def test_a_picture_that_is_shown_for_longer_than_a_film_can_is_refused_in_one_line(
    kept, tmp_path, name, seconds
):
    out = tmp_path / name
    message = refusal(check_shown, out, Fraction(seconds))
    assert f"for {seconds:.6g} s" in message
    assert refusal(write_film, out, kept, kept[-1][1] + seconds) == message
    assert not out.exists()
    write_film(tmp_path / "folder", kept, Fraction(seconds))


def test_equal_pictures_that_become_one_in_a_gif_are_shown_no_longer_than_it_can(kept, tmp_path):
    out, (path, _) = tmp_path / "a.gif", kept[0]
    equal = [(path, Fraction(0)), (path, Fraction(400))]
    assert "for 800 s" in refusal(write_film, out, equal, Fraction(800))
    assert not out.exists()


@pytest.mark.parametrize(
    ("rate", "count", "shown"),
    [
        (10, 3, 3),
        (50, 10, 10),
        (60, 60, 50),
        (Fraction(60_000, 1001), 60, 50),
        (240, 30, 6),
        (1000, 5, 1),
    ],
)
def test_a_gif_lasts_as_long_as_its_frames_and_says_which_it_leaves_out(
    tmp_path, caplog, rate, count, shown
):
    frames = [(tmp_path / f"{i}.png", Fraction(i) / rate) for i in range(count)]
    for i, (path, _) in enumerate(frames):
        im.save(torch.full((1, 3, 16, 16), i / count), path)
    end = max(Fraction(count) / rate, Fraction(2, 100))
    write_film(tmp_path / "a.gif", frames, end)
    with Image.open(tmp_path / "a.gif") as image:
        lengths, levels = [], []
        for each in ImageSequence.Iterator(image):
            lengths.append(each.info["duration"])
            levels.append(each.convert("RGB").getpixel((0, 0))[0])
    assert abs(sum(lengths) - 1000 * end) <= 5
    assert min(lengths) >= 20
    assert len(lengths) == shown
    begins = itertools.accumulate(lengths[:-1], initial=0)
    which = [round(level / 255 * count) for level in levels]
    assert all(
        abs(begin - 1000 * frames[i][1]) <= 10 for begin, i in zip(begins, which, strict=True)
    )
    said = f"a.gif: shows {shown} of {count} frames" if shown < count else ""
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


@pytest.mark.parametrize("where", ["copyfile", "replace"])
def test_a_folder_has_the_old_frames_or_the_new_ones(pictures, tmp_path, monkeypatch, where):
    old = [
        (im.save(each, tmp_path / f"old{i}.png", {"frame": i}), Fraction(i))
        for i, each in enumerate(pictures)
    ]
    new = [
        (im.save(1 - each, tmp_path / f"new{i}.png", {"frame": i}), Fraction(i))
        for i, each in enumerate(pictures * 2)
    ]
    out = tmp_path / "out"
    write_film(out, old, Fraction(3))
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    module = shutil if where == "copyfile" else writing.os
    calls, call = [], getattr(module, where)

    def full(source, target, *rest):
        calls.append(target)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(source, target, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, full)
        assert "out: cannot be written (No space left" in refusal(write_film, out, new, Fraction(6))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    write_film(out, new, Fraction(6))
    assert [path.read_bytes() for path in sorted(out.glob("*.png"))] == [
        path.read_bytes() for path, _ in new
    ]
    assert len(list(out.iterdir())) == 7


def test_pyav_is_needed_for_video_files_alone(kept, tmp_path, monkeypatch):
    def missing():
        raise InputError("video: PyAV is not installed")

    monkeypatch.setattr(writing, "library", missing)
    for name in ("out.gif", "out"):
        write_film(tmp_path / name, kept, END)
    assert "PyAV is not installed" in refusal(write_film, tmp_path / "out.mp4", kept, END)
