"""The rows of the benchmark. Each function yields `Row`s; what a row promises stands in its `target`.

Times are medians of runs that alternate with those they are compared with; where nothing is compared, the least. Memory and
starts are measured in processes of their own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.plain import PlainLoop
from nstlab import images as im
from nstlab.method.engine import minimize
from nstlab.method.fast import evaluation as fast
from nstlab.method.fast.arithmetic import Arithmetic, arithmetic_of, native_halves
from nstlab.method.fast.graphs import Replayed
from nstlab.method.lbfgs import LBFGS
from nstlab.method.names import CONTENT_LAYERS, STYLE_LAYERS, WEIGHTS
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.method.objectives import Bound, Objective, content, style
from nstlab.method.weights import Weights, random_weights
from nstlab.settings import DEVICES, Settings, option
from nstlab.threads import POLICY, WAITING

BENCHES = ("start", "two", "evaluation", "long", "growth", "memory", "live", "first", "precision", "quality")
PAIRS = (("coffee", "swirl_strokes"), ("astronaut", "mosaic"), ("chelsea", "wave_engraving"))
ALPHA, BETA = 1.0, 1e3
RUNS = 5  # of each that is timed, after two that are not
EVALUATIONS = 300  # of the plain loop, whose loss is to be reached
LONG = {512: 2.0, 1024: 6.0}  # px: seconds that 500 evaluations may take on an H200
GROWING = (256, 512, 1024, 2048)  # px
KEPT = 4  # curvature pairs where memory is compared


@dataclass(frozen=True, kw_only=True)
class BenchSettings(Settings):
    """Measure speed and memory against the loop that public tools run, with nothing else running (some 40 minutes)."""

    rows: tuple[str, ...] = option(BENCHES, "what to measure", choices=BENCHES)
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    weights: str = option("embedded", "for what is measured by the loss", choices=WEIGHTS, or_path=True)
    sizes: tuple[int, ...] = option((128, 256, 512, 1024), "of the evaluations that are timed", low=64, high=4096, unit="px")
    quality_size: int = option(512, "long side for the time to quality", low=64, high=2048, unit="px")
    json: Path | None = option(None, "keep the result in this file")
    against: Path | None = option(None, "print ratios to an earlier result")


@dataclass(frozen=True)
class Row:
    """One line of the table: numbers by name, what is promised, and whether it is kept (None: nothing promised)."""

    name: str
    values: dict[str, float]
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Scene:
    """A transfer of the paper's kind at a size: everything that the two contestants need."""

    net: VGG19
    photo: Tensor
    painting: Tensor
    content: tuple[str, ...] = CONTENT_LAYERS
    style: tuple[str, ...] = STYLE_LAYERS

    @property
    def objective(self) -> Objective:
        return ALPHA * content(self.content, self.photo) + BETA * style(self.style, self.painting)

    @property
    def reads(self) -> list[str]:
        return self.objective.reads

    def bound(self, dtype: torch.dtype | None = None) -> Bound:
        """In the type, or in the network's own arithmetic."""
        return fast.bind(self.objective, self.net, self.photo.shape[-2:], None if dtype is None else Arithmetic(dtype))

    def loss(self, image: Tensor) -> float:
        """In float32."""
        bound = self.bound(torch.float32)
        return float(bound.evaluate(image)[0]) * bound.scale

    def plain(self) -> PlainLoop:
        n = len(self.content)
        return PlainLoop(self.net, self.photo, self.painting, self.reads[:n], self.reads[n:], ALPHA, BETA)

    def flops(self) -> float:
        """Of an evaluation's convolutions: there and back, two for each multiplication."""
        shapes = self.net.shapes(self.path, self.photo.shape[-2:])
        return 4.0 * sum(getattr(self.net, f"{name}_weight").numel() * h * w for name, (_, h, w) in shapes.items())

    @property
    def path(self) -> list[str]:
        return self.net.path(self.reads)


def with_precision(net: VGG19, precision: str) -> VGG19:
    """The same network, evaluated in another type."""
    other = VGG19(net.weights, net.pool, precision=precision)
    if net.normalized:
        normalize_activations(other)
    return other.to(net.device)


@cache
def full_width() -> Weights:
    """VGG19's size; what the weights are does not matter for the time."""
    return random_weights(0)


