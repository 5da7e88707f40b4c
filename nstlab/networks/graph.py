"""Any of torchvision's classifiers as the loss model, through its graph.

Layers are read by name, and nothing is computed beyond the deepest layer that is read.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from nstlab.base.errors import InputError
from nstlab.base.names import POOLS, PRECISIONS, WEIGHTS
from nstlab.networks.architectures import DEFAULT_NETWORK, architecture
from nstlab.networks.base import Network
from nstlab.networks.tracing import feature_maps, layer_nodes, node_shapes, output_node, trace
from nstlab.networks.vgg import VGG16, VGG19
from nstlab.networks.weights import Weights
from nstlab.networks.weights import load as load_weights


class GraphNetwork(Network):
    """A classifier of torchvision.

    Activations are normalized where they are read, since not every network's weights can be scaled
    without changing what it computes.

    Args:
        name: one of architectures.ARCHITECTURES except the VGGs; or another classifier's, at your
            own risk.
        weights: a `Weights`, "auto" or "imagenet" (torchvision's), "random", or a path.
        pool: "max" (as it was trained), "avg" or "l2", which take the place of the poolings that
            reduce the picture (of those that are modules of the network).
        precision: see `Network`.
        seed: of random weights.
        temperature: see `Network`.

    Raises:
        InputError: for an unknown name, and for weights that cannot be used.
    """

    def __init__(
        self,
        name: str,
        weights: Weights | str | Path = WEIGHTS[0],
        pool: str = POOLS[0],
        precision: str = PRECISIONS[0],
        seed: int = 0,
        temperature: float = 0.0,
    ):
        if architecture(name).blocks:
            raise InputError(f"{name}: is a VGG; use `loss_network`")
        weights = weights if isinstance(weights, Weights) else load_weights(weights, seed, name)
        blank = trace(name, pool)
        weights = replace(weights, tensors=_select_tensors(blank, weights, name), network=name)
        super().__init__(weights, pool, precision, temperature)
        self.module = copy.deepcopy(blank)
        self.module.load_state_dict(_state(blank, weights.tensors), assign=True)
        # In a list, so that it is no part of this module.
        self._blank = [blank]
        self._truncated: dict[frozenset[str], fx.GraphModule] = {}
        self._maps = feature_maps(blank)
        if not self._maps:
            raise InputError(
                f"network: {name} has no features at positions of a picture; choose another"
            )

    @property
    def normalized_layers(self) -> tuple[str, ...]:
        return tuple(self._maps)

    def normalize(self, means: Mapping[str, Tensor]) -> None:
        for layer, mean in means.items():
            name = self._mean_buffer(layer)
            previous = getattr(self, name, 1.0)
            self.register_buffer(name, mean.mean().to(self.device, self.dtype) * previous)
        self.normalized = True

    def _mean_buffer(self, layer: str) -> str:
        """The name of the buffer with the mean activation of a layer."""
        return f"mean_{self.architecture.layers.index(layer)}"

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        outputs = self._truncate(frozenset(layers))(x)
        ordered = {name: outputs[name] for name in self.architecture.layers if name in outputs}
        if not self.normalized:
            return ordered
        return {name: f / getattr(self, self._mean_buffer(name)) for name, f in ordered.items()}

    def _truncate(self, layers: frozenset[str]) -> fx.GraphModule:
        """The graph as far as it is needed for these layers."""
        if layers not in self._truncated:
            graph = copy.deepcopy(self.module.graph)
            nodes = {name: node for name, node in layer_nodes(graph).items() if name in layers}
            output_node(graph).args = (nodes,)
            module = fx.GraphModule(self.module, graph)
            module.graph.eliminate_dead_code()
            module.recompile()
            self._truncated[layers] = module
        return self._truncated[layers]

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        names = {self.architecture.layer(layer) for layer in layers}
        for name in sorted(names, key=self.architecture.layers.index):
            if name not in self._maps:
                raise InputError(
                    f"{name} of {self.weights.network} has no positions; choose a layer before it"
                )
            if shape is not None and not self.shapes([name], shape):
                raise InputError(
                    f"a picture of {shape[1]}×{shape[0]} is too small for {name} of "
                    f"{self.weights.network}"
                )
        return names

    def shapes(
        self, layers: Iterable[str], shape: Sequence[int]
    ) -> dict[str, tuple[int, int, int]]:
        reached = node_shapes(self._blank[0], (shape[0], shape[1]))
        shapes = {name: reached.get(self._maps[name]) for name in layers if name in self._maps}
        return {name: size[1:] for name, size in shapes.items() if size}

    def activation_count(self, layers: Collection[str], shape: Sequence[int]) -> int:
        reached = node_shapes(self._blank[0], (shape[0], shape[1]))
        nodes = self._truncate(frozenset(layers)).graph.nodes
        return sum(prod(reached[node.name]) for node in nodes if node.name in reached)


def _select_tensors(blank: fx.GraphModule, weights: Weights, network: str) -> dict[str, Tensor]:
    """The tensors among the weights that the graph has; InputError if one is missing."""
    selected = {}
    for key, parameter in blank.state_dict().items():
        if not parameter.is_floating_point():
            if parameter.ndim:
                raise InputError(
                    f"network: {network} has tables of whole numbers ({key}); choose another"
                )
            continue  # a counter of batch normalization
        tensor = weights.tensors.get(key)
        if tensor is None or tensor.shape != parameter.shape:
            problem = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
            raise InputError(
                f"{weights.source}: not the weights of {network}; {key} {problem}, expected is "
                f"{tuple(parameter.shape)}"
            )
        selected[key] = tensor
    return selected


def _state(blank: fx.GraphModule, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors, as convolutions read them, for all of a graph's state."""
    state = {}
    for key in blank.state_dict():
        tensor = tensors.get(key, torch.zeros(()))  # zeros for unused counters
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        state[key] = tensor.clone(memory_format=layout)
    return state


def loss_network(
    name: str = DEFAULT_NETWORK, rescale_pool: bool = False, **options: Any
) -> Network:
    """The network of that name: `VGG19`, `VGG16` or a `GraphNetwork`.

    Args:
        name: one of architectures.ARCHITECTURES, or another classifier of torchvision.
        rescale_pool: see `VGG`; for VGGs only.
        options: the other arguments of the class.

    Raises:
        InputError: for what the network cannot have.
    """
    vggs = {vgg.NAME: vgg for vgg in (VGG19, VGG16)}
    if name in vggs:
        return vggs[name](rescale_pool=rescale_pool, **options)
    if rescale_pool:
        raise InputError(
            f"rescale_pool: by how much poolings differ is known for VGGs, not for {name}; "
            "leave it out"
        )
    return GraphNetwork(name, **options)
