"""Colours as affine functions of a photo's in each small window: what keeps a photo a photo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.method.crops import Crop
from nstlab.method.pixel_terms import PixelTerm
from nstlab.pictures import images as im

# Variance of a window's colours that is taken for noise; rounding to 8 bits makes 1.3e-6.
RIDGE = 1e-5
BAND = 64  # rows of windows for which it is computed at a time, in some kilobytes a pixel

Offset = tuple[int, int]
# From a pixel to half of those with which it shares a window of 3×3: (down, right).
OFFSETS: tuple[Offset, ...] = tuple(
    (down, right) for down in range(3) for right in range(-2, 3) if (down, right) > (0, 0)
)


def matting_laplacian(photo: Tensor, ridge: float = RIDGE) -> Tensor:
    """(1, 3, H, W) -> (12, H, W): the weight between each pixel and the one at each of OFFSETS.

    In a window k of 3×3 pixels, the best affine function of the photo's colours leaves of other
    values v the sum of squares Σ_i (v_i - a·I_i - b)² + ridge |a|². The sum over all windows is vᵀ
    L v = Σ w_ij (v_i - v_j)² over the pairs of pixels, with w_ij = Σ_k (1 + (I_i - m_k)ᵀ (C_k +
    ridge/9)⁻¹ (I_j - m_k)) / 9, the mean m_k and the covariance C_k of a window's colours (Levin,
    Lischinski, Weiss 2008, equation 12). Weights beyond the border are 0. Computed in float64.

    Args:
        photo: sRGB in [0, 1].
        ridge: variance of a window's colours that is taken for noise.
    """
    pixels = photo[0].double()
    weights = pixels.new_zeros(len(OFFSETS), *pixels.shape[1:])
    for top in range(0, pixels.shape[1] - 2, BAND):
        rows = slice(top, top + BAND + 2)  # two more than windows
        weights[:, rows] += _weights_of_windows(pixels[:, rows], ridge)
    return weights.to(photo.dtype)


def _weights_of_windows(pixels: Tensor, ridge: float) -> Tensor:
    """`matting_laplacian` of the windows in some rows, (3, H, W) in float64."""
    height, width = pixels.shape[1:]
    # Of all windows the pixels in one of their nine corners, sides and middle.
    places = {
        (down, right): (..., slice(down, height - 2 + down), slice(right, width - 2 + right))
        for down in range(3)
        for right in range(3)
    }
    mean = torch.stack([pixels[place] for place in places.values()]).mean(0)
    centred = {position: pixels[place] - mean for position, place in places.items()}
    products = [torch.einsum("ihw,jhw->hwij", d, d) for d in centred.values()]
    covariance = torch.stack(products).mean(0)
    inverse = torch.linalg.inv(covariance + ridge / 9 * torch.eye(3).to(covariance))
    weights = pixels.new_zeros(len(OFFSETS), height, width)
    for (down, right), place in places.items():
        whitened = torch.einsum("hwij,jhw->ihw", inverse, centred[down, right])
        for number, offset in enumerate(OFFSETS):
            neighbour = centred.get((down + offset[0], right + offset[1]))
            if neighbour is not None:
                weights[number][place] += (1 + (whitened * neighbour).sum(0)) / 9
    return weights


def _pairs(values: Tensor, weights: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """(values at pixels, values at an offset, weights between them) for each of OFFSETS; views."""
    height, width = values.shape[-2:]
    for (down, right), weight in zip(OFFSETS, weights, strict=True):
        pixels = (..., slice(height - down), slice(max(0, -right), width - max(0, right)))
        neighbours = (..., slice(down, height), slice(max(0, right), width + min(0, right)))
        yield values[pixels], values[neighbours], weight[pixels]


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(PixelTerm):
    """Σ_c V_cᵀ L V_c over the number of values: how far colours are from affine ones of a photo.

    V_c are the three channels and L the photo's matting Laplacian (Luan et al. 2017, equation 2).
    Edges stay where the photo has them, and even areas stay even; colours may become any others.

    Attributes:
        photo: (1, 3, H, W).
    """

    photo: Tensor
    margin = 2

    def statistic(self, features: Tensor, target: None) -> Tensor:
        return _sum_of_squares(features, self.weights(features)) / features.numel()

    def part(self, features: Tensor, target: None, crop: Crop) -> Tensor:
        """What the pairs of pixels whose first one is in the crop add."""
        wide = crop.wider(self.margin)
        is_inside = torch.zeros(wide.shape).to(features)
        crop.relative_to(wide).of(is_inside).fill_(1)
        weights = wide.of(self.weights(features, crop.whole))
        total = _sum_of_squares(features, is_inside * weights)
        return total / (features.shape[:-2].numel() * prod(crop.whole))

    def vjp(
        self, grad_output: Tensor, features: Tensor, target: Tensor | None, into: Tensor, add: bool
    ) -> None:
        """The vjp of vᵀ L v over the number of values: 2 L v over it."""
        if not add:
            into.zero_()
        weights = self.weights(features)
        factor = 2 / features.numel() * grad_output
        for (pixels, neighbours, weight), (into_pixels, into_neighbours, _) in zip(
            _pairs(features, weights), _pairs(into, weights), strict=True
        ):
            change = (pixels - neighbours).mul_(weight).mul_(factor)
            into_pixels += change
            into_neighbours -= change

    def weights(self, features: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """(12, h, w): those of `matting_laplacian`, on the features' device.

        Args:
            shape: (h, w) to which the photo is resized; by default the features'.
        """
        shape = tuple(features.shape[-2:] if shape is None else shape)
        key = features.device, features.dtype, shape
        return self.cached(
            key, lambda: matting_laplacian(im.resize(self.photo, shape)).to(features)
        )


def _sum_of_squares(values: Tensor, weights: Tensor) -> Tensor:
    """Σ w_ij (v_i - v_j)² over the pairs of pixels, a scalar."""
    sums = [((a - b).square() * weight).sum() for a, b, weight in _pairs(values, weights)]
    return torch.stack(sums).sum()


# --- the guided filter ----------------------------------------------------------------------------

REACH = 1 / 48  # of the long side: the radius of the windows of `guided`
# Pixels: a smaller radius is enough for affine functions, which change slowly; windows of a larger
# one are reduced.
FINEST = 4
FAINT = 1e-4  # variance of the photo's colours in a window below which they explain nothing


def guided(picture: Tensor, photo: Tensor) -> Tensor:
    """The picture with edges and grain where the photo has them.

    It is the picture's affine approximation by the photo's colours in each window, averaged over
    the windows that a pixel is in (the guided filter of He, Sun, Tang 2010). The affine functions
    are found in reduced pictures (He, Sun 2015). Computed in float64, on the CPU where the device
    has none.

    Args:
        picture, photo: (1, 3, H, W) sRGB in [0, 1], of one shape.
    """
    radius = max(1, round(REACH * max(photo.shape[-2:])))
    reduction = max(1, radius // FINEST)
    device = "cpu" if picture.device.type == "mps" else picture.device
    full = photo[0].to(device).double()
    shape = [-(-side // reduction) for side in full.shape[1:]]
    guide = F.interpolate(full[None], shape, mode="area")[0]
    values = F.interpolate(picture[0].to(device).double()[None], shape, mode="area")[0]
    functions = _affine_functions(guide, values, round(radius / reduction))
    functions = F.interpolate(functions[None], full.shape[1:], mode="bilinear")[0]
    filtered = (functions[:9].unflatten(0, (3, 3)) * full[:, None]).sum(0) + functions[9:]
    return filtered[None].to(picture).clamp(0, 1)


def _affine_functions(guide: Tensor, values: Tensor, radius: int) -> Tensor:
    """(12, H, W): 9 slopes and 3 offsets of values (3, H, W) by a guide, averaged over windows."""
    mean = partial(_window_means, radius=radius)

    def covariance_with_guide(channels: Tensor) -> Tensor:  # (H, W, 3, 3), in windows
        of_products = mean((guide[:, None] * channels[None]).flatten(0, 1))
        of_means = (mean(guide)[:, None] * mean(channels)[None]).flatten(0, 1)
        return (of_products - of_means).unflatten(0, (3, 3)).permute(2, 3, 0, 1)

    ridge = FAINT * torch.eye(3).to(guide)
    slopes = torch.linalg.solve(
        covariance_with_guide(guide) + ridge, covariance_with_guide(values)
    ).permute(2, 3, 0, 1)
    offsets = mean(values) - (slopes * mean(guide)[:, None]).sum(0)
    return mean(torch.cat([slopes.flatten(0, 1), offsets]))


def _window_means(values: Tensor, radius: int) -> Tensor:
    """(C, H, W) -> the same, averaged over square windows as far as they are inside."""
    for dim in (1, 2):
        index = torch.arange(values.shape[dim], device=values.device)
        first = (index - radius).clamp_min(0)
        end = (index + radius + 1).clamp_max(len(index))
        sums = torch.cat([torch.zeros_like(values.narrow(dim, 0, 1)), values.cumsum(dim)], dim)
        count = (end - first).view(-1, *[1] * (2 - dim))
        values = (sums.index_select(dim, end) - sums.index_select(dim, first)) / count
    return values
