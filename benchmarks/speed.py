"""The rows that are measured in this process: how fast an evaluation, a run and the studio are, and
how good the pictures.

Times are medians of runs that alternate with those they are compared with.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import geometric_mean, median
from typing import Any

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
    """{name: median seconds}, from `runs` rounds in which all take their turn, after two rounds to
    warm up."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for i in range(runs + 2):
        for name, task in work.items():
            began = now(device)
            task()
            if i > 1:
                found[name].append(now(device) - began)
    return {name: median(seconds) for name, seconds in found.items()}


def matmul_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        began = now(device)
        a @ b
        best = min(best, now(device) - began)
    return 2 * side**3 / best / 1e9


def evaluation(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time of loss and gradient, compared with the plain loop and with the machine's matrix
    product."""
    limit = 0.55 if native_halves(device) else 0.97
    least = 0.5 if device.type == "cuda" else 0.75
    rates = {p: matmul_rate(getattr(torch, p), device) for p in ("float32", *_halves(device))}
    yield Row("matrix product, GFLOP/s", rates)
    for size in options.sizes:
        s = scene(full_width(), size, device)
        x = starts.white_noise(s.photo.cpu(), 0).to(device)
        ours = {p: s.bound(getattr(torch, p)).evaluate for p in rates}
        work = {"plain": partial(s.plain().evaluate, x)} | {
            p: partial(each, x) for p, each in ours.items()
        }
        seconds = alternating(work, device, 3 if size > 512 else RUNS)
        auto = arithmetic_of(s.net).name
        share = {f"{p}, of the product": s.flops() / seconds[p] / 1e9 / rates[p] for p in rates}
        ratio = seconds[auto] / seconds["plain"]
        values = (
            {f"{name}, s": t for name, t in seconds.items()} | {"auto over plain": ratio} | share
        )
        kept = ratio <= limit and share[f"{auto}, of the product"] >= least
        yield Row(
            f"evaluation at {size} px",
            values,
            f"{auto} over plain {limit} or less, {least:.0%} of the product",
            kept,
        )


def _halves(device: torch.device) -> list[str]:
    return [Arithmetic(dtype).name for dtype in native_halves(device)]


def long(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A whole run of 500 evaluations.

    On a GPU also at 1024 px, and what it costs to record an evaluation.
    """
    cuda = device.type == "cuda"
    for size, limit in list(LONG.items())[: None if cuda else 1]:
        s, seconds = scene(full_width(), size, device), []
        first, began = starts.white_noise(s.photo.cpu(), 0).to(device), now(device)
        for step in minimize(s.objective, s.net, first, steps=500):
            seconds.append(now(device) - began)
            if step.evaluations >= 500:
                break
        values = {"s": seconds[-1]}
        if cuda:
            each = [b - a for a, b in itertools.pairwise([0.0, *seconds])]
            values["recording, s"] = max(0.0, each[Replayed.PLAIN] - median(each))
        target = f"{limit:g} s or less on an H200" if cuda else ""
        yield Row(
            f"500 evaluations at {size} px", values, target, seconds[-1] <= limit if cuda else None
        )


def precision(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The final loss (in float32) of runs of 200 steps, divided by that of a run in float32."""
    for pair in range(len(PAIRS)):
        s = scene(options.weights, 256, device, pair, square=False)
        reference, ends = s.bound(torch.float32), {}
        for p in ("float32", *_halves(device), "auto"):
            *_, last = minimize(
                s.objective,
                with_precision(s.net, p),
                starts.white_noise(s.photo.cpu(), 0),
                steps=200,
            )
            ends[p] = float(reference.evaluate(last.best())[0])
        values = {p: loss / ends["float32"] for p, loss in ends.items()}
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
    """Seconds until the loss (in float32, at the full size) is as low as that of the plain loop
    after 300 evaluations."""
    logs = []
    for pair in range(len(PAIRS)):
        for start in ("content", "noise"):
            s = scene(options.weights, options.quality_size, device, pair, square=False)
            first = (
                s.photo if start == "content" else starts.white_noise(s.photo.cpu(), 0).to(device)
            )
            began = now(device)
            target, picture = min(s.plain().run(first, EVALUATIONS), key=lambda pair: pair[0])
            values = {
                "loss": target,
                "plain, s": now(device) - began,
                "loss when saved": s.loss(picture.clamp(0, 1)),
            }
            for way, (p, levels, steps) in WAYS.items():
                if way == list(WAYS)[-1] or pair == 0:
                    values[f"{way}, s"] = time_to(s, first, target, p, levels, steps, device)
            logs.append(values[f"{list(WAYS)[-1]}, s"] / values["plain, s"])
            yield Row(
                f"quality, {' and '.join(PAIRS[pair])}, from {start}",
                values | {"ours over plain": logs[-1]},
            )
    mean = geometric_mean(logs)
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
    """Seconds of optimization until the float32 loss at the full size reaches the target.

    Infinite if it never does.
    """
    net, seconds, last = with_precision(s.net, precision), 0.0, None
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


def live(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Seconds from moving a control of the studio, while it paints, until the first picture made
    with it is sent to the page; the wait for the next of five frames a second is included."""
    from nstlab.live.studio import Studio, first_settings

    with tempfile.TemporaryDirectory() as folder:
        settings = first_settings().replace(weights="embedded", steps=1_000_000)
        studio = Studio(settings, results=folder, device=device.type)
        try:
            studio.resume()
            for name, moves in MOVES.items():
                seconds = [_until_shown(studio, name, value) for value in moves]
                values = {"median, s": median(seconds), "longest, s": max(seconds)}
                yield Row(f"live at 256 px: {name}", values, "1 s or less", max(seconds) <= 1)
        finally:
            studio.close()


MOVES = {  # fields of the settings, and what they are moved to
    "beta": [100.0 * (1 + i % 7) for i in range(20)],
    "style_weights": [(0.1 * (i % 5), 0.2, 0.2, 0.2, 0.2) for i in range(10)],
    "content_layers": [("conv3_2",), ("conv4_2",)] * 3,
    "tv": [0.1, 0.0] * 3,
    "pool": ["max", "avg"] * 3,
    "painting": ["mosaic", "swirl_strokes"] * 3,
    "size": [192, 256] * 3,
}


def _until_shown(studio: Any, name: str, value: Any) -> float:
    """Seconds from moving a control to the first picture that was made with it."""
    last, shown = studio.session.step, threading.Event()
    enough = 30 if last is None else last.index + 3
    while studio.session.step is None or studio.session.step.index < enough:
        time.sleep(0.01)

    def seen(_: Any) -> None:
        if getattr(studio.painting.settings, name) == value:
            shown.set()

    studio.view.observe(seen, names="picture")
    began = time.perf_counter()
    studio.controls.change(**{name: value})
    if not shown.wait(60):
        raise RuntimeError(f"the studio does not show {name}: {studio.view.message}")
    studio.view.unobserve(seen, names="picture")
    return time.perf_counter() - began


def growth(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time of an evaluation for each pixel, by size."""
    each = {}
    for size in GROWING:
        s = scene(full_width(), size, device)
        bound, x = s.bound(), starts.white_noise(s.photo.cpu(), 0).to(device)
        each[size] = (
            min(alternating({"": partial(bound.evaluate, x)}, device, 1)[""] for _ in range(RUNS))
            / size**2
        )
    yield growth_row(
        "growth of time", {f"{size} px, ns a pixel": 1e9 * per for size, per in each.items()}
    )


def growth_row(name: str, each: dict[str, float]) -> Row:
    """A row of what a pixel costs, by size.

    Small pictures bear the fixed costs; in larger ones a pixel must not cost more.
    """
    smallest = next(iter(each.values()))
    grown = max(each.values()) / smallest
    return Row(name, each | {"most over smallest picture's": grown}, "1.25 or less", grown <= 1.25)
