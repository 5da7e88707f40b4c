"""The loss of painted pictures: that which the optimizer minimises, with its gradient.

The engine's fast path gives the gradient at each painted picture, whose content target is the photo
that was painted (Johnson, Alahi, Fei-Fei 2016, equation 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.feedforward.settings import LearnSettings
from nstlab.method import content, style, total_variation
from nstlab.method.fast.tiles import bind
from nstlab.networks.base import Network
from nstlab.pictures import images as im


class PerceptualLoss:
    """α content + β style + tv of painted pictures, for several paintings.

    Args:
        settings: name the paintings, their size, the weights, and the side of the pictures.
        net: the loss model.

    Raises:
        InputError: for a painting that cannot be read.
    """

    def __init__(self, settings: LearnSettings, net: Network):
        shape = (settings.crop, settings.crop)
        blank = torch.zeros(1, 3, *shape)
        self.style_targets = []  # of each painting, by the layers of terms
        for source in settings.paintings:
            painting = im.load(source, settings.painting_size)
            goal = (
                settings.alpha * content(CONTENT_LAYERS, blank)
                + settings.beta * style(STYLE_LAYERS, painting, fit="own")
                + settings.tv * total_variation()
            )
            self.bound = bind(goal, net, shape)
            self.actives = self.bound.objective.active_layers(self.bound.weights)
            self.content_layers = [active for active in self.actives if active.term.positional]
            content_keys = {active.key for active in self.content_layers}
            self.style_targets.append(
                {
                    key: target.clone()
                    for key, target in self.bound.targets.items()
                    if key not in content_keys
                }
            )

    @property
    def names(self) -> list[str]:
        """The names of the terms, in the order of the values that a call returns."""
        return self.bound.names

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term, by name."""
        return self.bound.weights

    def __call__(
        self, pictures: Tensor, photos: Tensor, paintings: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Evaluate a batch.

        Args:
            pictures: (B, 3, H, W) sRGB in [0, 1], painted.
            photos: (B, 3, H, W), of which each was painted.
            paintings: the index of the painting like which each was painted.

        Returns:
            (gradient of the mean loss at each picture, mean of each unweighted term).
        """
        gradients = torch.empty_like(pictures)
        values = []
        for i, painting in enumerate(paintings):
            self._set_targets(photos[i : i + 1].contiguous(), painting)
            _, gradient, terms = self.bound.evaluate(pictures[i : i + 1].contiguous())
            gradients[i] = gradient[0]
            values.append(terms.clone())
        return gradients.mul_(self.bound.scale / len(pictures)), torch.stack(values).mean(0)

    def _set_targets(self, photo: Tensor, painting: int) -> None:
        """Set the targets, in place, since a CUDA graph reads them where they are."""
        targets = self.bound.targets
        for key, target in self.style_targets[painting].items():
            targets[key].copy_(target)
        for active in self.content_layers:
            for read, features in self.bound.features(photo, {active.read}, self.actives):
                if read == active.read:
                    targets[active.key].copy_(features)
                    break
