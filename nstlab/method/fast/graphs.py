"""Keeping a GPU busy: evaluations replayed as CUDA graphs, and copies to the host meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Sequence[Tensor]]
Capture = Callable[[Function, Tensor], Callable[[], Sequence[Tensor]]]
CAPTURING = threading.Lock()  # PyTorch captures one graph at a time


def capture(function: Function, x: Tensor) -> Callable[[], Sequence[Tensor]]:
    """Capture function(x) as a CUDA graph. Other threads may use the GPU meanwhile.

    Returns:
        A function that computes it anew from the present content of x, into the same memory.
    """
    graph = torch.cuda.CUDAGraph()
    with (
        CAPTURING,
        torch.cuda.device(x.device),
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        results = function(x)

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return results

    return replay


class Replayed:
    """A function of one tensor that is captured once and then replayed.

    The host then does not launch each kernel. The first calls are plain: they warm up libraries,
    which cannot be done while capturing, and a function that is soon replaced, because a slider
    moves, costs nothing extra.

    Args:
        function: (tensor of one shape) -> tensors, without a transfer to the host.
        capture: how it is captured.
    """

    PLAIN = 2  # calls before the capture

    def __init__(self, function: Function, capture: Capture = capture):
        self.function = function
        self.capture = capture
        self.calls = 0

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls <= self.PLAIN:
            return tuple(self.function(x))
        if self.calls == self.PLAIN + 1:
            self.input = x.clone()
            self.replay = self.capture(self.function, self.input)
        self.input.copy_(x)
        return tuple(result.clone() for result in self.replay())


def to_host(picture: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a picture to the host, without waiting.

    Returns:
        A function that waits for the copy and gives it.
    """
    if picture.device.type != "cuda":
        return picture.detach().cpu
    copy = torch.empty(picture.shape, dtype=picture.dtype, pin_memory=True)
    copy.copy_(picture.detach(), non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(picture.device))

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait
