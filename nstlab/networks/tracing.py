"""The graphs of torchvision's classifiers: their layers by name, and the shapes of these.

The graph is that of torchvision's feature extraction (torch.fx). Two things are changed in it:
nothing is computed in place, since features that are read have to stay, and poolings that reduce
the picture can be exchanged.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import cast

import torch
from torch import Tensor, fx, nn

from nstlab.networks.architectures import architecture, untrained_model
from nstlab.networks.pooling import pool2d

SAMPLE = (256, 256)  # a shape at which every layer of a classifier has positions


class Pool(nn.Module):
    """Pooling in the windows of a max pooling.

    Args:
        kind: one of names.POOLS.
        like: the max pooling.
    """

    def __init__(self, kind: str, like: nn.MaxPool2d):
        super().__init__()
        self.kind = kind
        self.kernel_size = like.kernel_size
        self.stride = like.stride
        self.options = {"padding": like.padding, "ceil_mode": like.ceil_mode}

    def forward(self, x: Tensor) -> Tensor:
        return pool2d(x, self.kind, self.kernel_size, self.stride, **self.options)


@cache
def trace(name: str, pool: str) -> fx.GraphModule:
    """The graph of a network of torchvision, without weights; it must not be changed.

    Args:
        name: of the network.
        pool: one of names.POOLS.

    Returns:
        A module from a preprocessed picture to {layer: features}.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    spec = architecture(name)
    model = untrained_model(name, spec.options)
    for path, module in [*model.named_modules()]:
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False
        # Poolings without a stride are part of a layer, and stay.
        if pool != "max" and isinstance(module, nn.MaxPool2d) and first_size(module.stride) > 1:
            model.set_submodule(path, Pool(pool, module))
    nodes = {node: layer for layer, node in spec.nodes.items()}
    extractor = create_feature_extractor(
        model, None, nodes, nodes, {"leaf_modules": [Pool]}, suppress_diff_warning=True
    )
    graph = cast(fx.Graph, extractor.eval_graph)
    for node in graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return fx.GraphModule(extractor, graph).eval()


def first_size(size: int | Sequence[int]) -> int:
    """The height of a kernel size or a stride."""
    return size if isinstance(size, int) else size[0]


def output_node(graph: fx.Graph) -> fx.Node:
    """The node that returns what a graph computes."""
    return next(node for node in reversed(graph.nodes) if node.op == "output")


def layer_nodes(graph: fx.Graph) -> dict[str, fx.Node]:
    """{layer: node} of what a graph computes."""
    return output_node(graph).args[0]


class _ShapeRecorder(fx.Interpreter):
    """Records the shape of each node, {name: shape}, as far as a picture reaches."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


@lru_cache(64)
def node_shapes(module: fx.GraphModule, shape: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
    """{name of a node: its shape} for a picture of shape (H, W), as far as it reaches."""
    recorder = _ShapeRecorder(module)
    # A layer whose window is larger than what is left of the picture ends the list.
    with contextlib.suppress(RuntimeError, AssertionError):
        recorder.run(torch.empty(1, 3, *shape, device="meta"))
    return recorder.shapes


def feature_maps(module: fx.GraphModule) -> dict[str, str]:
    """{layer: its node's name} of the layers that are (1, C, h, w).

    They have as many filters whatever the picture's shape.
    """
    wide = node_shapes(module, SAMPLE)
    narrow = node_shapes(module, (SAMPLE[0], SAMPLE[1] * 3 // 4))

    def is_map(node: str) -> bool:
        a = wide.get(node, ())
        b = narrow.get(node, ())
        return len(a) == len(b) == 4 and a[1] == b[1] and a[3] != b[3]

    nodes = {layer: node.name for layer, node in layer_nodes(module.graph).items()}
    return {layer: node for layer, node in nodes.items() if is_map(node)}
