"""Where the features of layers are in memory, which is one piece, allocated once.

- A convolution writes its rectified output into the layer's memory, and nothing else is kept: the
  ReLU's mask is where its output is positive, and the gradient at the input of a frozen convolution
  does not depend on the input.
- On the way back, the gradient overwrites features that are no longer needed. In between it is in
  scratch memory, which is as large as the largest layer.
- Nearly half of all features are those of the first block. In float32, and above a budget in 16
  bits, later features overwrite them, and they are computed a second time on the way back, which
  costs a twentieth of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from nstlab.networks.vgg import VGG

# Bytes; if features in 16 bits take more, those of the first block are computed twice.
BUDGET = 1 << 30
ALIGNED = 32  # layers begin at multiples of this many numbers, which suits vector instructions


@dataclass(frozen=True)
class Layout:
    """Where the outputs of layers are in one piece of memory; scratch memory begins at 0.

    Attributes:
        shapes: (C, h, w) of the output of each node of the network, in its order.
        offsets: where outputs that are kept begin, in numbers.
        total: of all memory, in numbers.
        recomputed: layers whose outputs are overwritten by later ones, and computed again on the
            way back.
    """

    shapes: dict[str, tuple[int, int, int]]
    offsets: dict[str, int]
    total: int
    recomputed: tuple[str, ...]

    @classmethod
    def of(cls, net: VGG, reads: Iterable[str], shape: Sequence[int], dtype: torch.dtype) -> Layout:
        """Lay out memory for the layers that are read and the outputs of all ReLUs before them.

        Args:
            reads: the layers.
            shape: (H, W) of the images.
            dtype: of the features.
        """
        reads = set(reads)
        nodes = net.architecture.layers_until(reads)
        shapes = net.shapes(nodes, shape)
        sizes = {node: _align(prod(node_shape)) for node, node_shape in shapes.items()}
        kept = [node for node in nodes if node in reads or node.startswith("relu")]
        kept_bytes = sum(sizes[node] for node in kept) * dtype.itemsize
        is_large = dtype.itemsize > 2 or kept_bytes > BUDGET
        recomputed: tuple[str, ...] = ()
        if is_large and "pool1" in nodes and "pool1" not in reads:
            recomputed = tuple(nodes[: nodes.index("pool1")])
        offsets: dict[str, int] = {}
        ends = []
        for group in (recomputed, [node for node in nodes if node not in recomputed]):
            # After the scratch memory that the group needs.
            end = max((sizes[node] for node in group), default=0)
            if "conv1_1" in group and dtype.itemsize < 4:
                end = max(end, _align(9 * prod(shape)))  # the split image
            for node in group:
                if node in kept:
                    offsets[node] = end
                    end += sizes[node]
            ends.append(end)
        return cls(shapes, offsets, max(ends), recomputed)


def _align(size: int) -> int:
    """A number of numbers, rounded up to a multiple of ALIGNED."""
    return -(-size // ALIGNED) * ALIGNED
