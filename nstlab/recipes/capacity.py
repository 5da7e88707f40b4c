"""How a run fits into memory: whole, or its features in tiles.

The gradient is the same in each case. Tiles cost time: features are computed twice unless memory
suffices to keep them, and a tile is read with what lies around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from nstlab.base.errors import InputError
from nstlab.base.settings import DEVICES, TILES
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.ranks import Team, said
from nstlab.method.fast.windows import Tiling, bytes_a_pixel, weight_bytes
from nstlab.networks.vgg import VGG, is_fast
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import load_inputs, outline

LEAST = 512  # pixels: a tile's window that is worth while is at least a square of this side
UNSEEN = 200 << 20  # bytes that the libraries take when they begin to compute


@dataclass(frozen=True)
class MemoryBudget:
    """What a run may take.

    Attributes:
        tile: one of settings.TILES, or the side of tiles in pixels.
        memory: gigabytes that the process may take, by default what is free; on a GPU, of the GPU's
            memory.
        team: the processes that share the run; memory is that of each.
    """

    tile: str = TILES[0]
    memory: float | None = None
    team: Team = Team(0, 1)

    @property
    def side(self) -> int | None:
        """The side of tiles in pixels, if it is given."""
        return int(self.tile) if self.tile not in TILES else None

    def bytes(self, device: torch.device) -> int:
        """How many bytes a run may take on a device."""
        if self.memory is None:
            return round(memory.SPARE * memory.available(device) / self.team.here)
        return max(0, round(self.memory * 1e9) - self.taken(device))

    def taken(self, device: torch.device) -> int:
        """How many bytes of `memory` the process takes before the run has any."""
        if self.memory is None or device.type == "cuda":
            return 0
        return psutil.Process().memory_info().rss + UNSEEN


def prepare_here(
    settings: RunSettings,
    on: str | torch.device = DEVICES[0],
    budget: MemoryBudget | None = None,
    like: Plan | None = None,
) -> Plan:
    """`prepare` for a run on this machine: in tiles if its features take more memory than is free,
    or than `budget` allows.

    Raises:
        InputError: as `prepare` does, and for a run for which not even tiles help.
    """
    return load_inputs(fit_into_memory(outline(settings, on, like), budget or MemoryBudget()))


def prepare_together(prepare: Callable[[], Plan], team: Team) -> Plan:
    """The plan that all ranks have in common: each makes its own, and all take the memory of the
    one that has least.

    Raises on the first rank what goes wrong on any, and InputError that names what differs if one
    has another plan; the others raise something, too."""
    plan, error, mine = None, None, {}
    try:
        plan = prepare()
        mine = _comparison(plan)
    except Exception as own:
        error = own
        mine = {"error": said(own)}
    every = team.gather(mine)
    if team.leads:
        why = next(
            filter(None, (_objection(rank, mine, other) for rank, other in enumerate(every))), ""
        )
        agreed = (
            {}
            if why
            else {
                "budget": min(report["budget"] for report in every),
                "host": any(report["host"] for report in every),
            }
        )
        team.broadcast(why=why, **agreed)
    else:
        agreed = team.receive_broadcast()
        why = agreed["why"]
    if error is not None:
        raise error
    if plan is None or plan.tiling is None or why:
        raise InputError(why)
    start = plan.start.cpu() if agreed["host"] and not plan.on_host else plan.start
    return replace(
        plan,
        tiling=replace(plan.tiling, budget=agreed["budget"]),
        start=start,
        on_host=agreed["host"],
    )


def _comparison(plan: Plan) -> dict[str, Any]:
    """What all ranks have to agree on, and what they may have more or less of, as plain values."""
    if (tiling := plan.tiling) is None:
        raise InputError("memory: is too little for the tiles that several ranks need")
    same = plan.identity()
    values = {name: f"{value}" for name, value in same.pop("settings").items()}
    roles = {role: name for name, role in plan.settings.roles().items()}
    values |= {roles.get(role, role): value for role, value in same.pop("inputs").items()}
    values |= {name: f"{value}" for name, value in same.items()}
    return {
        "plan": values | {"tile": f"{tiling.side}"},
        "budget": tiling.budget,
        "host": plan.on_host,
    }


def _objection(rank: int, mine: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why a rank cannot take part.

    Nothing if it can. mine: what `_comparison` says on the first one.
    """
    if "error" in mine or "error" in other:
        return f"rank {rank}: {other['error']}" if "error" in other else ""
    names = mine["plan"].keys() | other["plan"].keys()
    differing = sorted(name for name in names if mine["plan"].get(name) != other["plan"].get(name))
    if not differing:
        return ""
    difference = "recipe" if "recipe" in differing else ", ".join(differing)
    return (
        f"rank {rank} was started with another {difference} than rank 0; start all with the same "
        "files and options"
    )


