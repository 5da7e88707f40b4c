"""Exercises of notebooks 10 to 15: colour, regions, photographs, statistics, networks, large
pictures."""

from __future__ import annotations

from typing import Any

import torch

from nstlab.course.checks import choice, exercise, hint, random
from nstlab.pictures import colour

# --- 10 colour ------------------------------------------------------------------------------------


@exercise("10.1")
def luminance_function(answer: Any) -> str:
    """A function from two pictures to the first one with the second one's luminance."""
    image = random(1, 3, 4, 5)
    other = random(1, 3, 4, 5, seed=1)
    grey = colour.luminance(image)
    wanted = colour.luminance(other)
    mistakes = {
        "that is the other one's luminance; the colours are gone": wanted,
        "take the first one's own luminance away before": image + wanted,
        "that is the other one, with the colours of neither changed": other,
    }
    otherwise = "add the same to all three channels: the difference of the two luminances"
    return hint(answer(image, other), image + wanted - grey, mistakes, otherwise)


@exercise("10.2")
def grey_photo(answer: Any) -> str:
    """What matched colours make of a painting if the photo is grey."""
    return choice(
        answer,
        ("grey", "coloured"),
        "grey",
        "what does the covariance of a grey picture's pixels say of colour?",
    )


# --- 11 regions -----------------------------------------------------------------------------------


@exercise("11.1")
def guided_gram(answer: Any) -> str:
    """A function from features (N, M) and a mask (M,) to the guided Gram matrix."""
    features = random(4, 10)
    mask = random(10, seed=1)
    wanted = (features * mask) @ features.T / mask.sum()
    mistakes = {
        "divide by what the mask adds up to, not by M": (features * mask) @ features.T / 10,
        "the mask is in both factors, and so it is squared": (features * mask)
        @ (features * mask).T
        / mask.sum(),
        "that is the whole picture's; the mask is missing": features @ features.T / 10,
    }
    return hint(
        answer(features, mask),
        wanted,
        mistakes,
        "a weighted mean over positions, with the mask as weights",
    )


@exercise("11.2")
def mask_at_conv4_1(answer: Any) -> str:
    """The height of a mask of 171 px after three poolings."""
    rounded = {"an odd last row is dropped, not kept": 22}
    return hint(answer, 21, rounded, "halve it three times, each time without the rest", 1e-9)


# --- 12 photographs -------------------------------------------------------------------------------


@exercise("12.1")
def left_over(answer: Any) -> str:
    """A function from colours (9, 3) and values (9,) to what the best affine function leaves."""
    colours = random(9, 3)
    values = random(9, seed=1)

    def least(columns: torch.Tensor) -> torch.Tensor:
        return (
            (columns @ torch.linalg.lstsq(columns, values[:, None]).solution - values[:, None])
            .square()
            .sum()
        )

    wanted = least(torch.cat([colours, torch.ones(9, 1)], 1))
    mistakes = {
        "b is missing: add a column of ones to the colours": least(colours),
        "that is the mean of the squares; their sum is asked for": wanted / 9,
        "that is its root; the sum of the squares is asked for": wanted.sqrt(),
    }
    return hint(
        answer(colours, values),
        wanted,
        mistakes,
        "fit a and b by least squares, then add the squares of what is left",
    )


@exercise("12.2")
def neighbours(answer: Any) -> str:
    """How many pixels share a window with one."""
    counted = {
        "that is one window; a pixel is in nine of them": 9,
        "count the pixel itself, too": 24,
    }
    return hint(
        answer,
        25,
        counted,
        "how far to the left and to the right does a window reach that contains the pixel?",
        1e-9,
    )


# --- 13 statistics --------------------------------------------------------------------------------


@exercise("13.1")
def discrepancy(answer: Any) -> str:
    """A function (vectors, vectors, kernel) -> their squared maximum mean discrepancy."""
    x = random(6, 4)
    y = random(9, 4, seed=1)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T) ** 2

    within = kernel(x, x).mean()
    other = kernel(y, y).mean()
    cross = kernel(x, y).mean()
    mistakes = {
        "the last part counts twice: it stands for (x, y) and for (y, x)": within + other - cross,
        "the last part is taken away, not added": within + other + 2 * cross,
        "take means, not sums: the sets may have different sizes": kernel(x, x).sum()
        + kernel(y, y).sum()
        - 2 * kernel(x, y).sum(),
    }
    otherwise = "write |mean of φ(x) - mean of φ(y)|² out, and put k for each product of two φ"
    return hint(answer(x, y, kernel), within + other - 2 * cross, mistakes, otherwise)


@exercise("13.2")
def numbers(answer: Any) -> str:
    """How many numbers a Gram matrix of 512 filters has, and means and deviations."""
    counted = {
        "the matrix is symmetric: what is above its diagonal is below it, too": (512 * 512, 1024),
        "the diagonal counts as well": (512 * 511 // 2, 1024),
        "there are means and deviations": (512 * 513 // 2, 512),
    }
    return hint(
        answer,
        (512 * 513 // 2, 1024),
        counted,
        "count the rows of a triangle: 512 + 511 + …; then two for each filter",
        1e-9,
    )


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
    wanted = (features / temperature).flatten().softmax(0).view_as(features)
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
        wanted,
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
    mean, square = (
        torch.stack([f(v) for v in values]) for f in (torch.mean, lambda v: v.square().mean())
    )
    share = count / count.sum()
    whole = torch.cat(values).var(correction=0)
    mistakes = {
        "tiles have different sizes: weigh each by its count": square.mean() - mean.mean().square(),
        "what lies between the tiles' means is missing": (share * (square - mean.square())).sum(),
    }
    return hint(
        answer(count, mean, square),
        whole,
        mistakes,
        "the mean of all squares, less the square of the mean of all",
    )


# --- 16 real time ---------------------------------------------------------------------------------


@exercise("16.1")
def instance_normalization(answer: Any) -> str:
    """A function (features (B, C, H, W), scales (B, C), shifts (B, C)) -> normalized ones."""
    features = random(2, 3, 4, 5)
    scale = random(2, 3, seed=1)
    shift = random(2, 3, seed=2)

    def normalized(
        over: tuple[int, ...], epsilon: float = 1e-5, correction: int = 0
    ) -> torch.Tensor:
        variance, mean = torch.var_mean(features, over, keepdim=True, correction=correction)
        return (
            scale[..., None, None] * (features - mean) / (variance + epsilon).sqrt()
            + shift[..., None, None]
        )

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
    """A function from a frame, an earlier one moved to it, (1, 3, H, W), and where that can be
    relied on, (1, 1, H, W), to the mean squared difference there."""
    frame = random(1, 3, 4, 5)
    moved = random(1, 3, 4, 5, seed=1)
    where = random(1, 1, 4, 5, seed=2)
    where = (where > where.mean()).to(frame)
    squared = (frame - moved).square()
    mistakes = {
        "that is over all pixels; weigh them by where": squared.mean(),
        "divide by how many pixels can be relied on, not by all": (where * squared).mean(),
        "each of those pixels has three channels": (where * squared).sum() / where.sum(),
    }
    return hint(
        answer(frame, moved, where),
        (where * squared).mean() / where.mean(),
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
