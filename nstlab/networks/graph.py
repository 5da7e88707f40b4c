"""Any of torchvision's classifiers as the loss model, through its graph: layers by name, evaluation
no deeper than needed.

The graph is that of torchvision's feature extraction (torch.fx). Three things are changed in it:
nothing is computed in place, since features that are read have to stay; poolings that reduce the
picture can be exchanged; and it ends at the deepest layer that is read.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from math import inf, prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from nstlab.base.errors import InputError
from nstlab.base.names import POOL, POOLS, PRECISIONS, WEIGHTS
from nstlab.networks.architectures import DEFAULT_NETWORK, architecture, untrained
from nstlab.networks.base import Network, pooled
from nstlab.networks.vgg import VGG16, VGG19
from nstlab.networks.weights import WIDTHS, Weights
from nstlab.networks.weights import load as load_weights

SAMPLE = (256, 256)  # a shape at which every layer of a classifier has positions


class Pool(nn.Module):
    """Pooling of a kind in names.POOLS, in the windows of a max pooling."""

    def __init__(self, kind: str, like: nn.MaxPool2d):
        super().__init__()
        self.kind, self.kernel_size, self.stride = kind, like.kernel_size, like.stride
        self.options = {"padding": like.padding, "ceil_mode": like.ceil_mode}

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x, self.kind, self.kernel_size, self.stride, **self.options)


@cache
def traced(name: str, pool: str) -> fx.GraphModule:
    """The graph of a network of torchvision, without weights: preprocessed picture -> {layer:
    features}. Never changed."""
    from torchvision.models.feature_extraction import create_feature_extractor

    known = architecture(name)
    model = untrained(name, known.options)
    for path, part in [*model.named_modules()]:
        if getattr(part, "inplace", False):
            vars(part)["inplace"] = False
        # Poolings without a stride are part of a layer, and stay.
        if pool != "max" and isinstance(part, nn.MaxPool2d) and _first(part.stride) > 1:
            model.set_submodule(path, Pool(pool, part))
    nodes = {node: layer for layer, node in known.nodes.items()}
    leaves = {"leaf_modules": [Pool]}
    made = create_feature_extractor(model, None, nodes, nodes, leaves, suppress_diff_warning=True)
    for node in (graph := cast(fx.Graph, made.eval_graph)).nodes:
        if node.target is operator.iadd:
            node.target = operator.add
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return fx.GraphModule(made, graph).eval()


def _first(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[0]


def _layers(graph: fx.Graph) -> dict[str, fx.Node]:
    """{layer: node} of what a graph computes."""
    return next(node for node in reversed(graph.nodes) if node.op == "output").args[0]


class _Shapes(fx.Interpreter):
    """Finds the shape of each node, {name: shape}, as far as a picture reaches."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.found: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.found[n.name] = tuple(result.shape)
        return result


