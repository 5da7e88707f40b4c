"""Photographs: another photo's light and colours, without bending the photo."""

import pytest
import torch
from faults import refusal
from helpers import smooth

import nstlab as nst
from nstlab.pictures import images as im
from nstlab.pictures.colour import matched_colours
from nstlab.recipes.photoreal import PhotorealSettings
from nstlab.recipes.transfer import TransferSettings


@pytest.fixture
def make(tmp_path, photo, painting, tiny_file):
    """Makes settings of a small run; the label pictures have a left part and a right part."""
    sides = torch.zeros(1, 3, 40, 48)
    sides[..., 30:] = 1.0
    pictures = {
        "photo": photo,
        "reference": 0.5 * painting,
        "sides": sides,
        "grey": photo[:, :1].expand(-1, 3, -1, -1),
    }
    pictures["textured"] = (
        photo + 0.2 * torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)
    paths = {
        name: str(im.save(picture, tmp_path / f"{name}.png")) for name, picture in pictures.items()
    }

    def make(photo="photo", masks=False, **changes):
        given = {
            "size": 48,
            "steps": 5,
            "levels": 1,
            "weights": str(tiny_file),
            "precision": "float32",
        }
        given |= {"mask": paths["sides"], "painting_mask": paths["sides"]} if masks else {}
        return PhotorealSettings(paths[photo], paths["reference"], **given | changes)

    return make


def test_without_what_keeps_it_a_photo_it_is_the_plain_transfer_to_the_bit(make):
    settings = make(affine=0, smooth=False, init="content")
    same = {
        name: getattr(settings, name)
        for name, *_ in TransferSettings.options()
        if hasattr(settings, name)
    }
    plain = TransferSettings(painting=settings.reference, **same)
    assert torch.equal(
        nst.prepare(plain, "cpu").solve().image, nst.prepare(settings, "cpu").solve().image
    )


def test_the_regularizer_keeps_a_picture_near_affine_functions_of_the_photo(make):
    given = {"photo": "textured", "smooth": False, "init": "content", "steps": 20, "beta": 1e3}
    free, kept = (
        nst.prepare(make(affine=weight, **given), "cpu").solve() for weight in (1e-9, 1e10)
    )
    unchanged = nst.prepare(make(**given | {"steps": 0}), "cpu").solve()
    assert kept.terms["affine"] < 0.1 * free.terms["affine"]
    assert kept.terms["style"] < unchanged.terms["style"]


def test_it_begins_with_the_photo_in_the_references_colours(make):
    plan = nst.prepare(make(), "cpu")
    photo, reference = plan.inputs["content"], plan.inputs["style"]
    assert torch.equal(plan.start, matched_colours(photo, reference))
    assert nst.colour_distance(plan.start, reference) < 0.2 * nst.colour_distance(photo, reference)
    assert float(plan.objective.terms[-2][1].statistic(plan.start, None)) < 1e-3


def test_each_region_begins_with_the_colours_of_the_same_region(make):
    plan = nst.prepare(make(masks=True), "cpu")
    photo, reference, width = plan.inputs["content"], plan.inputs["style"], plan.start.shape[-1]
    for part in (slice(0, width // 2), slice(3 * width // 4, width)):
        before, after = (
            nst.colour_distance(picture[..., part], reference[..., part])
            for picture in (photo, plan.start)
        )
        assert after < 0.4 * before
    assert [term.name for _, term in plan.objective.terms] == [
        "content",
        "style",
        "style_2",
        "affine",
        "tv",
    ]
    assert plan.solve().image.isfinite().all()


def test_what_is_shown_and_kept_is_smoothed_and_what_is_optimized_is_not(make):
    smooth, rough = (nst.prepare(make(smooth=how), "cpu") for how in (True, False))
    assert smooth.solve().loss == rough.solve().loss
    assert torch.equal(
        smooth.solve().image, nst.guided(rough.solve().image, smooth.inputs["content"])
    )


@pytest.mark.parametrize("changes", [{"photo": "grey"}, {"regions": 2}, {"size": 40, "levels": 2}])
def test_grey_photos_regions_that_are_found_and_coarse_sizes_are_carried_through(make, changes):
    *_, last = nst.prepare(make(**changes), "cpu").steps()
    assert last.snapshot().isfinite().all()


def test_weights_are_steered_and_a_sweep_has_a_sheet(make, tmp_path):
    plan = nst.prepare(make(), "cpu").with_all_layers()
    assert plan.steering(make(affine=7.0))["affine"] == 7.0
    runs = nst.Sweep(make(steps=1), {"affine": [0.0, 10.0]}).run(tmp_path / "results")
    assert len([axes for axes in nst.sheet(runs).axes if axes.get_images()]) == 4


def test_other_conventions_are_refused(make):
    assert "convention: photoreal has weights that go with 'mean' alone" in refusal(
        make, convention="tutorial"
    )


def test_only_photographs_begin_with_matched_colours(make):
    assert "init: 'matched' is not one of" in refusal(
        TransferSettings, "coffee", "mosaic", init="matched"
    )


def test_colours_are_matched_by_weights():
    picture, reference = smooth(20, 30, 0), smooth(24, 18, 1)
    left, top = torch.zeros(1, 1, 20, 30), torch.zeros(1, 1, 24, 18)
    left[..., :12], top[..., :9, :] = 1, 1
    found = matched_colours(picture, reference, left, top)
    assert torch.allclose(
        found[..., :12], matched_colours(picture[..., :12], reference[..., :9, :]), atol=1e-5
    )
