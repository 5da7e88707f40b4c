"""How well a network transfers style, judged by the original at equal content error.

For every pair, β is varied until content errors lie on both sides of AT. The style error at AT is
interpolated between them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nstlab.pictures import images as im
from nstlab.recipes.prepare import prepare
from nstlab.recipes.transfer import TransferSettings
from training.judge import CONTENT, DEEP, STYLE, Judge, Score, at_content_error

AT = 0.6  # content error
SIZE = 224  # px
STEPS = 100
BETAS = 1e-2, 1e6  # the least and the most that are tried
TRIALS = 6  # transfers of a pair, at most
PAIRS = (
    ("coffee", "swirl_strokes"), ("chelsea", "cubist_planes"), ("astronaut", "mosaic"),
    ("rocket", "stained_glass"),
    ("rocket", "pointillism"), ("motorcycle_left", "wave_engraving"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What is made of a pair.

    Attributes:
        settings: of the transfer.
        deep: whether it is judged in the fourth block, else in the first three.
    """

    settings: dict[str, Any]
    deep: bool = False

    def errors(self, score: Score) -> tuple[float, float]:
        """(content error, style error)."""
        return score.deep if self.deep else score.pair


_THREE = {"style_layers": STYLE, "content_layers": (CONTENT,), "init": "content"}
KINDS = {
    "three": Kind(_THREE),  # the blocks that the judge knows exactly
    "four": Kind(
        {"style_layers": (*STYLE, DEEP), "content_layers": (DEEP,), "init": "content"}, deep=True
    ),
    "five": Kind({"init": "content"}),  # the paper's layers
    "texture": Kind(_THREE | {"init": "noise", "alpha": 0.0}),  # no content, from noise
}


@dataclass(frozen=True)
class Row:
    """One pair's result.

    Attributes:
        photo, painting: the pair.
        style: its style error.
        reached: the content error at which that holds: AT, or the nearest one that was reached.
        scores: (β, score) of each transfer.
    """

    photo: str
    painting: str
    style: float
    reached: float
    scores: tuple[tuple[float, Score], ...]


def transfer(settings: TransferSettings) -> Tensor:
    """The picture that a transfer ends with, (1, 3, H, W)."""
    return prepare(settings, "cpu").solve().image


Keep = Callable[[Tensor, str], None]


def score_pair(
    judge: Judge,
    weights: str | Path,
    photo: str,
    painting: str,
    kind: str,
    keep: Keep = lambda picture, name: None,
) -> Row:
    """Make transfers at several β, until their content errors enclose AT.

    Args:
        judge: of the pictures.
        weights: of the network that makes them.
        photo, painting: names of samples, or paths.
        kind: one of KINDS.
        keep: called with every picture, and a name for it.
    """
    details = KINDS[kind]
    base = TransferSettings(
        photo, painting, weights=str(weights), size=SIZE, steps=STEPS, beta=1e3, **details.settings
    )
    content = im.load(photo, SIZE)
    style = im.load(painting)
    scores: list[tuple[float, Score]] = []
    errors: list[tuple[float, tuple[float, float]]] = []  # (β, (content error, style error))
    beta: float | None = 1e3
    while beta is not None and len(scores) < TRIALS:
        picture = transfer(dataclasses.replace(base, beta=beta))
        keep(picture, f"{Path(photo).stem}-{Path(painting).stem}-{kind}-{beta:.3g}")
        score = judge(picture, content, style)
        scores.append((beta, score))
        errors.append((beta, details.errors(score)))
        if kind == "texture":
            break
        beta = next_beta([(beta, content_error) for beta, (content_error, _) in errors])
    points = [point for _, point in errors]
    style_error = None if kind == "texture" else at_content_error(points, AT)
    reached = AT
    if style_error is None:
        reached, style_error = min(points, key=lambda point: (abs(point[0] - AT), point[1]))
    return Row(photo, painting, style_error, reached, tuple(scores))


def next_beta(tried: list[tuple[float, float]]) -> float | None:
    """The β to try next.

    Args:
        tried: (β, content error) of each so far.

    Returns:
        None if AT is enclosed closely enough, or out of reach.
    """
    low = max((beta for beta, error in tried if error <= AT), default=None)
    high = min((beta for beta, error in tried if error > AT), default=None)
    if low is None:
        return high / 6 if high / 6 > BETAS[0] else None
    if high is None:
        return low * 6 if low * 6 < BETAS[1] else None
    return math.sqrt(low * high) if high > 4.1 * low else None


def score(judge: Judge, weights: str | Path, kind: str) -> Iterator[Row]:
    """Score each of PAIRS; see `score_pair`."""
    for photo, painting in PAIRS:
        yield score_pair(judge, weights, photo, painting, kind)
