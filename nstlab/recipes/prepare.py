"""From a recipe's settings to its plan: the outline, the network, the pictures.

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
from nstlab.networks.base import Network
from nstlab.networks.graph import loss_network
from nstlab.networks.normalization import normalize_activations
from nstlab.pictures import images as im
from nstlab.pictures import labels, samples, sizes, starts
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan, objective

logger = logging.getLogger("nstlab")


def _network_of(settings: RunSettings) -> tuple[Any, ...]:
    """The settings that determine the network."""
    fields = (name for name, _, opt in settings.options() if opt.group == NETWORK)
    drawn = settings.seed if settings.weights == "random" else None
    return (*(getattr(settings, name) for name in fields), drawn)


def network(settings: RunSettings, on: torch.device) -> Network:
    """The network that the settings ask for, on a device."""
    s = settings
    options = {
        name: getattr(s, name) for name in ("weights", "pool", "precision", "seed", "temperature")
    }
    net = loss_network(s.network, s.rescale_pool, **options)
    if s.normalize:
        normalize_activations(net)
    return net.to(on)


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
    image = im.load_fit(name, shape)
    return image, {"init": image}


def prepare(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    like: Plan | None = None,
    budget: int | None = None,
    pictures: Mapping[str, Tensor] | None = None,
) -> Plan:
    """Make the plan for any recipe's settings.

    The pictures and the weights are read, and the network is normalized if asked to.

    Args:
        on: a device.
        like: a plan whose network is used again if these settings need the same one; so are its
            pictures, if some are given.
        budget: bytes of memory that the run may take.
        pictures: {role: (1, 3, H, W) sRGB in [0, 1]} in place of files, such as a film's frame.

    Raises:
        InputError: for pictures, weights, layers or a device that cannot be used, and, before any
            picture is decoded, for a run that needs more than `budget`.
    """
    plan = outline(settings, on, like, pictures)
    if budget is not None:
        plan.check_fits(budget)
    return load_inputs(plan, like, pictures)


def load_inputs(
    plan: Plan, like: Plan | None = None, given_pictures: Mapping[str, Tensor] | None = None
) -> Plan:
    """The plan that an outline becomes with its pictures.

    Args:
        like, given_pictures: see `prepare`.
    """
    settings, shape = plan.settings, plan.shape
    inputs = settings.inputs
    pictures = {}
    for role, source in inputs.items():
        if given_pictures and role in given_pictures:
            pictures[role] = im.fit(given_pictures[role], shape, source.fit, source.scale)
        elif (
            given_pictures
            and like
            and (like.shape, like.settings.inputs.get(role)) == (shape, source)
        ):
            pictures[role] = like.inputs[role]  # the painting of all frames of a film
        elif source.labels:
            pictures[role] = labels.load(source.source)
        else:
            pictures[role] = im.load_fit(source.source, shape, source.fit, source.scale)
    pictures |= settings.derive_inputs(pictures, plan.net)
    prepared = settings.prepare_inputs(pictures)
    start, extra = _start(settings, torch.empty(1, 3, *shape), prepared)
    goal = objective(settings, prepared, shape)
    start = start if plan.on_host else start.to(plan.net.device)
    prepared_plan = replace(
        plan, objective=goal, start=start, inputs=pictures | extra, prepared=prepared
    )
    _say_if_sizes_are_left_out(prepared_plan)
    return prepared_plan


def _say_if_sizes_are_left_out(plan: Plan) -> None:
    """Say where the run begins, if that is not at the size that the settings ask for."""
    schedule = engine.pyramid(plan.shape, plan.settings.steps, plan.settings.levels)
    first = plan.schedule[0].shape
    left_out = [level.shape for level in schedule if prod(level.shape) < prod(first)]
    if left_out:
        (height, width), layer = left_out[-1], plan.objective.too_small(plan.net, left_out[-1])
        logger.warning(
            "levels: begins at %d×%d; %d×%d is too small for %s",
            *reversed(first),
            width,
            height,
            layer,
        )


def outline(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    like: Plan | None = None,
    pictures: Mapping[str, Tensor] | None = None,
) -> Plan:
    """Make a plan without pictures: only the headers of their files are read, and tensors without
    memory stand for them. It has the run's size and network, and tells what memory it needs, but
    cannot be run. Arguments are those of `prepare`."""
    s = settings
    on = device(on)
    inputs = settings.inputs
    given_shapes = {role: tuple(picture.shape[-2:]) for role, picture in (pictures or {}).items()}
    source_shapes = {
        role: given_shapes.get(role) or im.shape_of(source.source)
        for role, source in inputs.items()
    }
    first = next(iter(inputs))  # determines the proportions of the result
    name = first if first in given_shapes else samples.path_of(inputs[first].source)
    shape = sizes.fit_size(source_shapes[first], s.size, name)
    shapes = {
        role: sizes.fit_geometry(source_shapes[role], shape, source.fit, source.scale)[1]
        for role, source in inputs.items()
    }
    blanks = {role: torch.empty(1, 3, *size, device="meta") for role, size in shapes.items()}
    net = like.net if like and _network_of(like.settings) == _network_of(s) else network(s, on)
    start = torch.empty(1, 3, *shape, device="meta")
    try:
        goal = objective(s, blanks, shape)
    except NotImplementedError as error:
        raise InputError(
            f"{s.recipe}: its objective computes with pixels; that belongs into prepare_inputs or "
            f"the term ({str(error).partition(chr(10))[0]})"
        ) from error
    plan = Plan(s, net, goal, start, {}, {})
    net.require(plan.layers, shape)
    return plan
