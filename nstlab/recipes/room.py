"""How a run fits into memory: whole; its features in tiles; or, beyond that, its pictures in files, too.

The gradient is the same in each case. Tiles cost time: features are computed twice unless there is room to keep them, and a
tile is read with what lies around it.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of
from nstlab.method.fast.ranks import Team
from nstlab.method.fast.tiles import Tiling, bytes_a_pixel, weights_of
from nstlab.method.network import VGG, is_fast
from nstlab.recipes.base import RunSettings
from nstlab.recipes.plan import Plan, loaded, outline
from nstlab.settings import DEVICES, TILES, InputError

LEAST = 512  # pixels: a tile's window that is worth while is at least a square of this side
SPARE = 0.9  # of the free memory, for a run: others need some, too
UNSEEN = 200 << 20  # bytes that the libraries take when they begin to compute


@dataclass(frozen=True)
class Room:
    """What a run may take.

    tile: one of settings.TILES, or the side of tiles in pixels. memory: gigabytes that the process may take, by default what is
    free; on a GPU, of the GPU's memory. folder: where pictures larger than that are kept, by default the system's for
    temporary files. team: the processes that share the run; memory is that of each."""

    tile: str = TILES[0]
    memory: float | None = None
    folder: str | None = None
    team: Team = Team(0, 1)

    @property
    def side(self) -> int | None:
        """The side of tiles in pixels, if it is given."""
        return int(self.tile) if self.tile not in TILES else None

    def bytes(self, device: torch.device) -> int:
        """How many bytes a run may take on a device."""
        if self.memory is None:
            return round(SPARE * memory.available(device) / self.team.here)
        taken = 0 if device.type == "cuda" else psutil.Process().memory_info().rss + UNSEEN
        return max(0, round(self.memory * 1e9) - taken)


def prepare_here(settings: RunSettings, on: str | torch.device = DEVICES[0], room: Room | None = None) -> Plan:
    """`plan.prepare` for a run on this machine: in tiles if its features take more memory than is free, or than `room` allows.

    Raises: InputError as it does, and for a run for which not even tiles help."""
    return loaded(fitted(outline(settings, on), room or Room()))


def fitted(plan: Plan, room: Room) -> Plan:
    """The plan, an outline, with what makes it fit; InputError if nothing does, or if tiles are asked for where none can be."""
    device = plan.net.device
    free, whole = room.bytes(device), plan.memory_needed()
    if room.tile == TILES[1] or (room.side is None and room.team.size == 1 and whole <= free):
        return _checked(plan, free, offer=room.tile == TILES[1])
    if not is_fast(plan.net):
        if room.side is not None or room.team.size > 1:
            raise InputError("tile: only vgg19 and vgg16, without a temperature, can be evaluated in tiles")
        return _checked(plan, free)
    most, least, pictures = _features(plan, plan.net), _features(plan, plan.net, LEAST**2), plan.pictures_needed()

    def cut(left: int, **where: Any) -> Plan:
        return replace(plan, tiling=Tiling(min(left, most), room.side, room.team), **where)

    if free - pictures >= least:
        return cut(free - pictures)
    if device.type == "cuda":
        if pictures <= Room(team=room.team).bytes(torch.device("cpu")) and free >= least:
            return cut(free, on_host=True)
    else:
        free -= memory.BANDS
    if not plan.settings.streams or free < least:
        return _checked(plan, room.bytes(device))
    return cut(free, on_host=True, folder=room.folder or tempfile.gettempdir())


def _checked(plan: Plan, free: int, offer: bool = False) -> Plan:
    """The plan, if it needs no more than is free."""
    if plan.memory_needed() > free:
        raise InputError(plan.memory_message(free) + ("; --tile auto takes less" if offer and is_fast(plan.net) else ""))
    return plan


def _features(plan: Plan, net: VGG, pixels: float = math.inf) -> int:
    """Bytes of features of a window of so many pixels, or of windows that cover the whole picture, if that is less."""
    wide = Arithmetic(torch.float32) if net.precision == "auto" else arithmetic_of(net)
    layers, pixels = set(plan.layers), min(pixels, 2 * math.prod(plan.shape))  # twice, since windows overlap
    return round(weights_of(net, layers, wide) + pixels * bytes_a_pixel(net, layers, wide))