@lru_cache(64)
def _shapes(module: fx.GraphModule, shape: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
    """{node: its shape} for a picture of shape (H, W)."""
    shapes = _Shapes(module)
    # A layer whose window is larger than what is left of the picture ends the list.
    with contextlib.suppress(RuntimeError, AssertionError):
        shapes.run(torch.empty(1, 3, *shape, device="meta"))
    return shapes.found


class GraphNetwork(Network):
    """A classifier of torchvision.

    Args:
        name: one of architectures.ARCHITECTURES except the VGGs; or another classifier's, at your
        own risk.
        weights: a `Weights`, "auto" or "imagenet" (torchvision's), "random", or a path.
        pool: "max" (as it was trained), "avg" or "l2", which take the place of the poolings that
            reduce the picture (of those that are modules of the network).
        precision, temperature: see `Network`.
        seed: of random weights.
    Activations are normalized where they are read, since not every network's weights can be scaled
    without changing what it computes. Raises: InputError for an unknown name and for weights that
    cannot be used.
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
        blank = traced(name, pool)
        weights = replace(weights, tensors=_needed(blank, weights, name), network=name)
        super().__init__(weights, pool, precision, temperature)
        self.module = copy.deepcopy(blank)
        # Zeros for unused counters.
        state = {key: weights.tensors.get(key, torch.zeros(())) for key in blank.state_dict()}
        layout = {4: torch.channels_last}  # as convolutions read it
        state = {
            key: t.clone(memory_format=layout.get(t.ndim, torch.contiguous_format))
            for key, t in state.items()
        }
        self.module.load_state_dict(state, assign=True)
        self._blank, self._ended = [blank], {}  # no parts of this module
        self._maps = _maps(blank)
        if not self._maps:
            raise InputError(
                f"network: {name} has no features at positions of a picture; choose another"
            )

    @property
    def normalized_layers(self) -> tuple[str, ...]:
        return tuple(self._maps)

    def normalize(self, means: Mapping[str, Tensor]) -> None:
        for name, mean in means.items():
            buffer = self._mean_of(name)
            self.register_buffer(
                buffer, mean.mean().to(self.device, self.dtype) * getattr(self, buffer, 1.0)
            )
        self.normalized = True

    def _mean_of(self, layer: str) -> str:
        """The name of the buffer with the mean activations of a layer."""
        return f"mean_{self.architecture.layers.index(layer)}"

    def features(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        found = self._until(frozenset(layers))(x)
        ordered = {name: found[name] for name in self.architecture.layers if name in found}
        if not self.normalized:
            return ordered
        return {name: f / getattr(self, self._mean_of(name)) for name, f in ordered.items()}

    def _until(self, layers: frozenset[str]) -> fx.GraphModule:
        """The graph as far as it is needed for these layers."""
        if layers not in self._ended:
            graph = copy.deepcopy(self.module.graph)
            end = next(node for node in reversed(graph.nodes) if node.op == "output")
            end.args = ({name: node for name, node in _layers(graph).items() if name in layers},)
            self._ended[layers] = module = fx.GraphModule(self.module, graph)
            module.graph.eliminate_dead_code()
            module.recompile()
        return self._ended[layers]

    def require(self, layers: Iterable[str | int], shape: Sequence[int] | None = None) -> set[str]:
        wanted = {self.architecture.layer(layer) for layer in layers}
        for name in sorted(wanted, key=self.architecture.layers.index):
            if name not in self._maps:
                raise InputError(
                    f"{name} of {self.weights.network} has no positions; choose a layer before it"
                )
            if shape is not None and not self.shapes([name], shape):
                raise InputError(
                    f"a picture of {shape[1]}×{shape[0]} is too small for {name} of "
                    f"{self.weights.network}"
                )
        return wanted

    def shapes(
        self, layers: Iterable[str], shape: Sequence[int]
    ) -> dict[str, tuple[int, int, int]]:
        seen = _shapes(self._blank[0], (shape[0], shape[1]))
        found = {name: seen.get(self._maps[name], ()) for name in layers if name in self._maps}
        return {name: size[1:] for name, size in found.items() if size}

    def computed(self, layers: Collection[str], shape: Sequence[int]) -> int:
        seen = _shapes(self._blank[0], (shape[0], shape[1]))
        return sum(
            prod(seen[node.name])
            for node in self._until(frozenset(layers)).graph.nodes
            if node.name in seen
        )


def _maps(module: fx.GraphModule) -> dict[str, str]:
    """{layer: its node's name} of the layers that are (1, C, h, w), with as many filters whatever
    the picture's shape."""
    wide, narrow = (_shapes(module, shape) for shape in (SAMPLE, (SAMPLE[0], SAMPLE[1] * 3 // 4)))
    nodes = {layer: node.name for layer, node in _layers(module.graph).items()}

    def is_map(node: str) -> bool:
        a = wide.get(node, ())
        b = narrow.get(node, ())
        return len(a) == len(b) == 4 and a[1] == b[1] and a[3] != b[3]

    return {layer: node for layer, node in nodes.items() if is_map(node)}


def _needed(blank: fx.GraphModule, weights: Weights, network: str) -> dict[str, Tensor]:
    """The tensors among the weights that the graph has; InputError if they are not those of the
    network."""
    found = {}
    for key, own in blank.state_dict().items():
        if not own.is_floating_point():
            if own.ndim:
                raise InputError(
                    f"network: {network} has tables of whole numbers ({key}); choose another"
                )
            continue  # a counter of batch normalization
        given = weights.tensors.get(key)
        if given is None or given.shape != own.shape:
            has = "is missing" if given is None else f"has the shape {tuple(given.shape)}"
            raise InputError(
                f"{weights.source}: not the weights of {network}; {key} {has}, expected is "
                f"{tuple(own.shape)}"
            )
        found[key] = given
    return found


def loss_network(
    name: str = DEFAULT_NETWORK, rescale_pool: bool = False, **options: Any
) -> Network:
    """The network of that name: `VGG19`, `VGG16` or a `GraphNetwork`, which say what the options
    are.

    Raises InputError for what it cannot have."""
    if kind := {kind.NAME: kind for kind in (VGG19, VGG16)}.get(name):
        return kind(rescale_pool=rescale_pool, **options)
    if rescale_pool:
        raise InputError(
            f"rescale_pool: by how much poolings differ is known for VGGs, not for {name}; "
            "leave it out"
        )
    return GraphNetwork(name, **options)


# --- what layers see ------------------------------------------------------------------------------


class Field(NamedTuple):
    """What a position of a layer sees: convolutions up to it, pixels from one position to the next,
    pixels across; and how many filters the layer has."""

    depth: int = 0
    stride: int = 1
    across: float = 1
    filters: int = 3

    def behind(self, kernel: int, stride: int, convolution: bool) -> Field:
        """That of a layer whose windows have so many positions, in such steps."""
        across = self.across + (kernel - 1) * self.stride
        return Field(self.depth + convolution, self.stride * stride, across, self.filters)


def fields(name: str) -> dict[str, Field]:
    """What each layer of a network sees, of those that have positions. InputError for an unknown
    network."""
    known = architecture(name)
    if known.blocks:
        steps = {"conv": (3, 1, True), "relu": (1, 1, False), POOL: (2, 2, False)}
        seen = itertools.accumulate(
            known.layers, lambda field, layer: field.behind(*steps[layer[:4]]), initial=Field()
        )
        each = dict(zip(known.layers, list(seen)[1:], strict=True))
        return {
            layer: field._replace(filters=WIDTHS[int(layer[4]) - 1])
            for layer, field in each.items()
        }
    module = traced(name, "max")
    found = {}
    for node in module.graph.nodes:
        before = [found[each] for each in node.all_input_nodes if each in found]
        # Of several, the one that sees most.
        field = Field(*map(max, zip(*before, strict=True))) if before else Field()
        for part in module.get_submodule(node.target).modules() if node.op == "call_module" else ():
            if isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                field = field.behind(
                    _first(part.kernel_size), _first(part.stride), isinstance(part, nn.Conv2d)
                )
            elif isinstance(part, nn.AdaptiveAvgPool2d):  # as in squeeze-and-excitation
                field = field._replace(across=inf)
        found[node] = field
    shapes = _shapes(module, SAMPLE)
    layers = _layers(module.graph)
    return {
        layer: found[layers[layer]]._replace(filters=shapes[node][1])
        for layer, node in _maps(module).items()
    }
