"""Colour: known answers, and what is kept and what is matched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab.pictures import colour
from nstlab.pictures.starts import grey


def random(*shape, seed=0):
    return torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(seed))


def moments(image):
    pixels = image[0].flatten(1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


def test_luminance_is_the_weighted_mean_of_the_channels_in_all_three():
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1.0
    assert torch.allclose(colour.luminance(red), torch.full_like(red, 0.2126))
    assert torch.allclose(colour.luminance(grey(red)), grey(red))


@given(st.integers(0, 99))
def test_another_luminance_leaves_the_differences_of_channels_where_nothing_is_clipped(seed):
    image, other = 0.3 + 0.2 * random(5, 6, seed=seed), 0.4 + 0.2 * random(5, 6, seed=seed + 100)
    found = colour.with_luminance(image, other)
    assert torch.allclose(colour.luminance(found), colour.luminance(other), atol=1e-6)
    assert torch.allclose(found - found[:, :1], image - image[:, :1], atol=1e-6)


@given(st.integers(0, 99))
def test_colours_are_matched_by_mean_and_covariance(seed):
    image = 0.5 + 0.1 * (random(20, 30, seed=seed) - 0.5)
    reference = 0.5 + 0.1 * (random(16, 10, seed=seed + 100) - 0.5)
    reference[:, 1] = 0.3 * reference[:, 0] + 0.7 * reference[:, 1]
    found = colour.matched_colours(image, reference)
    for mine, wanted in zip(moments(found), moments(reference), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-5)
    assert torch.allclose(colour.matched_colours(image, image), image, atol=1e-4)


def test_a_grey_picture_can_be_matched_and_be_matched_to():
    painting, photo = random(12, 10), grey(random(8, 8))
    assert colour.matched_colours(painting, photo).sub(photo[..., :1, :1]).abs().max() < 0.02
    assert colour.matched_colours(photo, painting).isfinite().all()
    assert colour.matched_luminance(photo, painting).isfinite().all()


def test_the_luminance_is_matched_by_mean_and_deviation():
    found, wanted = (
        colour.matched_luminance(0.5 + 0.1 * random(9, 9), random(7, 5, seed=1)),
        colour.luminance(random(7, 5, seed=1)),
    )
    assert float(found.mean()) == pytest.approx(float(wanted.mean()), abs=1e-3)
    assert float(found.std(correction=0)) == pytest.approx(
        float(wanted.std(correction=0)), rel=0.05
    )
    assert torch.equal(found[:, 0], found[:, 2])


def test_histograms_are_those_of_the_reference():
    image, reference = random(10, 12), random(10, 12, seed=1) ** 2
    found = colour.matched_histogram(image, reference)
    for mine, wanted, own in zip(found[0], reference[0], image[0], strict=True):
        assert torch.allclose(
            mine.flatten().sort().values, wanted.flatten().sort().values, atol=1e-6
        )
        assert torch.equal(mine.flatten().argsort(), own.flatten().argsort())
