"""Exercises of notebooks 14 to 17: networks, large pictures, real time, films."""

from __future__ import annotations

from typing import Any

import torch

from nstlab.course.checks import exercise, hint, random

# --- 14 networks ----------------------------------------------------------------------------------


@exercise("14.1")
def field_of_fire2(answer: Any) -> str:
    """The width, in pixels, of what one position of SqueezeNet's fire2 sees."""
    first = {
        "that is without fire2's own convolution": 7,
        "after each step of 2, the next window's steps are twice as long": 7 + 2,
    }
    return hint(answer, 15, first, "begin with 1 pixel; each window of 3 adds two steps", 1e-9)


@exercise("14.2")
def softmax_function(answer: Any) -> str:
    """A function from features (N, M) and a temperature to their softmax."""
    features = random(4, 10)
    temperature = 3.0
    expected = (features / temperature).flatten().softmax(0).view_as(features)
    mistakes = {
        "that is over the positions of each filter; take all filters together": (
            features / temperature
        ).softmax(1),
        "that is over the filters at each position; take all positions together": (
            features / temperature
        ).softmax(0),
        "the temperature is missing": features.flatten().softmax(0).view_as(features),
        "divide by the sum of all, so that they add up to 1": (features / temperature).exp(),
    }
    return hint(
        answer(features, temperature),
        expected,
        mistakes,
        "exponentials of F / T, over the sum of them all",
    )


# --- 15 how large ---------------------------------------------------------------------------------


@exercise("15.1")
def halo_of_relu3_1(answer: Any) -> str:
    """How many pixels beyond its own a tile needs for relu3_1."""
    mistakes = {
        "behind a pooling, a position is twice as wide": 5,
        "what a pooling sees beyond is that position's own": 13,
    }
    return hint(
        answer,
        10,
        mistakes,
        "count the convolutions of each block, times the width of a position there",
        1e-9,
    )


@exercise("15.2")
def variance_from_tiles(answer: Any) -> str:
    """A function from counts, means and mean squares of tiles to the variance of all numbers."""
    values = [random(count, seed=count) for count in (3, 5, 8)]
    count = torch.tensor([float(len(v)) for v in values])
    mean = torch.stack([v.mean() for v in values])
    square = torch.stack([v.square().mean() for v in values])
    share = count / count.sum()
    variance = torch.cat(values).var(correction=0)
    mistakes = {
        "tiles have different sizes: weigh each by its count": square.mean() - mean.mean().square(),
        "what lies between the tiles' means is missing": (share * (square - mean.square())).sum(),
    }
    return hint(
        answer(count, mean, square),
        variance,
        mistakes,
        "the mean of all squares, less the square of the mean of all",
    )


# --- 16 real time ---------------------------------------------------------------------------------


@exercise("16.1")
def instance_normalization(answer: Any) -> str:
    """A function from features (B, C, H, W), scales and shifts (B, C) to normalized features."""
    features = random(2, 3, 4, 5)
    scale = random(2, 3, seed=1)
    shift = random(2, 3, seed=2)

    def normalized(axes: tuple[int, ...], correction: int = 0) -> torch.Tensor:
        variance, mean = torch.var_mean(features, axes, keepdim=True, correction=correction)
        standard = (features - mean) / (variance + 1e-5).sqrt()
        return scale[..., None, None] * standard + shift[..., None, None]

    mistakes = {
        "that is batch normalization; take each picture by itself": normalized((0, 2, 3)),
        "that is over all channels; take each channel by itself": normalized((1, 2, 3)),
        "the variance is the mean square, without the correction for small samples": normalized(
            (2, 3), correction=1
        ),
    }
    return hint(
        answer(features, scale, shift),
        normalized((2, 3)),
        mistakes,
        "mean and variance over a picture's positions",
    )


@exercise("16.2")
def numbers_of_a_painting(answer: Any) -> str:
    """How many numbers of a model belong to one painting."""
    mistakes = {
        "each channel has a scale and a shift": 1152,
        "there are 13 normalizations, of two widths": 288,
    }
    return hint(answer, 2304, mistakes, "twice the channels of all normalizations", 1e-9)


# --- 17 films -------------------------------------------------------------------------------------


@exercise("17.1")
def temporal_function(answer: Any) -> str:
    """A function from two frames and a mask to their mean squared difference within it.

    The second frame is an earlier one, moved to the first; the mask (1, 1, H, W) is 1 where that
    can be relied on.
    """
    frame = random(1, 3, 4, 5)
    moved = random(1, 3, 4, 5, seed=1)
    reliable = random(1, 1, 4, 5, seed=2)
    reliable = (reliable > reliable.mean()).to(frame)
    squared = (frame - moved).square()
    mistakes = {
        "that is over all pixels; weigh them by where": squared.mean(),
        "divide by how many pixels can be relied on, not by all": (reliable * squared).mean(),
        "each of those pixels has three channels": (reliable * squared).sum() / reliable.sum(),
    }
    return hint(
        answer(frame, moved, reliable),
        (reliable * squared).mean() / reliable.mean(),
        mistakes,
        "weigh, sum up, and divide",
    )


@exercise("17.2")
def seconds_of_a_pan(answer: Any) -> str:
    """After how many seconds nothing of the first frame is seen any more."""
    mistakes = {
        "there are 25 frames a second": 128.0,
        "it is the width that the pan has to cross": 72 / 25,
    }
    return hint(answer, 128 / 25, mistakes, "how many frames until all columns are new ones?", 1e-3)
