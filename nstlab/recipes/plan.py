"""Plans: from a recipe's settings to network, objective, first picture and schedule.

    plan = prepare(TransferSettings("photo.jpg", "painting.jpg", size=256))
    for step in plan.steps():
        ...

A `Plan` says what the engine will minimise, and how. It also identifies the result, which its
settings, the hashes of its pictures' pixels and the hash of its weights determine.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import Any

from torch import Tensor

from nstlab.base.options import LIVE, START
from nstlab.base.settings import VERSION
from nstlab.method import engine
from nstlab.method.factories import total_variation
from nstlab.method.fast import memory
from nstlab.method.fast import tiles as fast
from nstlab.method.fast.arithmetic import arithmetic_of
from nstlab.method.fast.windows import Tiling
from nstlab.method.lbfgs import LBFGS
from nstlab.method.objectives import Objective
from nstlab.method.optimizers import Adam, GradientDescent, Optimizer
from nstlab.method.steps import Level
from nstlab.networks.base import Network
from nstlab.pictures import images as im
from nstlab.recipes.base import RunSettings

logger = logging.getLogger("nstlab")

_OPTIMIZERS: dict[str, Callable[[RunSettings], Optimizer]] = {
    "lbfgs": lambda s: LBFGS(history=s.history),
    "adam": lambda s: Adam(rate=s.learning_rate),
    "gd": lambda s: GradientDescent(rate=s.learning_rate),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a run needs.

    Attributes:
        inputs: the pictures that were read or found, by role, (1, 3, H, W) sRGB in [0, 1].
        prepared: what the recipe made of them for its objective.
        tiling, on_host: how it fits into memory, see `capacity`: in tiles; with pictures on the
            host rather than on the device.
    """

    settings: RunSettings
    net: Network
    objective: Objective
    start: Tensor
    inputs: dict[str, Tensor]
    prepared: Mapping[str, Tensor]
    tiling: Tiling | None = None
    on_host: bool = False

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return self.settings.recipe

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer that the settings ask for."""
        return _OPTIMIZERS[self.settings.optimizer](self.settings)

    @cached_property
    def schedule(self) -> tuple[Level, ...]:
        """The sizes from coarse to fine, and the steps at each."""
        too_small = partial(self.objective.too_small, self.net)
        return engine.pyramid(self.shape, self.settings.steps, self.settings.levels, too_small)

    @property
    def total(self) -> int:
        """The number of steps, over all sizes."""
        return sum(level.steps for level in self.schedule)

    def steps(
        self, checkpoint: engine.Checkpoint | None = None
    ) -> Generator[engine.Step, Mapping[str, float] | None, engine.Result]:
        """Run the engine on this plan, from the beginning or from a checkpoint."""
        s = self.settings
        return engine.minimize(
            self.objective,
            self.net,
            self.start,
            s.steps,
            self.optimizer,
            s.levels,
            s.stop_loss,
            s.stop_change,
            checkpoint,
            self.finish,
            self.tiling,
        )

    def finish(self, picture: Tensor) -> Tensor:
        """A picture of the run, of any size, as it is shown and kept."""
        if not self.settings.finishes:
            return picture
        inputs = {
            role: im.fit(self.inputs[role].to(picture), picture.shape[-2:])
            for role in self.settings.roles().values()
        }
        return self.settings.finish(picture, inputs)

    def solve(self) -> engine.Result:
        """Run the plan to its end; nothing is kept on disk."""
        return engine.run_to_end(self.steps())

    def losses(self, pictures: Iterable[Tensor]) -> list[float]:
        """The total loss of each picture, (1, 3, H, W), of the shape of `start`."""
        bound = fast.bind(self.objective, self.net, self.start.shape[-2:], tiling=self.tiling)
        return [float(bound.evaluate(picture)[0]) * bound.scale for picture in pictures]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {role: digest(image) for role, image in self.inputs.items()}

    def identity(self) -> dict[str, Any]:
        """All that determines the pixels of the result, as plain JSON values."""
        settings = self.settings.to_dict(identity=True)
        if "init" in self.inputs:
            settings["init"] = "file"  # whose pixels are hashed
        return {
            "recipe": self.recipe,
            "settings": settings,
            "arithmetic": [str(part) for part in arithmetic_of(self.net)],
            "inputs": self._digests,
            "weights": self.net.weights.digest,
            "version": VERSION,
        }

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the result."""
        height, width = self.start.shape[-2:]
        return height, width

    @property
    def layers(self) -> list[str]:
        """The layers of the network that the objective reads."""
        return self.objective.reads

    def with_all_layers(self) -> Plan:
        """The same run, in which all layers that can be chosen, and that the network has, also have
        a weight, 0 so far, so that `steering` can change it during the run."""
        shape = self.start.shape[-2:]
        more = [name for name in self.net.architecture.offered if self.net.reaches(name, shape)]
        return replace(self, objective=self.objective.with_layers(more))

    def starting_from(self, picture: Tensor) -> Plan:
        """The same run from another first picture, (1, 3, H, W) in [0, 1], rounded to 8 bits as if
        read from a file."""
        picture = im.quantize(im.fit(picture.cpu(), self.start.shape[-2:]))
        return replace(
            self, start=picture.to(self.start.device), inputs=self.inputs | {"init": picture}
        )

    def steering(self, settings: RunSettings) -> dict[str, float] | None:
        """The weights that turn this run, while it goes on, into one with other settings.

        None if changing weights is not enough. Settings that matter only at the start are ignored.
        """
        if type(settings) is not type(self.settings):
            return None
        for name, _, opt in settings.options():
            if opt.group not in (LIVE, START) and getattr(settings, name) != getattr(
                self.settings, name
            ):
                return None
        shape = self.start.shape[-2:]
        current = self.objective.weights
        goal = objective(settings, self.prepared, shape)  # only its names and numbers are needed
        wanted = goal.weights
        if not wanted.keys() <= current.keys() or not all(
            self.net.reaches(name, shape) for name in goal.reads
        ):
            return None
        return dict.fromkeys(current, 0.0) | wanted

    def memory_needed(self, shape: Sequence[int] | None = None) -> int:
        """Bytes that the run needs, including its pictures.

        Estimated, at its own size or another (H, W).
        """
        if self.tiling is not None:
            return self.tiling.budget + (0 if self.on_host else self.pictures_needed())
        shape = self.shape if shape is None else shape
        run = memory.run_bytes(
            self.net, self.layers, shape, self.optimizer
        ) + 4 * self.objective.workspace(self.net, shape)
        others = {tuple(other) for other in self.objective.target_shapes(shape)} - {tuple(shape)}
        targets = [
            memory.evaluation_bytes(self.net, self.layers, other) + 12 * prod(other)
            for other in others
        ]
        return run + max(targets, default=0)

    def pictures_needed(self, shape: Sequence[int] | None = None) -> int:
        """Bytes of pictures, history and targets with positions, at the run's size or another (H,
        W): what tiles do not make smaller."""
        shape = self.shape if shape is None else shape
        actives = [
            active
            for active in self.objective.active_layers(self.objective.weights)
            if active.term.positional
        ]
        features = sum(
            prod(self.net.shapes([active.read], shape)[active.read]) for active in actives
        )
        return (
            memory.picture_bytes(self.net, shape, self.optimizer)
            + self.net.dtype.itemsize * features
        )


def digest(image: Tensor) -> str:
    """SHA-256 of a picture's shape and pixels."""
    checksum = hashlib.sha256(str(tuple(image.shape)).encode())
    for plane in image.detach().cpu().flatten(0, -3).contiguous():
        checksum.update(plane.numpy().data)
    return checksum.hexdigest()


def objective(
    settings: RunSettings, pictures: Mapping[str, Tensor], shape: Sequence[int]
) -> Objective:
    """What a run minimises in images of shape (H, W): the recipe's objective and the smoothness
    term.

    Args:
        pictures: the inputs by role, (1, 3, H, W) sRGB in [0, 1].
    """
    return settings.objective(pictures, shape) + settings.tv * total_variation(settings.convention)