def scene(weights: Weights | str, size: int, device: torch.device, pair: int = 0, square: bool = True) -> Scene:
    """Photo and painting of a pair, of one size: square, or of the photo's proportions."""
    net = normalize_activations(VGG19(weights)).to(device)
    photo, painting = im.sample(PAIRS[pair][0], size), im.load(PAIRS[pair][1])
    shape = (size, size) if square else tuple(photo.shape[-2:])
    pictures = [im.fit(picture, shape).to(device) for picture in (photo, painting)]
    if net.weights.layers[-1] < "conv4_2":  # the first three blocks only
        return Scene(net, *pictures, ("conv3_3",), STYLE_LAYERS[:3])
    return Scene(net, *pictures)


def now(device: torch.device) -> float:
    """Seconds, when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def alternating(work: dict[str, Callable[[], object]], device: torch.device, runs: int = RUNS) -> dict[str, float]:
    """{name: median seconds}; two rounds to warm up, then `runs` rounds of all of them in turn."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for i in range(runs + 2):
        for name, task in work.items():
            began = now(device)
            task()
            if i > 1:
                found[name].append(now(device) - began)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def matmul_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        began = now(device)
        a @ b
        best = min(best, now(device) - began)
    return 2 * side**3 / best / 1e9


# --- the rows ---------------------------------------------------------------------------------------------------


