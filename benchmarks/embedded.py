"""The embedded network beside the original: `python -m benchmarks embedded FILE`.

Pictures of 224 px after 100 steps are scored by the original VGG19, of which the first three blocks
are enough. The score is the relative error of the Gram matrices of relu1_1, relu2_1 and relu3_1,
averaged, at a content error (relu3_3) of 0.6, which is found by varying β; textures, from noise and
without content, are scored as they are. The painting itself has 0, the unchanged photo 0.5 to 1.3.
The kinds of pictures are: by the three blocks that the judge sees (content conv3_3), by the five
layers of the paper (content conv4_2), and textures. The original's own pictures are scored too, if
FILE reaches the kind's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import nstlab as nst
from benchmarks.scene import pairs_of, pairs_option, teacher_option
from nstlab.base.options import option
from nstlab.base.settings import Settings
from training import scoring
from training.judge import Judge


@dataclass(frozen=True)
class EmbeddedSettings(Settings):
    """Score embedded weights beside the original's."""

    teacher: Path = teacher_option()
    weights: tuple[str, ...] = option(("embedded",), "sources of weights, or paths")
    pairs: tuple[str, ...] = pairs_option(scoring.PAIRS)
    kinds: tuple[str, ...] = option(
        tuple(scoring.KINDS), "of pictures", choices=tuple(scoring.KINDS)
    )
    pictures: Path | None = option(None, "folder for every picture that is scored")


def compared_weights(settings: EmbeddedSettings, judge: Judge, kind: str) -> list[str]:
    """The weights to score; the original's are the last, where they reach deep enough."""
    weights = list(settings.weights)
    if kind != "five" or "conv5_1" in judge.net.weights.layers:
        weights.append(str(settings.teacher))
    return weights


def rows(
    settings: EmbeddedSettings, judge: Judge, kind: str, compared: Sequence[str]
) -> Iterator[tuple[str, list[scoring.Row]]]:
    """Score each pair; yields (its name, a row for each of the weights that are compared)."""
    for photo, painting in pairs_of(settings.pairs):
        scored = []
        for weights in compared:
            keep = keeper(settings.pictures, Path(weights).stem)
            scored.append(scoring.score_pair(judge, weights, photo, painting, kind, keep))
        yield f"{Path(photo).stem}, {Path(painting).stem}", scored


def keeper(folder: Path | None, label: str) -> Callable[[Tensor, str], None]:
    """A function that writes a picture into the folder, or does nothing if there is none."""
    if folder is None:
        return lambda picture, name: None
    folder.mkdir(parents=True, exist_ok=True)
    return lambda picture, name: nst.save(picture, folder / f"{name}-{label}.png")


def embedded_command(settings: EmbeddedSettings) -> int:
    """Print a Markdown table for each kind."""
    judge = Judge(settings.teacher)
    for kind in settings.kinds:
        compared = compared_weights(settings, judge, kind)
        labels = [Path(weights).stem for weights in compared]
        print(f"\n| {kind} | " + " | ".join(labels) + " |\n|---" + "|---" * len(labels) + "|")
        table = []
        for pair, scored in rows(settings, judge, kind, compared):
            table.append(scored)
            print(f"| {pair} | " + " | ".join(map(cell, scored)) + " |", flush=True)
        columns = zip(*table, strict=True)
        means = [sum(row.style for row in column) / len(table) for column in columns]
        print("| mean | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)
    return 0


def cell(row: scoring.Row) -> str:
    """The style error, with its content error if that is not the one asked for."""
    elsewhere = len(row.scores) > 1 and row.reached != scoring.AT
    return f"{row.style:.3f}" + (f" at {row.reached:.2f}" if elsewhere else "")
