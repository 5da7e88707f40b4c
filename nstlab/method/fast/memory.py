"""How much memory a run needs, estimated from the sizes of what it keeps, and how much there is, in
bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import psutil
import torch

from nstlab.base.settings import MIN_SIDE
from nstlab.method.fast.arithmetic import FINE, arithmetic_of
from nstlab.method.fast.propagation import Layout
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Optimizer
from nstlab.networks.base import Network
from nstlab.networks.vgg import is_fast

PICTURES = 9  # tensors of the image's size held at once: inputs, start, gradients, steps, trials
# What is held at once when autograd computes a gradient, over all features that are computed.
AUTOGRAD = 1.5
SMOOTHING = 4  # copies of features that are read if they are smoothed
SPARE = 0.9  # of the free memory, for a run: others need some, too


def available(device: torch.device) -> int:
    """Free bytes on the device, including what PyTorch has reserved there; MPS shares the machine's
    memory."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def total(device: torch.device) -> int:
    """All bytes of the device, free or not."""
    if device.type != "cuda":
        return psutil.virtual_memory().total
    return torch.cuda.mem_get_info(device)[1]


def of_evaluation(net: Network, layers: Sequence[str], shape: Sequence[int]) -> int:
    """Bytes that the network needs for images of shape (H, W): what `Propagation` keeps, including
    packed weights; or what autograd keeps."""
    if not layers:
        return 0
    if not is_fast(net):
        smoothed = sum(map(prod, net.shapes(layers, shape).values())) if net.temperature else 0
        return round(
            (AUTOGRAD * net.activation_count(set(layers), shape) + SMOOTHING * smoothed)
            * net.dtype.itemsize
        )
    fine = net.precision == "auto" and arithmetic_of(net).dtype in FINE
    convolutions = net.architecture.convolutions_until(layers)
    packed = 2 * sum(net.convolution(name)[0].numel() for name in convolutions)
    types = [arithmetic_of(net).dtype]
    if fine:
        types.append(net.dtype)
    return max((Layout.of(net, layers, shape, t).total + packed) * t.itemsize for t in types)


def of_pixels(net: Network, shape: Sequence[int], optimizer: Optimizer) -> int:
    """Bytes of all tensors of an image's shape (H, W) that are held at once, including the
    optimizer's history."""
    picture = torch.empty((1, 3, *shape), dtype=net.dtype, device="meta")
    history = optimizer.bytes_kept(picture) if isinstance(optimizer, LBFGS) else 2 * picture.nbytes
    return history + PICTURES * picture.nbytes


def needed(net: Network, layers: Sequence[str], shape: Sequence[int], optimizer: Optimizer) -> int:
    """Bytes that a run needs for images of shape (H, W)."""
    return of_evaluation(net, layers, shape) + of_pixels(net, shape, optimizer)


def largest_size(
    needed: Callable[[Sequence[int]], int], shape: Sequence[int], budget: int
) -> int | None:
    """The largest long side in pixels, a multiple of 16 and smaller than that of (H, W), at which
    at most `budget` bytes are needed; None if there is none. needed(shape) tells how many are."""
    for size in range((max(shape) - 1) // 16 * 16, 0, -16):
        smaller = [round(side * size / max(shape)) for side in shape]
        if min(smaller) >= MIN_SIDE and needed(smaller) <= budget:
            return size
    return None


def too_little(
    size: int,
    needed: Callable[[Sequence[int]], int],
    shape: Sequence[int],
    budget: int,
    found: bool = True,
) -> str:
    """Why a picture of shape (H, W), asked for with this size, does not fit, and the size that
    would.

    budget: the bytes that were found free or, if not `found`, a guess."""
    fits = largest_size(needed, shape, budget)
    message = f"size {size} needs about {needed(shape) / 1e9:.2f} GB of memory"
    if found:
        message += f", {budget / 1e9:.2f} GB is available"
    if not fits:
        return f"{message}; not even the smallest size fits"
    return f"{message}; --size {fits} {'would' if found else 'should'} fit"
