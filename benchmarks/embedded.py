"""The embedded network beside the original: `python -m benchmarks.embedded --teacher FILE --pairs
PHOTO PAINTING ...`.

Pictures of 224 px after 100 steps are scored by the original VGG19, of which the first three blocks
are enough. The score is the relative error of the Gram matrices of relu1_1, relu2_1 and relu3_1,
averaged, at a content error (relu3_3) of 0.6, which is found by varying β; textures, from noise and
without content, are scored as they are. The painting itself has 0, the unchanged photo 0.5 to 1.3.
The kinds of pictures are: by the three blocks that the judge sees (content conv3_3), by the five
layers of the paper (content conv4_2), and textures. The original's own pictures are scored too, if
FILE reaches the kind's layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import nstlab as nst
from training import scoring
from training.judge import Judge

Kind = Literal["three", "four", "five", "texture"]


@dataclass
class Options:
    """Score embedded weights beside the original."""

    teacher: Path
    """the original VGG19's weights, conv1_1 to conv3_4 or more"""
    weights: tuple[str, ...] = ("embedded",)
    """sources of weights, or paths"""
    pairs: tuple[tuple[str, str], ...] = scoring.PAIRS
    """photo and painting of each pair: sample names or paths"""
    kinds: tuple[Kind, ...] = tuple(scoring.KINDS)
    pictures: Path | None = None
    """a folder for every picture that is scored"""


def sources(options: Options, judge: Judge, kind: str) -> list[str]:
    """The weights to score; the original's are the last, where they reach deep enough."""
    deep = kind != "five" or "conv5_1" in judge.net.weights.layers
    return [*options.weights, *([str(options.teacher)] if deep else [])]


def rows(
    options: Options, judge: Judge, kind: str, compared: list[str]
) -> Iterator[tuple[str, list[scoring.Row]]]:
    """(name of the pair, a row for each of the weights compared)."""
    for photo, painting in options.pairs:
        found = []
        for weights in compared:
            keep = keeper(options.pictures, Path(weights).stem)
            found.append(scoring.score_pair(judge, weights, photo, painting, kind, keep))
        yield f"{Path(photo).stem}, {Path(painting).stem}", found


def keeper(folder: Path | None, label: str):
    """A function that writes a picture into the folder, or does nothing if there is none."""
    if folder is None:
        return lambda picture, name: None
    folder.mkdir(parents=True, exist_ok=True)
    return lambda picture, name: nst.save(picture, folder / f"{name}-{label}.png")


def main(options: Options) -> None:
    """Print a Markdown table for each kind."""
    judge = Judge(options.teacher)
    for kind in options.kinds:
        compared = sources(options, judge, kind)
        labels = [Path(weights).stem for weights in compared]
        print(f"\n| {kind} | " + " | ".join(labels) + " |\n|---" + "|---" * len(labels) + "|")
        found = []
        for pair, scored in rows(options, judge, kind, compared):
            found.append(scored)
            print(f"| {pair} | " + " | ".join(map(cell, scored)) + " |", flush=True)
        means = [
            sum(row.style for row in column) / len(found) for column in zip(*found, strict=True)
        ]
        print("| mean | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)


def cell(row: scoring.Row) -> str:
    """The style error, with the content error at which it holds if that is not the one asked
    for."""
    elsewhere = len(row.scores) > 1 and row.reached != scoring.AT
    return f"{row.style:.3f}" + (f" at {row.reached:.2f}" if elsewhere else "")


if __name__ == "__main__":
    main(tyro.cli(Options))
