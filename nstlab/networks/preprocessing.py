"""How pictures are prepared for a network's weights.

Preprocessing belongs to the weights. Two are in use: torchvision's (RGB in [0, 1], mean and
standard deviation of ImageNet) and the original's (BGR in [0, 255], mean subtracted: Simonyan and
Zisserman's Caffe model). A safetensors file may state its own in its metadata, as `input`: "BGR,
0-255, mean 103.939/116.779/123.68 subtracted, std 1".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nstlab.base.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """Turns sRGB in [0, 1] into the network's input: (image[order] · scale - mean) / std.

    Attributes:
        order: of the channels, "RGB" or "BGR".
        scale: the number that is white, 1 or 255.
        mean, std: of each channel, in that order and scale.
    """

    order: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), sRGB in [0, 1] -> (B, 3, H, W) as the weights expect it.

        Raises:
            InputError: if the image has not 3 channels.
        """
        if image.shape[1] != 3:
            raise InputError(
                f"a picture has 3 channels, (1, 3, H, W); this one has {image.shape[1]}"
            )
        if self.order == "BGR":
            image = image.flip(1)
        # Plain numbers, so that nothing is sent to a device.
        channels = zip(image.unbind(1), self.mean, self.std, strict=True)
        return torch.stack([x * (self.scale / std) - mean / std for x, mean, std in channels], 1)

    def __str__(self) -> str:
        mean = "/".join(f"{value:g}" for value in self.mean)
        std = "/".join(f"{value:g}" for value in self.std)
        if len(set(self.std)) == 1:
            std = str(self.std[0])
        return f"{self.order}, 0-{self.scale:g}, mean {mean} subtracted, std {std}"

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read what str() writes.

        Raises:
            InputError: for anything else, and for numbers that are too small or too large.
        """
        number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
        numbers = rf"({number}(?:/{number}/{number})?)"  # one or three
        match = re.fullmatch(
            rf"(RGB|BGR), 0-(1|255), mean {numbers} subtracted, std {numbers}", text.strip()
        )
        if match is None:
            raise InputError(
                f"input '{text}' is not of the form 'BGR, 0-255, mean 1/2/3 subtracted, std 1'"
            )
        mean = _three(match[3])
        std = _three(match[4])
        if not (1e-9 <= min(std) <= max(std) <= 1e9 and max(map(abs, mean)) <= 1e9):
            raise InputError(
                f"input '{text}': allowed are a std from 1e-9 to 1e9, and a mean from -1e9 to 1e9"
            )
        return cls(match[1], float(match[2]), mean, std)


def _three(text: str) -> tuple[float, float, float]:
    """Three numbers from "1/2/3", or from "1", which stands for three times the same."""
    numbers = [float(number) for number in text.split("/")]
    return triple(numbers if len(numbers) == 3 else numbers * 3)


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers as a tuple."""
    first, second, third = values
    return first, second, third


TORCHVISION = Preprocessing()
CAFFE = Preprocessing("BGR", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
