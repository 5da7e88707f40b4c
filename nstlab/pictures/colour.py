"""Colour: what a picture's colours are, and how they become another's.

Pictures are (1, 3, H, W) sRGB in [0, 1]. The luminance is that of the encoded values (luma). Adding
the same to all three channels changes it and nothing else: in YIQ, I and Q stay as they are (Gatys
et al. 2016, "Preserving Color in Neural Artistic Style Transfer").
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of sRGB's primaries (ITU-R BT.709)
# Okabe and Ito: for all eyes
DISTINCT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PASSES = 2  # of matching colours; more lose contrast to clipping
DARKEST = 1e-5  # least variance of a colour, so that a grey picture's can be matched


def luminance(image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 3, H, W) in grey: each channel is the luminance."""
    # Plain numbers, so that nothing is sent to a device.
    channels = zip(image.split(1, 1), LUMINANCE, strict=True)
    return sum(x * share for x, share in channels).expand_as(image).contiguous()


def with_luminance(image: Tensor, other: Tensor) -> Tensor:
    """The picture with the luminance of another one of its shape, clipped to [0, 1]."""
    return (image + luminance(other) - luminance(image)).clamp(0, 1)


def matched_luminance(image: Tensor, reference: Tensor) -> Tensor:
    """A picture in grey, with the mean and the standard deviation of the reference's luminance.

    The shapes may differ. The result is clipped to [0, 1].
    """
    source = luminance(image)
    target = luminance(reference)
    ratio = target.std(correction=0) / source.std(correction=0).clamp_min(DARKEST**0.5)
    return ((source - source.mean()) * ratio + target.mean()).clamp(0, 1)


def matched_colours(
    image: Tensor, reference: Tensor, weights: Tensor | None = None, others: Tensor | None = None
) -> Tensor:
    """A picture with the mean and the covariance of the reference's colours.

    Each pixel x becomes C^½ D^-½ (x - n) + m, with mean m and covariance C of the reference, n and
    D of the picture (Gatys et al. 2016, after Hertzmann et al. 2001). What is not in [0, 1] is
    clipped, which changes mean and covariance, so this is done PASSES times.

    Args:
        image: (1, 3, H, W), sRGB in [0, 1].
        reference: (1, 3, h, w), sRGB in [0, 1].
        weights: (1, 1, H, W), how much each pixel of the picture counts; all alike by default.
        others: (1, 1, h, w), the same for the reference.

    Returns:
        (1, 3, H, W), sRGB in [0, 1].
    """
    _, reference_mean, reference_covariance = _moments(reference, others)
    matched = image
    for _ in range(PASSES):
        colours, mean, covariance = _moments(matched, weights)
        matrix = symmetric_power(reference_covariance, 0.5, DARKEST) @ symmetric_power(
            covariance, -0.5, DARKEST
        )
        matched = (matrix @ (colours - mean) + reference_mean).view_as(image).clamp(0, 1)
    return matched.to(image.dtype)


def _moments(image: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(colours (3, M), their mean (3, 1), their covariance (3, 3)) of a picture, in float64."""
    colours = image[0].flatten(1).double()
    counts = torch.ones_like(colours[0]) if weights is None else weights.flatten().to(colours)
    mean = (colours * counts).sum(1, keepdim=True) / counts.sum().clamp_min(DARKEST)
    return colours, mean, torch.cov(colours, correction=0, aweights=counts)


def symmetric_power(matrix: Tensor, exponent: float, least: float = 0.0) -> Tensor:
    """A power of a symmetric matrix (N, N) without negative eigenvalues, such as its square root.

    Args:
        matrix: (N, N).
        exponent: of the power; 0.5 for the root.
        least: smaller eigenvalues are raised to this.

    Returns:
        (N, N).
    """
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(least) ** exponent) @ vectors.T


def matched_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """A picture with the histogram of each of the reference's channels; the shapes may differ."""
    from skimage.exposure import match_histograms

    source = image.detach()[0].cpu().numpy()
    target = reference.detach()[0].cpu().numpy()
    matched = torch.from_numpy(match_histograms(source, target, channel_axis=0))
    return matched[None].to(image).contiguous()
