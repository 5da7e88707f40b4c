"""Clips in and films out: what is decoded is upright, square and complete; what is written lasts as
long as it should."""

import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from faults import damaged, refusal
from helpers import smooth
from making import make_clip, told
from PIL import Image

from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.video.clips import clip
from nstlab.video.formats import check_film
from nstlab.video.writing import write_film


@pytest.fixture
def pictures():
    return [smooth(48, 64, seed) for seed in range(6)]


@pytest.fixture
def kept(pictures, tmp_path):
    """(file, time) of each picture."""
    return [
        (im.save(each, tmp_path / f"{i}.png"), Fraction(i, 10)) for i, each in enumerate(pictures)
    ]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("mkv", "ffv1")],
)
def test_frames_are_decoded_in_order_with_their_times(pictures, tmp_path, suffix, codec):
    found = clip(make_clip(tmp_path / f"a.{suffix}", pictures, codec=codec))
    frames = list(found.frames())
    assert found.shape == (48, 64)
    assert found.length * found.rate == len(frames) == 6
    assert [float(frame.time) for frame in frames] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=0.002
    )
    for frame, picture in zip(frames, pictures, strict=True):
        assert (frame.picture - picture).abs().mean() < 0.05
        assert all(
            (frame.picture - picture).abs().mean() <= (frame.picture - other).abs().mean()
            for other in pictures
        )


def test_variable_rates_keep_their_times(pictures, tmp_path):
    times = [0, 0.1, 0.15, 0.6, 0.7, 1.5]
    found = clip(make_clip(tmp_path / "a.mkv", pictures, times=times))
    assert [float(frame.time) for frame in found.frames()] == pytest.approx(times, abs=0.002)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("avi", "mpeg4"), ("avi", "libx264"), ("wmv", "libx264")]
)
def test_times_are_even_where_a_file_only_tells_when_pictures_are_decoded(
    pictures, tmp_path, suffix, codec
):
    path = make_clip(tmp_path / f"a.{suffix}", pictures, codec=codec, options={"bf": "2"})
    frames = list(clip(path).frames())
    assert [float(frame.time) for frame in frames] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=0.002
    )
    assert float(frames[-1].until) == pytest.approx(0.6, abs=0.002)


@pytest.mark.parametrize("rate", [10, 25, 50])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("h264", "libx264"), ("hevc", "libx265"), ("m2v", "mpeg2video"), ("mpg", "mpeg2video")],
)
def test_a_stream_without_a_container_has_the_speed_that_it_tells(
    pictures, tmp_path, suffix, codec, rate
):
    path = make_clip(tmp_path / f"a.{suffix}", pictures, rate, codec, options={"bf": "2"})
    found = clip(path)
    assert (found.rate, list(found.frames())[-1].until) == (rate, Fraction(6, rate))
    assert [frame.time for frame in found.frames()] == [Fraction(i, rate) for i in range(6)]


@pytest.mark.parametrize("rate", [12, 13, Fraction(12000, 1001), 110, 120, 240])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265"), ("m4v", "mpeg4")]
)
def test_a_bare_stream_has_any_speed_that_it_tells(pictures, tmp_path, suffix, codec, rate):
    found = clip(make_clip(tmp_path / f"a.{suffix}", pictures, rate, codec))
    assert found.rate == rate
    times = [frame.time for frame in found.frames()]
    assert list(map(float, times)) == pytest.approx([float(i / rate) for i in range(6)], abs=1e-5)
    assert float(list(found.frames())[-1].until) == pytest.approx(float(6 / rate), abs=1e-5)


def test_pixels_that_are_not_square_and_odd_sizes(pictures, tmp_path):
    wide = clip(make_clip(tmp_path / "a.mp4", pictures, aspect=Fraction(3, 2)))
    assert wide.shape == (48, 96)
    odd = [smooth(47, 63, seed) for seed in range(2)]
    assert clip(make_clip(tmp_path / "b.mkv", odd, codec="ffv1", pix_fmt="bgr0")).shape == (47, 63)


def test_what_is_turned_by_its_file_is_upright(pictures, tmp_path):
    straight = make_clip(tmp_path / "a.mp4", pictures)
    content = straight.read_bytes()
    # of the track's matrix, by 90°
    unit, turned = [(1 << 16, 0, 0), (0, 1 << 16, 0)], [(0, 1 << 16, 0), (-(1 << 16), 0, 0)]
    first, second = (
        b"".join(v.to_bytes(4, "big", signed=True) for row in rows for v in row)
        for rows in (unit, turned)
    )
    where = content.index(first, content.index(b"tkhd"))
    (tmp_path / "b.mp4").write_bytes(content[:where] + second + content[where + len(first) :])
    found = clip(tmp_path / "b.mp4")
    assert found.shape == (64, 48)
    frame = next(found.frames()).picture
    assert (frame - torch.rot90(pictures[0], -1, (-2, -1))).abs().mean() < 0.05


