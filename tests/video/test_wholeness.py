"""Clips that lack something, or whose times are odd: what there is of them is read, and what lacks
is said."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from faults import read_or_refused, refusal
from helpers import smooth
from making import make_clip

from nstlab.base.errors import InputError
from nstlab.video.clips import clip
from nstlab.video.probing import RATES
from nstlab.video.timing import LONGEST
from nstlab.video.wholeness import flaw

PICTURES = [smooth(32, 48, seed) for seed in range(3)] * 4
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
KINDS = {
    "avi": ("mpeg4", None), "flv": ("flv1", None), "ts": ("mpeg2video", None),
    "mp4": ("libx264", FRAGMENTED),
    "webm": ("libvpx", None), "mkv": ("mpeg4", {"live": "1"}), "gif": ("gif", None),
    "apng": ("apng", None),
    "mjpeg": ("mjpeg", None), "wmv": ("wmv2", {"packet_size": "150"}),
}  # fmt: skip
FORMATS = {"gif": "rgb8", "apng": "rgb24", "mjpeg": "yuvj420p"}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """{suffix: content of a clip of 1.2 s}"""
    folder = tmp_path_factory.mktemp("whole")
    return {
        suffix: make_clip(
            folder / f"a.{suffix}",
            PICTURES,
            codec=codec,
            pix_fmt=FORMATS.get(suffix, "yuv420p"),
            options={"g": "4"},
            container=options,
        ).read_bytes()
        for suffix, (codec, options) in KINDS.items()
    }


def read(path, content):
    """(how many frames there are, what is said in the end) of a file."""
    path.write_bytes(content)
    count = 0
    try:
        for _ in clip(path).frames():
            count += 1
    except InputError as error:
        return count, str(error)
    return count, ""


@pytest.mark.parametrize("suffix", KINDS)
def test_a_clip_that_is_cut_gives_its_frames_and_says_so(contents, tmp_path, suffix):
    whole, path = contents[suffix], tmp_path / f"a.{suffix}"
    assert read(path, whole) == (12, "")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    for cut in (places[5] + 30, places[8] - 3, places[10] + 4):
        count, said = read(path, whole[: cut + (cut % 188 == 0)])
        assert 0 < count < 12
        assert said.startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", ["webm", "mkv", "flv", "ts", "gif"])
def test_a_hole_in_the_middle_is_said_after_what_is_behind_it(contents, tmp_path, suffix):
    whole = contents[suffix]
    begin, end = (188 * (int(part * len(whole)) // 188) for part in (0.45, 0.7))
    count, said = read(tmp_path / f"a.{suffix}", whole[:begin] + bytes(end - begin) + whole[end:])
    assert 0 < count < 12
    assert said.startswith(f"{tmp_path}")
    # of a part before it and one behind
    assert suffix != "webm" or ("has a hole" in said and count > 4)


@pytest.mark.parametrize("system", [b"\x3f", b"\xbf"])
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_dv_have_one_length(tmp_path, system, channels):
    length, path = 120_000 if system == b"\x3f" else 144_000, tmp_path / "a.dv"
    frame = b"".join(
        (head + system).ljust(length, b"v")
        for head in (b"\x1f\x07\x00", b"\x1f\x0f\x00")[:channels]
    )
    for lacks in (0, 1, len(frame) // 2, len(frame) - 1):
        path.write_bytes((3 * frame)[: 3 * len(frame) - lacks])
        said = f"is cut short: at least {lacks:,} bytes lack" if lacks else None
        assert flaw(path, "dv") == said


def test_the_index_of_a_wmv_is_not_needed_and_a_live_one_has_no_length(contents, tmp_path):
    whole, path = contents["wmv"], tmp_path / "a.wmv"
    index, data = whole.index(b"\x90\x08\x00\x33"), whole.index(b"\x36\x26\xb2\x75")
    assert read(path, whole[:index]) == (12, "")
    assert "cut short" in read(path, whole[: index - 1])[1]
    assert read(path, whole[: data + 16] + bytes(8) + whole[data + 24 : index]) == (12, "")


def test_what_is_appended_to_a_clip_does_not_matter(contents, tmp_path):
    for suffix in ("mp4", "webm", "avi", "gif", "apng", "mjpeg", "wmv"):
        assert read(
            tmp_path / f"a.{suffix}", contents[suffix] + b"\xff a note, or a player's mark"
        ) == (12, "")


@pytest.mark.parametrize(("suffix", "codec"), [("nut", "ffv1"), ("wmv", "wmv2"), ("mkv", "ffv1")])
def test_a_clip_that_begins_late_is_whole(tmp_path, suffix, codec):
    times = [5 + i / 10 for i in range(len(PICTURES))]
    path = make_clip(tmp_path / f"a.{suffix}", PICTURES, codec=codec, times=times)
    assert read(path, path.read_bytes().replace(b"DURATION", b"duratiom")) == (12, "")


def test_theora_repeats_pictures_with_empty_packets():
    frames = list(clip(Path(__file__).parent / "theora.ogv").frames())
    assert [(frame.time, frame.until) for frame in frames] == [
        (0, Fraction(6, 5)),
        (Fraction(6, 5), 2),
    ]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_pictures_are_held_as_long_as_there_is_sound(tmp_path, suffix):
    late = make_clip(
        tmp_path / f"late.{suffix}", PICTURES[:3], times=[1.0, 1.1, 1.2], sound="aac", seconds=2
    )
    frames = list(clip(late).frames())
    assert [round(float(frame.time), 2) for frame in frames] == [0, 1.1, 1.2]
    assert float(frames[-1].until) == pytest.approx(2, abs=0.06)
    frozen = make_clip(tmp_path / f"frozen.{suffix}", PICTURES[:3], sound="aac", seconds=2)
    frames = list(clip(frozen).frames())
    assert [round(float(frame.time), 2) for frame in frames] == [0, 0.1, 0.2]
    assert float(frames[-1].until) == pytest.approx(2, abs=0.06)
    alike = make_clip(tmp_path / f"alike.{suffix}", PICTURES[:3], sound="aac")
    assert float(list(clip(alike).frames())[-1].until) == pytest.approx(0.3, abs=0.002)


def test_times_beyond_all_bounds_are_refused_after_what_is_before_them(tmp_path):
    path = make_clip(tmp_path / "a.mkv", PICTURES[:3], times=[0, 0.1, 3e6], codec="mpeg4")
    count, said = read(path, path.read_bytes())
    assert count == 2
    assert "frame 2 is said to be shown at 3e+06 s; a clip may last 1,000,000 s" in said


EXTREMES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
FIELDS = [(b"mdhd", 12), (b"mdhd", 16), (b"stts", 8), (b"stts", 12), (b"mvhd", 12), (b"mvhd", 16)]


@pytest.mark.parametrize(("box", "at"), FIELDS)
def test_absurd_rates_and_durations_are_bounded(tmp_path, box, at):
    content = make_clip(tmp_path / "a.mp4", PICTURES[:3], codec="mpeg4").read_bytes()
    where = content.index(box) + 4 + at
    for value in EXTREMES:
        changed = content[:where] + struct.pack(">I", value) + content[where + 4 :]
        found = read_or_refused(clip, tmp_path / "b.mp4", changed)
        assert found is None or RATES[0] <= found.rate <= RATES[1]
        assert found is None or found.length is None or 0 < found.length <= LONGEST
        frames = (
            []
            if found is None
            else read_or_refused(
                lambda path: list(clip(path).frames()), tmp_path / "b.mp4", changed
            )
        )
        times = [time for frame in frames or [] for time in (frame.time, frame.until)]
        assert times == sorted(times)
        assert max(times, default=0) <= 2 * LONGEST


def test_an_empty_file_of_any_kind_is_refused(contents, tmp_path):
    for suffix, content in contents.items():
        (tmp_path / f"a.{suffix}").write_bytes(content[:60])
        assert "a." in refusal(clip, tmp_path / f"a.{suffix}")
