"""How a run fits into memory: whole, or its features in tiles.

The gradient is the same in each case. Tiles cost time: features are computed twice unless memory
suffices to keep them, and a tile is read with what lies around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import psutil
import torch

from nstlab.base.errors import InputError
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS, rectified
from nstlab.base.settings import MAX_SIDE, TILES
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.ranks import Team
from nstlab.method.fast.windows import Tiling, bytes_a_pixel, weight_bytes
from nstlab.method.lbfgs import LBFGS
from nstlab.networks.base import Network
from nstlab.networks.vgg import VGG, is_fast
from nstlab.recipes.plan import Plan

MIN_WINDOW = 512  # side in pixels of the smallest tile's window that is worth while, a square
UNSEEN = 200 << 20  # bytes that the libraries take when they begin to compute


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a run may take, and whether in tiles.

    Attributes:
        tile: "auto", in tiles where memory is short; "off", never; or the side of tiles in
            pixels, as text.
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

    @property
    def needs_tiles(self) -> bool:
        """Whether the run is in tiles in any case."""
        return self.side is not None or self.team.size > 1

    @property
    def allows_tiles(self) -> bool:
        """Whether the run may be in tiles."""
        return self.tile != TILES[1]

    def bytes(self, device: torch.device) -> int:
        """How many bytes a run may take on a device, 0 or more."""
        if self.memory is None:
            return round(memory.SPARE * memory.available(device) / self.team.here)
        return max(0, round(self.memory * 1e9) - self.taken(device))

    def taken(self, device: torch.device) -> int:
        """How many bytes of `memory` the process takes before the run has any."""
        if self.memory is None or device.type == "cuda":
            return 0
        return psutil.Process().memory_info().rss + UNSEEN


def fit_into_memory(plan: Plan, budget: MemoryBudget) -> Plan:
    """Make a plan fit: as it is, in tiles, or in tiles with its pictures on the host.

    Args:
        plan: an outline is enough.

    Raises:
        InputError: if nothing makes it fit, or if tiles are asked for where none can be.
    """
    _check_tile(plan, budget)
    free = budget.bytes(plan.net.device)
    if budget.needs_tiles or (budget.allows_tiles and is_fast(plan.net)):
        fits = not budget.needs_tiles and plan.memory_needed() <= free
        return plan if fits else _cut(plan, budget, free)
    if plan.memory_needed() > free:
        offer = "; --tile auto takes less" if is_fast(plan.net) else ""
        raise InputError(_too_large(plan, budget, free) + offer)
    return plan


def _check_tile(plan: Plan, budget: MemoryBudget) -> None:
    """InputError if tiles are needed but ruled out, or cannot be."""
    if budget.team.size > 1 and not budget.allows_tiles:
        raise InputError(
            f"tile: several ranks share a picture's tiles; leave out --tile {TILES[1]}"
        )
    if budget.needs_tiles and not is_fast(plan.net):
        raise InputError(
            "tile: only vgg19 and vgg16, without a temperature, can be evaluated in tiles"
        )


def _cut(plan: Plan, budget: MemoryBudget, free: int) -> Plan:
    """The plan in tiles, whose features and pictures take at most `free` bytes."""
    smallest = _feature_bytes(plan, MIN_WINDOW**2)
    pictures = plan.pictures_needed()
    if free - pictures >= smallest:
        return _tiled(plan, budget, free - pictures)
    if plan.net.device.type == "cuda" and free >= smallest:
        host = MemoryBudget(team=budget.team)
        if pictures <= host.bytes(torch.device("cpu")):
            return replace(_tiled(plan, budget, free), on_host=True)

    def needed(shape: Sequence[int]) -> int:
        """Bytes that the run takes at a size (H, W): in tiles, or as a whole where that is less."""
        in_tiles = plan.pictures_needed(shape) + _feature_bytes(plan, MIN_WINDOW**2, shape)
        return in_tiles if budget.needs_tiles else min(in_tiles, plan.memory_needed(shape))

    raise InputError(_too_large(plan, budget, free, needed))


def _tiled(plan: Plan, budget: MemoryBudget, features: int) -> Plan:
    """The plan in tiles whose features take at most so many bytes."""
    features = min(features, _feature_bytes(plan))
    return replace(plan, tiling=Tiling(features, budget.side, budget.team))


def check_fits(plan: Plan, budget: int) -> None:
    """Check that a run fits without tiles.

    Args:
        plan: an outline is enough.
        budget: bytes.

    Raises:
        InputError: with the size that would fit.
    """
    if plan.memory_needed() > budget:
        raise InputError(memory_message(plan, budget))


def check_memory(plan: Plan) -> None:
    """Check that a prepared run fits into the memory that is free.

    What its pictures take already counts as free.

    Raises:
        InputError: with the size that would fit.
    """
    device = plan.net.device
    pictures = (plan.start, *plan.inputs.values())
    occupied = sum(picture.nbytes for picture in pictures if picture.device == device)
    check_fits(plan, memory.available(device) + occupied)


def memory_message(
    plan: Plan,
    budget: int,
    measured: bool = True,
    needed: Callable[[Sequence[int]], int] | None = None,
) -> str:
    """Why a run does not fit, and the size that would.

    Args:
        budget: bytes.
        measured: whether the budget was found free, rather than guessed.
        needed: the bytes that the run takes at a size (H, W), by default `plan.memory_needed`.
    """
    needed = needed or plan.memory_needed
    return memory.refusal(plan.settings.size, needed, plan.shape, budget, measured)


def largest_square(net: Network, on: torch.device) -> int | None:
    """Side in pixels of the largest square picture that fits into the free memory of a device.

    It is that of a transfer with default settings; None if there is none.
    """
    reads = [rectified(layer) for layer in (*CONTENT_LAYERS, *STYLE_LAYERS)]
    beyond = (MAX_SIDE + 16, MAX_SIDE + 16)
    return memory.largest_size(
        lambda shape: memory.run_bytes(net, reads, shape, LBFGS()), beyond, memory.available(on)
    )


def _too_large(
    plan: Plan,
    budget: MemoryBudget,
    free: int,
    needed: Callable[[Sequence[int]], int] | None = None,
) -> str:
    """Why a run does not fit, and what would; needed: see `memory_message`."""
    message = memory_message(plan, free, needed=needed)
    if used := budget.taken(plan.net.device) / 1e9:
        message += (
            f"; --memory {budget.memory:g} includes the process, which takes {used:.2f} GB itself"
        )
    return message


def _feature_bytes(plan: Plan, pixels: float = math.inf, shape: Sequence[int] | None = None) -> int:
    """Bytes of the features of a window, or of all windows, if that is less.

    Args:
        pixels: of the window; by default, of as many as cover the picture.
        shape: (H, W) of the picture, by default the run's.
    """
    net = cast(VGG, plan.net)  # which can be in tiles
    wide = Arithmetic(torch.float32) if net.precision == "auto" else arithmetic_of(net)
    layers = set(plan.layers)
    # Windows overlap, so that all of them may have twice the pixels.
    pixels = min(pixels, 2 * math.prod(shape or plan.shape))
    return round(weight_bytes(net, layers, wide) + pixels * bytes_a_pixel(net, layers, wide))
