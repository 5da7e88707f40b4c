"""What makes a GPU wait less: evaluations that are replayed, and pictures that are copied while it goes on.

On a CPU both do the plain thing, so that callers need not know where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Sequence[Tensor]]
Record = Callable[[Function, Tensor], Callable[[], Sequence[Tensor]]]


def record(function: Function, x: Tensor) -> Callable[[], Sequence[Tensor]]:
    """Capture function(x) as a CUDA graph; the result repeats it for what x then holds, into the same memory."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(x.device), torch.cuda.graph(graph):
        results = function(x)

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return results

    return replay


class Replayed:
    """A function of one tensor that is recorded once and then replayed, without the host's launching each kernel.

    The first calls are plain: they warm up what recording must not, and a function that is soon exchanged, because a
    slider moves, costs nothing extra. function: tensors out, no transfer to the host, for x of one shape."""

    PLAIN = 2  # calls

    def __init__(self, function: Function, record: Record = record):
        self.function, self.record, self.calls = function, record, 0

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls <= self.PLAIN:
            return tuple(self.function(x))
        if self.calls == self.PLAIN + 1:
            self.input = x.clone()
            self.replay = self.record(self.function, self.input)
        self.input.copy_(x)
        return tuple(result.clone() for result in self.replay())


def to_host(picture: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a picture to the host, and go on at once; what is returned gives the copy when it is complete."""
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