def test_what_is_transparent_is_on_white(tmp_path):
    clear = [Image.new("RGBA", (32, 32), (255, 0, 0, 255 * (i % 2))) for i in range(3)]
    clear[0].save(tmp_path / "a.png", save_all=True, append_images=clear[1:], duration=100)
    shutil.move(tmp_path / "a.png", tmp_path / "a.apng")
    frames = [frame.picture for frame in clip(tmp_path / "a.apng").frames()]
    assert float(frames[0].min()) == 1
    assert frames[1][0, :, 0, 0].tolist() == [1, 0, 0]


def test_a_folder_of_pictures_is_a_clip(kept, pictures, tmp_path):
    found = clip(tmp_path)
    assert (found.length * found.rate, found.shape, found.sounds) == (6, (48, 64), ())
    for frame, picture in zip(found.frames(), pictures, strict=True):
        assert torch.equal(frame.picture, im.quantize(picture))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_a_film_has_the_clips_sound_and_lasts_as_long(kept, pictures, tmp_path, suffix, codec):
    source = clip(make_clip(tmp_path / "a.mkv", pictures, sound=codec))
    assert source.sounds
    write_film(tmp_path / f"out{suffix}", kept, Fraction(6, 10), source)
    count, length, codecs, sound = told(tmp_path / f"out{suffix}")
    assert count == 6
    assert length == pytest.approx(0.6, abs=0.1)
    assert codecs[1] == ("opus" if suffix == ".webm" or codec == "libopus" else "aac")
    assert sound == pytest.approx(0.6, abs=0.1)
    write_film(
        tmp_path / f"part{suffix}",
        [(path, at - Fraction(3, 10)) for path, at in kept[3:]],
        Fraction(3, 10),
        source,
        Fraction(3, 10),
    )
    count, length, _, sound = told(tmp_path / f"part{suffix}")
    assert count == 3
    assert sound == pytest.approx(length, abs=0.1) == pytest.approx(0.3, abs=0.1)


def test_sound_that_is_damaged_is_left_out_where_it_is_encoded_anew(kept, pictures, tmp_path):
    path = make_clip(tmp_path / "a.mp4", pictures, sound="aac")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size > 20]
    content = bytearray(path.read_bytes())
    content[packets[9].pos : packets[9].pos + packets[9].size] = b"\xff" * packets[9].size
    path.write_bytes(content)
    write_film(tmp_path / "out.webm", kept, Fraction(6, 10), clip(path))
    count, _, codecs, sound = told(tmp_path / "out.webm")
    assert (count, codecs[1]) == (6, "opus")
    assert sound == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_last_frame_is_shown_for_as_long_as_in_the_clip(kept, pictures, tmp_path, suffix):
    first, *more = map(im.to_pil, pictures)
    first.save(tmp_path / "a.gif", save_all=True, append_images=more, duration=[100] * 5 + [3000])
    last = list(clip(tmp_path / "a.gif").frames())[-1]
    assert (last.time, last.until) == (Fraction(1, 2), Fraction(7, 2))
    write_film(tmp_path / f"out{suffix}", kept, Fraction(7, 2))
    assert told(tmp_path / f"out{suffix}")[1] == pytest.approx(3.5, abs=0.05)


def test_a_film_has_the_colours_of_its_frames_and_says_how_they_are_coded(kept, pictures, tmp_path):
    write_film(tmp_path / "out.mp4", kept, Fraction(6, 10))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stated = container.streams.video[0].codec_context
        assert (
            stated.colorspace,
            stated.color_primaries,
            stated.color_trc,
            stated.color_range,
        ) == (1, 1, 1, 1)
    for frame, picture in zip(clip(tmp_path / "out.mp4").frames(), pictures, strict=True):
        assert (frame.picture - picture).mean((0, 2, 3)).abs().max() < 0.01


