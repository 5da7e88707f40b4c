"""Frames of photos that move in a known way, and clips made of them."""

import math

import torch
from torch import Tensor

from nstlab.video.flow import warped

MOTIONS = {
    "pan": (1.0, 0.0, (6.0, -3.5)),
    "zoom": (1.03, 0.0, (0.0, 0.0)),
    "rotation": (1.0, 3.0, (0.0, 0.0)),
}  # scale, degrees, px


def affine_flow(shape, scale=1.0, degrees=0.0, move=(0.0, 0.0)) -> Tensor:
    """(1, 2, H, W): the flow of a scene that is enlarged and turned about the middle, and moved."""
    height, width = shape
    down = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width) - (height - 1) / 2
    across = torch.arange(width, dtype=torch.float32)[None].expand(height, width) - (width - 1) / 2
    turn = math.radians(degrees)
    u = scale * (math.cos(turn) * across - math.sin(turn) * down) + move[0] - across
    v = scale * (math.sin(turn) * across + math.cos(turn) * down) + move[1] - down
    return torch.stack([u, v])[None]


def disc(shape, middle, radius) -> Tensor:
    """(1, 1, H, W): 1 inside a disc at (x, y)."""
    down, across = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in shape), indexing="ij")
    return ((across - middle[0]).square() + (down - middle[1]).square() <= radius**2).float()[None, None]


def scene(photo, cut_out, motion, move=(-5.0, 4.0)):
    """(frame 0, frame 1, the flow from frame 1 to frame 0, where frame 1 shows what frame 0 does), of a photo in motion, before
    which a disc of another one moves on its own. The flow is exact."""
    shape = photo.shape[-2:]
    radius, middle = min(shape) / 5, (shape[1] / 2, shape[0] / 2)
    there = (middle[0] - move[0], middle[1] - move[1])
    own = torch.tensor(move).view(1, 2, 1, 1).expand(1, 2, *shape)
    behind, before = affine_flow(shape, *motion), own
    old, new = disc(shape, middle, radius), disc(shape, there, radius)
    first = torch.lerp(photo, cut_out, old)
    second = torch.lerp(warped(photo, behind), warped(cut_out, before), new)
    flow = torch.lerp(behind, before, new)
    hidden = (1 - new) * (warped(old, behind) > 0)
    height, width = shape
    x, y = torch.arange(width) + flow[:, :1], torch.arange(height)[:, None] + flow[:, 1:]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return first, second, flow, inside.float() * (1 - hidden)
