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
from nstlab.base.errors import InputError
from nstlab.base.names import RAFT
from nstlab.networks import sources
from nstlab.pictures.colour import luminance

# Ruder et al. 2016, equations 5 and 6: factor of the flows' squared lengths, and squared pixels
OCCLUSION = 0.01, 0.5
BOUNDARY = 0.01, 0.002
LEAST_SIDE = 64  # pixels: shorter sides are too short for dense inverse search
RAFT_MULTIPLE, RAFT_LEAST_SIDE = 8, 128  # pixels: sides that RAFT takes


def warped(picture: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """A picture read where a flow points: moved to the time of the flow's first frame.

    Args:
        picture: (1, C, H, W), such as the flow's second frame.
        flow: (1, 2, H, W) in pixels.
        mode: "bilinear", "bicubic" or "nearest".

    Returns:
        (1, C, H, W).
    """
    return read(picture, pixels(flow) + flow, mode)


def pixels(like: Tensor) -> Tensor:
    """x and y of each pixel, (1, 2, H, W), for a picture (…, H, W), on its device."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in like.shape[-2:]), indexing="ij")
    return torch.stack([x, y])[None].to(like)


def read(picture: Tensor, positions: Tensor, mode: str = "bilinear") -> Tensor:
    """Interpolate a picture; positions beyond it are read at its edge.

    Args:
        picture: (1, C, h, w).
        positions: (1, 2, H, W), x and y in pixels of the picture.
        mode: "bilinear", "bicubic" or "nearest".

    Returns:
        (1, C, H, W).
    """
    last = [max(1, side - 1) for side in picture.shape[:-3:-1]]  # of columns and rows
    grid = torch.stack([2 * positions[:, i] / side - 1 for i, side in enumerate(last)], -1)
    return F.grid_sample(picture, grid, mode, padding_mode="border", align_corners=True)


def inside(positions: Tensor) -> Tensor:
    """(1, 1, H, W): whether positions, (1, 2, H, W), are in a picture of that size."""
    height, width = positions.shape[-2:]
    x = positions[:, :1]
    y = positions[:, 1:]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def reliable(flow: Tensor, back: Tensor) -> Tensor:
    """Where a flow can be relied on (Ruder et al. 2016, equations 5 and 6).

    It cannot where what is seen was hidden in the other frame or beyond its edge, and at the
    boundary of things that move differently.

    Args:
        flow: (1, 2, H, W) in pixels, from this frame to the other.
        back: (1, 2, H, W) in pixels, from the other frame to this one.

    Returns:
        (1, 1, H, W): 1 where it can be relied on, else 0.
    """
    backward = warped(back, flow)
    lengths = _squared(flow) + _squared(backward)
    is_visible = _squared(flow + backward) <= OCCLUSION[0] * lengths + OCCLUSION[1]
    slopes = _squared(_slope(flow, -1)) + _squared(_slope(flow, -2))
    is_smooth = slopes <= BOUNDARY[0] * _squared(flow) + BOUNDARY[1]
    return (is_visible & is_smooth & inside(pixels(flow) + flow)).to(flow)


def _squared(flow: Tensor) -> Tensor:
    """(1, 1, H, W): squared lengths."""
    return flow.square().sum(1, keepdim=True)


def _slope(flow: Tensor, dim: int) -> Tensor:
    """Central differences, and 0 at the edges."""
    gradient = torch.zeros_like(flow)
    side = flow.shape[dim]
    if side > 2:
        difference = flow.narrow(dim, 2, side - 2) - flow.narrow(dim, 0, side - 2)
        gradient.narrow(dim, 1, side - 2).copy_(difference / 2)
    return gradient


def dis(photo: Tensor, other: Tensor) -> Tensor:
    """The flow by dense inverse search (Kroeger et al. 2016), on the CPU.

    Args:
        photo: (1, 3, H, W) sRGB in [0, 1].
        other: (1, 3, H, W) sRGB in [0, 1], the frame to which the flow points.

    Returns:
        (1, 2, H, W) in pixels.

    Raises:
        InputError: if OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InputError("video: OpenCV is not installed; pip install 'nstlab[video]'") from None
    height, width = photo.shape[-2:]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # pyright: ignore[reportAttributeAccessIssue]
    search.setFinestScale(0)  # of all pixels, not of every second one
    flow = search.calc(_grey(photo), _grey(other), None)[:height, :width]
    return torch.from_numpy(np.ascontiguousarray(flow)).permute(2, 0, 1)[None].to(photo)


def _grey(photo: Tensor) -> np.ndarray:
    """A photo's luminance, (H, W) uint8, with sides of LEAST_SIDE or more."""
    grey = (255 * luminance(photo.cpu())[0, 0]).round().byte().numpy()
    grey = np.ascontiguousarray(grey)
    return np.pad(grey, [(0, max(0, LEAST_SIDE - side)) for side in grey.shape], "edge")


def raft(photo: Tensor, other: Tensor) -> Tensor:
    """The flow by RAFT (Teed, Deng 2020), torchvision's large network.

    Args:
        photo: (1, 3, H, W) sRGB in [0, 1], on the device that computes.
        other: (1, 3, H, W) sRGB in [0, 1], the frame to which the flow points.

    Returns:
        (1, 2, H, W) in pixels.

    Raises:
        InputError: if its weights are not on this machine, or damaged.
    """
    net = _raft(photo.device)
    height, width = photo.shape[-2:]
    with torch.no_grad():
        return net(_padded(photo), _padded(other))[-1][:, :, :height, :width]


def _padded(photo: Tensor) -> Tensor:
    """A photo in [-1, 1], continued to sides that RAFT takes."""
    below, right = (
        max(RAFT_LEAST_SIDE, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) - side
        for side in photo.shape[-2:]
    )
    return F.pad(2 * photo - 1, (0, right, 0, below), mode="replicate")


@cache
def _raft(device: torch.device) -> torch.nn.Module:
    from torchvision.models.optical_flow import raft_large

    download = sources.download(RAFT)
    path = download.path
    command = f"nstlab fetch --network {RAFT}"
    instead = f"choose dis, or get them ({download.megabytes} MB) with: {command}"
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
    """A picture of a flow: directions as hues, lengths as saturation.

    Args:
        flow: (1, 2, H, W) in pixels.
        longest: the length in pixels that is fully saturated, by default the longest.

    Returns:
        (1, 3, H, W) sRGB in [0, 1].
    """
    length = _squared(flow)[0, 0].sqrt()
    hue = torch.atan2(flow[0, 1], flow[0, 0]) / (2 * torch.pi) % 1
    saturation = (length / (longest or length.max().clamp_min(1e-6))).clamp(0, 1)
    hsv = torch.stack([hue, saturation, torch.ones_like(hue)], -1)
    colours = hsv2rgb(hsv.cpu().double().numpy())
    return torch.from_numpy(colours).permute(2, 0, 1)[None].to(flow)


def end_point_error(flow: Tensor, true: Tensor, weight: Tensor | None = None) -> float:
    """Mean distance in pixels between the ends of two flows.

    Args:
        flow: (1, 2, H, W) in pixels.
        true: (1, 2, H, W) in pixels.
        weight: (1, 1, H, W), of each pixel; by default equal.
    """
    if weight is None:
        weight = torch.ones_like(flow[:, :1])
    return float((weight * _squared(flow - true).sqrt()).sum() / weight.sum().clamp_min(1))


def temporal_error(frame: Tensor, other: Tensor, flow: Tensor, weight: Tensor) -> float:
    """How much a film flickers: mean squared difference of a frame from a warped one.

    Ruder et al. 2016, section 5.

    Args:
        frame: (1, 3, H, W).
        other: (1, 3, H, W), which the flow moves to the frame's time.
        flow: (1, 2, H, W) in pixels, from the frame to the other.
        weight: (1, 1, H, W): where the flow can be relied on.
    """
    difference = (frame - warped(other, flow)).square()
    return float((weight * difference).mean() / weight.mean().clamp_min(1e-9))