def test_a_part_of_a_file_that_is_to_be_shown_is_the_whole_clip(pictures, tmp_path):
    source = make_clip(tmp_path / "a.mp4", pictures * 4, options={"bf": "0"})
    with (
        av.open(str(source)) as whole,
        av.open(str(tmp_path / "b.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as part,
    ):
        stream = part.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux():
            # the first half is before the beginning, which an edit list says
            if packet.dts is not None:
                packet.pts, packet.dts = (
                    each - round(Fraction(12, 10) / packet.time_base)
                    for each in (packet.pts, packet.dts)
                )
                packet.stream = stream
                part.mux(packet)
    found = clip(tmp_path / "b.mp4")
    assert len(list(found.frames())) == found.length * found.rate == 12


def test_a_folder_is_read_in_the_order_of_its_numbers(pictures, tmp_path):
    for i in (1, 2, 10):
        im.save(pictures[i % 6], tmp_path / f"frame {i}.png")
    frames = clip(tmp_path).frames()
    assert all(
        torch.equal(frame.picture, im.quantize(pictures[i % 6]))
        for frame, i in zip(frames, (1, 2, 10), strict=True)
    )


def test_a_colon_is_part_of_a_name(pictures, tmp_path, monkeypatch):
    make_clip(tmp_path / "a.mp4", pictures).rename(tmp_path / "a:b.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(clip("a:b.mp4").frames())) == 6


def test_a_folder_keeps_pictures_that_are_no_frames_and_no_frames_of_a_longer_film(
    pictures, kept, tmp_path
):
    films = [
        (im.save(each, tmp_path / f"kept{i}.png", {"frame": i}), Fraction(i, 10))
        for i, each in enumerate(pictures)
    ]
    out = tmp_path / "out"
    write_film(out, films, Fraction(6, 10))
    im.save(pictures[0], out / "notes.png")
    check_film(out)
    write_film(out, films[:2], Fraction(2, 10))
    assert sorted(path.name for path in out.iterdir()) == ["000000.png", "000001.png", "notes.png"]
    other = out / "000007.png"
    for content in (
        im.save(pictures[0], other).read_bytes(),
        b"",
        b"mine",
        other.read_bytes()[:30],
    ):
        other.write_bytes(content)
        assert (
            refusal(check_film, out)
            == f"{other}: is no frame of a film, and would be lost; choose another folder"
        )


def test_a_film_is_an_animation_or_a_folder_too(kept, pictures, tmp_path):
    write_film(tmp_path / "a.gif", kept, Fraction(6, 10))
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (6, (64, 48), 100)
    write_film(tmp_path / "frames", kept, Fraction(6, 10))
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())] == [
        f"{i:06}.png" for i in range(6)
    ]
    assert torch.equal(im.load(tmp_path / "frames" / "000003.png"), im.quantize(pictures[3]))


def test_a_film_that_cannot_be_written_leaves_what_was_there(kept, tmp_path, monkeypatch):
    (tmp_path / "out.mp4").write_bytes(b"an older film")

    def full(self, *args):
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr("nstlab.video.writing.im.to_pil", full)
    assert "out.mp4: cannot be written (No space left" in refusal(
        write_film, tmp_path / "out.mp4", kept, Fraction(1)
    )
    assert (tmp_path / "out.mp4").read_bytes() == b"an older film"
    assert not list(tmp_path.glob(".nstlab-*"))


def test_what_is_no_clip_is_refused_in_one_line(pictures, tmp_path, kept):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no film")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=48_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48_000
        container.mux(tone.encode(silence))
        container.mux(tone.encode())
    make_clip(tmp_path / "a.mkv", pictures)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:0.6\na.mkv\n")
    for name, says in (
        ("nowhere.mp4", "no such file"), ("text.mp4", "is not a video"),
        ("sound.mp4", "has no video stream"),
        ("empty", "no picture in it; allowed are PNG, JPEG, TIFF, WebP"), ("list.m3u8", "list"),
    ):  # fmt: skip
        assert says in refusal(clip, tmp_path / name)
    im.save(smooth(20, 20, 1), tmp_path / "9.png")
    assert "changes its size from 64×48 to 20×20 px after 6 frames" in refusal(
        lambda: list(clip(tmp_path).frames())
    )
    for name, says in (
        ("film.mov", ".mp4, .webm, .gif"),
        ("0.png", ".mp4"),
        ("nowhere/a.mp4", "there is no folder"),
    ):
        assert says in refusal(check_film, tmp_path / name)


def test_a_damaged_clip_gives_the_frames_before_and_says_so(pictures, tmp_path):
    content = make_clip(
        tmp_path / "a.mp4", pictures * 4, options={"g": "6"}, container={"movflags": "faststart"}
    ).read_bytes()
    whole = make_clip(
        tmp_path / "whole.mkv", pictures * 4, options={"g": "6"}, sound="aac"
    ).read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    assert "of 2.40 s" in refusal(lambda: list(clip(tmp_path / "half.mkv").frames()))
    told = []  # (how many frames there were before, what was said)
    for changed in damaged(content):
        path = tmp_path / "b.mp4"
        path.write_bytes(changed)
        count = 0
        try:
            for frame in clip(path).frames():
                assert frame.picture.shape[:2] == (1, 3)
                count += 1
        except InputError as error:
            told.append((count, str(error)))
    assert all(message.startswith(f"{path}: ") for _, message in told)
    assert len({before for before, _ in told}) > 1
