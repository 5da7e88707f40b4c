"""Our L-BFGS against torch's, at equal numbers of evaluations: `python -m benchmarks.optimizers
--weights FILE`.

The yardstick is torch.optim.LBFGS with a strong-Wolfe line search, history 20, learning rate 1 and
no tolerances, on the same objective (content conv3_3, style conv1_1 conv2_1 conv3_1, β/α = 1000,
average pooling, normalized activations: well scaled, with losses from 1 to 1e4). Three pairs of
pictures are made from noise and from the photo. The loss is the lowest of the first 50, 100 and 200
evaluations. torch's pixels may leave [0, 1], so its loss is also given for the picture clipped as
it would be saved; ours stay inside (row "ours"), or may leave too (row "ours, unbounded").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

import nstlab as nst
from nstlab.method.lbfgs import LBFGS
from nstlab.method.objectives import Bound
from nstlab.method.optimizers import Evaluation

PAIRS = (("astronaut", "swirl_strokes"), ("chelsea", "mosaic"), ("coffee", "wave_engraving"))
CHECKPOINTS = (50, 100, 200)


class Recorder:
    """Evaluates a bound objective, and records the lowest loss at each checkpoint and the loss of
    its picture when clipped."""

    def __init__(self, bound: Bound):
        self.bound, self.count = bound, 0
        self.lowest, self.picture, self.at = math.inf, None, {}

    def __call__(self, x: Tensor):
        self.count += 1
        at = Evaluation(*self.bound.evaluate(x))
        loss = float(at.loss) * self.bound.scale
        if loss < self.lowest:
            self.lowest, self.picture = loss, x.detach().clone()
        if self.count in CHECKPOINTS:
            with torch.no_grad():
                clipped = float(self.bound(self.picture.clamp(0, 1))[0])
            self.at[self.count] = (self.lowest, clipped)
        return at

    @property
    def done(self) -> bool:
        return self.evaluate.count >= CHECKPOINTS[-1]


def ours(bound: Bound, start: Tensor, optimizer: LBFGS) -> dict[int, tuple[float, float]]:
    """{evaluations: (lowest loss, the loss of its picture when clipped)} of our L-BFGS."""
    record = Recorder(bound)
    state = optimizer.init(start, record)
    while not (record.done or state.stalled):
        state = optimizer.step(state, record)
    return record.at


def torchs(bound: Bound, start: Tensor) -> dict[int, tuple[float, float]]:
    """The same for torch's L-BFGS."""
    record, x = Recorder(bound), start.clone().requires_grad_(True)
    options = {
        "lr": 1,
        "history_size": 20,
        "line_search_fn": "strong_wolfe",
        "tolerance_grad": 0,
        "tolerance_change": 0,
    }
    optimizer = torch.optim.LBFGS(
        [x], max_iter=CHECKPOINTS[-1], max_eval=CHECKPOINTS[-1] + 30, **options
    )

    def closure() -> Tensor:
        at = record(x)
        x.grad = at.grad * record.bound.scale
        return at.loss * record.bound.scale

    before = -1
    while not record.done and record.evaluate.count > before:
        before = record.evaluate.count
        optimizer.step(closure)
    return record.at


@dataclass
class Options:
    """Our L-BFGS against torch's at equal evaluations."""

    weights: str = "auto"
    """one of the sources of weights, or a path"""
    size: int = 128
    """long side in pixels"""
    paintings: tuple[str, ...] = tuple(painting for _, painting in PAIRS)
    """a painting for each photo: sample names or paths"""


def main(options: Options) -> None:
    """Print the table; the last line says whether ours was never higher."""
    net, ratios = nst.normalize_activations(nst.VGG19(options.weights)), []
    print(
        f"{'photo':10}{'painting':16}{'start':9}{'optimizer':20}"
        + "".join(f"{n:>11} {'clipped':>9}" for n in CHECKPOINTS)
    )
    for (name, _), painting in zip(PAIRS, options.paintings, strict=True):
        photo = nst.sample(name, options.size)
        style = nst.style(["conv1_1", "conv2_1", "conv3_1"], nst.load(painting))
        bound = (nst.content("conv3_3", photo) + 1e3 * style).bind(net, photo.shape[-2:])
        for start, image in (("noise", nst.noise(photo, seed=0)), ("content", photo)):
            rows = {
                "torch, history 20": torchs(bound, image),
                "ours": ours(bound, image, LBFGS()),
                "ours, unbounded": ours(bound, image, LBFGS(bounds=None)),
            }
            for label, found in rows.items():
                figures = "".join(f"{found[n][0]:11.4g} {found[n][1]:9.4g}" for n in CHECKPOINTS)
                print(
                    f"{name:10}{painting.rpartition('/')[2][:15]:16}{start:9}{label:20}{figures}",
                    flush=True,
                )
            ratios += [
                [found[n][0] / rows["torch, history 20"][n][0] for n in CHECKPOINTS]
                for found in list(rows.values())[1:]
            ]
    for label, part in (("ours", ratios[::2]), ("ours, unbounded", ratios[1::2])):
        logs = torch.tensor(part).log()
        mean, worst = logs.mean(0).exp().tolist(), logs.amax(0).exp().tolist()
        figures = ", ".join(
            f"{n}: {m:.2f}, {w:.2f}" for n, m, w in zip(CHECKPOINTS, mean, worst, strict=True)
        )
        print(
            f"{label}, loss over torch's (geometric mean, worst) at {figures}; never higher: "
            f"{max(worst) <= 1}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
