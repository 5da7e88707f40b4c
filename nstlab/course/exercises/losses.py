"""Exercises of notebooks 10 to 13: colour, regions, photographs, statistics."""

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
    current = colour.luminance(image)
    expected = colour.luminance(other)
    mistakes = {
        "that is the other one's luminance; the colours are gone": expected,
        "take the first one's own luminance away before": image + expected,
        "that is the other one, with the colours of neither changed": other,
    }
    otherwise = "add the same to all three channels: the difference of the two luminances"
    return hint(answer(image, other), image + expected - current, mistakes, otherwise)


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
    expected = (features * mask) @ features.T / mask.sum()
    mistakes = {
        "divide by what the mask adds up to, not by M": (features * mask) @ features.T / 10,
        "the mask is in both factors, and so it is squared": (features * mask)
        @ (features * mask).T
        / mask.sum(),
        "that is the whole picture's; the mask is missing": features @ features.T / 10,
    }
    return hint(
        answer(features, mask),
        expected,
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

    def residual(inputs: torch.Tensor) -> torch.Tensor:
        fitted = inputs @ torch.linalg.lstsq(inputs, values[:, None]).solution
        return (fitted - values[:, None]).square().sum()

    expected = residual(torch.cat([colours, torch.ones(9, 1)], 1))
    mistakes = {
        "b is missing: add a column of ones to the colours": residual(colours),
        "that is the mean of the squares; their sum is asked for": expected / 9,
        "that is its root; the sum of the squares is asked for": expected.sqrt(),
    }
    return hint(
        answer(colours, values),
        expected,
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
    """A function from two sets of vectors and a kernel to their squared mean discrepancy."""
    x = random(6, 4)
    y = random(9, 4, seed=1)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T) ** 2

    within_x = kernel(x, x).mean()
    within_y = kernel(y, y).mean()
    between = kernel(x, y).mean()
    mistakes = {
        "the last part counts twice: it stands for (x, y) and for (y, x)": within_x
        + within_y
        - between,
        "the last part is taken away, not added": within_x + within_y + 2 * between,
        "take means, not sums: the sets may have different sizes": kernel(x, x).sum()
        + kernel(y, y).sum()
        - 2 * kernel(x, y).sum(),
    }
    otherwise = "write |mean of φ(x) - mean of φ(y)|² out, and put k for each product of two φ"
    return hint(answer(x, y, kernel), within_x + within_y - 2 * between, mistakes, otherwise)


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
