"""Optical flow: where each pixel of a frame is in another one, and where that can be relied on.

A flow is (1, 2, H, W), in pixels: what is at (x, y) in the one frame is at (x + u, y + v) in the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import hsv2rgb
from torch import Tensor

from nstlab.base import tensorfiles
from nstlab.base.names import RAFT
from nstlab.base.settings import InputError
from nstlab.networks import sources
from nstlab.pictures.colour import luminance

# Ruder et al. 2016, equation 5: part of the flows' squared lengths, and squared pixels
OCCLUDED = 0.01, 0.5
BOUNDARY = 0.01, 0.002  # and equation 6
MARGIN = 8  # RAFT takes sides that are multiples of this


def warped(picture: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """The picture, (1, C, H, W), read where the flow points, see `read`."""
    return read(picture, pixels(flow) + flow, mode)


def pixels(like: Tensor) -> Tensor:
    """(1, 2, H, W): x and y of each pixel."""
    down, across = torch.meshgrid(*(torch.arange(side) for side in like.shape[-2:]), indexing="ij")
    return torch.stack([across, down])[None].to(like)


def read(picture: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """(1, C, h, w), places in it, (1, 2, H, W) -> (1, C, H, W): between pixels as `mode` says, at
    the edge beyond it."""
    sides = [max(1, side - 1) for side in picture.shape[:-3:-1]]
    grid = torch.stack([2 * at[:, i] / side - 1 for i, side in enumerate(sides)], -1)
    return F.grid_sample(picture, grid, mode, padding_mode="border", align_corners=True)


def inside(at: Tensor) -> Tensor:
    """(1, 1, H, W): whether places, (1, 2, H, W), are in a picture of that size."""
    x = at[:, :1]
    y = at[:, 1:]
    return (x >= 0) & (x <= at.shape[-1] - 1) & (y >= 0) & (y <= at.shape[-2] - 1)


def reliable(flow: Tensor, back: Tensor) -> Tensor:
    """(1, 1, H, W): 1 where a flow can be relied on, and 0 where what is seen was hidden in the
    other frame, or was beyond its edge; where the flow is of two things that move differently
    (Ruder et al. 2016, equations 5 and 6).

    back: the flow from the other frame to this one."""
    there = warped(back, flow)
    lengths = _squared(flow) + _squared(there)
    same = _squared(flow + there) <= OCCLUDED[0] * lengths + OCCLUDED[1]
    slopes = _squared(_slope(flow, -1)) + _squared(_slope(flow, -2))
    smooth = slopes <= BOUNDARY[0] * _squared(flow) + BOUNDARY[1]
    return (same & smooth & inside(pixels(flow) + flow)).to(flow)


def _squared(flow: Tensor) -> Tensor:
    return flow.square().sum(1, keepdim=True)


def _slope(flow: Tensor, dim: int) -> Tensor:
    """Central differences, and 0 at the edges."""
    made = torch.zeros_like(flow)
    side = flow.shape[dim]
    if side > 2:
        made.narrow(dim, 1, side - 2).copy_(
            (flow.narrow(dim, 2, side - 2) - flow.narrow(dim, 0, side - 2)) / 2
        )
    return made


def dis(one: Tensor, other: Tensor) -> Tensor:
    """By dense inverse search (Kroeger et al. 2016), on the CPU; frames (1, 3, H, W) sRGB in [0,
    1]."""
    try:
        import cv2
    except ImportError:
        raise InputError("video: OpenCV is not installed; pip install 'nstlab[video]'") from None
    height, width = one.shape[-2:]
    grey = [
        np.ascontiguousarray((255 * luminance(each.cpu())[0, 0]).round().byte().numpy())
        for each in (one, other)
    ]
    wide = [
        np.pad(each, [(0, max(0, LEAST - side)) for side in each.shape], "edge") for each in grey
    ]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # pyright: ignore[reportAttributeAccessIssue]
    search.setFinestScale(0)  # of all pixels, not of every second one
    found = search.calc(*wide, None)[:height, :width]
    return torch.from_numpy(np.ascontiguousarray(found)).permute(2, 0, 1)[None].to(one)


LEAST = 64  # pixels: sides below this are too short for the search


def raft(one: Tensor, other: Tensor) -> Tensor:
    """By RAFT (Teed, Deng 2020), torchvision's large network, whose weights must be on this
    machine."""
    net, (height, width) = _raft(one.device), one.shape[-2:]
    below, right = (max(128, -(-side // MARGIN) * MARGIN) - side for side in (height, width))
    wide = [F.pad(2 * each - 1, (0, right, 0, below), mode="replicate") for each in (one, other)]
    with torch.no_grad():
        return net(*wide)[-1][:, :, :height, :width]


@cache
def _raft(device: torch.device) -> torch.nn.Module:
    from torchvision.models.optical_flow import raft_large

    download = sources.download(RAFT)
    path, size = download.path, download.megabytes
    instead = f"choose dis, or get them ({size} MB) with: nstlab fetch --network {RAFT}"
    if not path.is_file():
        raise InputError(f"flow: RAFT's weights are not on this machine; {instead}")
    tensors, _ = tensorfiles.read(path)
    try:
        with torch.device("meta"):  # without drawing numbers that are not used
            net = raft_large()
        net.load_state_dict(tensors, assign=True)
    except RuntimeError:
        raise InputError(
            f"{path}: does not hold RAFT's weights, or is damaged; {instead}"
        ) from None
    return net.eval().requires_grad_(False).to(device)


FLOWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"dis": dis, "raft": raft}


def flow_picture(flow: Tensor, longest: float | None = None) -> Tensor:
    """(1, 3, H, W): a flow's directions as hues, and its lengths, up to the longest by default, as
    how saturated they are."""
    length = _squared(flow)[0, 0].sqrt()
    hue = torch.atan2(flow[0, 1], flow[0, 0]) / (2 * torch.pi) % 1
    strength = (length / (longest or length.max().clamp_min(1e-6))).clamp(0, 1)
    colours = hsv2rgb(torch.stack([hue, strength, torch.ones_like(hue)], -1).cpu().double().numpy())
    return torch.from_numpy(colours).permute(2, 0, 1)[None].to(flow)


def end_point_error(flow: Tensor, true: Tensor, where: Tensor | None = None) -> float:
    """Mean distance in pixels between the ends of two flows; where: (1, 1, H, W), the weight of
    each pixel."""
    weight = torch.ones_like(flow[:, :1]) if where is None else where
    return float((weight * _squared(flow - true).sqrt()).sum() / weight.sum().clamp_min(1))


def temporal_error(one: Tensor, other: Tensor, flow: Tensor, where: Tensor) -> float:
    """Mean squared difference of frame `one` from the `other` that its flow has moved to its time,
    over the pixels `where` it can be relied on (Ruder et al. 2016, section 5): how much a film
    flickers."""
    return float(
        (where * (one - warped(other, flow)).square()).mean() / where.mean().clamp_min(1e-9)
    )
