"""Receptive fields: what a position of a layer sees of the picture."""

from __future__ import annotations

import itertools
from math import inf
from typing import NamedTuple

from torch import fx, nn

from nstlab.base.names import POOL
from nstlab.networks.architectures import Architecture, architecture
from nstlab.networks.tracing import (
    SAMPLE,
    feature_maps,
    first_size,
    layer_nodes,
    node_shapes,
    trace,
)
from nstlab.networks.weights import WIDTHS

# Kernel size, stride, and whether it is a convolution, of a VGG's layers.
VGG_STEPS = {"conv": (3, 1, True), "relu": (1, 1, False), POOL: (2, 2, False)}


class Field(NamedTuple):
    """What a position of a layer sees.

    Attributes:
        depth: convolutions up to the layer.
        stride: pixels from one position to the next.
        across: pixels that a position sees in each direction.
        filters: of the layer.
    """

    depth: int = 0
    stride: int = 1
    across: float = 1
    filters: int = 3

    def behind(self, kernel: int, stride: int, convolution: bool) -> Field:
        """The field of the next layer, given its kernel size and its stride in positions."""
        across = self.across + (kernel - 1) * self.stride
        return Field(self.depth + convolution, self.stride * stride, across, self.filters)


def fields(name: str) -> dict[str, Field]:
    """{layer: what its positions see} of the layers of a network that have positions.

    Raises:
        InputError: for an unknown network.
    """
    spec = architecture(name)
    return _vgg_fields(spec) if spec.blocks else _graph_fields(name)


def _vgg_fields(vgg: Architecture) -> dict[str, Field]:
    steps = [VGG_STEPS[layer[:4]] for layer in vgg.layers]
    chain = itertools.accumulate(steps, lambda field, step: field.behind(*step), initial=Field())
    next(chain)  # the field of a pixel
    return {
        layer: field._replace(filters=WIDTHS[int(layer[4]) - 1])
        for layer, field in zip(vgg.layers, chain, strict=True)
    }


def _graph_fields(name: str) -> dict[str, Field]:
    module = trace(name, "max")
    field_of: dict[fx.Node, Field] = {}
    for node in module.graph.nodes:
        inputs = [field_of[source] for source in node.all_input_nodes if source in field_of]
        # Of several, the one that sees most.
        field = Field(*map(max, zip(*inputs, strict=True))) if inputs else Field()
        if node.op == "call_module":
            field = _behind_module(field, module.get_submodule(node.target))
        field_of[node] = field
    shapes = node_shapes(module, SAMPLE)
    nodes = layer_nodes(module.graph)
    return {
        layer: field_of[nodes[layer]]._replace(filters=shapes[node][1])
        for layer, node in feature_maps(module).items()
    }


def _behind_module(field: Field, module: nn.Module) -> Field:
    """The field behind a module, whose parts follow each other."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            kernel = first_size(part.kernel_size)
            field = field.behind(kernel, first_size(part.stride), isinstance(part, nn.Conv2d))
        elif isinstance(part, nn.AdaptiveAvgPool2d):  # as in squeeze-and-excitation
            field = field._replace(across=inf)
    return field
