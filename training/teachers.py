"""The networks that the student learns from, and which of their layers each layer of the student
has to imitate.

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

from nstlab.base.names import CONVOLUTIONS
from nstlab.base.settings import InputError
from nstlab.networks.normalization import normalization_images, normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from training.student import Stack, fast

Target = tuple[str, str]  # (teacher, its layer)
ORIGINAL, DISTILLED = "original", "distilled"
LAST = "conv5_1"  # the distilled network's last layer


def targets(name: str, reach: str) -> tuple[Target, ...]:
    """The layers that a layer of the student has to imitate, where the original's weights end at
    `reach`.

    The first layer above that (conv4_2, if conv4_1 is the last that is known) has to imitate the
    last known one once more, and conv3_3 too: content is taken from it, and so it keeps a photo's
    shapes as the original would, and its details."""
    end = CONVOLUTIONS.index(reach)
    at = CONVOLUTIONS.index(name)
    if at <= end:
        return ((ORIGINAL, name),)
    return (
        ((ORIGINAL, reach), (ORIGINAL, "conv3_3"))
        if at == end + 1
        else ((DISTILLED, min(name, LAST)),)
    )


class Distilled(nn.Module):
    """The distilled network: pictures (B, 3, H, W) in [0, 1] -> {layer: (B, T, h, w)} behind the
    ReLU.

    It has a quarter of VGG19's channels, max pooling and reflected borders. Outputs are scaled to
    channels of usual mean 1."""

    def __init__(self, path: str | Path):
        """Raises InputError for a file that is not this network."""
        super().__init__()
        from safetensors.torch import load_file

        self.names = CONVOLUTIONS[: CONVOLUTIONS.index(LAST) + 1]
        parts = {name: f"conv{name[4]}{name[6]}" for name in self.names} | {"output": "conv51_aux"}
        try:
            found = load_file(path)
            self.input = found["conv0.weight"], found["conv0.bias"]  # in float32, as pictures are
            self.kernels = nn.ParameterDict(
                {name: fast(found[f"{part}.weight"]) for name, part in parts.items()}
            )
            self.biases = nn.ParameterDict(
                {name: found[f"{part}.bias"].bfloat16() for name, part in parts.items()}
            )
        except Exception:
            raise InputError(
                f"{path}: is not the distilled VGG19, safetensors with conv0, conv11 to conv51, "
                "conv51_aux"
            ) from None
        self.requires_grad_(False)
        shown, self.scales = [self._plain(picture) for picture in normalization_images()], {}
        for name in self.names:
            mean = torch.stack([f[name].float().mean((0, 2, 3)) for f in shown]).mean(0)
            self.scales[name] = (
                torch.where(mean > 0, 1 / mean.clamp_min(1e-12), 0).view(1, -1, 1, 1).bfloat16()
            )

    def _convolved(self, name: str, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.kernels[name], self.biases[name]))

    @torch.no_grad()
    def _plain(self, x: Tensor) -> dict[str, Tensor]:
        """The activations of all layers, not scaled."""
        found, x = {}, fast(F.conv2d(x, *self.input))
        for name in self.names:
            if name.endswith("_1") and name != self.names[0]:
                x = F.max_pool2d(x, 2)
            found[name] = x = self._convolved(name, F.pad(x, (1, 1, 1, 1), mode="reflect"))
        return found | {LAST: self._convolved("output", x)}

    def forward(self, x: Tensor, wanted: Iterable[str]) -> dict[str, Tensor]:
        found = self._plain(x)
        return {name: found[name] * self.scales[name] for name in wanted}


class Teachers(nn.Module):
    """`teachers(x, wanted)` -> {target: its layer's activation behind the ReLU, channels of usual
    mean 1}."""

    def __init__(
        self, original: Weights | str | Path, last: str, distilled: str | Path | None = None
    ):
        """original: VGG19's weights, in any form that VGG19 takes. last: the last layer that is
        asked for.

        Raises InputError for weights that cannot be used or do not reach conv3_4."""
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
    def forward(self, x: Tensor, wanted: Iterable[Target]) -> dict[Target, Tensor]:
        wanted, found = set(wanted), {}
        for teacher, network in ((ORIGINAL, self.original), (DISTILLED, self.distilled)):
            names = [name for of, name in wanted if of == teacher]
            if names:
                found |= {(teacher, name): f for name, f in network(x, names).items()}
        return found

    def widths(self, wanted: Iterable[Target]) -> dict[Target, int]:
        """The number of channels of each target."""
        found = self(torch.zeros(1, 3, 32, 32), wanted)
        return {target: f.shape[1] for target, f in found.items()}
