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
from nstlab.pictures import samples
from nstlab.pictures.colour import DISTINCT
from nstlab.pictures.decoding import read_labels

MOST = 12  # regions
# The colours of regions.
PALETTE = tuple(
    sorted((*DISTINCT, "#f0e442", "#999999", "#ffffff", "#7a1fa2", "#4e342e", "#b8d45a"))
)
SHARED = 0.02  # of each picture: what a region that is found must cover
COVERED = 0.9  # of a label picture: what its regions must cover, in all
TINY = 16 * 16  # pixels: a position of the fifth block
SMALLEST = 0.001  # of the picture: colours of fewer pixels are taken for noise


def load(source: str | os.PathLike) -> Tensor:
    """Read a label picture, (1, 3, H, W) in [0, 1], at its own size: its colours as they are
    stored, or one for each number.

    Numbers are what grey pictures of more than 8 bits have, if they are whole, and palettes in
    which numbers share a colour. The number n becomes the grey n, as in 8 bits, or the colour n
    from 256 on; steps of 257 are 8 bits that were made 16. Raises InputError as `images.load`, and
    for numbers that would have the same colour."""
    path = samples.path_of(source)
    picture, numbers = read_labels(path)
    if numbers is None:
        return picture
    every, index = np.unique(numbers, return_inverse=True)
    grey = (
        every // 257
        if len(every) and (every % 257 == 0).all() and every[0] >= 0 and every[-1] <= 65535
        else every
    )
    codes = np.where((grey >= 0) & (grey < 256), grey * 0x010101, grey % (1 << 24))
    if len(np.unique(codes)) < len(every):
        raise InputError(
            f"{path}: the numbers of its regions are too large to be told apart; use 0 to 255"
        )
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float32) / 255.0
    return (
        torch.from_numpy(colours[index.reshape(numbers.shape)]).permute(2, 0, 1)[None].contiguous()
    )


Net = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]


def colours(labels: Tensor, what: str = "mask") -> dict[str, Tensor]:
    """{"#rrggbb": (H, W), whether a pixel has it} for the colours of a label picture, (1, 3, H, W)
    in [0, 1], by their names.

    Colours of hardly any pixels are left out. InputError, about `what`, if more than MOST are left,
    or too little of the picture."""
    code = ((labels[0] * 255).round().long() * torch.tensor([65536, 256, 1]).view(3, 1, 1)).sum(0)
    every, counts = code.unique(return_counts=True)
    known = counts >= max(1, SMALLEST * code.numel())
    if known.sum() > MOST or counts[known].sum() < COVERED * code.numel():
        raise InputError(
            f"{what}: {len(every)} colours in a label picture; at most {MOST} are allowed, one "
            "for each region (a JPEG, or "
            "soft edges? save it as PNG, without smoothing)"
        )
    if rest := int((~known).sum()):
        logging.getLogger("nstlab").warning(
            f"{what}: {rest} of its colours have hardly any pixels, which belong to no region"
        )
    return {f"#{int(value):06x}": code == value for value in every[known]}


