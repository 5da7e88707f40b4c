"""The rows that are measured in this process: the speed of all parts, and how good pictures are.

Times are medians of runs that alternate with those they are compared with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import geometric_mean, median

import torch
from torch import Tensor

from benchmarks.scene import PAIRS, BenchSettings, Row, Scene, full_width, scene, with_precision
from nstlab.method.engine import minimize
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of, native_halves
from nstlab.method.fast.graphs import Replayed
from nstlab.pictures import starts

RUNS = 5  # of each that is timed, after two that are not
EVALUATIONS = 300  # of the plain loop, whose loss is to be reached
LONG = {512: 2.0, 1024: 6.0}  # px: seconds that 500 evaluations may take on an H200
GROWING = (256, 512, 1024, 2048)  # px


def now(device: torch.device) -> float:
    """The time in seconds, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def alternating(
    work: dict[str, Callable[[], object]], device: torch.device, runs: int = RUNS
) -> dict[str, float]:
    """Time tasks that take turns, after two rounds to warm up.

    Args:
        work: {name: task}.
        device: where they compute.
        runs: how many rounds are timed.

    Returns:
        {name: median seconds}.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for i in range(runs + 2):
        for name, task in work.items():
            began = now(device)
            task()
            if i > 1:
                times[name].append(now(device) - began)
    return {name: median(seconds) for name, seconds in times.items()}


def matmul_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of ten."""
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(12):
        began = now(device)
        a @ b
        best = min(best, now(device) - began)
    return 2 * side**3 / best / 1e9


