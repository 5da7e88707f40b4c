"""Pictures: whatever can be read comes in right, whatever cannot is refused in one line, and what is written is whole."""

import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from torch.testing import assert_close

from nstlab import decoding
from nstlab import images as im
from nstlab.course.measurements import fine_energy
from nstlab.settings import FITS, MIN_SIDE, InputError

COLOURS = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 40, 90]]


def blocks(height: int = 24, width: int = 36) -> np.ndarray:
    """(H, W, 3) uint8: six flat areas, three across and two down, each of another colour."""
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    return np.array(COLOURS, dtype=np.uint8)[rows[:, None] * 3 + columns]


def levels(tensor: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) in 0 to 255."""
    return (tensor[0].permute(1, 2, 0) * 255).numpy()


def save_pil(array, path: Path, **kwargs) -> Path:
    Image.fromarray(array).save(path, **kwargs)
    return path


# --- reading: what there is -------------------------------------------------------------------------------------


def test_a_loaded_picture_keeps_the_contract(tmp_path):
    picture = im.load(save_pil(blocks(), tmp_path / "a.png"))
    assert picture.shape == (1, 3, 24, 36)
    assert picture.dtype == torch.float32
    assert picture.is_contiguous()
    assert_close(levels(picture), blocks().astype(np.float32))


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tif", "webp", "ppm", "tga"])
def test_formats_without_loss_come_in_exactly(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    assert_close(levels(im.load(save_pil(blocks(), tmp_path / f"a.{kind}", **options))), blocks().astype(np.float32))


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, undo, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_pil(blocks(), tmp_path / f"a.{kind}", exif=exif)
    assert_close(levels(im.load(path)), np.ascontiguousarray(undo(blocks())).astype(np.float32))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    image = Image.fromarray(np.full((20, 20, 3), 100, np.uint8)).convert(mode)
    alpha = np.zeros((20, 20), np.uint8)
    alpha[:, 10:], alpha[:, 15:] = 128, 255
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    row = levels(im.load(tmp_path / "a.png"))[0, :, 0]
    assert_close(row[[0, 19]], np.float32([255, 100]))
    assert abs(row[12] - (100 * 128 + 255 * 127) / 255) <= 1


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_transparent_palette_entry_is_white(tmp_path, kind):
    image = Image.fromarray(np.repeat(np.uint8([[0] * 10 + [1] * 10]), 20, axis=0), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / f"a.{kind}", transparency=0)
    picture = levels(im.load(tmp_path / f"a.{kind}"))
    assert_close(picture[5, [0, 19]], np.float32([[255, 255, 255], [200, 100, 50]]))


def test_a_transparent_colour_of_an_rgb_png_is_white(tmp_path):
    path = save_pil(blocks(), tmp_path / "a.png", transparency=(255, 0, 0))
    assert_close(levels(im.load(path))[0, 0], np.float32([255, 255, 255]))


def test_grey_pictures_have_three_equal_channels(tmp_path):
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (20, 1))
    picture = levels(im.load(save_pil(ramp, tmp_path / "a.png")))
    assert_close(picture, np.repeat(ramp[..., None], 3, axis=2).astype(np.float32))


def test_black_and_white_pictures_of_one_bit_are_read(tmp_path):
    Image.fromarray(np.tile(np.uint8([0, 255]), (20, 10))).convert("1").save(tmp_path / "a.png")
    assert_close(levels(im.load(tmp_path / "a.png"))[3, :4, 1], np.float32([0, 255, 0, 255]))


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_of_grey_are_neither_clipped_nor_dimmed(tmp_path, kind):
    ramp = np.linspace(0, 65535, 480).round().astype(np.uint16).reshape(20, 24)
    picture = im.load(save_pil(ramp, tmp_path / f"a.{kind}"))
    assert_close(picture, torch.from_numpy(ramp / 65535).float().expand(1, 3, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_grey_pictures_are_turned_by_their_orientation(tmp_path, kind, dtype, top):
    """Pillow scrambles uncompressed grey TIFFs that it maps into memory and then turns; it must not map them."""
    ramp, exif = np.linspace(0, top, 480).round().astype(dtype).reshape(20, 24), Image.Exif()
    exif[0x0112] = 6
    picture = im.load(save_pil(ramp, tmp_path / f"a.{kind}", exif=exif))
    expected = torch.from_numpy(np.rot90(ramp, -1) / top).float()
    assert_close(picture, expected.expand(1, 3, -1, -1), atol=1e-6, rtol=0)


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    dark = np.full((20, 24), 200, np.uint16)
    assert_close(im.load(save_pil(dark, tmp_path / "a.png")), torch.full((1, 3, 20, 24), 200 / 65535))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiffs_are_read_by_their_largest_value(tmp_path, top):
    ramp = np.linspace(0, top, 480, dtype=np.float32).reshape(20, 24)
    picture = im.load(save_pil(ramp, tmp_path / "a.tif"))
    assert_close(picture[0, 0], torch.linspace(0, 1, 480).view(20, 24), atol=1e-5, rtol=0)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_float_tiff_with_holes_keeps_its_other_pixels(tmp_path, hole):
    ramp = np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)
    ramp[0, 0] = hole
    picture = im.load(save_pil(ramp, tmp_path / "a.tif"))
    assert picture.isfinite().all()
    assert_close(picture[0, 1, 1:], torch.from_numpy(ramp[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_is_converted(tmp_path, kind):
    Image.new("CMYK", (24, 20), (0, 255, 255, 0)).save(tmp_path / f"a.{kind}")
    red = levels(im.load(tmp_path / f"a.{kind}"))[10, 10]
    assert_close(red, np.float32([255, 0, 0]), atol=3, rtol=0)


def test_only_the_first_picture_of_an_animation_is_read(tmp_path):
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert_close(levels(im.load(tmp_path / "a.gif"))[0, 0], np.float32([255, 0, 0]))


# --- reading: colour profiles -----------------------------------------------------------------------------------


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the red and the green primary exchanged: (r, g, b) there is (g, r, b) in sRGB."""
    profile, swap = bytearray(srgb_profile()), {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for i in range(struct.unpack(">I", profile[128:132])[0]):  # the table of tags: name, offset, size
        name = bytes(profile[132 + 12 * i : 136 + 12 * i])
        profile[132 + 12 * i : 136 + 12 * i] = swap.get(name, name)
    return bytes(profile)


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
def test_an_embedded_srgb_profile_changes_nothing(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    path = save_pil(blocks(), tmp_path / f"a.{kind}", icc_profile=srgb_profile(), **options)
    assert_close(levels(im.load(path)), blocks().astype(np.float32), atol=1, rtol=0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_embedded_profile_is_converted_to_srgb(tmp_path, mode):
    Image.fromarray(blocks()).convert(mode).save(tmp_path / "a.png", icc_profile=swapped_profile())
    stored = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), dtype=np.float32)
    assert_close(levels(im.load(tmp_path / "a.png")), stored[..., [1, 0, 2]], atol=1, rtol=0)


@pytest.mark.parametrize("profile", [b"rubbish", srgb_profile()[:200]], ids=["rubbish", "cut short"])
def test_a_profile_that_cannot_be_read_is_ignored(tmp_path, profile):
    path = save_pil(blocks(), tmp_path / "a.png", icc_profile=profile)
    assert_close(levels(im.load(path)), blocks().astype(np.float32))


def test_a_profile_of_another_colour_space_is_ignored(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = save_pil(blocks(), tmp_path / "a.png", icc_profile=lab)
    assert_close(levels(im.load(path)), blocks().astype(np.float32))


# --- reading: what is refused -----------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header that claims a size, and no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def read_or_refused(path: Path) -> bool:
    """Whether a file gives a picture in [0, 1], or a message of one line that names it; any other error gets through."""
    try:
        picture = im.load(path)
    except InputError as error:
        return str(error).startswith(f"{path}: ") and "\n" not in str(error)
    return picture.shape[:2] == (1, 3) and 0 <= picture.min() <= picture.max() <= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("text.jpg", b"This is no picture.\n" * 50),
        ("cut.png", encoded("PNG")[:2000]),
        ("cut.jpg", encoded("JPEG")[:2000]),
        ("header.png", encoded("PNG")[:20]),
        ("header.jpg", encoded("JPEG")[:10]),
        ("wrong-ending.png", b"\x89PNG\r\n\x1a\n"),
        ("bomb.png", bomb(60000, 60000)),
        ("big.png", bomb(14000, 13500)),
        ("nothing-inside.png", bomb(32, 32)),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(im.load, path).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "TGA"])