def evaluation(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Loss and gradient against the plain loop, and against the machine's matrix product."""
    limit = 0.55 if native_halves(device) else 0.97
    least = 0.5 if device.type == "cuda" else 0.75
    rates = {p: matmul_rate(getattr(torch, p), device) for p in ("float32", *_halves(device))}
    yield Row("matrix product, GFLOP/s", rates)
    for size in options.sizes:
        s = scene(full_width(), size, device)
        x = im.white_noise(s.photo.cpu(), 0).to(device)
        ours = {p: s.bound(getattr(torch, p)).evaluate for p in rates}
        work = {"plain": partial(s.plain().evaluate, x)} | {p: partial(each, x) for p, each in ours.items()}
        seconds = alternating(work, device, 3 if size > 512 else RUNS)
        auto = arithmetic_of(s.net).name
        share = {f"{p}, of the product": s.flops() / seconds[p] / 1e9 / rates[p] for p in rates}
        ratio = seconds[auto] / seconds["plain"]
        values = {f"{name}, s": t for name, t in seconds.items()} | {"auto over plain": ratio} | share
        kept = ratio <= limit and share[f"{auto}, of the product"] >= least
        yield Row(f"evaluation at {size} px", values, f"{auto} over plain {limit} or less, {least:.0%} of the product", kept)


def _halves(device: torch.device) -> list[str]:
    return [Arithmetic(dtype).name for dtype in native_halves(device)]


def long(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A run of 500 evaluations from beginning to end; on a GPU also at 1024 px, and what recording an evaluation costs."""
    cuda = device.type == "cuda"
    for size, limit in list(LONG.items())[: None if cuda else 1]:
        s, seconds = scene(full_width(), size, device), []
        first, began = im.white_noise(s.photo.cpu(), 0).to(device), now(device)
        for step in minimize(s.objective, s.net, first, steps=500):
            seconds.append(now(device) - began)
            if step.evaluations >= 500:
                break
        values = {"s": seconds[-1]}
        if cuda:
            each = [b - a for a, b in itertools.pairwise([0.0, *seconds])]
            values["recording, s"] = max(0.0, each[Replayed.PLAIN] - statistics.median(each))
        target = f"{limit:g} s or less on an H200" if cuda else ""
        yield Row(f"500 evaluations at {size} px", values, target, seconds[-1] <= limit if cuda else None)


def precision(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The loss in float32 that runs of 200 steps end with, over that of a run in float32."""
    for pair in range(len(PAIRS)):
        s = scene(options.weights, 256, device, pair, square=False)
        reference, ends = s.bound(torch.float32), {}
        for p in ("float32", *_halves(device), "auto"):
            *_, last = minimize(s.objective, with_precision(s.net, p), im.white_noise(s.photo.cpu(), 0), steps=200)
            ends[p] = float(reference.evaluate(last.best())[0])
        values = {p: loss / ends["float32"] for p, loss in ends.items()}
        yield Row(f"loss after 200 steps, {PAIRS[pair][0]}", values, "auto within 1 %", values["auto"] <= 1.01)


WAYS = {  # what is added, one after the other: precision, levels, steps at each
    "our L-BFGS, float32": ("float32", 1, 2 * EVALUATIONS),
    "+ 16 bits": ("auto", 1, 2 * EVALUATIONS),
    "+ pyramid": ("auto", 2, 2 * EVALUATIONS),
}


def quality(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Seconds until the loss (in float32, at the full size) is as low as the plain loop's after 300 evaluations."""
    logs = []
    for pair in range(len(PAIRS)):
        for start in ("content", "noise"):
            s = scene(options.weights, options.quality_size, device, pair, square=False)
            first = s.photo if start == "content" else im.white_noise(s.photo.cpu(), 0).to(device)
            began = now(device)
            target, picture = min(s.plain().run(first, EVALUATIONS), key=lambda pair: pair[0])
            values = {"loss": target, "plain, s": now(device) - began, "loss when saved": s.loss(picture.clamp(0, 1))}
            for way, (p, levels, steps) in WAYS.items():
                if way == list(WAYS)[-1] or pair == 0:
                    values[f"{way}, s"] = time_to(s, first, target, p, levels, steps, device)
            logs.append(values[f"{list(WAYS)[-1]}, s"] / values["plain, s"])
            yield Row(f"quality, {' and '.join(PAIRS[pair])}, from {start}", values | {"ours over plain": logs[-1]})
    mean = statistics.geometric_mean(logs)
    yield Row(f"quality at {options.quality_size} px, ours over plain", {"geometric mean": mean}, "0.25 or less", mean <= 0.25)


def time_to(s: Scene, first: Tensor, target: float, precision: str, levels: int, steps: int, device: torch.device) -> float:
    """Seconds of optimization until the float32 loss at the full size is at the target; infinite if it never is."""
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


def first_picture(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """From a new process to the first preview, and to a picture at 80 % of the style's final reduction."""
    for name in ("embedded", "random"):
        found = child("first_picture", name, device.type)
        values = {"import to preview, s": found["preview"], "process to preview, s": found["process"]}
        yield Row(f"first picture, {'VGG19' if name == 'random' else name}, 512 px", values | {"to 80 %, s": found["good"]})


def live(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A control of the studio is moved while the picture is painted: seconds until the page is sent the first picture made
    with it, its five frames a second included."""
    from nstlab.live.studio import Studio, first_settings

    with tempfile.TemporaryDirectory() as folder:
        settings = first_settings().replace(weights="embedded", steps=1_000_000)
        studio = Studio(settings, results=folder, device=device.type)
        try:
            studio.resume()
            for name, moves in MOVES.items():
                seconds = [_until_shown(studio, name, value) for value in moves]
                values = {"median, s": statistics.median(seconds), "longest, s": max(seconds)}
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
    """Move a control, and wait for the first picture that was made with it."""
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


def memory(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Peak above the idle process (network and pictures loaded), with the same history."""
    each = {}
    for size in GROWING:
        ours, plain = (child("memory", kind, str(size), device.type)["bytes"] for kind in ("ours", "plain"))
        history = 2 * KEPT * 3 * size * size * 4
        values = {"ours, MB": ours / 1e6, "plain, MB": plain / 1e6, "ours over plain": ours / plain}
        values["history's share of ours"] = history / ours
        each[size] = ours / size**2
        yield Row(f"memory at {size} px", values, "0.6 of plain's or less", ours <= 0.6 * plain)
    yield _growth("growth of memory", {f"{size} px, bytes a pixel": per for size, per in each.items()})


def growth(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Time of an evaluation per pixel, by size."""
    each = {}
    for size in GROWING:
        s = scene(full_width(), size, device)
        bound, x = s.bound(), im.white_noise(s.photo.cpu(), 0).to(device)
        each[size] = min(alternating({"": partial(bound.evaluate, x)}, device, 1)[""] for _ in range(RUNS)) / size**2
    yield _growth("growth of time", {f"{size} px, ns a pixel": 1e9 * per for size, per in each.items()})


def _growth(name: str, each: dict[str, float]) -> Row:
    """What a pixel costs, by size. Small pictures bear the fixed costs; larger ones must not cost more."""
    smallest = next(iter(each.values()))
    grown = max(each.values()) / smallest
    return Row(name, each | {"most over smallest picture's": grown}, "1.25 or less", grown <= 1.25)


def start_up(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Of the command line, the best of three."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nstlab", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    code = "import sys, nstlab; print(*{'torch', 'torchvision', 'jupyter', 'pandas', 'IPython'} & set(sys.modules))"
    heavy = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    values = {"nstlab --help, s": min(seconds), "heavy imports": len(heavy)}
    yield Row("start-up", values, "1 s or less, none", min(seconds) <= 1 and not heavy)


TOGETHER = ("--size", "256", "--steps", "100")


def two(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A run alone, and two at once, in processes of their own, on the processor; and the same with threads that wait for each
    other as long as OpenMP has them do by default."""
    shared, spinning = dict.fromkeys(WAITING, None) | {POLICY: None}, {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    found: dict[str, list[float]] = {}
    for _ in range(3):
        for name, environment in (("", shared), (", spinning", spinning)):
            for count, what in ((1, "alone"), (2, "two at once")):
                found.setdefault(f"{what}{name}, s", []).append(_together(count, environment))
    values = {name: statistics.median(seconds) for name, seconds in found.items()}
    values["two over alone"] = values["two at once, s"] / values["alone, s"]
    values["alone over spinning"] = values["alone, s"] / values["alone, spinning, s"]
    met = values["two over alone"] <= 2.2 and values["alone over spinning"] <= 1.05
    yield Row("two runs at once, 256 px", values, "two over alone 2.2 or less, alone over spinning 1.05 or less", met)


def _together(count: int, environment: Mapping[str, str | None]) -> float:
    """Seconds that so many runs take that begin at once; of the environment, None is unset."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        words = ["transfer", *PAIRS[0], *TOGETHER, "--init", "content", "--weights", "embedded"]
        command = [sys.executable, "-m", "nstlab", *words, "--device", "cpu"]
        began = time.perf_counter()
        places = [["--results", f"{folder}/{i}", "--out", f"{folder}/{i}.png"] for i in range(count)]
        running = [subprocess.Popen(command + place, stdout=subprocess.DEVNULL, env=variables) for place in places]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError("a run failed")
        return time.perf_counter() - began


ROWS = {
    "start": start_up,
    "two": two,
    "evaluation": evaluation,
    "long": long,
    "growth": growth,
    "memory": memory,
    "live": live,
    "first": first_picture,
    "precision": precision,
    "quality": quality,
}


# --- in processes of their own ----------------------------------------------------------------------------------


def child(task: str, *arguments: str) -> dict[str, float]:
    """What the code of `IN_CHILD` prints, in a new process."""
    environment = os.environ | {"NSTLAB_BEGAN": repr(time.time())}
    command = [sys.executable, "-c", IN_CHILD[task], *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


FIRST_PICTURE = """
import json, os, sys, time
began = time.time()
import nstlab as nst
weights, device = sys.argv[1:]
photo, painting = nst.load("coffee", size=512), nst.load("swirl_strokes")
net = nst.normalize_activations(nst.VGG19(weights)).to(nst.device(device))
goal = nst.content("conv4_2", photo) + 1e3 * nst.style(nst.STYLE_LAYERS, painting)
run, styles, seen = nst.minimize(goal, net, photo, steps=100), [], []
next(run), next(run)
nst.to_pil(next(run).preview()()).save("/dev/null" if os.name == "posix" else "nul", "JPEG")
preview = time.time()
for step in run:
    styles.append(step.terms["style"])
    seen.append(time.time())
enough = styles[0] - 0.8 * (styles[0] - min(styles))
good = next(t for t, value in zip(seen, styles) if value <= enough)
process = float(os.environ["NSTLAB_BEGAN"])
print(json.dumps({"preview": preview - began, "process": preview - process, "good": good - began}))
"""


def peak_memory(kind: str, size: str, device: str) -> None:
    """Print the peak above what the process held before it evaluated, after a dozen evaluations."""
    s = scene(full_width(), int(size), torch.device(device))
    first, cuda = im.white_noise(s.photo.cpu(), 0).to(device), device == "cuda"
    idle = torch.cuda.memory_allocated() if cuda else _resident()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    if kind == "plain":
        for _ in s.plain().run(first, KEPT + 2, KEPT):
            pass
    else:
        for _ in minimize(s.objective, s.net, first, steps=KEPT + 1, optimizer=LBFGS(history=KEPT)):
            pass
    peak = torch.cuda.max_memory_allocated() if cuda else _peak()
    print(json.dumps({"bytes": peak - idle}))


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _peak() -> int:
    """The process's largest resident size so far."""
    import resource

    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where ru_maxrss also counts the process that started this one
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


IN_CHILD = {
    "first_picture": FIRST_PICTURE,
    "memory": "import sys; from benchmarks import measures; measures.peak_memory(*sys.argv[1:])",
}
