"""3 × 3 convolutions with frozen weights.

They are computed by PyTorch; or faster, by oneDNN on a CPU and in 16 bits by cuDNN on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

ONE = [1, 1]  # stride, padding and dilation of every convolution
MULTIPLE = 8  # of channels, which a GPU's matrix units need in 16 bits


class Convolution:
    """A 3 × 3 convolution with fixed weights, by PyTorch's own operator.

    Args:
        weight: (O, I, 3, 3).
        bias: (O,), or None.
        shape: of the input, (1, I, h, w).
        tf32: whether a GPU may use it for float32.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, shape: Sequence[int], tf32: bool = False
    ):
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias
        # As F.conv2d ends, which takes the last four from flags of the process: benchmark,
        # deterministic, cuDNN at all, TF32.
        self.options = (ONE, ONE, ONE, False, [0, 0], 1, False, True, True, tf32)

    def __call__(self, x: Tensor, into: Tensor, rectify: bool = False, add: bool = False) -> Tensor:
        """(1, I, h, w) -> (1, O, h, w).

        Args:
            x: the input.
            into: (1, O, h, w), memory in which the result may be, or not.
            rectify: whether a ReLU follows.
            add: whether the result is added to what is in `into`.
        """
        y = torch.ops.aten._convolution(x, self.weight, self.bias, *self.options)[
            :, : into.shape[1]
        ]
        if add:
            y = into.add_(y)
        return torch.clamp_min(y, 0, out=into) if rectify else y


class OneDNN(Convolution):
    """The same by oneDNN on a CPU: weights are packed once, and the ReLU costs nothing."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Sequence[int]):
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.weight = pack(weight.contiguous(), ONE, ONE, ONE, 1, list(shape))
        self.bias = bias
        _trim_memory()

    @staticmethod
    def supports(device: torch.device, dtype: torch.dtype) -> bool:
        """Whether oneDNN computes in this type on this device."""
        if device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        if dtype == torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if dtype == torch.float16:
            return torch.ops.mkldnn._is_mkldnn_fp16_supported()
        return dtype == torch.float32

    def __call__(self, x: Tensor, into: Tensor, rectify: bool = False, add: bool = False) -> Tensor:
        if not add:
            into.zero_()
        activation = "relu" if rectify else None
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            into, x, self.weight, self.bias, ONE, ONE, ONE, 1, "add", 1.0, activation, [], None
        )


class CuDNN(Convolution):
    """The same by cuDNN on a GPU in 16 bits, fused with bias and ReLU where possible."""

    def __init__(self, weight: Tensor, bias: Tensor | None, shape: Sequence[int]):
        missing = -weight.shape[0] % MULTIPLE
        bias = None if bias is None else F.pad(bias, (0, missing))
        super().__init__(F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing)), bias, shape)

    @staticmethod
    def supports(device: torch.device, dtype: torch.dtype) -> bool:
        """Whether cuDNN computes in this 16-bit type on this device."""
        has_cudnn = (
            device.type == "cuda"
            and torch.version.hip is None
            and torch.backends.cudnn.is_available()
        )
        return has_cudnn and dtype.itemsize == 2

    def __call__(self, x: Tensor, into: Tensor, rectify: bool = False, add: bool = False) -> Tensor:
        if not rectify or x.shape[1] % MULTIPLE:
            return super().__call__(x, into, rectify, add)
        y = torch.cudnn_convolution_relu(x, self.weight, self.bias, ONE, ONE, ONE, 1)
        return into.copy_(y[:, : into.shape[1]])


def fastest_convolution(
    device: torch.device, dtype: torch.dtype, tf32: bool
) -> Callable[[Tensor, Tensor | None, Sequence[int]], Convolution]:
    """The fastest kind of convolution for a type on a device: (weight, bias, shape) -> it.

    Args:
        tf32: whether a GPU may use it for float32.
    """
    for kind in (OneDNN, CuDNN):
        if kind.supports(device, dtype):
            return kind
    return partial(Convolution, tf32=tf32)


def _trim_memory() -> None:
    """Give free memory back to the system.

    After packing, glibc would keep as much as the packed weights take, in pieces that fit nothing
    else.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
