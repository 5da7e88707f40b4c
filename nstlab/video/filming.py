"""Painting the frames of a film one after the other (Ruder, Dosovitskiy, Brox 2016).

Each begins with earlier ones, moved by the optical flow, and is held to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
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
from nstlab.video.flow import FLOWS
from nstlab.video.reference import PastFrame, Reference, find_reference
from nstlab.video.settings import VideoSettings

# In later passes: share that the earlier frame has in the first picture, where it shows the same
# (Ruder et al. 2016)
PASS_BLEND = 0.5
FRAME = "frame"  # stands in settings for the file that a frame is not
# With a model: part of a frame that earlier ones show, from which no more of them are searched.
ENOUGH = 0.999


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

    def reference(
        self, photo: Tensor, earlier: Sequence[PastFrame]
    ) -> tuple[Reference | None, float]:
        """What earlier frames say of a frame, see `find_reference`."""
        enough = 1.0 if self.model is None else ENOUGH
        return find_reference(photo, earlier, self.flow, self.settings.cut, enough)

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
        """The plan of a frame: the recipe's, or a short one that begins with a painted picture.

        Args:
            photo: (1, 3, H, W) sRGB in [0, 1].
            reference: to which the temporal term holds the frame.
            last_pass: (1, 3, H, W), what the pass before made of it.
        """
        settings = self.settings.frame_settings(FRAME, max(photo.shape[-2:]))
        if reference is None and last_pass is None:
            return self._prepare(settings, photo)
        plan = self._prepare(self._shorten(settings), photo)
        if reference is None:
            assert last_pass is not None
            return replace(plan, start=last_pass.to(plan.start))
        start = reference.picture
        if last_pass is not None:
            start = reference.blend_over(last_pass, PASS_BLEND)
        goal = plan.objective + self.settings.temporal * temporal(reference)
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
        plan = prepare(settings, self.device, budget, like=last, pictures={role: photo})
        if last is not None:
            plan = replace(plan, objective=reuse_terms(plan.objective, last.objective))
        self.plans[settings.precision] = plan
        return plan


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
