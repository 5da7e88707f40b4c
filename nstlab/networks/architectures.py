"""The networks that can be the loss model: their layers by name, and those that are the default.

To add one of torchvision's classifiers, add it to ARCHITECTURES. Its entry names layers as its
paper does, each with a node of the graph that torchvision's feature extraction finds, and chooses
layers: for style one at each resolution, as VGG19's conv1_1 to conv5_1 are; for content the one
whose receptive field is nearest to that of VGG19's conv4_2, 84 px, or a paper's. Everything else is
torchvision's own: the graph, the weights with their hash, the preprocessing.

Any other classifier of torchvision can be named as well, at your own risk: its layers are the
graph's nodes, and layers have to be chosen. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from nstlab.base.errors import InputError, nearest
from nstlab.base.names import BLOCKS, POOL, RECTIFIED, vgg_layers

if TYPE_CHECKING:
    from torch import nn

DEFAULT_NETWORK = "vgg19"


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network's layers.

    Attributes:
        name: torchvision's.
        nodes: {layer: node of torchvision's graph}, in the network's order.
        style_layers, content_layers: the default; a VGG's depend on the convention.
        blocks: a VGG's convolutions in each block; () for other networks.
        options: for torchvision's builder.
    """

    name: str
    nodes: Mapping[str, str]
    style_layers: tuple[str, ...] = ()
    content_layers: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers, in order."""
        return tuple(self.nodes)

    @property
    def title(self) -> str:
        """The name as it is written in sentences."""
        return self.name.upper() if self.blocks else self.name

    @cached_property
    def convolutions(self) -> tuple[str, ...]:
        """The names of a VGG's convolutions."""
        return tuple(name for name in self.layers if name in RECTIFIED)

    @property
    def offered(self) -> tuple[str, ...]:
        """The layers to choose from: no poolings, and no ReLUs that convolutions' names mean."""
        relus = {RECTIFIED.get(name) for name in self.layers}
        return tuple(
            name for name in self.layers if name not in relus and not name.startswith(POOL)
        )

    def has(self, layers: Iterable[str]) -> bool:
        """Whether it has all of these layers."""
        return all(name in self.nodes for name in layers)

    def layer(self, name: str | int) -> str:
        """The name of a layer.

        Args:
            name: that name, or for a VGG the index that tutorials use: 1 is conv1_1, 4 is conv2_2.

        Raises:
            InputError: for a layer that the network does not have.
        """
        text = str(name).strip()
        if self.blocks and text.isdecimal() and len(text) < 3:
            index = int(text) - 1
            if 0 <= index < len(self.convolutions):
                return self.convolutions[index]
        if text in self.nodes:
            return text
        raise InputError(
            f"{self.title} has no layer '{text}'{nearest(text, self.layers)} (allowed: "
            f"{self._allowed()})"
        )

    def layers_until(self, layers: Iterable[str]) -> tuple[str, ...]:
        """The layers from the first one to the deepest of these."""
        deepest = max((self.layers.index(layer) for layer in layers), default=-1)
        return self.layers[: deepest + 1]

    def convolutions_until(self, layers: Iterable[str]) -> tuple[str, ...]:
        """A VGG's convolutions from the first one to the deepest of these layers."""
        return tuple(name for name in self.layers_until(layers) if name in RECTIFIED)

    def _allowed(self) -> str:
        """The layers that the network has, in words."""
        if self.blocks:
            last = self.convolutions[-1]
            return (
                f"conv1_1 to {last}, relu1_1 to {RECTIFIED[last]}, pool1 to "
                f"pool{len(self.blocks)}, or an index from 1 to {len(self.convolutions)}"
            )
        if self.style_layers:
            return ", ".join(self.layers)
        return f"those that `nstlab info --network {self.name}` lists"


def _vgg(name: str, blocks: tuple[int, ...]) -> Architecture:
    layers = vgg_layers(blocks)
    return Architecture(name, dict(zip(layers, layers, strict=True)), blocks=blocks)


