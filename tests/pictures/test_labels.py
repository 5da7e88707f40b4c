"""Label pictures: which regions they name, and what they become."""

import numpy as np
import pytest
import tifffile
import torch
from faults import refusal
from picture_files import chunk, png
from PIL import Image

from nstlab.pictures import labels


def picture(*rows):
    """A label picture from rows of letters: r, g, b, k(black), w(hite)."""
    colours = {"r": (1, 0, 0), "g": (0, 1, 0), "b": (0, 0, 1), "k": (0, 0, 0), "w": (1, 1, 1)}
    return torch.tensor(
        [[colours[letter] for letter in row] for row in rows], dtype=torch.float32
    ).permute(2, 0, 1)[None]


def test_regions_are_those_of_the_first_picture_in_the_order_of_their_colours():
    first, second = labels.masks(picture("rrk", "gkk"), picture("krg", "bbr", "kkk"))
    assert first.shape == (1, 3, 2, 3)
    assert second.shape == (1, 3, 3, 3)
    assert first[0, 0].tolist() == [[0, 0, 1], [0, 1, 1]]  # #000000, then #00ff00, then #ff0000
    assert first[0, 1].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert torch.equal(first.sum(1), torch.ones(1, 2, 3))
    assert second.sum(1).tolist() == [[[1, 1, 1], [0, 0, 1], [1, 1, 1]]]  # blue is no region


def test_masks_that_are_resized_have_soft_edges_and_add_up_to_one():
    masks, _ = labels.masks(picture("rrrrkkkk" * 4, *["rrrrkkkk" * 4] * 15), picture("rk"))
    soft = labels.fit_masks(masks, (24, 20))
    assert soft.shape == (1, 2, 24, 20)
    assert torch.allclose(soft.sum(1), torch.ones(1, 24, 20), atol=0.05)
    assert torch.equal(labels.fit_masks(masks, masks.shape[-2:]), masks)


def test_colours_of_hardly_any_pixels_are_noise_and_tiny_regions_are_told(caplog):
    noisy = picture(*["k" * 100] * 30)
    noisy[0, :, 0, 0] = 1.0
    assert list(labels.colours(noisy)) == ["#000000"]
    masks = torch.zeros(1, 2, 40, 40)
    masks[0, 0, :10, :10], masks[0, 1, 10:] = 1, 1
    labels.warn_if_tiny(masks)
    assert caplog.messages == [
        "mask: 1 of its colours have hardly any pixels, which belong to no region",
        "mask: region 1 covers 100 px; layers where that is less than a position leave it out",
    ]


def test_what_is_no_label_picture_is_refused_with_the_count_and_advice():
    many = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert "64 colours in a label picture; at most 12" in refusal(labels.colours, many)
    said = refusal(labels.masks, picture("rgb"), picture("rk"))
    assert (
        said
        == "painting_mask: has no #0000ff, #00ff00, a colour of mask (where it is used, it has "
        "#000000, #ff0000)"
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_picture_of_one_colour_is_one_region(value):
    (mask, own) = labels.masks(torch.full((1, 3, 4, 4), value), torch.full((1, 3, 2, 2), value))
    assert torch.equal(mask, torch.ones(1, 1, 4, 4))
    assert torch.equal(own, torch.ones(1, 1, 2, 2))


# --- numbers --------------------------------------------------------------------------------------

NUMBERS = np.repeat(np.arange(24, dtype=np.uint8)[None] // 6, 20, axis=0)  # 0 to 3
FAR = np.array([0, 300, 70_000, -1])


def names(path):
    return list(labels.colours(labels.load(path)))


@pytest.mark.parametrize(
    "kind", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64]
)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_regions_of_grey_are_their_numbers_in_any_depth(tmp_path, kind, photometric):
    tifffile.imwrite(
        tmp_path / "a.tif", NUMBERS.astype(kind), photometric=photometric, metadata=None
    )
    found = labels.colours(labels.load(tmp_path / "a.tif"))
    assert [region.nonzero()[:, 1].unique().tolist() for region in found.values()] in (
        columns := [list(range(6 * i, 6 * i + 6)) for i in range(4)],
        columns[::-1],  # as 8 bits, where 0 is white, look
    )
    if photometric == "minisblack" or kind is not np.uint8:
        assert list(found) == ["#000000", "#010101", "#020202", "#030303"]


def test_numbers_that_are_far_from_each_other_or_steps_of_257_stay_apart(tmp_path):
    tifffile.imwrite(
        tmp_path / "far.tif", FAR[NUMBERS].astype(np.int32), photometric="minisblack", metadata=None
    )
    assert names(tmp_path / "far.tif") == ["#000000", "#00012c", "#011170", "#ffffff"]
    Image.fromarray(NUMBERS.astype(np.uint16) // 3 * 65535).save(tmp_path / "mask.png")
    assert names(tmp_path / "mask.png") == ["#000000", "#ffffff"]  # as one in 8 bits
    tifffile.imwrite(
        tmp_path / "far.tif",
        NUMBERS.astype(np.int32) % 2 * 65792 + 1,
        photometric="minisblack",
        metadata=None,
    )
    assert "too large to be told apart" in refusal(labels.load, tmp_path / "far.tif")


def test_regions_of_a_palette_are_its_colours_unless_two_are_the_same(tmp_path):
    image = Image.fromarray(NUMBERS, "P")
    for palette, expected in (
        ([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9], ["#0000ff", "#00ff00", "#090909", "#ff0000"]),
        ([0, 0, 0, 7, 7, 7, 7, 7, 7, 9, 9, 9], ["#000000", "#010101", "#020202", "#030303"]),
    ):
        image.putpalette(palette)
        image.save(tmp_path / "a.png")
        assert names(tmp_path / "a.png") == expected


def test_colours_of_labels_are_as_they_are_stored_whatever_the_profile(tmp_path):
    stored = np.stack([NUMBERS, NUMBERS // 2, 3 - NUMBERS], 2)
    (tmp_path / "a.png").write_bytes(png(stored, chunk(b"gAMA", bytes([0, 0, 0x50, 0]))))
    assert names(tmp_path / "a.png") == ["#000003", "#010002", "#020101", "#030100"]
    (tmp_path / "a.png").write_bytes(
        png(NUMBERS[..., None], chunk(b"gAMA", bytes([0, 0, 0x50, 0])))
    )
    assert names(tmp_path / "a.png") == ["#000000", "#010101", "#020202", "#030303"]
