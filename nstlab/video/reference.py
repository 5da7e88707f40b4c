"""What earlier frames of a film say of the next one: their pictures, moved by the optical flow.

Ruder, Dosovitskiy, Brox 2016, "Artistic Style Transfer for Videos".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab.video.flow import reliable, warped

ALIKE = 0.08  # difference of two photos, in one channel, up to which they look alike
# Weight of what has come into sight since the farthest frame: a few steps more have to paint it.
NEW_WEIGHT = 0.1


@dataclass(frozen=True, eq=False)
class PastFrame:
    """A frame that has been painted.

    Attributes:
        photo: (1, 3, H, W) sRGB in [0, 1], the frame of the clip.
        picture: (1, 3, H, W) sRGB in [0, 1], what it was painted as.
    """

    photo: Tensor
    picture: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """What earlier frames say of a frame.

    Attributes:
        picture: (1, 3, H, W), W: their pictures, moved to its time. Where they cannot be relied on,
            the nearest frame's where it looks alike; what comes into sight is the photo in the
            painted colours.
        reliable: (1, 1, H, W) in [0, 1], c: where they can be relied on.
        temporal_weight: (1, 1, H, W) in [0, 1]: c for the temporal term, less where the farthest
            frame does not show the same.
    """

    picture: Tensor
    reliable: Tensor
    temporal_weight: Tensor

    def blend_over(self, picture: Tensor, share: float) -> Tensor:
        """Blend W over a picture, with that share where W can be relied on."""
        return torch.lerp(picture, self.picture, share * self.reliable)


@torch.no_grad()
def find_reference(
    photo: Tensor,
    earlier: Sequence[PastFrame],
    flow_between: Callable[[Tensor, Tensor], Tensor],
    least_part: float,
    enough: float = 1.0,
) -> tuple[Reference | None, float]:
    """Find out what earlier frames say of a frame.

    Args:
        photo: the frame, (1, 3, H, W) sRGB in [0, 1].
        earlier: frames before it, the nearest first.
        flow_between: finds the optical flow from a photo to another.
        least_part: part of the frame that the nearest must show; otherwise a scene begins.
        enough: part of the frame that is covered, beyond which no more frames are searched.

    Returns:
        (the reference, None if a scene begins; the part of the frame that the nearest shows).
    """
    reference = None
    nearest_part = 0.0
    for past in earlier:
        flow = flow_between(photo, past.photo)
        mask = reliable(flow, flow_between(past.photo, photo))
        # Linear interpolation blurs, more with every frame.
        moved = warped(past.picture, flow, "bicubic").clamp(0, 1)
        if reference is None:
            nearest_part = float(mask.mean())
            if nearest_part < least_part:
                break
            similar = torch.maximum(mask, alike(photo, warped(past.photo, flow)))
            filled = torch.lerp(recolour(photo, moved, mask), moved, similar)
            reference = Reference(filled, mask, mask)
        else:
            reference = _extended(reference, moved, mask)
        if reference.reliable.mean() > enough:
            break
    return reference, nearest_part


def _extended(reference: Reference, picture: Tensor, mask: Tensor) -> Reference:
    """The reference with what only an earlier frame shows: each pixel has the nearest of them."""
    new = (1 - reference.reliable) * mask
    covered = reference.reliable + new
    blended = torch.lerp(reference.picture, picture, new)
    return Reference(blended, covered, covered * (NEW_WEIGHT + (1 - NEW_WEIGHT) * mask))


def alike(photo: Tensor, other: Tensor) -> Tensor:
    """(1, 1, H, W): 1 where two photos, (1, 3, H, W), look alike, 0 elsewhere."""
    difference = (photo - other).abs().amax(1, keepdim=True)
    return (F.avg_pool2d(difference, 5, 1, 2, count_include_pad=False) < ALIKE).to(photo)


def recolour(photo: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """Give a photo a picture's colours, by the affine map of colours that fits best.

    Args:
        photo: (1, 3, H, W) sRGB in [0, 1].
        picture: (1, 3, H, W), what the photo was painted as.
        weight: (1, 1, H, W), of each pixel in the fit.

    Returns:
        (1, 3, H, W) sRGB in [0, 1].
    """
    basis = torch.cat([photo, torch.ones_like(photo[:, :1])], 1)[0]  # (4, H, W)
    basis = basis.flatten(1).double()
    weighted = basis * weight[0].flatten(1)
    ridge = 1e-6 * torch.eye(4).to(basis)
    slopes = torch.linalg.solve(
        weighted @ basis.T + ridge, weighted @ picture[0].flatten(1).double().T
    )
    return (slopes.T @ basis).to(photo).view_as(photo).clamp(0, 1)
