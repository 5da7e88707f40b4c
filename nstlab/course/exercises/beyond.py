"""Exercises of notebooks 10 and 11: colour and regions."""

from __future__ import annotations

from typing import Any

from nstlab import colour
from nstlab.course.checks import choice, exercise, hint, random

# --- 10 colour --------------------------------------------------------------------------------------------------------


@exercise("10.1")
def luminance_function(answer: Any) -> str:
    """A function from two pictures to the first one with the second one's luminance."""
    image, other = random(1, 3, 4, 5), random(1, 3, 4, 5, seed=1)
    own, wanted = colour.luminance(image), colour.luminance(other)
    mistakes = {
        "that is the other one's luminance; the colours are gone": wanted,
        "take the first one's own luminance away before": image + wanted,
        "that is the other one, with the colours of neither changed": other,
    }
    otherwise = "add the same to all three channels: the difference of the two luminances"
    return hint(answer(image, other), image + wanted - own, mistakes, otherwise)


@exercise("10.2")
def grey_photo(answer: Any) -> str:
    """What matched colours make of a painting if the photo is grey."""
    return choice(answer, ("grey", "coloured"), "grey", "what does the covariance of a grey picture's pixels say of colour?")


# --- 11 regions -------------------------------------------------------------------------------------------------------


@exercise("11.1")
def guided_gram(answer: Any) -> str:
    """A function from features (N, M) and a mask (M,) to the guided Gram matrix."""
    features, mask = random(4, 10), random(10, seed=1)
    wanted = (features * mask) @ features.T / mask.sum()
    mistakes = {
        "divide by what the mask adds up to, not by M": (features * mask) @ features.T / 10,
        "the mask is in both factors, and so it is squared": (features * mask) @ (features * mask).T / mask.sum(),
        "that is the whole picture's; the mask is missing": features @ features.T / 10,
    }
    return hint(answer(features, mask), wanted, mistakes, "a weighted mean over positions, with the mask as weights")


@exercise("11.2")
def mask_at_conv4_1(answer: Any) -> str:
    """The height of a mask of 171 px after three poolings."""
    rounded = {"an odd last row is dropped, not kept": 22}
    return hint(answer, 21, rounded, "halve it three times, each time without the rest", 1e-9)
