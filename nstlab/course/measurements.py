"""What the claims of the experiments need to know of pictures: pure functions from pictures to numbers.

Pictures are (1, 3, H, W) float32, sRGB in [0, 1]; two that are compared have one shape. Whatever scikit-image measures is
left to it. Structure is measured on luminance, colour on sRGB values.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of sRGB's primaries (ITU-R BT.709), applied to the encoded values (luma)
FINE = 0.125  # cycles per pixel: structure of less than eight pixels


def _array(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W, 3) in float64."""
    return image.detach()[0].permute(1, 2, 0).cpu().double().numpy()


def luminance(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) -> (H, W) in [0, 1]."""
    return _array(image) @ np.array(LUMINANCE)


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal to noise ratio in dB, of values in [0, 1]; infinite for equal pictures."""
    from skimage.metrics import peak_signal_noise_ratio

    if torch.equal(image, reference):
        return math.inf
    return float(peak_signal_noise_ratio(_array(reference), _array(image), data_range=1.0))


def ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luminances, in [-1, 1] (Wang et al. 2004, with Gaussian windows of σ = 1.5 px)."""
    from skimage.metrics import structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(luminance(image), luminance(reference), **options))


def pixel_error(image: Tensor, reference: Tensor) -> float:
    """Root mean square difference of the values, in [0, 1]."""
    return float((image.double() - reference.double()).square().mean().sqrt())


def correlation(image: Tensor, reference: Tensor) -> float:
    """Pearson's correlation of the luminances, in [-1, 1]; 0 if one of them is constant."""
    a, b = (luminance(picture) - luminance(picture).mean() for picture in (image, reference))
    norm = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-12 else 0.0


def _power(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in cycles per pixel, power of the luminance there), both (H, W), up to √½ in the corners.

    The mean is taken off, and a Hann window keeps the borders' jump out."""
    values = luminance(image)
    height, width = values.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((values - values.mean()) * window)) ** 2 / (window**2).sum()
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]), power


def spectrum(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(frequencies in cycles per pixel, mean power of the luminance there), over rings up to 0.5."""
    frequency, power = _power(image)
    rings = max(2, min(power.shape) // 2)
    index = np.minimum((frequency * 2 * rings).astype(int), rings)  # the corners, beyond 0.5, are left out
    count = np.bincount(index.ravel(), minlength=rings + 1)[:rings]
    total = np.bincount(index.ravel(), power.ravel(), minlength=rings + 1)[:rings]
    return (np.arange(rings) + 0.5) / (2 * rings), total / np.maximum(count, 1)


def fine_energy(image: Tensor, above: float = FINE) -> float:
    """The part of the luminance's power, in [0, 1], at frequencies above so many cycles per pixel."""
    frequency, power = _power(image)
    return float(power[frequency > above].sum() / max(power.sum(), 1e-300))


def mean_wavelength(image: Tensor) -> float:
    """Pixels: the inverse of the luminance's mean frequency, weighted by power; infinite for a constant picture."""
    frequency, power = _power(image)
    return float(power.sum() / (power * frequency).sum()) if power.sum() > 1e-12 else math.inf


def autocorrelation_length(image: Tensor) -> float:
    """Distance in pixels at which the luminance's autocorrelation, averaged over directions, falls below 1/e.

    Without periodic continuation: the sums over overlapping parts are divided by the parts' sizes. Half the short side if
    it never falls that low."""
    values = luminance(image)
    values = values - values.mean()
    height, width = values.shape
    shape = (2 * height, 2 * width)

    def lagged(a: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(np.abs(np.fft.rfft2(a, shape)) ** 2, shape)

    far = min(height, width) // 2
    down, across = np.fft.fftfreq(2 * height, 1 / (2 * height)), np.fft.fftfreq(2 * width, 1 / (2 * width))
    distance = np.hypot(down[:, None], across[None])
    lag = np.rint(distance).astype(int)
    near = (lag <= far) & (np.abs(down)[:, None] < height) & (np.abs(across)[None] < width)
    covariance = lagged(values)[near] / np.maximum(lagged(np.ones_like(values))[near], 0.5)
    count = np.bincount(lag[near])
    ring, radius = np.bincount(lag[near], covariance) / count, np.bincount(lag[near], distance[near]) / count
    if ring[0] <= 1e-12:
        return float(far)
    ring = ring / ring[0]
    below = np.flatnonzero(ring < 1 / math.e)
    if not len(below):
        return float(far)
    i = int(below[0])
    part = (ring[i - 1] - 1 / math.e) / (ring[i - 1] - ring[i])
    return float(radius[i - 1] + part * (radius[i] - radius[i - 1]))


def coherence(image: Tensor, reach: float = 10.0) -> float:
    """How far strokes keep their direction, in [0, 1]: 1 if within `reach` pixels (σ of a Gaussian) all edges run alike, 0 if
    they run anywhere. Mean over the picture, weighted by the edges' strength.

    From the structure tensor J of the luminance, smoothed by 2 px: Σ (λ₁ - λ₂) / Σ (λ₁ + λ₂) of its eigenvalues (Bigün and
    Granlund 1987). Unlike the spectrum, and the autocorrelation that follows from it, it tells long strokes from blots."""
    from skimage.feature import structure_tensor, structure_tensor_eigenvalues
    from skimage.filters import gaussian

    tensor = structure_tensor(gaussian(luminance(image), 2.0), sigma=reach, mode="reflect", order="rc")
    large, small = structure_tensor_eigenvalues(tensor)
    return float((large - small).sum() / max(float((large + small).sum()), 1e-300))


def colours(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(mean (3,), covariance (3, 3)) of the pixels' sRGB values."""
    pixels = _array(image).reshape(-1, 3)
    return pixels.mean(0), np.cov(pixels.T, bias=True)


def colour_distance(image: Tensor, reference: Tensor) -> float:
    """Fréchet distance of the two pictures' colours, taken as normal distributions; the shapes may differ.

    d² = |m - n|² + tr(C + D - 2 (C^½ D C^½)^½) (Dowson and Landau 1982), in units in which black to white is √3."""
    (m, c), (n, d) = colours(image), colours(reference)
    root = _root(c)
    squared = ((m - n) ** 2).sum() + np.trace(c + d - 2 * _root(root @ d @ root))
    return math.sqrt(max(0.0, float(squared)))


def _root(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
