"""What the experiments measure: pure functions, most of them from pictures to numbers.

A picture is (1, 3, H, W) float32, sRGB in [0, 1]; two pictures that are compared have the same
shape. What scikit-image can measure is left to it. Structure is measured on the luminance, colour
on the sRGB values.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nstlab.pictures import colour


def _array(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W, 3) in float64."""
    return image.detach()[0].permute(1, 2, 0).cpu().double().numpy()


def luminance(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W) in [0, 1]."""
    return colour.luminance(image.detach().cpu().double())[0, 0].numpy()


# --- likeness -------------------------------------------------------------------------------------


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of values in [0, 1]; infinite for equal pictures."""
    from skimage.metrics import peak_signal_noise_ratio

    if torch.equal(image, reference):
        return math.inf
    return float(peak_signal_noise_ratio(_array(reference), _array(image), data_range=1.0))


def ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luminances, in [-1, 1].

    As in Wang et al. 2004, with Gaussian windows of σ = 1.5 px.
    """
    from skimage.metrics import structural_similarity

    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    return float(structural_similarity(luminance(image), luminance(reference), **options))


def pixel_error(image: Tensor, reference: Tensor) -> float:
    """Root mean square difference of the values, in [0, 1]."""
    return float((image.double() - reference.double()).square().mean().sqrt())


def correlation(image: Tensor, reference: Tensor) -> float:
    """Pearson's correlation of the luminances, in [-1, 1]; 0 if one of them is constant."""
    return _pearson(luminance(image), luminance(reference))


def edge_correlation(image: Tensor, reference: Tensor) -> float:
    """Pearson's correlation of the strength of edges, in [-1, 1].

    Their strength is that of Sobel's gradient of the luminance. It is 1 if edges are in the same
    places and equally strong relative to each other; 0 if one picture has none.
    """
    from skimage.filters import sobel

    return _pearson(sobel(luminance(image)), sobel(luminance(reference)))


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a = a - a.mean()
    b = b - b.mean()
    norm = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-12 else 0.0


# --- structure ------------------------------------------------------------------------------------


def _power(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in cycles per pixel, power of the luminance at it), both (H, W).

    The mean is subtracted first, and a Hann window hides the jump between opposite borders.
    """
    values = luminance(image)
    height, width = values.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((values - values.mean()) * window)) ** 2 / (window**2).sum()
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]), power


def fine_energy(image: Tensor, above: float = 1 / 8) -> float:
    """The share of the luminance's power, in [0, 1], that is in fine structure.

    Args:
        image: (1, 3, H, W) in [0, 1].
        above: cycles per pixel, the frequency from which structure is fine; the default is a
            wavelength of eight pixels.
    """
    frequency, power = _power(image)
    return float(power[frequency > above].sum() / max(power.sum(), 1e-300))


def mean_wavelength(image: Tensor) -> float:
    """The inverse of the luminance's mean frequency, weighted by power, in pixels.

    It is infinite for a constant picture.
    """
    frequency, power = _power(image)
    return float(power.sum() / (power * frequency).sum()) if power.sum() > 1e-12 else math.inf


def autocorrelation_length(image: Tensor) -> float:
    """The distance in pixels at which the luminance's autocorrelation falls below 1/e.

    The autocorrelation is averaged over directions. Where it never falls so far, the distance is
    half the short side.
    """
    radius, covariance = _autocovariance(luminance(image))
    longest = float(min(image.shape[-2:]) // 2)
    if covariance[0] <= 1e-12:
        return longest
    correlation = covariance / covariance[0]
    below = np.flatnonzero(correlation < 1 / math.e)
    if not len(below):
        return longest
    first = below[0]  # ring below 1/e
    last = first - 1  # ring above it
    part = (correlation[last] - 1 / math.e) / (correlation[last] - correlation[first])
    return float(radius[last] + part * (radius[first] - radius[last]))


def _autocovariance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean distance in pixels, mean autocovariance) of values (H, W), in rings of one pixel.

    The rings reach up to half the short side. The picture is not continued periodically: the sum
    over each overlap is divided by the overlap's size.
    """
    height, width = values.shape
    shape = (2 * height, 2 * width)  # padded with zeros, so that nothing wraps around

    def correlate(a: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(np.abs(np.fft.rfft2(a, shape)) ** 2, shape)

    down = np.fft.fftfreq(2 * height, 1 / (2 * height))
    across = np.fft.fftfreq(2 * width, 1 / (2 * width))
    distance = np.hypot(down[:, None], across[None])
    ring = np.rint(distance).astype(int)
    near = (
        (ring <= min(height, width) // 2)
        & (np.abs(down)[:, None] < height)
        & (np.abs(across)[None] < width)
    )
    sums = correlate(values - values.mean())[near]
    sizes = correlate(np.ones_like(values))[near]
    count = np.bincount(ring[near])
    covariance = np.bincount(ring[near], sums / np.maximum(sizes, 0.5)) / count
    return np.bincount(ring[near], distance[near]) / count, covariance


def coherence(image: Tensor, reach: float = 10.0) -> float:
    """How far strokes keep their direction, in [0, 1].

    It is 1 if all edges nearby run the same way, 0 if they run in all directions: a mean over the
    picture, weighted by the strength of the edges. It tells long strokes from blobs, which the
    spectrum and the autocorrelation cannot.

    From the structure tensor of the luminance, smoothed by 2 px: Σ (λ₁ - λ₂) / Σ (λ₁ + λ₂) of its
    eigenvalues (Bigün and Granlund 1987).

    Args:
        image: (1, 3, H, W) in [0, 1].
        reach: px, how far edges are compared: σ of a Gaussian.
    """
    from skimage.feature import structure_tensor, structure_tensor_eigenvalues
    from skimage.filters import gaussian

    tensor = structure_tensor(
        gaussian(luminance(image), 2.0), sigma=reach, mode="reflect", order="rc"
    )
    large, small = structure_tensor_eigenvalues(tensor)
    return float((large - small).sum() / max(float((large + small).sum()), 1e-300))


def sparseness(maps: Tensor) -> float:
    """How sparse features are, in [0, 1]: 0 for constant maps, near 1 for a few peaks.

    One minus squared mean over mean square (Treves and Rolls 1991), averaged over the channels that
    answer at all.

    Args:
        maps: features (1, C, h, w), not negative.
    """
    values = maps[0].flatten(1).double()
    spread = values.mean(1).square() / values.square().mean(1).clamp_min(1e-12)
    return 1 - float(spread[values.amax(1) > 0].mean())


# --- colour ---------------------------------------------------------------------------------------


def colour_distance(image: Tensor, reference: Tensor) -> float:
    """Fréchet distance between the colours of two pictures, whose shapes may differ.

    The colours are taken as normal distributions:
    d² = |m - n|² + tr(C + D - 2 (C^½ D C^½)^½) for means m, n and covariances C, D of the pixels'
    sRGB values (Dowson and Landau 1982). The distance from black to white is √3.
    """
    pixels = [_array(picture).reshape(-1, 3) for picture in (image, reference)]
    m, n = (colours.mean(0) for colours in pixels)
    c, d = (torch.from_numpy(np.cov(colours.T, bias=True)) for colours in pixels)
    root = colour.symmetric_power(c, 0.5)
    covariances = c + d - 2 * colour.symmetric_power(root @ d @ root, 0.5)
    squared = ((m - n) ** 2).sum() + float(covariances.trace())
    return math.sqrt(max(0.0, float(squared)))
