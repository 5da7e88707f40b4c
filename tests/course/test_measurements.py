"""Measurements of pictures, on pictures whose numbers are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab.course import measurements as m
from nstlab.pictures.starts import noise as smooth_noise
from nstlab.pictures.starts import white_noise

GREY = torch.full((1, 3, 40, 60), 0.3)


def waves(period: float, size: int = 96) -> torch.Tensor:
    """Horizontal sine waves of a period in pixels."""
    x = torch.arange(size).float()
    return (0.5 + 0.4 * torch.sin(2 * math.pi * x / period)).expand(1, 3, size, size).contiguous()


def square(noise, size):
    return noise(torch.zeros(1, 3, size, size), 0)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (m.psnr, math.inf),
        (m.ssim, 1),
        (m.pixel_error, 0),
        (m.correlation, 1),
        (m.edge_correlation, 1),
        (m.colour_distance, 0),
    ],
)
def test_equal_pictures_are_as_alike_as_can_be(measure, value, photo):
    assert measure(photo, photo) == pytest.approx(value, abs=1e-6)


@given(st.floats(0.001, 0.4))
def test_errors_of_a_constant_shift_are_known(shift):
    assert m.pixel_error(GREY + shift, GREY) == pytest.approx(shift, rel=1e-4)
    assert m.psnr(GREY + shift, GREY) == pytest.approx(-20 * math.log10(shift), abs=1e-3)
    assert m.colour_distance(GREY + shift, GREY) == pytest.approx(math.sqrt(3) * shift, rel=1e-3)


def test_correlation_ignores_contrast_and_similarity_colour(photo):
    assert m.correlation(1 - photo, photo) == pytest.approx(-1)
    assert m.correlation(0.3 * photo + 0.2, photo) == pytest.approx(1)
    assert m.correlation(torch.full_like(photo, 0.5), photo) == 0
    grey = torch.from_numpy(m.luminance(photo)).float().expand(1, 3, *photo.shape[-2:])
    assert m.ssim(grey, photo) == pytest.approx(1, abs=1e-5)
    assert m.ssim(white_noise(photo, 0), photo) < 0.2


def test_edges_are_compared_by_where_they_are_and_not_by_which_side_is_dark(photo):
    assert m.edge_correlation(0.4 - 0.3 * photo, photo) == pytest.approx(1)
    assert m.edge_correlation(photo.roll(4, -1), photo) < 0.8
    assert m.edge_correlation(torch.full_like(photo, 0.5), photo) == 0


def test_the_mean_wavelength_of_waves_is_their_period_and_fine_energy_divides_at_eight_pixels():
    assert [m.mean_wavelength(waves(period)) for period in (6, 12, 24)] == pytest.approx(
        [6, 12, 24], rel=0.15
    )
    assert m.fine_energy(waves(24)) < 0.05 < 0.95 < m.fine_energy(waves(4))
    white = m.fine_energy(square(white_noise, 128))
    # of the unit square of frequencies, all but a disc
    assert white == pytest.approx(1 - math.pi / 8**2, abs=0.02)


def test_a_constant_picture_has_no_structure():
    found = [
        measure(GREY)
        for measure in (m.fine_energy, m.mean_wavelength, m.autocorrelation_length, m.coherence)
    ]
    assert found == pytest.approx([0, math.inf, 20, 0], abs=1e-6)


@pytest.mark.parametrize(("length", "near"), [(1.5, 0.05), (6.0, 0.15)])
def test_an_exponential_autocorrelation_has_its_length(length, near):
    size = 256
    radius = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.fftfreq(size, 1 / size)[None])
    amplitude = np.sqrt(np.abs(np.fft.fft2(np.exp(-radius / length))))
    white = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    field = np.fft.ifft2(amplitude * white).real
    picture = torch.from_numpy(0.5 + 0.1 * field / field.std()).float().expand(1, 3, size, size)
    assert m.autocorrelation_length(picture) == pytest.approx(length, rel=near)


def test_stripes_are_coherent_and_blobs_are_not():
    stripes, blobs = waves(12), square(smooth_noise, 128)
    assert m.coherence(stripes) > 0.95
    assert m.coherence((stripes + stripes.transpose(2, 3)) / 2) < 0.1
    assert m.coherence(blobs, 2.0) > 1.5 * m.coherence(blobs) > 0


def test_colour_distance_of_scaled_colours_is_known_and_shapes_may_differ():
    a = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    b = ((a + a.mean((2, 3), keepdim=True)) / 2).reshape(1, 3, 32, 128)
    # the distance of N(m, C) and N(m, C/4) is the root of tr(C)/4
    variances = a.var((2, 3), correction=0).sum()
    assert m.colour_distance(a, b) == pytest.approx(math.sqrt(variances) / 2, rel=1e-3)


def test_sparseness_is_that_of_the_channels_that_answer():
    maps = torch.zeros(1, 3, 4, 5)
    maps[0, 0] = 2.0  # constant: 0
    maps[0, 1, 1, 2] = 7.0  # one position in twenty: 1 - 1 / 20
    assert m.sparseness(maps) == pytest.approx((0 + 0.95) / 2)