def masks(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The masks of two label pictures, of the same regions in the same order; of the first one's
    regions, in the order of their colours. InputError if the second one lacks a region. Pixels of a
    colour that is left out belong to no region."""
    first = colours(labels)
    second = colours(others, "painting_mask")
    missing = [name for name in first if name not in second]
    if missing:
        there = ", ".join(second)
        raise InputError(
            f"painting_mask: has no {', '.join(missing)}, a colour of mask (where it is used, it "
            f"has {there})"
        )
    return _stacked(list(first.values())), _stacked([second[name] for name in first])


def say_if_stretched(name: str, labels: Tensor, shape: Sequence[int]) -> None:
    """Log that a label picture has other proportions than its picture, of shape (H, W)."""
    (height, width), (own_height, own_width) = labels.shape[-2:], shape
    if not im.alike(labels.shape[-2:], shape):
        logging.getLogger("nstlab").warning(
            f"{name}: {width}×{height} is stretched to the proportions of its picture, "
            f"{own_width}×{own_height}"
        )


def say_if_tiny(masks: Tensor) -> None:
    """Log which regions of a run's picture, (1, R, H, W), are so small that they count nothing in
    the deepest layers."""
    for number, covered in enumerate(masks.sum((2, 3))[0].tolist(), 1):
        if covered < TINY:
            logging.getLogger("nstlab").warning(
                f"mask: region {number} covers {covered:.0f} px; layers where that is less than a "
                "position leave it out"
            )


def part(labels: Tensor, shape: Sequence[int], used: Sequence[int]) -> Tensor:
    """The part of a label picture that belongs to the part (top, left, height, width) of its
    picture, of shape (H, W)."""
    down = labels.shape[-2] / shape[0]
    across = labels.shape[-1] / shape[1]
    (top, left), (height, width) = (
        (round(used[0] * down), round(used[1] * across)),
        (used[2] * down, used[3] * across),
    )
    return labels[..., top : top + max(1, round(height)), left : left + max(1, round(width))]


def fit_masks(masks: Tensor, shape: Sequence[int]) -> Tensor:
    """Masks (1, R, h, w) at the (H, W) that their picture has in a run, with soft edges."""
    soft = im.resize(masks, shape)
    return soft / soft.sum(1, keepdim=True).clamp_min(1.0)


def found(
    net: Net, photo: Tensor, painting: Tensor, layers: Sequence[str], count: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The label pictures of a photo and a painting, (1, 3, H, W) each, with at most `count` regions
    that both have.

    The features of all positions of both, in these layers, are clustered together (k-means), so
    that a region of the photo is where the network sees about the same as in that region of the
    painting. A cluster that one of them hardly has is given to the next one."""
    from scipy.cluster.vq import kmeans2

    maps = [_described(net, picture, layers) for picture in (photo, painting)]
    points = torch.cat([each[0].flatten(1).T for each in maps]).double().numpy()
    # In an even picture all points are the same, and there is one centre.
    centres = points[:1]
    nearest = np.zeros(len(points), dtype=np.int32)
    if np.ptp(points, 0).max() > 1e-6:
        centres, nearest = kmeans2(points, count, minit="++", rng=seed)
    parts = torch.from_numpy(nearest).split([each[0, 0].numel() for each in maps])
    both = [
        k
        for k in range(len(centres))
        if all((part == k).float().mean() >= SHARED for part in parts)
    ]
    if len(both) < 2:
        logging.getLogger("nstlab").warning(
            "regions: the pictures have none in common; the whole picture is one"
        )
    distance = torch.from_numpy(((centres[:, None] - centres[both or [0]][None]) ** 2).sum(-1))
    names = distance.argmin(1)  # the number of the region that each cluster becomes
    colours = torch.tensor(
        [[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in PALETTE[:: MOST // count]],
        dtype=torch.float32,
    )
    made = []
    for part, each, picture in zip(parts, maps, (photo, painting), strict=True):
        grid = names[part.long()].view(1, 1, *each.shape[-2:])
        large = F.interpolate(grid.float(), tuple(picture.shape[-2:]), mode="nearest")[0, 0].long()
        made.append(colours[large].permute(2, 0, 1)[None].contiguous())
    return made[0], made[1]


def _described(net: Net, picture: Tensor, names: Sequence[str]) -> Tensor:
    """(1, C, h, w): the features of layers at the first one's positions, smoothed; each layer
    counts the same.

    They are relative to the picture's own mean and deviation, since a painting's features differ
    from a photo's everywhere."""
    with torch.no_grad():
        layers = [
            F.avg_pool2d(f, 5, 1, 2, count_include_pad=False) for f in net(picture, names).values()
        ]
        layers = [
            (f - f.mean((2, 3), keepdim=True)) / f.std((2, 3), keepdim=True).clamp_min(1e-6)
            for f in layers
        ]
        layers = [f / f.norm(dim=1, keepdim=True).clamp_min(1e-6) for f in layers]
        return torch.cat(
            [F.interpolate(f, layers[0].shape[-2:], mode="bilinear") for f in layers], 1
        ).cpu()


def overlay(picture: Tensor, labels: Tensor, opacity: float = 0.5) -> Tensor:
    """A picture under the colours of a label picture of its shape."""
    return picture + opacity * (labels - picture)


def _stacked(regions: list[Tensor]) -> Tensor:
    return torch.stack(regions)[None].float()
