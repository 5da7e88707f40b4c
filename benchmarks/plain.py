"""The yardstick: style transfer as public tools do it.

torchvision's VGG19 layers in eager float32 and NCHW, autograd, every activation kept,
`torch.optim.LBFGS` with learning rate 1 and a history of 100, no line search, no pyramid. On the
objective of the convention "mean" with average pooling, and with the weights of a given network, so
that its losses can be compared with ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nstlab.base.names import LAYERS
from nstlab.networks.vgg import VGG19

HISTORY = 100


def layers(net: VGG19, reads: Sequence[str]) -> nn.Sequential:
    """torchvision's layers with the network's weights, up to the deepest that is read."""
    from torchvision.models.vgg import make_layers

    names = LAYERS[: max(LAYERS.index(name) for name in reads) + 1]
    widths = [
        net.channels(name) if name.startswith("conv") else "M"  # torchvision's word for a pooling
        for name in names
        if not name.startswith("relu")
    ]
    modules = [
        nn.AvgPool2d(2) if isinstance(module, nn.MaxPool2d) else module
        for module in make_layers(widths)
    ]
    model = nn.Sequential(*modules[: len(names)])
    tensors = net.tensors()
    for name, module in zip(names, model, strict=True):
        if isinstance(module, nn.Conv2d):
            module.weight.data = tensors[f"{name}.weight"].contiguous()
            module.bias.data = tensors[f"{name}.bias"]
        if isinstance(module, nn.ReLU):
            module.inplace = False  # features are read before and behind
    return model.requires_grad_(False).to(net.device)


def gram(features: Tensor) -> Tensor:
    """(1, C, h, w) -> (C, C), over the number of positions."""
    rows = features.flatten(2)[0]
    return rows @ rows.T / rows.shape[1]


class PlainLoop:
    """Loss and optimization; content and style are read at `relu` layers.

    Args:
        net: whose weights are used.
        photo, painting: (1, 3, H, W) in [0, 1], of the same size.
        content, style: the layers.
        alpha, beta: their weights.
    """

    def __init__(
        self,
        net: VGG19,
        photo: Tensor,
        painting: Tensor,
        content: Sequence[str],
        style: Sequence[str],
        alpha: float,
        beta: float,
    ):
        self.content = content
        self.style = style
        self.alpha = alpha
        self.beta = beta
        self.preprocessing = net.weights.preprocessing
        self.model = layers(net, [*content, *style])
        self.names = LAYERS[: len(self.model)]
        with torch.no_grad():
            self.photo = {name: f for name, f in self.features(photo).items() if name in content}
            self.painting = {
                name: gram(f) for name, f in self.features(painting).items() if name in style
            }

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The features of the layers that are read."""
        x = self.preprocessing(image)
        features = {}
        for name, module in zip(self.names, self.model, strict=True):
            x = module(x)
            if name in (*self.content, *self.style):
                features[name] = x
        return features

    def loss(self, image: Tensor) -> Tensor:
        """α ½ mean (F - P)² + β mean over layers of Σ (G - A)² / 4N²."""
        features = self.features(image)
        content = sum(
            0.5 * F.mse_loss(features[name], target) for name, target in self.photo.items()
        )
        style = sum(
            (gram(features[name]) - target).square().sum() / (4 * len(target) ** 2)
            for name, target in self.painting.items()
        )
        return self.alpha * content / len(self.photo) + self.beta * style / len(self.painting)

    def evaluate(self, image: Tensor) -> Tensor:
        """The gradient at the image."""
        image = image.detach().requires_grad_(True)
        return torch.autograd.grad(self.loss(image), image)[0]

    def run(
        self, start: Tensor, evaluations: int, history: int = HISTORY
    ) -> Iterator[tuple[float, Tensor]]:
        """Optimize.

        Args:
            start: (1, 3, H, W), the first picture.
            evaluations: how many are made.
            history: curvature pairs that are kept.

        Yields:
            (loss, picture) of each evaluation; pixels may leave [0, 1].
        """
        x = start.detach().clone().requires_grad_(True)
        losses: list[float] = []
        optimizer = torch.optim.LBFGS(
            [x],
            lr=1,
            max_iter=1,
            max_eval=2,
            history_size=history,
            tolerance_grad=0,  # it would stop it early on a small loss, as the next one
            tolerance_change=0,
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(x)
            loss.backward()
            losses.append(float(loss.detach()))
            return loss

        while len(losses) < evaluations:
            picture = x.detach().clone()
            optimizer.step(closure)  # evaluates once, then moves
            yield losses[-1], picture