_ALEXNET = "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
_SQUEEZENET = "conv1 relu1 pool1 fire2 fire3 pool3 fire4 fire5 pool5 fire6 fire7 fire8 fire9"
_INCEPTIONS = [
    f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
]
_BOTTLENECKS = [
    f"layer{stage}.{i}" for stage, count in enumerate((3, 4, 6, 3), 1) for i in range(count)
]


def _numbered(names: str) -> dict[str, str]:
    """{layer: node} of a network whose layers are numbered, as in torchvision's `features`."""
    return {name: f"features.{index}" for index, name in enumerate(names.split())}


ARCHITECTURES = {
    spec.name: spec
    for spec in (
        _vgg(DEFAULT_NETWORK, BLOCKS),  # Simonyan, Zisserman 2014
        _vgg("vgg16", (2, 2, 3, 3, 3)),
        Architecture(  # Krizhevsky 2014
            "alexnet", _numbered(_ALEXNET),
            style_layers=("conv1", "conv2", "conv3", "conv4", "conv5"), content_layers=("conv3",),
        ),
        # Szegedy et al. 2014; convolutions are followed by batch normalization and ReLU
        Architecture(
            "googlenet",
            {"relu1": "conv1", "pool1": "maxpool1", "relu2": "conv2", "relu3": "conv3"}
            | {"pool2": "maxpool2"} | {name: name for name in _INCEPTIONS},
            style_layers=("relu1", "relu3", "inception3a", "inception4a", "inception5a"),
            content_layers=("inception4a",),
            options={"transform_input": True, "aux_logits": False, "init_weights": False},
        ),
        Architecture(  # Iandola et al. 2016
            "squeezenet1_1", _numbered(_SQUEEZENET),
            style_layers=("conv1", "fire2", "fire4", "fire6", "fire8"), content_layers=("fire5",),
        ),
        Architecture(  # He et al. 2015; these layers are those of Wang et al. 2021
            "resnet50",
            {"relu1": "relu", "pool1": "maxpool"} | {name: name for name in _BOTTLENECKS},
            style_layers=("relu1", "layer1.2", "layer2.3", "layer3.5", "layer4.2"),
            content_layers=("layer3.5",),
        ),
    )
}  # fmt: skip


# Options of torchvision's builders, of networks that have no entry.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # As its trained weights need it.
    "inception_v3": {"transform_input": True, "init_weights": False},
}


@cache
def architecture(name: str) -> Architecture:
    """The architecture of that name: one of ARCHITECTURES, or any other classifier of torchvision.

    Raises:
        InputError: for any other name, and for a network that cannot be traced.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    from torchvision import models
    from torchvision.models.feature_extraction import get_graph_node_names

    others = models.list_models(module=models)
    if name not in others:
        raise InputError(
            f"network: '{name}' is not one of "
            f"{', '.join(ARCHITECTURES)}{nearest(name, [*ARCHITECTURES, *others])} "
            "(or any other classifier of torchvision, at your own risk)"
        )
    options = OPTIONS.get(name, {})
    try:
        nodes = get_graph_node_names(untrained_model(name, options), suppress_diff_warning=True)[1]
    except Exception as error:  # whatever a tracer may raise
        raise InputError(
            f"network: '{name}' cannot be traced ({type(error).__name__}); choose another"
        ) from None
    # The first one is the picture. A name such as conv1 would be read as relu1, which there is not.
    return Architecture(
        name, {node: node for node in nodes[1:] if node not in RECTIFIED}, options=options
    )


def untrained_model(name: str, options: Mapping[str, Any]) -> nn.Module:
    """torchvision's network, for evaluation, without memory for its weights.

    Args:
        name: of the network.
        options: for torchvision's builder.
    """
    import torch
    from torchvision import models

    try:
        with torch.device("meta"):
            model = models.get_model(name, weights=None, **options)
    except NotImplementedError:  # some look at numbers while they are built
        model = models.get_model(name, weights=None, **options).to("meta")
    return model.eval().requires_grad_(False)


def known_network(name: str) -> str:
    """The name, if there is such a network.

    Raises:
        InputError: if there is none.
    """
    if not isinstance(name, str):
        raise InputError(f"network: {name!r} is not a name")
    return architecture(name).name
