"""The networks that the student learns from, and which of their layers it has to imitate.

The original VGG19 teaches the layers that it has weights for, conv1_1 to conv3_4 at least. Above, a
small network that was itself distilled from VGG19 (Wang et al. 2020, "Collaborative Distillation")
takes its place, up to conv5_1, where a linear map leads to the original's 512 channels. Neither has
conv5_2 and what follows, so these layers have to imitate conv5_1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base.errors import InputError
from nstlab.base.names import CONVOLUTIONS
from nstlab.networks.normalization import normalization_images, normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from training.student import Stack, fast

Target = tuple[str, str]  # (teacher, its layer)
ORIGINAL, DISTILLED = "original", "distilled"
LAST = "conv5_1"  # the distilled network's last layer


def targets(name: str, reach: str) -> tuple[Target, ...]:
    """The layers that a layer of the student has to imitate.

    The first layer above the original's weights (conv4_2, if they end at conv4_1) has to imitate
    their last one once more, and conv3_3 too: content is taken from it, and so it keeps a photo's
    shapes as the original would, and its details.

    Args:
        name: of the student's layer.
        reach: the last layer of the original's weights.
    """
    beyond = CONVOLUTIONS.index(name) - CONVOLUTIONS.index(reach)
    if beyond <= 0:
        return ((ORIGINAL, name),)
    if beyond == 1:
        return ((ORIGINAL, reach), (ORIGINAL, "conv3_3"))
    return ((DISTILLED, min(name, LAST)),)


class Distilled(nn.Module):
    """The distilled network.

    It has a quarter of VGG19's channels, max pooling and reflected borders. Outputs are scaled to
    channels of usual mean 1.

    Args:
        path: its file.

    Raises:
        InputError: for a file that is not this network.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        from safetensors.torch import load_file

        self.names = CONVOLUTIONS[: CONVOLUTIONS.index(LAST) + 1]
        parts = {name: f"conv{name[4]}{name[6]}" for name in self.names} | {"output": "conv51_aux"}
        try:
            tensors = load_file(path)
            # in float32, as pictures are
            self.input = tensors["conv0.weight"], tensors["conv0.bias"]
            self.kernels = nn.ParameterDict(
                {name: fast(tensors[f"{part}.weight"]) for name, part in parts.items()}
            )
            self.biases = nn.ParameterDict(
                {name: tensors[f"{part}.bias"].bfloat16() for name, part in parts.items()}
            )
        except Exception:
            raise InputError(
                f"{path}: is not the distilled VGG19, safetensors with conv0, conv11 to conv51, "
                "conv51_aux"
            ) from None
        self.requires_grad_(False)
        samples = [self._activations(picture) for picture in normalization_images()]
        self.scales = {}
        for name in self.names:
            mean = torch.stack([f[name].float().mean((0, 2, 3)) for f in samples]).mean(0)
            scale = torch.where(mean > 0, 1 / mean.clamp_min(1e-12), 0)
            self.scales[name] = scale.view(1, -1, 1, 1).bfloat16()

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.kernels[name], self.biases[name]))

    @torch.no_grad()
    def _activations(self, x: Tensor) -> dict[str, Tensor]:
        """The activations of all layers, not scaled."""
        activations = {}
        x = fast(F.conv2d(x, *self.input))
        for name in self.names:
            if name.endswith("_1") and name != self.names[0]:
                x = F.max_pool2d(x, 2)
            x = self._convolve(name, F.pad(x, (1, 1, 1, 1), mode="reflect"))
            activations[name] = x
        return activations | {LAST: self._convolve("output", x)}

    def forward(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] -> {name: (B, T, h, w)} behind the ReLU."""
        activations = self._activations(x)
        return {name: activations[name] * self.scales[name] for name in names}


class Teachers(nn.Module):
    """All that the student learns from.

    Args:
        original: VGG19's weights, in any form that VGG19 takes.
        last: the last layer that is asked for.
        distilled: file of the distilled network, if the weights end before.

    Raises:
        InputError: for weights that cannot be used or do not reach conv3_4.
    """

    def __init__(
        self, original: Weights | str | Path, last: str, distilled: str | Path | None = None
    ):
        super().__init__()
        net = normalize_activations(VGG19(original, pool="max"))
        net.require(["conv3_4"])
        self.reach = min(last, net.weights.layers[-1])
        self.digest = net.weights.digest
        self.original = Stack.frozen(
            net.tensors(), net.weights.preprocessing, self.reach, F.max_pool2d
        )
        self.distilled = Distilled(distilled) if distilled and self.reach != last else None
        if self.reach != last and not distilled:
            raise InputError(
                f"the teacher's weights end at {self.reach}; name the distilled network that "
                "teaches what follows"
            )

    def targets(self, name: str) -> tuple[Target, ...]:
        """The layers that a layer of the student has to imitate."""
        return targets(name, self.reach)

    @torch.no_grad()
    def forward(self, x: Tensor, targets: Iterable[Target]) -> dict[Target, Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] -> {target: its activation, channels of usual mean 1}."""
        targets = set(targets)
        activations = {}
        for teacher, network in ((ORIGINAL, self.original), (DISTILLED, self.distilled)):
            names = [name for owner, name in targets if owner == teacher]
            if names:
                activations |= {(teacher, name): f for name, f in network(x, names).items()}
        return activations

    def widths(self, targets: Iterable[Target]) -> dict[Target, int]:
        """The number of channels of each target."""
        activations = self(torch.zeros(1, 3, 32, 32), targets)
        return {target: f.shape[1] for target, f in activations.items()}
