"""Painting the frames of a film one after the other: each begins with earlier ones, moved by the
optical flow, and is held to them (Ruder, Dosovitskiy, Brox 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nstlab import method, terms
from nstlab.base.devices import device
from nstlab.base.names import PRECISIONS
from nstlab.feedforward.model import StyleModel
from nstlab.method.fast.arithmetic import arithmetic_of
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings
from nstlab.recipes.capacity import MemoryBudget
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from nstlab.video.flow import FLOWS, reliable, warped
from nstlab.video.settings import VideoSettings

# In later passes: part that the neighbour has in the first picture, where it shows the same (Ruder
# et al. 2016)
HALF = 0.5
FRAME = "frame"  # stands in settings for the file that a frame is not
ALIKE = 0.08  # difference of two photos, in one channel, up to which they look alike
# With a model: part of a frame that is found in earlier ones, beyond which no more of them are
# searched.
ENOUGH = 0.999
# Weight of what has come into sight since the farthest of them, since a few steps more are needed
# to paint it.
NEW = 0.1


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame that has been painted: both (1, 3, H, W) sRGB in [0, 1]."""

    photo: Tensor
    picture: Tensor


@dataclass(frozen=True, eq=False)
class Held:
    """What earlier frames say of a frame: their pictures W, moved to its time, and where they can
    be relied on, c. Elsewhere W is the nearest frame's where it looks alike, and what comes into
    sight is the photo in the painted colours."""

    picture: Tensor  # (1, 3, H, W)
    reliable: Tensor  # (1, 1, H, W)
    # (1, 1, H, W): c for the temporal term, less where the farthest frame does not show the same
    settled: Tensor

    def over(self, other: Tensor, part: float) -> Tensor:
        """W where it can be relied on, as much as `part` says, and else the other picture."""
        return torch.lerp(other, self.picture, part * self.reliable)


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted frame.

    Attributes:
        about: loss, terms, steps, the part of it that was seen before, and whether a scene began
            with it.
    """

    picture: Tensor
    about: dict[str, Any] = field(default_factory=dict)


class Filming:
    """Paints frames.

    All that it remembers from frame to frame are its networks; the results depend on its arguments
    alone.
    """

    def __init__(self, settings: VideoSettings):
        self.settings = settings
        self.device = device(settings.device)
        if settings.earlier:
            self.flow(*torch.zeros(2, 1, 3, 16, 16))  # what it lacks is said now, not later
        # The newest in each precision, whose network is used again.
        self.plans: dict[str, Plan] = {}
        self.model = None if settings.model is None else StyleModel.load(settings.model)
        if self.model is not None:
            self.painter, self.mix = (
                self.model.painter(self.device),
                self.model.mixture([settings.painting]),
            )

    def identity(self, photo: Tensor) -> Any:
        """What determines the pictures besides clip and settings, as plain JSON values; of a frame,
        (1, 3, H, W) sRGB in [0, 1]."""
        if self.model is not None:
            return [self.model.digest, self.mix.tolist()]
        return self.planned(photo, None).identity()

    def flow(self, one: Tensor, other: Tensor) -> Tensor:
        """The optical flow between two frames, where they are, computed on the film's device."""
        return FLOWS[self.settings.flow](one.to(self.device), other.to(self.device)).to(one)

    @torch.no_grad()
    def held(self, photo: Tensor, earlier: Sequence[Seen]) -> tuple[Held | None, float]:
        """(what earlier frames, the nearest first, say of this one, None if a scene begins; the
        part that the nearest shows)."""
        result, nearest = None, 0.0
        for seen in earlier:
            flow = self.flow(photo, seen.photo)
            where = reliable(flow, self.flow(seen.photo, photo))
            # Linear ones blur, more with every frame.
            moved = warped(seen.picture, flow, "bicubic").clamp(0, 1)
            if result is None:
                if (nearest := float(where.mean())) < self.settings.cut:
                    break
                initial = torch.maximum(where, alike(photo, warped(seen.photo, flow)))
                result = Held(
                    torch.lerp(recolour(photo, moved, where), moved, initial), where, where
                )
            else:
                # Each pixel is held to the nearest frame that shows it.
                new = (1 - result.reliable) * where
                relied = result.reliable + new
                result = Held(
                    torch.lerp(result.picture, moved, new),
                    relied,
                    relied * (NEW + (1 - NEW) * where),
                )
            if self.model is not None and result.reliable.mean() > ENOUGH:
                break
        return result, nearest

    def paint(
        self, photo: Tensor, earlier: Sequence[Seen] = (), before: Tensor | None = None
    ) -> Painted:
        """Paint a frame, (1, 3, H, W) sRGB in [0, 1].

        Args:
            earlier: frames before it, the nearest first.
            before: what an earlier pass made of it.
        """
        held, part = self.held(photo, earlier)
        facts = {"seen": part, "begins": held is None}
        if self.model is not None:
            picture = self.painter(photo, self.mix)
            return Painted(
                im.quantize(picture if held is None else held.over(picture, self.settings.blend)),
                facts,
            )
        plan = self.planned(photo, held, before)
        result = plan.solve()
        facts |= {"loss": result.loss, "steps": result.steps, **result.terms}
        return Painted(im.quantize(result.image.cpu()), facts)

    def short(self, settings: RunSettings) -> RunSettings:
        """The settings of a frame that begins with a painted one: few steps, none of them in
        float32 where another type is faster, as 8 bits a channel are kept."""
        precision = settings.precision
        if precision == PRECISIONS[0] and precision in self.plans:
            precision = arithmetic_of(self.plans[precision].net).name
        return settings.replace(steps=self.settings.steps, levels=1, precision=precision)

    def planned(self, photo: Tensor, held: Held | None, before: Tensor | None = None) -> Plan:
        """The plan of a frame: the recipe's, or a short one with the temporal term."""
        settings = self.settings.frame_settings(FRAME, max(photo.shape[-2:]))
        if held is not None or before is not None:
            settings = self.short(settings)
        plan = prepare(
            settings,
            self.device,
            MemoryBudget().bytes(self.device),
            like=self.plans.get(settings.precision),
            pictures={next(iter(settings.inputs)): photo},
        )
        self.plans[settings.precision] = plan
        if held is not None:
            start = held.picture if before is None else held.over(before, HALF)
            plan = replace(plan, objective=plan.objective + self.settings.temporal * temporal(held))
        elif before is not None:
            start = before
        else:
            return plan
        return replace(plan, start=start.to(plan.start))


def alike(photo: Tensor, other: Tensor) -> Tensor:
    """(1, 1, H, W): 1 where two photos look alike, 0 elsewhere."""
    difference = (photo - other).abs().amax(1, keepdim=True)
    return (F.avg_pool2d(difference, 5, 1, 2, count_include_pad=False) < ALIKE).to(photo)


def recolour(photo: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """The photo, (1, 3, H, W), in the colours that the picture has in their place: by the affine
    map of colours that fits best.

    Args:
        weight: (1, 1, H, W), of each pixel.
    """
    # (4, pixels)
    basis = torch.cat([photo, torch.ones_like(photo[:, :1])], 1)[0].flatten(1).double()
    weighted = basis * weight[0].flatten(1)
    ridge = 1e-6 * torch.eye(4).to(basis)
    slopes = torch.linalg.solve(
        weighted @ basis.T + ridge, weighted @ picture[0].flatten(1).double().T
    )
    return (slopes.T @ basis).to(photo).view_as(photo).clamp(0, 1)


def temporal(held: Held) -> method.Objective:
    """The temporal term of a frame."""
    return method.term(
        terms.Temporal, "temporal", "pixels", earlier=held.picture, reliable=held.settled
    )
