"""Our L-BFGS against torch's, at equal numbers of evaluations: `python -m benchmarks optimizers`.

The yardstick is torch.optim.LBFGS with a strong-Wolfe line search, history 20, learning rate 1 and
no tolerances, on the same objective (content conv3_3, style conv1_1 conv2_1 conv3_1, β/α = 1000,
average pooling, normalized activations: well scaled, with losses from 1 to 1e4). Three pairs of
pictures are made from noise and from the photo. The loss is the lowest of the first 50, 100 and 200
evaluations. torch's pixels may leave [0, 1], so its loss is also given for the picture clipped as
it would be saved; ours stay inside (row "ours"), or may leave too (row "ours, unbounded").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import nstlab as nst
from benchmarks.scene import weights_option
from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.method.lbfgs import LBFGS
from nstlab.method.objectives import Bound
from nstlab.method.optimizers import Evaluation

PAIRS = (("astronaut", "swirl_strokes"), ("chelsea", "mosaic"), ("coffee", "wave_engraving"))
CHECKPOINTS = (50, 100, 200)
TORCH = "torch, history 20"

# {evaluations: (lowest loss, the loss of its picture when clipped)}
Losses = dict[int, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class OptimizersSettings(Settings):
    """Compare our L-BFGS with torch's at equal numbers of evaluations."""

    weights: str = weights_option("auto")
    size: int = option(128, "long side", low=64, high=4096, unit="px")
    paintings: tuple[str, ...] = option(
        tuple(painting for _, painting in PAIRS), "a painting for each of the three photos"
    )


class Recorder:
    """Evaluates a bound objective, and records the losses at each checkpoint.

    Attributes:
        count: evaluations so far.
        losses: of the checkpoints so far.
    """

    def __init__(self, bound: Bound):
        self.bound = bound
        self.count = 0
        self.losses: Losses = {}
        self._lowest = math.inf
        self._picture: Tensor | None = None  # where the loss was lowest

    def __call__(self, picture: Tensor) -> Evaluation:
        self.count += 1
        evaluation = Evaluation(*self.bound.evaluate(picture))
        loss = float(evaluation.loss) * self.bound.scale
        if loss < self._lowest:
            self._lowest = loss
            self._picture = picture.detach().clone()
        if self.count in CHECKPOINTS:
            with torch.no_grad():
                clipped = float(self.bound(self._picture.clamp(0, 1))[0])
            self.losses[self.count] = (self._lowest, clipped)
        return evaluation

    @property
    def done(self) -> bool:
        """Whether the last checkpoint is passed."""
        return self.count >= CHECKPOINTS[-1]


def run_ours(bound: Bound, start: Tensor, optimizer: LBFGS) -> Losses:
    """The losses of our L-BFGS."""
    record = Recorder(bound)
    state = optimizer.init(start, record)
    while not (record.done or state.stalled):
        state = optimizer.step(state, record)
    return record.losses


def run_torchs(bound: Bound, start: Tensor) -> Losses:
    """The losses of torch's L-BFGS."""
    record = Recorder(bound)
    picture = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [picture],
        lr=1,
        max_iter=CHECKPOINTS[-1],
        max_eval=CHECKPOINTS[-1] + 30,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )

    def closure() -> Tensor:
        evaluation = record(picture)
        picture.grad = evaluation.grad * bound.scale
        return evaluation.loss * bound.scale

    before = -1
    while not record.done and record.count > before:
        before = record.count
        optimizer.step(closure)
    return record.losses


def optimizers_command(settings: OptimizersSettings) -> int:
    """Print the table; the last lines say whether ours was never higher."""
    net = nst.normalize_activations(nst.VGG19(settings.weights))
    header = "".join(f"{count:>11} {'clipped':>9}" for count in CHECKPOINTS)
    print(f"{'photo':10}{'painting':16}{'start':9}{'optimizer':20}{header}")
    ratios: dict[str, list[list[float]]] = {}  # of losses over torch's, by optimizer
    for (name, _), painting in zip(PAIRS, settings.paintings, strict=True):
        photo = nst.sample(name, settings.size)
        style = nst.style(["conv1_1", "conv2_1", "conv3_1"], nst.load(painting))
        bound = (nst.content("conv3_3", photo) + 1e3 * style).bind(net, photo.shape[-2:])
        title = f"{name:10}{painting.rpartition('/')[2][:15]:16}"
        for start, picture in (("noise", nst.noise(photo, seed=0)), ("content", photo)):
            rows = compare(bound, picture)
            for label, losses in rows.items():
                cells = "".join(f"{low:11.4g} {clipped:9.4g}" for low, clipped in losses.values())
                print(f"{title}{start:9}{label:20}{cells}", flush=True)
            theirs = rows.pop(TORCH)
            for label, losses in rows.items():
                ratio = [losses[count][0] / theirs[count][0] for count in CHECKPOINTS]
                ratios.setdefault(label, []).append(ratio)
    for label, table in ratios.items():
        print(summary(label, table))
    return 0


def compare(bound: Bound, picture: Tensor) -> dict[str, Losses]:
    """The losses of each optimizer, from a first picture."""
    return {
        TORCH: run_torchs(bound, picture),
        "ours": run_ours(bound, picture, LBFGS()),
        "ours, unbounded": run_ours(bound, picture, LBFGS(bounds=None)),
    }


def summary(label: str, ratios: Sequence[Sequence[float]]) -> str:
    """What the ratios of an optimizer's losses, (runs, CHECKPOINTS), amount to."""
    logs = torch.tensor(ratios).log()
    means = logs.mean(0).exp().tolist()
    worst = logs.amax(0).exp().tolist()
    columns = zip(CHECKPOINTS, means, worst, strict=True)
    cells = ", ".join(f"{count}: {mean:.2f}, {most:.2f}" for count, mean, most in columns)
    return (
        f"{label}, loss over torch's (geometric mean, worst) at {cells}; never higher: "
        f"{max(worst) <= 1}"
    )
