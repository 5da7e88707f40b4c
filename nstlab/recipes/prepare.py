"""From a recipe's settings to its plan: the outline, the network, the memory, the pictures.

plan = prepare(TransferSettings("photo.jpg", "painting.jpg", size=256))
for step in plan.steps():
    ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from nstlab.base.devices import device
from nstlab.base.errors import InputError
from nstlab.base.options import NETWORK
from nstlab.base.settings import DEVICES
from nstlab.method import engine
from nstlab.method.fast.ranks import Team
from nstlab.networks.base import Network
from nstlab.networks.graph import loss_network
from nstlab.networks.normalization import normalize_activations
from nstlab.pictures import images as im
from nstlab.pictures import labels, samples, sizes, starts
from nstlab.recipes.agreement import agree
from nstlab.recipes.base import Input, RunSettings
from nstlab.recipes.capacity import MemoryBudget, check_fits, fit_into_memory
from nstlab.recipes.plan import Plan, objective

logger = logging.getLogger("nstlab")


def prepare(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    budget: MemoryBudget | int | None = None,
    *,
    like: Plan | None = None,
    pictures: Mapping[str, Tensor] | None = None,
) -> Plan:
    """Make the plan for any recipe's settings: the one way from settings to a run.

    The sizes are read from the headers of the files and the network is loaded; it is found out how
    the run fits into memory; then the pictures are decoded.

    Args:
        on: a device, or its name. On several ranks "auto" and "cuda" are each rank's own GPU.
        budget: the memory that the run may take: a `MemoryBudget`, which allows tiles and may be
            shared by several ranks; or bytes, for a run without tiles. By default nothing is
            checked, and there are no tiles.
        like: a plan whose network is used again if these settings need the same one; so are its
            pictures, if `pictures` has some.
        pictures: {role: (1, 3, H, W) sRGB in [0, 1]} in place of files, such as a film's frame.

    Raises:
        InputError: for pictures, weights, layers or a device that cannot be used, and, before any
            picture is decoded, for a run that does not fit the budget. On several ranks, also if
            they do not agree on the run.
    """
    team = budget.team if isinstance(budget, MemoryBudget) else Team(0, 1)

    def prepare_alone() -> Plan:
        where = team.device(str(on)) if team.size > 1 else on
        plan = _fit(outline(settings, where, like, pictures), budget)
        return _load_inputs(plan, like, pictures)

    return agree(prepare_alone, team) if team.size > 1 else prepare_alone()


def prepare_here(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    budget: MemoryBudget | None = None,
    like: Plan | None = None,
) -> Plan:
    """`prepare` with the budget of this machine: in tiles if memory is short.

    Args:
        budget: by default, what is free.

    Raises:
        InputError: as `prepare` does.
    """
    return prepare(settings, on, budget or MemoryBudget(), like=like)


def outline(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    like: Plan | None = None,
    pictures: Mapping[str, Tensor] | None = None,
) -> Plan:
    """Make a plan without pictures, which tells what memory the run needs, but cannot be run.

    Only the headers of files are read; tensors without memory stand for the pictures. The plan has
    the run's size and network. Arguments and errors are those of `prepare`.
    """
    shape, shapes = _shapes(settings, pictures or {})
    net = _network(settings, device(on), like)
    blanks = {role: torch.empty(1, 3, *size, device="meta") for role, size in shapes.items()}
    start = torch.empty(1, 3, *shape, device="meta")
    try:
        goal = objective(settings, blanks, shape)
    except NotImplementedError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{settings.recipe}: its objective computes with pixels; that belongs into "
            f"prepare_inputs or the term ({reason})"
        ) from error
    plan = Plan(settings, net, goal, start, {}, {})
    net.require(plan.layers, shape)
    return plan


# --- the parts of a plan --------------------------------------------------------------------------


def _fit(plan: Plan, budget: MemoryBudget | int | None) -> Plan:
    """The outline, made to fit the budget."""
    if isinstance(budget, MemoryBudget):
        return fit_into_memory(plan, budget)
    if budget is not None:
        check_fits(plan, budget)
    return plan


def _shapes(
    settings: RunSettings, pictures: Mapping[str, Tensor]
) -> tuple[tuple[int, int], dict[str, tuple[int, int]]]:
    """((H, W) of the run, {role: (H, W)} of its inputs when they are fitted)."""
    inputs = settings.inputs
    read = {
        role: pictures[role].shape[-2:] if role in pictures else im.shape_of(source.source)
        for role, source in inputs.items()
    }
    first = next(iter(inputs))  # determines the proportions of the result
    name = first if first in pictures else samples.path_of(inputs[first].source)
    shape = sizes.fit_size(read[first], settings.size, name)
    shapes = {
        role: sizes.fit_geometry(read[role], shape, source.fit, source.scale)[1]
        for role, source in inputs.items()
    }
    return shape, shapes


def _network(settings: RunSettings, on: torch.device, like: Plan | None) -> Network:
    """The network that the settings ask for, on a device; that of `like`, if it is the same."""
    if like is not None and _network_settings(like.settings) == _network_settings(settings):
        return like.net
    names = ("weights", "pool", "precision", "seed", "temperature")
    options = {name: getattr(settings, name) for name in names}
    net = loss_network(settings.network, settings.rescale_pool, **options)
    if settings.normalize:
        normalize_activations(net)
    return net.to(on)


def _network_settings(settings: RunSettings) -> tuple[Any, ...]:
    """The settings that determine the network."""
    fields = [name for name, _, opt in settings.options() if opt.group == NETWORK]
    seed = settings.seed if settings.weights == "random" else None
    return (*(getattr(settings, name) for name in fields), seed)


def _load_inputs(plan: Plan, like: Plan | None, pictures: Mapping[str, Tensor] | None) -> Plan:
    """The plan that an outline becomes with its pictures; arguments are those of `prepare`."""
    settings = plan.settings
    inputs = {
        role: _load_input(role, source, plan.shape, like, pictures or {})
        for role, source in settings.inputs.items()
    }
    inputs |= settings.derive_inputs(inputs, plan.net)
    prepared = settings.prepare_inputs(inputs)
    start, read = _start(settings, torch.empty(1, 3, *plan.shape), prepared)
    plan = replace(
        plan,
        objective=objective(settings, prepared, plan.shape),
        start=start if plan.on_host else start.to(plan.net.device),
        inputs=inputs | read,
        prepared=prepared,
    )
    _say_if_sizes_are_left_out(plan)
    return plan


def _load_input(
    role: str,
    source: Input,
    shape: tuple[int, int],
    like: Plan | None,
    pictures: Mapping[str, Tensor],
) -> Tensor:
    """The input of a role for a run of shape (H, W)."""
    if role in pictures:
        return im.fit(pictures[role], shape, source.fit, source.scale)
    if pictures and like and (like.shape, like.settings.inputs.get(role)) == (shape, source):
        return like.inputs[role]  # the painting of all frames of a film
    if source.labels:
        return labels.load(source.source)
    return im.load_fit(source.source, shape, source.fit, source.scale)


# First pictures that are made: (like, seed) -> picture.
_DRAWN: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": starts.noise,
    "white": starts.white_noise,
    "grey": lambda like, seed: starts.grey(like),
    "rings": lambda like, seed: starts.rings(like),
}


def _start(
    settings: RunSettings, like: Tensor, pictures: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(first picture, of the shape of `like`; {"init": picture} if it came from a file)."""
    name = settings.init
    shape = like.shape[-2:]
    if name in _DRAWN:
        return _DRAWN[name](like, settings.seed), {}
    if name in pictures:
        return im.fit(pictures[name], shape), {}
    picture = im.load_fit(name, shape)
    return picture, {"init": picture}


def _say_if_sizes_are_left_out(plan: Plan) -> None:
    """Say where the run begins, if that is not at the size that the settings ask for."""
    first = plan.schedule[0].shape
    asked_for = engine.pyramid(plan.shape, plan.settings.steps, plan.settings.levels)
    left_out = [level.shape for level in asked_for if prod(level.shape) < prod(first)]
    if not left_out:
        return
    height, width = left_out[-1]
    logger.warning(
        "levels: begins at %d×%d; %d×%d is too small for %s",
        *reversed(first),
        width,
        height,
        plan.objective.too_small(plan.net, left_out[-1]),
    )
