"""Transfers by regions: from label pictures, and from regions that are found."""

import numpy as np
import pytest
import torch
from faults import refusal
from PIL import Image

import nstlab as nst
from nstlab.pictures import images as im
from nstlab.pictures import labels
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.stored import run_id


def split(height, width, at, *colours):
    """A label picture whose colours meet at a column."""
    picture = torch.zeros(1, 3, height, width)
    for channel, part in zip(colours, (slice(None, at), slice(at, None)), strict=True):
        picture[:, channel, :, part] = 1.0
    return picture


@pytest.fixture
def make(tmp_path, photo, painting, tiny_file):
    """Makes settings of a small transfer with label pictures of two regions; `plain` ones have a
    single one."""
    red, green = 0, 1
    pictures = {
        "photo": photo, "painting": painting, "mask": split(20, 30, 12, red, green),
        "own": split(31, 40, 8, green, red),
        "plain": torch.full((1, 3, 18, 19), 0.5), "red": split(16, 16, 16, red, green),
    }  # fmt: skip
    paths = {
        name: str(im.save(picture, tmp_path / f"{name}.png")) for name, picture in pictures.items()
    }

    def make(mask="mask", own="own", **changes):
        given = {
            "size": 48,
            "steps": 3,
            "levels": 1,
            "weights": str(tiny_file),
            "precision": "float32",
        }
        masks = {"mask": paths.get(mask), "painting_mask": paths.get(own)}
        return TransferSettings(paths["photo"], paths["painting"], **given | masks | changes)

    return make


def test_each_region_has_a_style_of_its_own_and_the_style_is_taken_from_the_same_colour(make):
    plan = nst.prepare(make(), "cpu")
    (_, _), (green_weight, green), (red_weight, red) = plan.objective.terms[:3]
    assert red_weight / green_weight == pytest.approx(12 / 18, rel=0.05)  # of the photo
    assert red.mask[..., 0].mean() == 1.0
    assert green.mask[..., -1].mean() == 1.0
    assert red.painting_mask[..., -1].mean() == 1.0  # in the painting it is at the right
    assert green.painting_mask[..., 0].mean() == 1.0
    assert plan.solve().image.isfinite().all()