def test_a_file_cut_anywhere_is_read_or_refused_but_never_breaks(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    whole, path = encoded(kind), tmp_path / "cut"
    for end in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:end])
        assert read_or_refused(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "AVIF"])
def test_a_file_with_wrong_bytes_is_read_or_refused_but_never_breaks(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    whole, path, random = encoded(kind), tmp_path / "wrong", np.random.default_rng(0)
    for _ in range(60):
        wrong = bytearray(whole)
        for place in random.integers(0, min(len(whole), 300), size=3):
            wrong[place] = random.integers(0, 256)
        path.write_bytes(wrong)
        assert read_or_refused(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "no such file" in refusal(im.load, tmp_path / "missing.png")
    assert str(tmp_path / "missing") in refusal(im.load, tmp_path / "missing")
    assert str(tmp_path / "a.png") in refusal(im.load, save_pil(blocks(), tmp_path / "a.png") / "b.png")


def test_a_folder_is_refused_by_name(tmp_path):
    assert refusal(im.load, tmp_path) == f"{tmp_path}: is a folder; a file is needed"


def test_a_name_too_long_for_any_file_is_refused():
    for name in ("x" * 300 + ".png", "x" * 300):
        assert "xxx" in refusal(im.load, name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = save_pil(blocks(), tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", forbidden)
    assert refusal(im.load, path) == f"{path}: may not be read"


@pytest.mark.parametrize("shape", [(15, 40), (40, 15), (1, 1)])
def test_a_picture_that_is_too_small_is_refused_with_its_size(tmp_path, shape):
    message = refusal(im.load, save_pil(blocks(*shape), tmp_path / "a.png"))
    assert f"{shape[1]}×{shape[0]}" in message
    assert str(MIN_SIDE) in message


def test_a_picture_that_is_too_long_is_refused_and_one_just_not_is_read(tmp_path):
    assert "ratio" in refusal(im.load, save_pil(blocks(16, 129), tmp_path / "a.png"))
    assert "ratio" in refusal(im.load, save_pil(blocks(129, 16), tmp_path / "b.png"))
    assert im.load(save_pil(blocks(16, 128), tmp_path / "c.png")).shape == (1, 3, 16, 128)


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = save_pil(blocks(32, 40), tmp_path / "a.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    message = refusal(im.load, path)
    assert str(path) in message
    assert "40×32" in message


def test_the_limit_that_a_refusal_names_is_the_one_that_holds(tmp_path):
    """Pillow has a limit of its own, which must not be the lower one."""
    side = int((decoding.MAX_PIXELS * 0.95) ** 0.5)
    (tmp_path / "a.png").write_bytes(bomb(side, side))
    assert "million pixels" not in refusal(im.load, tmp_path / "a.png")


# --- sample pictures --------------------------------------------------------------------------------------------


def test_every_sample_is_there_and_loads():
    known = im.samples()
    assert {"astronaut", "chelsea", "coffee", "rocket", "swirl_strokes"} <= set(known)
    for name, path in known.items():
        assert path.is_file()
        assert max(im.sample(name, 32).shape) == 32


def test_our_paintings_are_large_enough_to_be_styles():
    paintings = sorted(im.style_folder().glob("*.jpg"))
    assert len(paintings) >= 8
    for path in paintings:
        with Image.open(path) as image:
            assert max(image.size) == 1024, path
            assert min(image.size) >= 768, path
            assert image.mode == "RGB", path


def test_every_photo_of_the_list_is_a_sample():
    assert set(im.PHOTOS) <= set(im.samples())


def test_an_unknown_sample_suggests_the_nearest():
    assert "did you mean 'astronaut'?" in refusal(im.sample, "astronout")
    assert "did you mean 'coffee'?" in refusal(im.load, "cofee")


def test_a_file_wins_over_a_sample_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert im.load("coffee").shape == (1, 3, 400, 600)
    save_pil(blocks(), tmp_path / "coffee", format="PNG")
    assert im.load("coffee").shape == (1, 3, 24, 36)


@pytest.mark.parametrize("bad", [torch.full((1, 3, 9, 9), torch.nan), torch.zeros(3, 9, 9), torch.zeros(1, 3, 9, 9).int()])
def test_what_is_no_picture_is_refused_by_what_it_was_to_be(bad):
    assert refusal(im.check_picture, bad, "start").startswith("start: ")


# --- sizes ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(MIN_SIDE, 4000))
def test_fit_size_keeps_the_long_side_and_the_proportions(height, width, size):
    try:
        fitted = im.fit_size((height, width), size)
    except InputError as error:
        enough = int(str(error).split("must be ")[1].split()[0])
        assert enough > size
        assert min(im.fit_size((height, width), enough)) >= MIN_SIDE
        return
    assert max(fitted) == size
    assert min(fitted) >= MIN_SIDE
    assert abs(fitted[0] - height * size / max(height, width)) <= 0.5
    assert abs(fitted[1] - width * size / max(height, width)) <= 0.5


def test_size_is_the_long_side(tmp_path):
    assert im.load(save_pil(blocks(24, 36), tmp_path / "a.png"), 72).shape == (1, 3, 48, 72)
    assert im.load(save_pil(blocks(36, 24), tmp_path / "b.png"), 72).shape == (1, 3, 72, 48)


def test_a_size_too_small_for_the_picture_is_refused_with_the_size_that_is_not(tmp_path):
    path = save_pil(blocks(24, 96), tmp_path / "a.png")
    assert "64 or more" in refusal(im.load, path, 32)
    assert im.load(path, 64).shape == (1, 3, 16, 64)


@given(st.integers(16, 40), st.integers(16, 40), st.integers(1, 80), st.integers(1, 80), st.integers(0, 9))
def test_resized_pictures_stay_in_range(height, width, new_height, new_width, seed):
    checks = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)).round()  # overshoots most
    resized = im.resize(checks, (new_height, new_width))
    assert resized.shape == (1, 3, new_height, new_width)
    assert resized.min() >= 0
    assert resized.max() <= 1


def test_resizing_keeps_flat_areas_and_averages_fine_patterns(photo):
    assert_close(im.resize(torch.full((1, 3, 20, 30), 0.3), (33, 17)), torch.full((1, 3, 33, 17), 0.3))
    assert im.resize(photo, photo.shape[-2:]) is photo
    checks = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert_close(im.resize(checks, (16, 16)), torch.full((1, 3, 16, 16), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("how", FITS)
def test_a_painting_is_fitted_to_the_photos_shape(painting, how):
    fitted = im.fit(painting, (48, 40), how)
    if how == "area":
        assert abs(fitted[0, 0].numel() - 48 * 40) < 60
        assert abs(fitted.shape[-2] / fitted.shape[-1] - 40 / 56) < 0.02
    else:
        assert fitted.shape == (1, 3, 48, 40)


def test_crop_takes_the_middle():
    columns = torch.arange(60.0).expand(1, 3, 20, 60) / 60
    assert_close(im.fit(columns, (20, 20), "crop"), columns[..., 20:40])


def test_scale_enlarges_a_fitted_painting(painting):
    assert im.fit(painting, (32, 48), "stretch", 2.0).shape == (1, 3, 64, 96)
    assert im.fit(painting, (32, 48), "crop", 0.1).shape == (1, 3, MIN_SIDE, MIN_SIDE)


# --- first pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [im.noise, im.white_noise])
@given(st.integers(0, 2**63 - 1), st.integers(16, 40), st.integers(16, 40))
def test_the_same_seed_is_the_same_noise(draw, seed, height, width):
    like, state = torch.empty(1, 3, height, width), torch.get_rng_state()
    first = draw(like, seed)
    assert torch.equal(first, draw(like, seed))
    assert not torch.equal(first, draw(like, seed ^ 1))
    assert first.shape == like.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(state, torch.get_rng_state())


def test_white_noise_is_uniform_and_as_strong_at_every_frequency():
    noise = im.white_noise(torch.empty(1, 3, 100, 100), 0)
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.var() - 1 / 12) < 0.002
    assert fine_energy(noise, 0.35) > 0.4


def test_noise_has_a_spread_and_nothing_fine():
    noise = im.noise(torch.empty(1, 3, 200, 100), 0)
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.std() - im.DEVIATION) < 0.01
    assert fine_energy(noise, 0.35) < 0.01


def test_grey_is_half_everywhere(photo):
    assert torch.equal(im.grey(photo), torch.full((1, 3, 48, 40), 0.5))


# --- writing ----------------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=40)
@given(st.integers(16, 40), st.integers(16, 40), st.integers(0, 10**6), st.floats(0.1, 3), st.sampled_from([".png", ".TIFF"]))
def test_a_saved_picture_comes_back_within_half_a_level(height, width, seed, spread, suffix):
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    picture = 0.5 + spread * (noise - 0.5)  # may reach beyond [0, 1], which is clipped
    with tempfile.TemporaryDirectory() as folder:
        back = im.load(im.save(picture, Path(folder) / f"a{suffix}"))
        assert_close(back, picture.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
        again = im.load(im.save(back, Path(folder) / f"b{suffix}"))
    assert torch.equal(back, again)


def test_a_saved_jpeg_is_close(tmp_path, photo):
    assert_close(im.load(im.save(photo, tmp_path / "a.jpg")), photo, atol=0.03, rtol=0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".PNG"])
def test_settings_are_read_back_from_the_picture(tmp_path, photo, suffix):
    settings = {
        "alpha": 1e-300,
        "style_layers": ["conv1_1"],
        "photo": "Bücher/ein „Bild“ 画.png",
        "tv": None,
        "normalize": True,
    }
    path = im.save(photo, tmp_path / f"a{suffix}", settings)
    assert im.read_settings(path) == settings


def test_a_picture_without_settings_has_none(tmp_path, photo):
    assert im.read_settings(im.save(photo, tmp_path / "a.png")) == {}
    assert im.read_settings(save_pil(blocks(), tmp_path / "b.jpg", comment=b"[1, 2]")) == {}
    assert im.read_settings(save_pil(blocks(), tmp_path / "c.jpg", comment=b"a holiday \xff")) == {}
    (tmp_path / "d.png").write_text("no picture")
    assert str(tmp_path / "d.png") in refusal(im.read_settings, tmp_path / "d.png")


def test_settings_nested_too_deeply_are_none(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("nstlab", "[" * 200_000)
    assert im.read_settings(save_pil(blocks(), tmp_path / "a.png", pnginfo=info)) == {}


def test_saving_does_not_change_the_picture(tmp_path):
    picture = torch.tensor([-1.0, 0.2, 2.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16).clone()
    before = picture.clone()
    im.save(picture, tmp_path / "a.png")
    assert torch.equal(picture, before)
    assert_close(levels(im.load(tmp_path / "a.png"))[0, 0], np.float32([0, 51, 255]))


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, photo, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    for name in ("a.webp", "a", "a.png.txt"):
        assert ".png, .jpg, .jpeg, .tif, .tiff" in refusal(im.save, photo, tmp_path / name)
    assert "folder" in refusal(im.save, photo, tmp_path / "folder.png")
    assert "there is no folder" in refusal(im.save, photo, tmp_path / "missing" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]
    im.save(photo, tmp_path / "a.png")
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert refusal(im.save, photo, tmp_path / "a.png") == f"{tmp_path / 'a.png'}: may not be written"


def test_a_folder_that_turns_out_not_to_be_writable_is_refused_in_one_line(tmp_path, photo, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(im.Path, "touch", full)
    assert "No space left on device" in refusal(im.save, photo, tmp_path / "a.png")


def test_replacing_leaves_the_old_file_when_the_renaming_fails(tmp_path, photo, monkeypatch):
    path = im.save(photo, tmp_path / "a.png")
    before = path.read_bytes()

    def refuse(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    assert str(path) in refusal(im.save, 1 - photo, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_a_written_file_has_the_usual_mode(tmp_path, photo):
    (tmp_path / "usual").touch()
    assert im.save(photo, tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_gif_shows_every_frame_and_lingers_on_the_last(tmp_path, photo):
    frames = [im.resize(photo, (24, 20)), *((1 - t) * photo for t in (0.2, 0.5, 0.8))]
    with Image.open(im.save_gif(iter(frames), photo.shape[-2:], tmp_path / "a.gif", seconds=2.0)) as gif:
        assert gif.is_animated
        assert gif.n_frames == 4
        assert gif.size == (40, 48)
        durations = []
        for i in range(4):
            gif.seek(i)
            durations.append(gif.info["duration"])
        assert durations == [500, 500, 500, 1500]
        assert gif.info["loop"] == 0
        shown = torch.from_numpy(np.array(gif.convert("RGB"))).permute(2, 0, 1)[None] / 255
    assert (shown - frames[-1]).abs().mean() < 0.02


def test_a_gif_is_no_larger_than_asked_for(tmp_path, photo):
    with Image.open(im.save_gif([photo, 1 - photo], photo.shape[-2:], tmp_path / "a.gif", size=24)) as gif:
        assert gif.size == (20, 24)
