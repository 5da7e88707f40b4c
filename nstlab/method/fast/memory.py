"""How much memory a run needs, estimated from the sizes of what it keeps, and how much there is.

All numbers are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import prod

import psutil
import torch

from nstlab.base.settings import MIN_SIDE
from nstlab.method.fast.arithmetic import FLOAT32_SHARE, arithmetic_of
from nstlab.method.fast.layout import Layout
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
    """Free bytes on the device, including what PyTorch has reserved there.

    MPS shares the machine's memory.
    """
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def evaluation_bytes(net: Network, layers: Sequence[str], shape: Sequence[int]) -> int:
    """Bytes that the network needs: what `Propagation` keeps, with packed weights, or autograd.

    Args:
        layers: those that are read.
        shape: (H, W) of the images.
    """
    if not layers:
        return 0
    if not is_fast(net):
        smoothed = sum(map(prod, net.shapes(layers, shape).values())) if net.temperature else 0
        numbers = AUTOGRAD * net.activation_count(set(layers), shape) + SMOOTHING * smoothed
        return round(numbers * net.dtype.itemsize)
    dtype = arithmetic_of(net).dtype
    dtypes = [dtype]
    if net.precision == "auto" and dtype in FLOAT32_SHARE:
        dtypes.append(net.dtype)  # of the last steps
    packed = 2 * sum(
        net.convolution(name)[0].numel() for name in net.architecture.convolutions_until(layers)
    )
    return max((Layout.of(net, layers, shape, t).total + packed) * t.itemsize for t in dtypes)


def picture_bytes(net: Network, shape: Sequence[int], optimizer: Optimizer) -> int:
    """Bytes of all pictures (H, W) that are held at once, with the optimizer's history."""
    picture = torch.empty((1, 3, *shape), dtype=net.dtype, device="meta")
    history = optimizer.bytes_kept(picture) if isinstance(optimizer, LBFGS) else 2 * picture.nbytes
    return history + PICTURES * picture.nbytes


def run_bytes(
    net: Network, layers: Sequence[str], shape: Sequence[int], optimizer: Optimizer
) -> int:
    """Bytes that a run needs for images of shape (H, W)."""
    return evaluation_bytes(net, layers, shape) + picture_bytes(net, shape, optimizer)


def largest_size(
    bytes_needed: Callable[[Sequence[int]], int], shape: Sequence[int], budget: int
) -> int | None:
    """The largest smaller size that fits: the long side in pixels, a multiple of 16.

    Args:
        bytes_needed: (H, W) -> bytes; it is taken to rise with the size.
        shape: (H, W) of a picture that does not fit.
        budget: the most bytes.

    Returns:
        The size, or None if not even the smallest one fits.
    """

    def smaller(size: int) -> list[int]:
        return [round(side * size / max(shape)) for side in shape]

    sizes = [size for size in range(16, max(shape), 16) if min(smaller(size)) >= MIN_SIDE]
    fitting = bisect_right(sizes, budget, key=lambda size: bytes_needed(smaller(size)))
    return sizes[fitting - 1] if fitting else None


def refusal(
    size: int,
    bytes_needed: Callable[[Sequence[int]], int],
    shape: Sequence[int],
    budget: int,
    measured: bool = True,
) -> str:
    """Why a picture does not fit, and the size that would: one line.

    Args:
        size: that the user asked for, the long side in pixels.
        bytes_needed: (H, W) -> bytes.
        shape: (H, W) of the picture.
        budget: the bytes that are free.
        measured: whether they were measured; otherwise they are a guess.
    """
    message = f"size {size} needs about {bytes_needed(shape) / 1e9:.2f} GB of memory"
    if measured:
        message += f", {budget / 1e9:.2f} GB is available"
    fits = largest_size(bytes_needed, shape, budget)
    if not fits:
        return f"{message}; not even the smallest size fits"
    return f"{message}; --size {fits} {'would' if measured else 'should'} fit"
