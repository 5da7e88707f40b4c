"""How well a network transfers style, judged by the original: at equal content error, over pairs of pictures.

For every pair β is varied until the content error is on both sides of AT, and the style error there is interpolated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nstlab import images as im
from nstlab.judge import CONTENT, STYLE, Judge, Score, at_content_error
from nstlab.recipes import prepare
from nstlab.settings import TransferSettings

AT = 0.6  # content error
SIZE, STEPS = 224, 100
BETAS = 1e-2, 1e6
PAIRS = (
    ("coffee", "swirl_strokes"), ("chelsea", "cubist_planes"), ("astronaut", "mosaic"), ("rocket", "stained_glass"),
    ("rocket", "pointillism"), ("motorcycle_left", "wave_engraving"),
)  # fmt: skip
THREE = {"style_layers": STYLE, "content_layers": (CONTENT,)}
# three: the blocks that the judge sees; five: the paper's layers; texture: no content, from noise
KINDS = {
    "three": THREE | {"init": "content"},
    "five": {"init": "content"},
    "texture": THREE | {"init": "noise", "alpha": 0.0},
}


@dataclass(frozen=True)
class Row:
    """One pair's result. `reached` is the content error at which `style` holds: AT, or the nearest that was met."""

    photo: str
    painting: str
    style: float
    reached: float
    scores: tuple[tuple[float, Score], ...]  # (β, score)


def transfer(settings: TransferSettings) -> Tensor:
    """The picture that a transfer ends with, (1, 3, H, W)."""
    for step in prepare(settings, "cpu").steps():
        last = step
    return last.best()


def score_pair(
    judge: Judge, weights: str | Path, photo: str, painting: str, kind: str,
    keep: Callable[[Tensor, str], None] = lambda picture, name: None,
) -> Row:  # fmt: skip
    """Transfers at several β until AT is enclosed, at most six; `keep` is given every picture, and a name for it."""
    base = TransferSettings(photo, painting, weights=str(weights), size=SIZE, steps=STEPS, beta=1e3, **KINDS[kind])
    content, style = im.load(photo, SIZE), im.load(painting)
    found: list[tuple[float, Score]] = []
    beta: float | None = 1e3
    while beta is not None and len(found) < 6:
        picture = transfer(dataclasses.replace(base, beta=beta))
        keep(picture, f"{Path(photo).stem}-{Path(painting).stem}-{kind}-{beta:.3g}")
        found.append((beta, judge(picture, content, style)))
        beta = None if kind == "texture" else next_beta([(b, score.content) for b, score in found])
    scores = [score for _, score in found]
    at = at_content_error(scores, AT)
    if kind == "texture" or at is None:
        best = min(scores, key=lambda score: (abs(score.content - AT), score.style_mean))
        return Row(photo, painting, best.style_mean, best.content, tuple(found))
    return Row(photo, painting, at, AT, tuple(found))


def next_beta(tried: list[tuple[float, float]]) -> float | None:
    """The β to try after these (β, content error), or None if AT is enclosed closely, or out of reach."""
    low = max((beta for beta, error in tried if error <= AT), default=None)
    high = min((beta for beta, error in tried if error > AT), default=None)
    if low is None:
        return high / 6 if high / 6 > BETAS[0] else None
    if high is None:
        return low * 6 if low * 6 < BETAS[1] else None
    return math.sqrt(low * high) if high > 4.1 * low else None


def score(judge: Judge, weights: str | Path, kind: str, pairs=PAIRS, keep=lambda picture, name: None) -> Iterator[Row]:
    """A row for each pair."""
    for photo, painting in pairs:
        yield score_pair(judge, weights, photo, painting, kind, keep)
