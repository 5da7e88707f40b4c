"""Frames become pictures: with the colours and alpha that they are tagged with, upright, and
without fields."""

import logging
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from helpers import smooth
from making import make_clip

from nstlab.pictures import images as im
from nstlab.video.clips import clip
from nstlab.video.converting import Converter

# red's and blue's part of luma
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
LIMITED, FULL = 1, 2
SHADES = np.array(
    [[0, 0, 0], [0.2, 0.2, 0.2], [0.5, 0.5, 0.5], [1, 1, 1], [0.6, 0.4, 0.3], [0.3, 0.5, 0.8]]
)


def tagged(colours, weights, matrix, extent=LIMITED, primaries=2, transfer=2, shape=(16, 8)):
    """A frame of vertical bars, (n, 3) R'G'B' in [0, 1], each of that shape, in 10 bits."""
    (red, blue), (height, width) = weights, shape
    rgb = np.repeat(np.repeat(colours[None], height, 0), width, 1)
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    black, range_, swing = (64, 876, 896) if extent == LIMITED else (0, 1023, 1023)
    frame = av.VideoFrame(rgb.shape[1], height, "yuv444p10le")
    for plane, values in zip(
        frame.planes, [black + range_ * luma, *(512 + swing * each for each in chroma)], strict=True
    ):
        levels = values.round().clip(0, 1023).astype(np.uint16)
        plane.update(
            np.pad(levels, ((0, 0), (0, plane.line_size // 2 - levels.shape[1]))).tobytes()
        )
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = (
        matrix,
        extent,
        primaries,
        transfer,
    )
    return frame


def bars(frame, count=6):
    """(n, 3): the colours of a frame's bars, as they are read."""
    (picture,) = Converter("clip.mkv", (frame.height, frame.width)).convert(frame)
    width = frame.width // count
    return picture[0, :, 8, width // 2 :: width].T.numpy()


@pytest.mark.parametrize("extent", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("weights", "matrix", "shape"),
    [
        (BT709, 1, (16, 8)), (BT601, 5, (16, 8)), (BT601, 6, (720, 8)), (BT2020, 9, (16, 8)),
        # by convention
        (BT601, 2, (480, 8)), (BT601, 2, (576, 8)), (BT709, 2, (720, 8)), (BT709, 2, (16, 214)),
    ],
)  # fmt: skip
def test_colours_are_those_of_the_matrix_and_range(weights, matrix, shape, extent):
    found = bars(tagged(SHADES, weights, matrix, extent, shape=shape))
    assert np.abs(found - SHADES).max() < 0.01


def test_wide_primaries_are_mapped_to_those_of_bt709():
    # BT.2087
    mapped = np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    )
    linear = (
        np.where(SHADES < 0.081, SHADES / 4.5, ((SHADES + 0.099) / 1.099) ** (1 / 0.45)) @ mapped.T
    )
    right = np.where(
        linear < 0.018, 4.5 * linear, 1.099 * np.maximum(linear, 0) ** 0.45 - 0.099
    ).clip(0, 1)
    found = bars(tagged(SHADES, BT2020, 9, primaries=9, transfer=14))
    assert np.abs(found - right)[:5].max() < 0.02  # the last one has no colour of BT.709
    assert np.abs(found - right)[5].max() < 0.05


def pq(nits):
    """The signal of SMPTE ST 2084 for a luminance in cd/m²."""
    power = (nits / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits):
    """The signal of BT.2100 for grey of a luminance in cd/m², on a display of 1000."""
    scene = (nits / 1000) ** (1 / 1.2)
    return np.where(
        scene <= 1 / 12,
        (3 * scene) ** 0.5,
        0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
    )


@pytest.mark.parametrize("primaries", [9, 2])
@pytest.mark.parametrize(("signal", "transfer", "name"), [(pq, 16, "PQ"), (hlg, 18, "HLG")])
def test_a_high_dynamic_range_is_tone_mapped(signal, transfer, name, primaries, caplog):
    nits = np.array([0.0, 5, 20, 50, 100, 203, 500, 1000])
    with caplog.at_level(logging.WARNING, "nstlab"):
        found = bars(
            tagged(np.repeat(signal(nits)[:, None], 3, 1), BT2020, 9, LIMITED, primaries, transfer),
            len(nits),
        )
    assert [record.getMessage() for record in caplog.records] == [
        f"clip.mkv: has a high dynamic range ({name}); it is tone-mapped to BT.709"
    ]
    assert np.ptp(found, axis=1).max() < 0.01  # grey stays grey
    grey = found[:, 1]
    assert grey[0] < 0.01
    assert (np.diff(grey) > 0.03).all()  # what is brighter than white is not lost
    assert 0.27 < grey[2] < 0.31  # nearly as without tone-mapping, 1.099 · (20 / 203)^0.45 - 0.099
    assert 0.65 < grey[5] < 0.75  # white


def test_colours_that_ffmpeg_cannot_convert_are_read_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING, "nstlab"):
        found = bars(tagged(SHADES, BT2020, 10))  # constant luminance
    assert "cannot convert" in caplog.text
    assert np.abs(found - SHADES)[:4].max() < 0.01


@pytest.mark.parametrize("transfer", [9, 10])
def test_logarithmic_light_is_read_as_that_of_bt709_and_it_is_said(transfer, caplog):
    with caplog.at_level(logging.WARNING, "nstlab"):
        found = bars(tagged(SHADES, BT709, 1, transfer=transfer))
    assert "logarithmically" in caplog.text
    assert np.abs(found - SHADES).max() < 0.01


@pytest.mark.parametrize(
    "form", ["rgba", "yuva420p", "yuva444p10le", "gbrap", "ya8", "ayuv64le", "rgba64le", "vuya"]
)
def test_what_is_transparent_is_on_white_in_any_format(form):
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[:, :16] = 90, 90, 90, 255
    (picture,) = Converter("a.mov", (32, 32)).convert(
        av.VideoFrame.from_ndarray(clear, "rgba").reformat(format=form)
    )
    assert (picture[..., 2:14] - 90 / 255).abs().max() < 0.02
    assert picture[..., 18:].min() > 0.98
    (small,) = Converter("a.mov", (16, 16)).convert(av.VideoFrame.from_ndarray(clear, "rgba"))
    assert small.min() > 0.34  # no dark edge of what is hidden


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_of_webm_is_on_white(codec, tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as out:
        stream = out.add_stream(codec, rate=10, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuva420p"
        red = np.zeros((32, 32, 4), np.uint8)
        red[:, :16] = 200, 60, 40, 255
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(red, "rgba")))
        out.mux(stream.encode())
    frames = [frame.picture for frame in clip(tmp_path / "a.webm").frames()]
    assert len(frames) == 3
    assert frames[0][..., 18:].min() > 0.97
    assert (frames[0][0, :, 16, 4] - torch.tensor([200, 60, 40]) / 255).abs().max() < 0.05


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("turned") / "a.mp4", [smooth(48, 64, 1)]).read_bytes()


@pytest.mark.parametrize("a", [-1, 0, 1])
@pytest.mark.parametrize("b", [-1, 0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_turned_or_mirrored_by_its_file_is_upright(straight, tmp_path, a, b, sign):
    if abs(a) + abs(b) != 1:
        a, b, sign = 0, 0, 0  # a matrix that says nothing
    c, d = -sign * b, sign * a  # (x, y) is shown at (ax + cy, bx + dy)
    unit = struct.pack(">5i", 1 << 16, 0, 0, 0, 1 << 16)
    where = straight.index(unit, straight.index(b"tkhd"))
    matrix = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    (tmp_path / "a.mp4").write_bytes(straight[:where] + matrix + straight[where + len(matrix) :])
    found = clip(tmp_path / "a.mp4")
    picture, right = smooth(48, 64, 1), torch.zeros(1, 3, *found.shape)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    at_x, at_y = (a * x + c * y, b * x + d * y) if sign else (x, y)
    right[..., at_y - at_y.min(), at_x - at_x.min()] = picture
    frame = next(found.frames()).picture
    assert frame.shape == right.shape
    assert (frame - right).abs().mean() < 0.03


def test_fields_become_frames(tmp_path, caplog):
    comb = torch.zeros(4, 1, 3, 48, 64)
    for i, picture in enumerate(comb):
        # a bar in the upper field, and later in the lower one
        picture[..., ::2, 8 + 8 * i : 24 + 8 * i] = 1
        picture[..., 1::2, 12 + 8 * i : 28 + 8 * i] = 1
    path = make_clip(tmp_path / "a.mp4", list(comb), options={"x264-params": "tff=1", "qp": "10"})
    with caplog.at_level(logging.WARNING, "nstlab"):
        frames = list(clip(path).frames())
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert caplog.text.count("is interlaced; it is deinterlaced") == 1
    for frame, before in zip(frames, comb, strict=True):
        rows = frame.picture[..., 8:40, :]
        assert (rows[..., 1:, :] - rows[..., :-1, :]).abs().mean() < 0.3 * (
            before[..., 9:40, :] - before[..., 8:39, :]
        ).abs().mean()


def test_frames_come_in_the_size_in_which_they_are_wanted(tmp_path):
    picture = smooth(96, 64, 3)
    found = clip(make_clip(tmp_path / "a.mp4", [picture], aspect=Fraction(3, 2)))
    (frame,) = found.frames((48, 48))
    assert found.shape == (96, 96)
    assert (frame.picture - im.resize(picture, (48, 48))).abs().mean() < 0.02