def evaluation(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time of loss and gradient, against the plain loop and the machine's matrix product."""
    limit = 0.55 if native_halves(device) else 0.97
    least = 0.5 if device.type == "cuda" else 0.75
    rates = {
        precision: matmul_rate(getattr(torch, precision), device)
        for precision in ("float32", *_halves(device))
    }
    yield Row("matrix product, GFLOP/s", rates)
    for size in options.sizes:
        s = scene(full_width(), size, device)
        x = starts.white_noise(s.photo.cpu(), 0).to(device)
        work = {"plain": partial(s.plain().evaluate, x)}
        for precision in rates:
            work[precision] = partial(s.bound(getattr(torch, precision)).evaluate, x)
        seconds = alternating(work, device, 3 if size > 512 else RUNS)
        auto = arithmetic_of(s.net).name
        ratio = seconds[auto] / seconds["plain"]
        shares = {
            precision: s.flops() / seconds[precision] / 1e9 / rate
            for precision, rate in rates.items()
        }
        values = {f"{name}, s": time for name, time in seconds.items()}
        values["auto over plain"] = ratio
        values |= {f"{precision}, of the product": share for precision, share in shares.items()}
        yield Row(
            f"evaluation at {size} px",
            values,
            f"{auto} over plain {limit} or less, {least:.0%} of the product",
            ratio <= limit and shares[auto] >= least,
        )


def _halves(device: torch.device) -> list[str]:
    return [Arithmetic(dtype).name for dtype in native_halves(device)]


def long(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A whole run of 500 evaluations; on a GPU also at 1024 px, and what a recording costs."""
    cuda = device.type == "cuda"
    for size, limit in list(LONG.items())[: None if cuda else 1]:
        s = scene(full_width(), size, device)
        times = [0.0]  # seconds after each step
        start = starts.white_noise(s.photo.cpu(), 0).to(device)
        began = now(device)
        for step in minimize(s.objective, s.net, start, steps=500):
            times.append(now(device) - began)
            if step.evaluations >= 500:
                break
        name = f"500 evaluations at {size} px"
        values = {"s": times[-1]}
        if not cuda:
            yield Row(name, values)
            continue
        steps = [after - before for before, after in itertools.pairwise(times)]
        values["recording, s"] = max(0.0, steps[Replayed.PLAIN] - median(steps))
        yield Row(name, values, f"{limit:g} s or less on an H200", times[-1] <= limit)


def precision(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The final loss (in float32) of runs of 200 steps, divided by that of a run in float32."""
    for pair in range(len(PAIRS)):
        s = scene(options.weights, 256, device, pair, square=False)
        reference = s.bound(torch.float32)
        losses = {}
        for name in ("float32", *_halves(device), "auto"):
            start = starts.white_noise(s.photo.cpu(), 0)
            *_, last = minimize(s.objective, with_precision(s.net, name), start, steps=200)
            losses[name] = float(reference.evaluate(last.best())[0])
        values = {name: loss / losses["float32"] for name, loss in losses.items()}
        yield Row(
            f"loss after 200 steps, {PAIRS[pair][0]}",
            values,
            "auto within 1 %",
            values["auto"] <= 1.01,
        )


WAYS = {  # what is added, one after another: precision, levels, steps at each
    "our L-BFGS, float32": ("float32", 1, 2 * EVALUATIONS),
    "+ 16 bits": ("auto", 1, 2 * EVALUATIONS),
    "+ pyramid": ("auto", 2, 2 * EVALUATIONS),
}


def quality(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Seconds until the loss is as low as that of the plain loop after 300 evaluations.

    The loss is that in float32, at the full size.
    """
    *_, best_way = WAYS
    ratios = []
    for pair in range(len(PAIRS)):
        for start in ("content", "noise"):
            s = scene(options.weights, options.quality_size, device, pair, square=False)
            first = s.photo
            if start == "noise":
                first = starts.white_noise(s.photo.cpu(), 0).to(device)
            began = now(device)
            target, picture = min(s.plain().run(first, EVALUATIONS), key=lambda point: point[0])
            values = {
                "loss": target,
                "plain, s": now(device) - began,
                "loss when saved": s.loss(picture.clamp(0, 1)),
            }
            for way, (name, levels, steps) in WAYS.items():
                if way == best_way or pair == 0:
                    values[f"{way}, s"] = time_to(s, first, target, name, levels, steps, device)
            ratios.append(values[f"{best_way}, s"] / values["plain, s"])
            yield Row(
                f"quality, {' and '.join(PAIRS[pair])}, from {start}",
                values | {"ours over plain": ratios[-1]},
            )
    mean = geometric_mean(ratios)
    yield Row(
        f"quality at {options.quality_size} px, ours over plain",
        {"geometric mean": mean},
        "0.25 or less",
        mean <= 0.25,
    )


def time_to(
    s: Scene,
    first: Tensor,
    target: float,
    precision: str,
    levels: int,
    steps: int,
    device: torch.device,
) -> float:
    """Seconds of optimization until the float32 loss at the full size reaches a target.

    Args:
        s: the transfer.
        first: (1, 3, H, W), the first picture.
        target: the loss.
        precision: in which the run evaluates.
        levels, steps: of the run.
        device: where it computes.

    Returns:
        Seconds; infinite if the target is never reached.
    """
    net = with_precision(s.net, precision)
    seconds = 0.0
    last = None
    reference = s.bound(torch.float32)
    run = minimize(s.objective, net, first, steps=steps, levels=levels)
    while True:
        began = now(device)
        step = next(run, None)
        seconds += now(device) - began
        if step is None:
            return float("inf")
        if step.shape != tuple(first.shape[-2:]) or step.loss > 1.05 * target or step.loss == last:
            continue
        last = step.loss
        if float(reference.evaluate(step.best())[0]) * reference.scale <= target:
            return seconds


def growth(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time of an evaluation for each pixel, by size."""
    values = {}
    for size in GROWING:
        s = scene(full_width(), size, device)
        x = starts.white_noise(s.photo.cpu(), 0).to(device)
        work = {"evaluation": partial(s.bound().evaluate, x)}
        seconds = min(alternating(work, device, 1)["evaluation"] for _ in range(RUNS))
        values[f"{size} px, ns a pixel"] = 1e9 * seconds / size**2
    yield growth_row("growth of time", values)


def growth_row(name: str, values: dict[str, float]) -> Row:
    """The row of what a pixel costs, by size.

    Small pictures bear the fixed costs; in larger ones a pixel must not cost more.
    """
    growth = max(values.values()) / next(iter(values.values()))
    values = values | {"most over smallest picture's": growth}
    return Row(name, values, "1.25 or less", growth <= 1.25)
