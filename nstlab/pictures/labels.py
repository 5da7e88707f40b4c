"""Label pictures: regions by colour, as masks.

A label picture has one colour for each region. Masks are (1, R, H, W) in [0, 1]; at each pixel they
add up to 1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.pictures import samples, sizes
from nstlab.pictures.colour import DISTINCT
from nstlab.pictures.decoding import read_labels

logger = logging.getLogger("nstlab")
Net = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]

MAX_REGIONS = 12
# The colours of regions.
PALETTE = tuple(
    sorted((*DISTINCT, "#f0e442", "#999999", "#ffffff", "#7a1fa2", "#4e342e", "#b8d45a"))
)
MIN_SHARE = 0.02  # of each picture: what a region of both must cover
COVERED = 0.9  # of a label picture: what its regions must cover, in all
TINY = 16 * 16  # pixels: a position of the fifth block
NOISE = 0.001  # of the picture: colours of fewer pixels are taken for noise


def load(source: str | os.PathLike) -> Tensor:
    """Read a label picture: its colours as they are stored, or a colour for each number.

    Numbers are what grey pictures of more than 8 bits have, if they are whole, and palettes in
    which numbers share a colour. The number n becomes the grey n, as in 8 bits, or the colour n
    from 256 on; steps of 257 are 8 bits that were made 16.

    Args:
        source: a path, or the name of a sample picture.

    Returns:
        (1, 3, H, W) in [0, 1], at the picture's own size.

    Raises:
        InputError: as `images.load`, and for numbers that would have the same colour.
    """
    path = samples.path_of(source)
    picture, numbers = read_labels(path)
    if numbers is None:
        return picture
    distinct, index = np.unique(numbers, return_inverse=True)
    greys = distinct
    if len(distinct) and (distinct % 257 == 0).all() and 0 <= distinct[0] <= distinct[-1] <= 65535:
        greys = distinct // 257
    codes = np.where((greys >= 0) & (greys < 256), greys * 0x010101, greys % (1 << 24))
    if len(np.unique(codes)) < len(distinct):
        raise InputError(
            f"{path}: the numbers of its regions are too large to be told apart; use 0 to 255"
        )
    palette = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float32) / 255.0
    pixels = torch.from_numpy(palette[index.reshape(numbers.shape)])  # (H, W, 3)
    return pixels.permute(2, 0, 1)[None].contiguous()


def colours(labels: Tensor, name: str = "mask") -> dict[str, Tensor]:
    """The regions of a label picture by their colours.

    Colours of hardly any pixels are left out, with a warning.

    Args:
        labels: (1, 3, H, W) in [0, 1].
        name: what the label picture is, for messages.

    Returns:
        {"#rrggbb": (H, W) bool, whether a pixel has this colour}, in the order of the names.

    Raises:
        InputError: if more than MAX_REGIONS colours remain, or too little of the picture.
    """
    place_values = torch.tensor([65536, 256, 1]).view(3, 1, 1)
    codes = ((labels[0] * 255).round().long() * place_values).sum(0)  # (H, W)
    distinct, counts = codes.unique(return_counts=True)
    is_region = counts >= max(1, NOISE * codes.numel())
    if is_region.sum() > MAX_REGIONS or counts[is_region].sum() < COVERED * codes.numel():
        raise InputError(
            f"{name}: {len(distinct)} colours in a label picture; at most {MAX_REGIONS} are "
            "allowed, one for each region (a JPEG, or soft edges? save it as PNG, without "
            "smoothing)"
        )
    rest = int((~is_region).sum())
    if rest:
        logger.warning(
            f"{name}: {rest} of its colours have hardly any pixels, which belong to no region"
        )
    return {f"#{int(code):06x}": codes == code for code in distinct[is_region]}


def masks(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The masks of two label pictures: the first one's regions, in the order of their colours.

    Pixels of a colour that is left out belong to no region.

    Args:
        labels: (1, 3, H, W) in [0, 1], of the photo.
        others: (1, 3, h, w) in [0, 1], of the painting.

    Returns:
        (1, R, H, W) and (1, R, h, w), 0 or 1, of the same regions in the same order.

    Raises:
        InputError: if the second picture lacks a region, and as `colours` does.
    """
    first = colours(labels)
    second = colours(others, "painting_mask")
    missing = [name for name in first if name not in second]
    if missing:
        raise InputError(
            f"painting_mask: has no {', '.join(missing)}, a colour of mask (where it is used, it "
            f"has {', '.join(second)})"
        )
    return _stacked(list(first.values())), _stacked([second[name] for name in first])


def warn_if_stretched(name: str, labels: Tensor, shape: Sequence[int]) -> None:
    """Log that a label picture has other proportions than its picture, of shape (H, W)."""
    height, width = labels.shape[-2:]
    if not sizes.same_proportions((height, width), shape):
        logger.warning(
            f"{name}: {width}×{height} is stretched to the proportions of its picture, "
            f"{shape[1]}×{shape[0]}"
        )


