"""Measurements of pictures, on pictures whose numbers are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab.course import measurements as m
from nstlab.images import noise as smooth_noise
from nstlab.images import white_noise as noise


def waves(period: float, size: int = 96) -> torch.Tensor:
    """Horizontal sine waves of a period in pixels."""
    x = torch.arange(size).float()
    return (0.5 + 0.4 * torch.sin(2 * math.pi * x / period)).expand(1, 3, size, size).contiguous()


def test_equal_pictures_have_no_error(photo):
    assert m.psnr(photo, photo) == math.inf
    assert m.ssim(photo, photo) == pytest.approx(1)
    assert m.pixel_error(photo, photo) == 0
    assert m.correlation(photo, photo) == pytest.approx(1)
    assert m.colour_distance(photo, photo) == pytest.approx(0, abs=1e-6)


@given(st.floats(0.001, 0.4))
def test_errors_of_a_constant_shift_are_known(shift):
    grey = torch.full((1, 3, 24, 24), 0.5)
    assert m.pixel_error(grey + shift, grey) == pytest.approx(shift, rel=1e-4)
    assert m.psnr(grey + shift, grey) == pytest.approx(-20 * math.log10(shift), abs=1e-3)
    assert m.colour_distance(grey + shift, grey) == pytest.approx(math.sqrt(3) * shift, rel=1e-3)


def test_correlation_has_a_sign_and_ignores_contrast(photo):
    assert m.correlation(1 - photo, photo) == pytest.approx(-1)
    assert m.correlation(0.3 * photo + 0.2, photo) == pytest.approx(1)
    assert m.correlation(torch.full_like(photo, 0.5), photo) == 0


def test_similarity_sees_structure_and_not_colour(photo):
    grey = torch.from_numpy(m.luminance(photo)).float().expand(1, 3, *photo.shape[-2:])
    assert m.ssim(grey, photo) == pytest.approx(1, abs=1e-5)
    assert m.ssim(noise(photo, 0), photo) < 0.2


@pytest.mark.parametrize("period", [4, 8, 16, 32])
def test_the_spectrum_peaks_at_the_frequency_of_waves(period):
    frequency, power = m.spectrum(waves(period))
    assert frequency[power.argmax()] == pytest.approx(1 / period, abs=0.012)
    assert 0 < frequency[0] < frequency[-1] < 0.5


def test_fine_energy_divides_at_eight_pixels():
    assert m.fine_energy(waves(4)) > 0.95
    assert m.fine_energy(waves(24)) < 0.05
    white = noise(torch.zeros(1, 3, 128, 128), 0)
    assert m.fine_energy(white) == pytest.approx(1 - math.pi * 0.125**2, abs=0.02)  # of the square of frequencies


def test_a_checkerboard_is_as_fine_as_can_be():
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(48, 48).expand(1, 3, 96, 96)
    assert m.fine_energy(board) > 0.99
    assert m.mean_wavelength(board) == pytest.approx(math.sqrt(2), rel=0.02)


def test_a_constant_picture_has_no_structure():
    grey = torch.full((1, 3, 32, 32), 0.3)
    assert m.fine_energy(grey) == pytest.approx(0, abs=1e-6)
    assert m.mean_wavelength(grey) == math.inf


@pytest.mark.parametrize("period", [6, 12, 24])
def test_the_mean_wavelength_of_waves_is_their_period(period):
    assert m.mean_wavelength(waves(period)) == pytest.approx(period, rel=0.15)


def test_autocorrelation_length_grows_with_the_structure():
    found = [m.autocorrelation_length(waves(period)) for period in (8, 16, 32)]
    assert found[1] == pytest.approx(2 * found[0], rel=0.2)
    assert found[2] == pytest.approx(2 * found[1], rel=0.2)
    assert m.autocorrelation_length(noise(torch.zeros(1, 3, 96, 96), 0)) < 1
    assert m.autocorrelation_length(torch.full((1, 3, 40, 60), 0.3)) == 20


@pytest.mark.parametrize(("length", "near"), [(1.5, 0.05), (6.0, 0.15)])
def test_an_exponential_autocorrelation_has_its_length(length, near):
    size = 256
    radius = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.fftfreq(size, 1 / size)[None])
    amplitude = np.sqrt(np.abs(np.fft.fft2(np.exp(-radius / length))))
    white = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    field = np.fft.ifft2(amplitude * white).real
    picture = torch.from_numpy(0.5 + 0.1 * field / field.std()).float().expand(1, 3, size, size)
    assert m.autocorrelation_length(picture) == pytest.approx(length, rel=near)


def test_stripes_are_coherent_and_blots_are_not():
    stripes, blots = waves(12), smooth_noise(torch.zeros(1, 3, 128, 128), 0)
    crossed = (stripes + stripes.transpose(2, 3)) / 2
    assert m.coherence(stripes) > 0.95
    assert m.coherence(crossed) < 0.1
    assert m.coherence(blots, 2.0) > 1.5 * m.coherence(blots) > 0
    assert m.coherence(torch.full((1, 3, 40, 60), 0.3)) == 0


def test_colours_are_mean_and_covariance(photo):
    mean, covariance = m.colours(photo)
    pixels = photo[0].flatten(1).double()
    assert np.allclose(mean, pixels.mean(1))
    assert np.allclose(covariance, torch.cov(pixels, correction=0))


def test_colour_distance_of_scaled_colours_is_known():
    a = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    half = a.mean((2, 3), keepdim=True) + (a - a.mean((2, 3), keepdim=True)) / 2
    _, covariance = m.colours(a)  # the distance of N(m, C) and N(m, C/4) is the root of tr(C)/4
    assert m.colour_distance(a, half) == pytest.approx(math.sqrt(np.trace(covariance)) / 2, rel=1e-3)


def test_pictures_of_other_shapes_have_colours_to_compare(photo, painting):
    assert m.colour_distance(photo, painting) == pytest.approx(m.colour_distance(painting, photo))