def test_label_pictures_are_numbers_of_any_depth(make, tmp_path):
    numbers = np.repeat(np.arange(24)[None] // 6, 20, axis=0)  # 0 to 3
    for name, kind in (("mask", np.uint16), ("own", np.uint8)):
        Image.fromarray(numbers.astype(kind)).save(tmp_path / f"{name}.png")
    plan = nst.prepare(
        make().replace(mask=str(tmp_path / "mask.png"), painting_mask=str(tmp_path / "own.png")),
        "cpu",
    )
    assert plan.prepared["regions"].shape[1] == 4


def test_masks_of_one_region_are_the_plain_transfer_to_the_bit(make):
    plain, masked = (
        nst.prepare(make(*masks), "cpu").solve() for masks in ((None, None), ("plain", "plain"))
    )
    assert torch.equal(plain.image, masked.image)


def test_label_pictures_of_other_proportions_are_stretched_and_that_is_said(make, caplog, tmp_path):
    nst.prepare(make(), "cpu")
    photo, painting = (im.shape_of(getattr(make(), name)) for name in ("photo", "painting"))
    assert caplog.messages == [
        f"mask: 30×20 is stretched to the proportions of its picture, {photo[1]}×{photo[0]}",
        "painting_mask: 40×31 is stretched to the proportions of its picture, "
        f"{painting[1]}×{painting[0]}",
    ]
    caplog.clear()
    half = im.save(split(photo[0] // 2, photo[1] // 2, 5, 0, 1), tmp_path / "half.png")
    nst.prepare(make().replace(mask=str(half)), "cpu")
    assert [message.partition(":")[0] for message in caplog.messages] == ["painting_mask"]


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("how", ["stretch", "crop", "area"])
@pytest.mark.parametrize("size", [46, 53])
def test_the_paintings_masks_are_where_the_painting_is_used(make, tmp_path, how, scale, size):
    """Whatever the sizes: a painting with a white part, and label pictures of it in other
    proportions."""
    white = torch.zeros(1, 3, 61, 97)
    white[..., 25:45] = 1.0
    files = [
        str(im.save(im.resize(white, shape).round(), tmp_path / f"{shape}.png"))
        for shape in ((61, 97), (40, 200))
    ]
    settings = make().replace(
        painting=files[0],
        mask=files[0],
        painting_mask=files[1],
        style_fit=how,
        style_scale=scale,
        size=size,
    )
    made = nst.prepare(settings, "cpu").prepared
    assert made["painting_regions"].shape[-2:] == made["style"].shape[-2:]
    assert (made["painting_regions"][:, 1] - made["style"][:, 0]).abs().mean() < 0.06


def test_a_region_that_is_not_in_the_part_that_is_used_is_refused(make, tmp_path):
    sides = torch.zeros(1, 3, 20, 100)
    sides[..., :8] = 1.0
    file = str(im.save(sides, tmp_path / "sides.png"))
    settings = make().replace(painting=file, mask=file, painting_mask=file, style_fit="crop")
    assert "painting_mask: has no #ffffff, a colour of mask" in refusal(
        nst.prepare, settings, "cpu"
    )


@pytest.mark.parametrize("size", [47, 64])
def test_regions_are_carried_through_a_pyramid_of_sizes(make, size):
    plan = nst.prepare(make(size=size, levels=2), "cpu")
    *_, last = plan.steps()
    assert last.shape == tuple(plan.start.shape[-2:])


def test_weights_of_regions_are_steered_and_make_other_runs(make):
    plan = nst.prepare(make(), "cpu").with_all_layers()
    wanted, known = plan.steering(make(region_weights=(1.0, 3.0))), plan.steering(make())
    assert wanted["style_2"] == pytest.approx(3 * known["style_2"])
    assert wanted["style"] == pytest.approx(known["style"])
    assert plan.steering(make(None, None)) is None
    given = [
        make(),
        make(region_weights=(1.0, 3.0)),
        make(None, None),
        make("own", "own"),
        make(None, None, regions=2),
    ]
    assert len({run_id(nst.prepare(each, "cpu")) for each in given}) == len(given)


LOOKED_AT = ("relu3_1", "relu4_1")


def test_regions_are_found_again_and_are_in_both_pictures(make, tiny, photo, painting):
    net = nst.VGG19(tiny, precision="float32")
    made = labels.find_regions(net, photo, painting, LOOKED_AT, 3)
    assert [picture.shape for picture in made] == [photo.shape, painting.shape]
    assert all(map(torch.equal, made, labels.find_regions(net, photo, painting, LOOKED_AT, 3)))
    first, second = (set(labels.colours(picture)) for picture in made)
    assert first == second
    assert first <= set(labels.PALETTE)
    plan = nst.prepare(make(None, None, regions=3), "cpu")
    assert {"mask", "painting_mask"} < set(plan.inputs)
    assert len(plan.objective.terms) == 2 + len(labels.colours(plan.inputs["mask"]))


def test_halves_that_differ_are_found():
    """A network of one layer that sees brightness: dark and bright halves are regions, wherever
    they are."""
    photo, painting = (torch.full((1, 3, 24, 24), 0.1) for _ in range(2))
    photo[..., 12:], painting[:, :, :12] = 0.9, 0.8
    mask, own = labels.find_regions(
        lambda picture, layers: {layer: torch.cat([picture, 1 - picture], 1) for layer in layers},
        photo,
        painting,
        LOOKED_AT,
        2,
    )
    dark, bright = mask[0, :, 0, 0], mask[0, :, 0, -1]
    assert not torch.equal(dark, bright)
    assert torch.equal(own[0, :, -1, 0], dark)
    assert torch.equal(own[0, :, 0, 0], bright)
    assert torch.equal(labels.overlay(photo, mask, 0.0), photo)


def test_pictures_without_anything_to_tell_apart_are_one_region_and_it_is_said(caplog):
    even = torch.full((1, 3, 24, 24), 0.5)
    mask, own = labels.find_regions(
        lambda picture, layers: dict.fromkeys(layers, picture), even, even, LOOKED_AT, 4
    )
    assert [len(labels.colours(picture)) for picture in (mask, own)] == [1, 1]
    assert caplog.messages == [
        "regions: the pictures have none in common; the whole picture is one"
    ]


@pytest.mark.parametrize(
    ("masks", "changes", "says"),
    [
        (("mask", None), {}, "give both or none"),
        (("mask", "own"), {"regions": 3}, "leave out one of both"),
        (("mask", "own"), {"more_paintings": ("mosaic",)}, "regions are of one painting"),
        ((None, None), {"region_weights": (1.0,)}, "region_weights: need regions"),
        (("mask", "own"), {"region_weights": (0.0, 0.0)}, "region_weights: need regions"),
        ((None, None), {"regions": 13}, "regions: 13 is not allowed"),
        (
            ("mask", "own"),
            {"region_weights": (1.0, 2.0, 3.0)},
            "region_weights: 3 given for 2 regions",
        ),
        (("mask", "red"), {}, "painting_mask: has no #00ff00"),
        (("photo", "own"), {}, "colours in a label picture; at most 12"),
    ],
)
def test_what_cannot_be_used_as_regions_is_refused(make, masks, changes, says):
    assert says in refusal(lambda: nst.prepare(make(*masks, **changes), "cpu"))