def warn_if_tiny(masks: Tensor) -> None:
    """Log which of the regions (1, R, H, W) are smaller than a position of the deepest layers."""
    for number, pixels in enumerate(masks.sum((2, 3))[0].tolist(), 1):
        if pixels < TINY:
            logger.warning(
                f"mask: region {number} covers {pixels:.0f} px; layers where that is less than a "
                "position leave it out"
            )


def crop_labels(labels: Tensor, shape: Sequence[int], part: sizes.Part) -> Tensor:
    """The part of a label picture that belongs to a part of its picture.

    Args:
        labels: (1, 3, h, w).
        shape: (H, W) of its picture.
        part: (top, left, height, width) of the picture.
    """
    down = labels.shape[-2] / shape[0]
    across = labels.shape[-1] / shape[1]
    top = round(part[0] * down)
    left = round(part[1] * across)
    height = max(1, round(part[2] * down))
    width = max(1, round(part[3] * across))
    return labels[..., top : top + height, left : left + width]


def fit_masks(masks: Tensor, shape: Sequence[int]) -> Tensor:
    """Masks (1, R, h, w) -> (1, R, H, W), with soft edges, in the shape of their picture."""
    soft = im.resize(masks, shape)
    return soft / soft.sum(1, keepdim=True).clamp_min(1.0)


def find_regions(
    net: Net, photo: Tensor, painting: Tensor, layers: Sequence[str], count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The label pictures of a photo and a painting, with regions that both have.

    The features of all positions of both are clustered together (k-means), so that a region of the
    photo is where the network sees about the same as in that region of the painting. A cluster that
    one of them hardly has is given to the nearest one that both have.

    Args:
        net: from a picture and layers to features.
        photo: (1, 3, H, W) in [0, 1].
        painting: (1, 3, h, w) in [0, 1].
        layers: whose features are clustered, the finest first.
        count: of regions at most.
        seed: of the clustering.

    Returns:
        (1, 3, H, W) and (1, 3, h, w) in [0, 1], in colours of PALETTE.
    """
    maps = [_standardized(net, picture, layers) for picture in (photo, painting)]
    regions = _shared_clusters([features[0].flatten(1).T for features in maps], count, seed)
    palette = torch.tensor([_rgb(colour) for colour in PALETTE[:: MAX_REGIONS // count]])
    pictures = []
    for numbers, features, picture in zip(regions, maps, (photo, painting), strict=True):
        grid = numbers.view(1, 1, *features.shape[-2:]).float()
        large = F.interpolate(grid, tuple(picture.shape[-2:]), mode="nearest")[0, 0].long()
        pictures.append(palette[large].permute(2, 0, 1)[None].contiguous())
    return pictures[0], pictures[1]


def _shared_clusters(points: Sequence[Tensor], count: int, seed: int) -> list[Tensor]:
    """The number of the region of each point, (N,) for each (N, C), of regions that all share."""
    from scipy.cluster.vq import kmeans2

    stacked = torch.cat(list(points)).double().numpy()
    # In an even picture all points are the same, and there is one centre.
    centres = stacked[:1]
    nearest = np.zeros(len(stacked), dtype=np.int32)
    if np.ptp(stacked, 0).max() > 1e-6:
        centres, nearest = kmeans2(stacked, count, minit="++", rng=seed)
    clusters = torch.from_numpy(nearest).split([len(some) for some in points])
    shared = [
        number
        for number in range(len(centres))
        if all((cluster == number).float().mean() >= MIN_SHARE for cluster in clusters)
    ]
    if len(shared) < 2:
        logger.warning("regions: the pictures have none in common; the whole picture is one")
    distances = ((centres[:, None] - centres[shared or [0]][None]) ** 2).sum(-1)
    region_of_cluster = torch.from_numpy(distances).argmin(1)
    return [region_of_cluster[cluster.long()] for cluster in clusters]


def _rgb(colour: str) -> list[float]:
    """[red, green, blue] in [0, 1] of "#rrggbb"."""
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _standardized(net: Net, picture: Tensor, names: Sequence[str]) -> Tensor:
    """(1, C, h, w): the features of layers at the first one's positions, smoothed.

    They are relative to the picture's own mean and deviation, since a painting's features differ
    from a photo's everywhere. Each layer counts the same.
    """
    with torch.no_grad():
        layers = []
        for features in net(picture, names).values():
            smooth = F.avg_pool2d(features, 5, 1, 2, count_include_pad=False)
            mean = smooth.mean((2, 3), keepdim=True)
            deviation = smooth.std((2, 3), keepdim=True).clamp_min(1e-6)
            standard = (smooth - mean) / deviation
            layers.append(standard / standard.norm(dim=1, keepdim=True).clamp_min(1e-6))
        shape = layers[0].shape[-2:]
        return torch.cat([F.interpolate(f, shape, mode="bilinear") for f in layers], 1).cpu()


def overlay(picture: Tensor, labels: Tensor, opacity: float = 0.5) -> Tensor:
    """A picture under the colours of a label picture of its shape."""
    return picture + opacity * (labels - picture)


def _stacked(regions: list[Tensor]) -> Tensor:
    return torch.stack(regions)[None].float()