def fit_into_memory(plan: Plan, budget: MemoryBudget) -> Plan:
    """The plan, an outline, with what makes it fit.

    Raises:
        InputError: if nothing does, or if tiles are asked for where none can be.
    """
    device = plan.net.device
    free = budget.bytes(device)
    may_be_whole = budget.side is None and budget.team.size == 1
    if budget.tile == TILES[1] and budget.team.size > 1:
        raise InputError(
            f"tile: several ranks share a picture's tiles; leave out --tile {TILES[1]}"
        )
    if budget.tile == TILES[1] or (may_be_whole and plan.memory_needed() <= free):
        return _checked(plan, budget, free, offer=budget.tile == TILES[1])
    if not is_fast(plan.net):
        if budget.side is not None or budget.team.size > 1:
            raise InputError(
                "tile: only vgg19 and vgg16, without a temperature, can be evaluated in tiles"
            )
        return _checked(plan, budget, free)
    net: VGG = plan.net
    most = _features(plan, net)
    least = _features(plan, net, LEAST**2)
    pictures = plan.pictures_needed()

    def cut(left: int, **where: Any) -> Plan:
        return replace(plan, tiling=Tiling(min(left, most), budget.side, budget.team), **where)

    if free - pictures >= least:
        return cut(free - pictures)
    if (
        device.type == "cuda"
        and pictures <= MemoryBudget(team=budget.team).bytes(torch.device("cpu"))
        and free >= least
    ):
        return cut(free, on_host=True)

    def needed(shape: Sequence[int]) -> int:
        """Bytes that the run takes at a size (H, W): in tiles, or as a whole where that is less."""
        in_tiles = plan.pictures_needed(shape) + _features(plan, net, LEAST**2, shape)
        return min(in_tiles, plan.memory_needed(shape)) if may_be_whole else in_tiles

    raise InputError(_too_large(plan, budget, free, needed))


def _checked(plan: Plan, budget: MemoryBudget, free: int, offer: bool = False) -> Plan:
    """The plan, if it needs no more than is free in the budget."""
    if plan.memory_needed() > free:
        raise InputError(
            _too_large(plan, budget, free)
            + ("; --tile auto takes less" if offer and is_fast(plan.net) else "")
        )
    return plan


def _too_large(
    plan: Plan,
    budget: MemoryBudget,
    free: int,
    needed: Callable[[Sequence[int]], int] | None = None,
) -> str:
    """Why a run does not fit, and what would; needed: see `Plan.memory_message`."""
    message = plan.memory_message(free, needed=needed)
    if used := budget.taken(plan.net.device) / 1e9:
        message += (
            f"; --memory {budget.memory:g} includes the process, which takes {used:.2f} GB itself"
        )
    return message


def _features(
    plan: Plan, net: VGG, pixels: float = math.inf, shape: Sequence[int] | None = None
) -> int:
    """Bytes of features of a window of so many pixels, or of windows that cover the whole picture,
    of the run's size or another (H, W), if that is less."""
    wide = Arithmetic(torch.float32) if net.precision == "auto" else arithmetic_of(net)
    layers = set(plan.layers)
    # Windows overlap, so that all of them may have twice the pixels.
    pixels = min(pixels, 2 * math.prod(shape or plan.shape))
    return round(weight_bytes(net, layers, wide) + pixels * bytes_a_pixel(net, layers, wide))
