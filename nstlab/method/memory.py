"""How much memory a run needs, estimated from the sizes of what it keeps, and how much there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil
import torch

from nstlab.method.fast.arithmetic import arithmetic_of
from nstlab.method.fast.propagation import Layout
from nstlab.method.network import VGG19
from nstlab.method.optimizers import LBFGS, Optimizer
from nstlab.settings import MIN_SIDE

PICTURES = 27  # of the image's size that are held at once: inputs, start, gradients, steps, candidates of the line search
FINE = {torch.bfloat16: 0.2}  # part of the last size's steps that are done in float32 after a coarser type


def available(device: torch.device) -> int:
    """Bytes that are free on the device, PyTorch's own reserve included; MPS shares the machine's memory."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def total(device: torch.device) -> int:
    """Bytes that the device has, whoever may use them now."""
    if device.type != "cuda":
        return psutil.virtual_memory().total
    return torch.cuda.mem_get_info(device)[1]


def of_evaluation(net: VGG19, layers: Sequence[str], shape: Sequence[int]) -> int:
    """Bytes that the network needs for images of shape (H, W): what `Propagation` keeps, packed weights included."""
    if not layers:
        return 0
    held = net.conv1_1_weight
    fine = net.precision == "auto" and arithmetic_of(net).dtype in FINE
    packed = 2 * sum(getattr(net, f"{name}_weight").numel() for name in net.path(layers))
    types = {arithmetic_of(net).dtype} | ({held.dtype} if fine else set())
    return max((Layout.of(net, layers, shape, t).total + packed) * t.itemsize for t in types)


def of_pixels(net: VGG19, shape: Sequence[int], optimizer: Optimizer) -> int:
    """Bytes of the pictures of shape (H, W) that are held at once, the optimizer's history included."""
    picture = net.conv1_1_weight.new_empty((1, 3, *shape), device="meta")
    pairs = optimizer.pairs(picture) + 1 if isinstance(optimizer, LBFGS) else 1
    return (2 * pairs + PICTURES) * picture.nbytes


def needed(net: VGG19, layers: Sequence[str], shape: Sequence[int], optimizer: Optimizer) -> int:
    """Bytes that a run at (H, W) needs."""
    return of_evaluation(net, layers, shape) + of_pixels(net, shape, optimizer)


def largest_size(needed: Callable[[Sequence[int]], int], shape: Sequence[int], room: int) -> int | None:
    """The largest long side, a multiple of 16 below that of (H, W), at which no more than `room` bytes are `needed`; None if
    there is none."""
    for size in range((max(shape) - 1) // 16 * 16, 0, -16):
        smaller = [round(side * size / max(shape)) for side in shape]
        if min(smaller) >= MIN_SIDE and needed(smaller) <= room:
            return size
    return None
