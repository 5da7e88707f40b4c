"""Painting the frames of a film one after the other (Ruder, Dosovitskiy, Brox 2016).

Each begins with earlier ones, moved by the optical flow, and is held to them.
"""

from __future__ import annotations

import dataclasses
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

# In later passes: share that the earlier frame has in the first picture, where it shows the same
# (Ruder et al. 2016)
PASS_BLEND = 0.5
FRAME = "frame"  # stands in settings for the file that a frame is not
ALIKE = 0.08  # difference of two photos, in one channel, up to which they look alike
# With a model: part of a frame that earlier ones show, from which no more of them are searched.
ENOUGH = 0.999
# Weight of what has come into sight since the farthest of them: a few steps more have to paint it.
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


@dataclass(frozen=True, eq=False)
class PaintedFrame:
    """What painting a frame gave.

    Attributes:
        picture: (1, 3, H, W) sRGB in [0, 1], in 256 levels.
        facts: "loss", "steps" and each term, unless by a model; "seen", the part of it that the
            nearest frame shows; "begins", whether a scene began with it.
    """

    picture: Tensor
    facts: dict[str, Any] = field(default_factory=dict)


class FramePainter:
    """Paints frames.

    From frame to frame it only keeps networks, and what belongs to the painting; the results depend
    on its arguments alone.

    Args:
        settings: of the film.

    Raises:
        InputError: for a device, a model or a flow that cannot be used.
    """

    def __init__(self, settings: VideoSettings):
        self.settings = settings
        self.device = device(settings.device)
        if settings.earlier:
            self.flow(*torch.zeros(2, 1, 3, 16, 16))  # what it lacks is said now, not later
        self.plans: dict[str, Plan] = {}  # the newest in each precision
        self.model = None
        if settings.model is not None:
            self.model = StyleModel.load(settings.model)
            self.painter = self.model.painter(self.device)
            self.mix = self.model.mixture([settings.painting])

    def identity(self, photo: Tensor) -> Any:
        """What determines the pictures besides clip and settings, as plain JSON values.

        Args:
            photo: the first frame, (1, 3, H, W) sRGB in [0, 1].
        """
        if self.model is not None:
            return [self.model.digest, self.mix.tolist()]
        return self.plan_frame(photo).identity()

    def flow(self, photo: Tensor, other: Tensor) -> Tensor:
        """The optical flow from a photo to another one, computed on the film's device."""
        return FLOWS[self.settings.flow](photo.to(self.device), other.to(self.device)).to(photo)

    @torch.no_grad()
    def reference(
        self, photo: Tensor, earlier: Sequence[PastFrame]
    ) -> tuple[Reference | None, float]:
        """Find out what earlier frames say of a frame.

        Args:
            photo: the frame, (1, 3, H, W) sRGB in [0, 1].
            earlier: frames before it, the nearest first.

        Returns:
            (the reference, None if a scene begins; the part of the frame that the nearest shows).
        """
        reference = None
        nearest_part = 0.0
        for past in earlier:
            flow = self.flow(photo, past.photo)
            mask = reliable(flow, self.flow(past.photo, photo))
            # Linear interpolation blurs, more with every frame.
            moved = warped(past.picture, flow, "bicubic").clamp(0, 1)
            if reference is None:
                nearest_part = float(mask.mean())
                if nearest_part < self.settings.cut:
                    break
                similar = torch.maximum(mask, alike(photo, warped(past.photo, flow)))
                filled = torch.lerp(recolour(photo, moved, mask), moved, similar)
                reference = Reference(filled, mask, mask)
            else:
                reference = _extended(reference, moved, mask)
            if self.model is not None and reference.reliable.mean() > ENOUGH:
                break
        return reference, nearest_part

    def paint(
        self,
        photo: Tensor,
        earlier: Sequence[PastFrame] = (),
        last_pass: Tensor | None = None,
    ) -> PaintedFrame:
        """Paint a frame.

        Args:
            photo: (1, 3, H, W) sRGB in [0, 1].
            earlier: frames before it, the nearest first.
            last_pass: (1, 3, H, W), what the pass before made of it.
        """
        reference, part = self.reference(photo, earlier)
        facts = {"seen": part, "begins": reference is None}
        if self.model is not None:
            picture = self.painter(photo, self.mix)
            if reference is not None:
                picture = reference.blend_over(picture, self.settings.blend)
            return PaintedFrame(im.quantize(picture), facts)
        result = self.plan_frame(photo, reference, last_pass).solve()
        facts |= {"loss": result.loss, "steps": result.steps, **result.terms}
        return PaintedFrame(im.quantize(result.image.cpu()), facts)

    def plan_frame(
        self, photo: Tensor, reference: Reference | None = None, last_pass: Tensor | None = None
    ) -> Plan:
        """The plan of a frame: the recipe's, or a short one with the temporal term.

        It is short if it begins with a painted picture, the reference or that of the last pass.
        """
        settings = self.settings.frame_settings(FRAME, max(photo.shape[-2:]))
        if reference is None and last_pass is None:
            return self._prepare(settings, photo)
        plan = self._prepare(self._shorten(settings), photo)
        if reference is None:
            start = last_pass
        elif last_pass is None:
            start = reference.picture
        else:
            start = reference.blend_over(last_pass, PASS_BLEND)
        goal = plan.objective
        if reference is not None:
            goal = goal + self.settings.temporal * temporal(reference)
        return replace(plan, objective=goal, start=start.to(plan.start))

    def _shorten(self, settings: RunSettings) -> RunSettings:
        """The settings of a frame that begins with a painted one: few steps, at one size.

        None of them is in float32 where another type is faster, as 8 bits a channel are kept.
        """
        precision = settings.precision
        if precision == PRECISIONS[0] and precision in self.plans:
            precision = arithmetic_of(self.plans[precision].net).name
        return settings.replace(steps=self.settings.steps, levels=1, precision=precision)

    def _prepare(self, settings: RunSettings, photo: Tensor) -> Plan:
        """The recipe's plan for a photo, with network and painting of the plan before."""
        role = next(iter(settings.inputs))
        last = self.plans.get(settings.precision)
        if last is not None and last.settings == settings and last.inputs[role] is photo:
            return last
        budget = MemoryBudget().bytes(self.device)
        plan = prepare(settings, self.device, last, budget, {role: photo})
        if last is not None:
            plan = replace(plan, objective=reuse_terms(plan.objective, last.objective))
        self.plans[settings.precision] = plan
        return plan


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


def temporal(reference: Reference) -> method.Objective:
    """The temporal term of a frame: its distance from the reference."""
    return method.term(
        terms.Temporal,
        "temporal",
        "pixels",
        earlier=reference.picture,
        reliable=reference.temporal_weight,
    )


def reuse_terms(objective: method.Objective, last: method.Objective) -> method.Objective:
    """The objective with those terms of the last one that are equal, which keep their targets."""
    pairs = []
    for weight, term in objective.terms:
        equal = (known for _, known in last.terms if _is_equal(known, term))
        pairs.append((weight, next(equal, term)))
    return method.Objective(tuple(pairs))


def _is_equal(term: method.Term, other: method.Term) -> bool:
    """Whether two terms are of one class, with equal values and the same tensors."""
    if type(term) is not type(other):
        return False
    for name in (f.name for f in dataclasses.fields(term) if f.init):
        value, other_value = getattr(term, name), getattr(other, name)
        if isinstance(value, Tensor) or isinstance(other_value, Tensor):
            if value is not other_value:
                return False
        elif value != other_value:
            return False
    return True
