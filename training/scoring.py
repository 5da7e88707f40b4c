"""How well a network transfers style, judged by the original: at equal content error, over pairs of
pictures.

For every pair, β is varied until content errors lie on both sides of AT, and the style error there
is interpolated.
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
SIZE, STEPS = 224, 100
BETAS = 1e-2, 1e6
PAIRS = (
    ("coffee", "swirl_strokes"), ("chelsea", "cubist_planes"), ("astronaut", "mosaic"),
    ("rocket", "stained_glass"),
    ("rocket", "pointillism"), ("motorcycle_left", "wave_engraving"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What is made of a pair, and whether it is judged in the first three blocks or, `deep`, in the
    fourth."""

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

    `reached` is the content error at which the style error holds: AT, or the nearest one found.
    """

    photo: str
    painting: str
    style: float
    reached: float
    scores: tuple[tuple[float, Score], ...]  # (β, score)


def transfer(settings: TransferSettings) -> Tensor:
    """The picture that a transfer ends with, (1, 3, H, W)."""
    return prepare(settings, "cpu").solve().image


def score_pair(
    judge: Judge, weights: str | Path, photo: str, painting: str, kind: str,
    keep: Callable[[Tensor, str], None] = lambda picture, name: None,
) -> Row:  # fmt: skip
    """Make transfers at several β, at most six, until their content errors enclose AT; `keep` is
    given every picture, and a name for it."""
    how = KINDS[kind]
    base = TransferSettings(
        photo, painting, weights=str(weights), size=SIZE, steps=STEPS, beta=1e3, **how.settings
    )
    content, style = im.load(photo, SIZE), im.load(painting)
    found: list[tuple[float, Score]] = []
    points: list[tuple[float, float]] = []
    beta: float | None = 1e3
    while beta is not None and len(found) < 6:
        picture = transfer(dataclasses.replace(base, beta=beta))
        keep(picture, f"{Path(photo).stem}-{Path(painting).stem}-{kind}-{beta:.3g}")
        found.append((beta, judge(picture, content, style)))
        points.append(how.errors(found[-1][1]))
        beta = (
            None
            if kind == "texture"
            else next_beta([(b, error) for (b, _), (error, _) in zip(found, points, strict=True)])
        )
    at = at_content_error(points, AT)
    if kind == "texture" or at is None:
        reached, best = min(points, key=lambda point: (abs(point[0] - AT), point[1]))
        return Row(photo, painting, best, reached, tuple(found))
    return Row(photo, painting, at, AT, tuple(found))


def next_beta(tried: list[tuple[float, float]]) -> float | None:
    """The β to try after these (β, content error).

    None if AT is enclosed closely enough, or out of reach.
    """
    low = max((beta for beta, error in tried if error <= AT), default=None)
    high = min((beta for beta, error in tried if error > AT), default=None)
    if low is None:
        return high / 6 if high / 6 > BETAS[0] else None
    if high is None:
        return low * 6 if low * 6 < BETAS[1] else None
    return math.sqrt(low * high) if high > 4.1 * low else None


def score(
    judge: Judge, weights: str | Path, kind: str, pairs=PAIRS, keep=lambda picture, name: None
) -> Iterator[Row]:
    """A row for each pair."""
    for photo, painting in pairs:
        yield score_pair(judge, weights, photo, painting, kind, keep)
