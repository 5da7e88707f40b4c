"""Pictures: samples, sizes and first pictures are what they should be, and what is written is whole
and comes back."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import refusal
from helpers import smooth
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from torch.testing import assert_close

from nstlab.base.errors import InputError
from nstlab.base.settings import MIN_SIDE
from nstlab.course.measurements import fine_energy
from nstlab.pictures import images as im
from nstlab.pictures import samples, sizes, starts


def save_pil(path: Path, height: int = 24, width: int = 36, **options) -> Path:
    """A red picture as another program writes it."""
    Image.new("RGB", (width, height), "red").save(path, **options)
    return path


# --- sample pictures ------------------------------------------------------------------------------


def test_every_sample_is_there_and_our_paintings_are_large_enough_to_be_styles():
    known, paintings = samples.samples(), sorted(samples.style_folder().glob("*.jpg"))
    assert len(paintings) >= 8
    assert known.keys() == set(samples.PHOTOS) | {path.stem for path in paintings}
    for name in known:
        assert max(im.sample(name, 32).shape) == 32
    for path in paintings:
        with Image.open(path) as image:
            assert (max(image.size), min(image.size) >= 768, image.mode) == (1024, True, "RGB"), (
                path
            )


def test_an_unknown_sample_suggests_the_nearest_and_a_file_wins_over_one(tmp_path, monkeypatch):
    assert "did you mean 'astronaut'?" in refusal(im.sample, "astronout")
    assert "did you mean 'coffee'?" in refusal(im.load, "cofee")
    monkeypatch.chdir(tmp_path)
    assert im.load("coffee").shape == (1, 3, 400, 600)
    save_pil(tmp_path / "coffee", format="PNG")
    assert im.load("coffee").shape == (1, 3, 24, 36)


def test_what_is_no_picture_is_refused_by_what_it_was_to_be():
    good = torch.zeros(1, 3, 9, 9)
    assert im.check_picture(good, "start") is good
    for bad in (
        torch.full_like(good, torch.nan),
        good[0],
        good.expand(2, 3, 9, 9),
        good.int(),
        "a.png",
    ):
        assert refusal(im.check_picture, bad, "start").startswith("start: ")


def test_the_pictures_of_a_folder_are_those_of_readable_formats_but_hidden_ones(tmp_path, caplog):
    hidden = (".a.png", "sub/.hidden/d.png")
    for name in ("b.png", "a.WEBP", "c.mpo", "a.eps", "a.txt", "sub/c.jp2", "e.png/f.png", *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    here = [tmp_path / name for name in ("a.WEBP", "b.png", "c.mpo")]
    assert samples.pictures_in(tmp_path) == here
    nested = [tmp_path / name for name in ("e.png/f.png", "sub/c.jp2")]
    assert samples.pictures_in(tmp_path, nested=True) == here + nested
    assert samples.pictures_in(tmp_path / "absent") == []
    (said,) = caplog.messages
    assert (
        said == f"{tmp_path / 'absent'}: cannot be read (No such file or directory); it is left out"
    )


# --- sizes ----------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(MIN_SIDE, 4000))
def test_fit_size_keeps_the_long_side_and_the_proportions(height, width, size):
    try:
        fitted = sizes.fit_size((height, width), size)
    except InputError as error:
        enough = int(str(error).split("must be ")[1].split()[0])
        assert enough > size
        assert min(sizes.fit_size((height, width), enough)) >= MIN_SIDE
        return
    assert max(fitted) == size
    assert min(fitted) >= MIN_SIDE
    assert abs(fitted[0] - height * size / max(height, width)) <= 0.5
    assert abs(fitted[1] - width * size / max(height, width)) <= 0.5


def test_size_is_the_long_side_and_one_too_small_is_refused_with_one_that_is_not(tmp_path):
    for own, size, shape in (
        ((24, 36), 72, (48, 72)),
        ((36, 24), 72, (72, 48)),
        ((24, 96), 64, (16, 64)),
    ):
        assert im.load(save_pil(tmp_path / "a.png", *own), size).shape == (1, 3, *shape)
    assert "64 or more" in refusal(im.load, tmp_path / "a.png", 32)


@given(st.integers(16, 40), st.integers(16, 40), st.integers(1, 80), st.integers(1, 80))
def test_resizing_stays_in_range_keeps_flat_areas_and_averages_fine_patterns(
    height, width, new_height, new_width
):
    new = (1, 3, new_height, new_width)
    # edges, which overshoot
    resized = im.resize(smooth(height, width, seed=height).round(), new[-2:])
    assert resized.shape == new
    assert 0 <= resized.min() <= resized.max() <= 1
    assert_close(im.resize(torch.full((1, 3, height, width), 0.3), new[-2:]), torch.full(new, 0.3))
    checks = (
        (torch.arange(4 * height)[:, None] + torch.arange(4 * width))
        .remainder(2)
        .float()[None, None]
    )
    assert_close(
        im.resize(checks, (height, width)),
        torch.full((1, 1, height, width), 0.5),
        atol=0.02,
        rtol=0,
    )
    assert im.resize(checks, checks.shape[-2:]) is checks


def test_a_painting_is_fitted_to_the_photos_shape(painting):
    for how, scale, shape in (
        ("stretch", 1.0, (48, 40)),
        ("crop", 1.0, (48, 40)),
        ("stretch", 2.0, (96, 80)),
    ):
        assert im.fit(painting, (48, 40), how, scale).shape == (1, 3, *shape)
    assert im.fit(painting, (48, 40), "crop", 0.1).shape == (1, 3, MIN_SIDE, MIN_SIDE)
    area = im.fit(painting, (48, 40), "area")
    assert abs(area[0, 0].numel() - 48 * 40) < 60
    assert abs(area.shape[-2] / area.shape[-1] - 40 / 56) < 0.02
    columns = torch.arange(60.0).expand(1, 3, 20, 60) / 60
    assert_close(im.fit(columns, (20, 20), "crop"), columns[..., 20:40])  # the middle
    for how, scale, says in (
        ("crops", 1, "did you mean 'crop'?"),
        ("crop", 0.0, "scale: 0.0"),
        ("crop", torch.nan, "scale: nan"),
    ):
        assert says in refusal(im.fit, painting, (32, 48), how, scale)


# --- first pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [starts.noise, starts.white_noise])
@given(st.integers(0, 2**63 - 1), st.integers(16, 40), st.integers(16, 40))
def test_the_same_seed_is_the_same_noise(draw, seed, height, width):
    like, state = torch.empty(1, 3, height, width), torch.get_rng_state()
    first = draw(like, seed)
    assert torch.equal(first, draw(like, seed))
    assert not torch.equal(first, draw(like, seed ^ 1))
    assert first.shape == like.shape
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(state, torch.get_rng_state())


def test_white_noise_is_uniform_and_smooth_noise_has_nothing_fine():
    white, soft = (
        draw(torch.empty(1, 3, 200, 100), 0) for draw in (starts.white_noise, starts.noise)
    )
    assert abs(white.mean() - 0.5) < 0.01
    assert abs(white.var() - 1 / 12) < 0.002
    assert fine_energy(white, 0.35) > 0.4
    assert abs(soft.mean() - 0.5) < 0.01
    assert abs(soft.std() - starts.DEVIATION) < 0.01
    assert fine_energy(soft, 0.35) < 0.01


def test_rings_are_eight_to_the_short_side():
    drawn = starts.rings(torch.empty(1, 3, 101, 161))
    assert drawn.shape == (1, 3, 101, 161)
    row = drawn[0, 0, 50, 30:131]  # through the middle, as long as the short side
    peaks = (row[1:-1] > row[:-2]) & (row[1:-1] > row[2:])
    assert peaks.sum() == 7  # and one half at each edge
    assert (drawn.min(), drawn.max()) == (pytest.approx(0, abs=0.01), 1)


# --- writing --------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=40)
@given(
    st.integers(16, 40),
    st.integers(16, 40),
    st.integers(0, 10**6),
    st.floats(0.1, 3),
    st.sampled_from([".png", ".TIFF"]),
)
def test_a_saved_picture_comes_back_within_half_a_level(height, width, seed, spread, suffix):
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    picture = 0.5 + spread * (noise - 0.5)  # may reach beyond [0, 1], which is clipped
    before = picture.clone()
    with tempfile.TemporaryDirectory() as folder:
        back = im.load(im.save(picture, Path(folder) / f"a{suffix}"))
        path = im.save(back, Path(folder) / f"b{suffix}")
        assert torch.equal(im.load(path), back)
        assert torch.equal(im.reopen(path), back)
        assert im.verify(path) == (height, width)
    assert_close(back, picture.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal(back, im.quantize(picture))
    assert torch.equal(picture, before)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".PNG"])
def test_settings_are_read_back_from_the_picture(tmp_path, photo, suffix):
    settings = {
        "alpha": 1e-300,
        "layers": ["conv1_1"],
        "photo": "Bücher/ein „Bild“ 画.png",
        "tv": None,
        "normalize": True,
    }
    path = im.save(photo, tmp_path / f"a{suffix}", settings)
    assert im.read_settings(path) == settings
    assert_close(im.load(path), photo, atol=0.03, rtol=0)


def test_a_picture_without_settings_has_none(tmp_path, photo):
    deep = PngImagePlugin.PngInfo()
    deep.add_itxt(im.METADATA_KEY, "[" * 200_000)
    for path in (
        im.save(photo, tmp_path / "a.png"),
        save_pil(tmp_path / "b.jpg", comment=b"[1, 2]"),
        save_pil(tmp_path / "c.jpg", comment=b"a holiday \xff"),
        save_pil(tmp_path / "d.png", pnginfo=deep),
    ):
        assert im.read_settings(path) == {}
    (tmp_path / "e.png").write_text("no picture")
    assert str(tmp_path / "e.png") in refusal(im.read_settings, tmp_path / "e.png")


def test_settings_that_are_too_long_for_a_jpeg_cost_no_picture(tmp_path, photo, caplog):
    path, fits = tmp_path / "a.jpg", {"a": "x" * (im.LONGEST_COMMENT - len('{"a": ""}'))}
    assert im.read_settings(im.save(photo, path, fits)) == fits
    assert not caplog.messages
    assert im.read_settings(im.save(photo, path, {"a": fits["a"] + "x"})) == {}
    assert caplog.messages == [f"{path}: the settings are too long for a JPEG and are left out"]
    assert im.load(path).shape == photo.shape


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_a_written_file_has_the_usual_mode_and_a_refused_one_is_not_there(tmp_path, photo):
    (tmp_path / "usual").touch()
    assert im.save(photo, tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
    for name in ("a.webp", "a", "a.png.txt"):
        assert ".png, .jpg, .jpeg, .tif, .tiff" in refusal(im.save, photo, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"usual", "a.png"}


def test_a_gif_shows_every_frame_lingers_on_the_last_and_is_no_larger_than_asked_for(
    tmp_path, photo
):
    frames = [im.resize(photo, (24, 20)), *((1 - t) * photo for t in (0.2, 0.5, 0.8))]
    with Image.open(
        im.save_gif(iter(frames), photo.shape[-2:], tmp_path / "a.gif", seconds=2.0)
    ) as gif:
        assert (gif.is_animated, gif.n_frames, gif.size, gif.info["loop"]) == (True, 4, (40, 48), 0)
        durations = []
        for i in range(4):
            gif.seek(i)
            durations.append(gif.info["duration"])
        assert durations == [500, 500, 500, 1500]
        shown = torch.from_numpy(np.array(gif.convert("RGB"))).permute(2, 0, 1)[None] / 255
    assert (shown - frames[-1]).abs().mean() < 0.02
    with Image.open(im.save_gif(frames, photo.shape[-2:], tmp_path / "small.gif", size=24)) as gif:
        assert gif.size == (20, 24)


def test_what_is_no_single_picture_is_not_written_and_a_size_is_a_whole_number(tmp_path, photo):
    for odd in (
        photo[0],
        torch.cat([photo] * 2),
        photo[:, :1],
        photo * float("nan"),
        photo.numpy(),
        None,
    ):
        assert "picture: " in refusal(im.save, odd, tmp_path / "a.png")
        assert "picture: " in refusal(im.to_pil, odd)
    assert list(tmp_path.iterdir()) == []
    for odd in ("64", (64, 64), 64.0, float("nan")):
        assert refusal(im.load, "coffee", odd).startswith("size: ")
    assert im.load("coffee", np.int64(64)).shape == (1, 3, 43, 64)
