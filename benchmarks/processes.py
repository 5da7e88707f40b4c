"""The rows that are measured in processes of their own: starts, memory, and runs side by side."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import psutil
import torch

from benchmarks.scene import PAIRS, BenchSettings, Row, full_width, scene
from benchmarks.speed import GROWING, growth_row
from nstlab.base.threads import POLICY, WAITING
from nstlab.method.engine import minimize
from nstlab.method.lbfgs import LBFGS
from nstlab.networks.architectures import ARCHITECTURES
from nstlab.pictures import starts
from nstlab.recipes.prepare import prepare
from nstlab.recipes.transfer import TransferSettings
from nstlab.terms import statistics

PART = 512  # px: long side where parts are compared
KEPT = 4  # curvature pairs where memory is compared
TOGETHER = ("--size", "256", "--steps", "100")  # of the runs side by side


def start_up(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The start of the command line, the best of three."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nstlab", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    code = (
        "import sys, nstlab; print(*{'torch', 'torchvision', 'jupyter', 'pandas', 'IPython'} & "
        "set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = done.stdout.split()
    values = {"nstlab --help, s": min(seconds), "heavy imports": len(heavy)}
    yield Row("start-up", values, "1 s or less, none", min(seconds) <= 1 and not heavy)


def two_at_once(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """One run alone and two at once, each in a new process, on the processor.

    The same is measured with threads that spin while they wait for each other, as long as OpenMP
    lets them by default.
    """
    environments: dict[str, dict[str, str | None]] = {
        "": dict.fromkeys(WAITING, None) | {POLICY: None},
        ", spinning": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    }
    times: dict[str, list[float]] = {}
    for _ in range(3):
        for suffix, environment in environments.items():
            for count, name in ((1, "alone"), (2, "two at once")):
                seconds = seconds_together(count, environment)
                times.setdefault(f"{name}{suffix}, s", []).append(seconds)
    values = {name: median(seconds) for name, seconds in times.items()}
    values["two over alone"] = values["two at once, s"] / values["alone, s"]
    values["alone over spinning"] = values["alone, s"] / values["alone, spinning, s"]
    met = values["two over alone"] <= 2.2 and values["alone over spinning"] <= 1.05
    yield Row(
        "two runs at once, 256 px",
        values,
        "two over alone 2.2 or less, alone over spinning 1.05 or less",
        met,
    )


def seconds_together(count: int, environment: Mapping[str, str | None]) -> float:
    """Seconds that runs take which begin at once.

    Args:
        count: how many.
        environment: variables of their environment; one that is None is removed.
    """
    variables = {
        name: value for name, value in (os.environ | environment).items() if value is not None
    }
    with tempfile.TemporaryDirectory() as folder:
        words = ["transfer", *PAIRS[0], *TOGETHER, "--init", "content", "--weights", "embedded"]
        command = [sys.executable, "-m", "nstlab", *words, "--device", "cpu"]
        began = time.perf_counter()
        processes = []
        for i in range(count):
            outputs = ["--results", f"{folder}/{i}", "--out", f"{folder}/{i}.png"]
            processes.append(
                subprocess.Popen(command + outputs, stdout=subprocess.DEVNULL, env=variables)
            )
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a run failed")
        return time.perf_counter() - began


def first_picture(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time from a new process to the first preview, and to a good picture.

    A picture is good at 80 % of the style loss's final reduction.
    """
    for title, weights in (("embedded", "embedded"), ("VGG19", "random")):
        seconds = child("first_picture", weights, device.type)
        values = {
            "import to preview, s": seconds["preview"],
            "process to preview, s": seconds["process"],
            "to 80 %, s": seconds["good"],
        }
        yield Row(f"first picture, {title}, 512 px", values)


def memory(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Peak memory above that of the idle process, which has the network and the pictures.

    Both contestants have the same history.
    """
    per_pixel = {}
    for size in GROWING:
        ours = child("memory", "ours", str(size), device.type)["bytes"]
        plain = child("memory", "plain", str(size), device.type)["bytes"]
        history = 2 * KEPT * 3 * size * size * 4
        values = {"ours, MB": ours / 1e6, "plain, MB": plain / 1e6, "ours over plain": ours / plain}
        values["history's share of ours"] = history / ours
        per_pixel[f"{size} px, bytes a pixel"] = ours / size**2
        yield Row(f"memory at {size} px", values, "0.6 of plain's or less", ours <= 0.6 * plain)
    yield growth_row("growth of memory", per_pixel)


def parts(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A step's time, and the run's peak of memory beside its estimate, with each part.

    Parts are the statistics of style and the networks.
    """
    base = TransferSettings(*PAIRS[0], size=PART, levels=1, weights="embedded")
    cases = {f"{name} as style": {"statistic": (name,)} for name in statistics.names()}
    cases["patches as style"] |= {"style_layers": ("conv3_1", "conv4_1")}
    cases |= {f"{name}, random": {"network": name, "weights": "random"} for name in ARCHITECTURES}
    cases["vgg19 embedded, smoothed"] = {"temperature": 20.0}
    for name, changes in cases.items():
        numbers = child("part", json.dumps(base.replace(**changes).to_dict()), device.type)
        values = {
            "s": numbers["seconds"],
            "MB": numbers["bytes"] / 1e6,
            "estimated, MB": numbers["estimate"] / 1e6,
        }
        met = numbers["bytes"] < numbers["estimate"] + 1e8
        yield Row(f"{name}, {PART} px", values, "estimated no more than 100 MB too low", met)


# --- what runs in those processes -----------------------------------------------------------------


def child(task: str, *arguments: str) -> dict[str, float]:
    """The JSON that a task of IN_CHILD prints last, in a new process."""
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
    """Print the peak of memory in a few evaluations, above what the process held before."""
    s = scene(full_width(), int(size), torch.device(device))
    first = starts.white_noise(s.photo.cpu(), 0).to(device)
    cuda = device == "cuda"
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


def part(settings: str, device: str) -> None:
    """Print the median time of an evaluation, the peak of memory, and the estimate of that."""
    plan = prepare(TransferSettings.from_dict(json.loads(settings)), device)
    cuda = device == "cuda"
    if cuda:
        idle = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        idle = _resident()
        _forget_peak()
    seconds = []
    began = time.perf_counter()
    evaluations = 0
    for step in itertools.islice(plan.steps(), 16):
        float(step.loss)  # waits until the device has computed it
        ended = time.perf_counter()
        seconds.append((ended - began) / max(1, step.evaluations - evaluations))
        began = ended
        evaluations = step.evaluations
    peak = torch.cuda.max_memory_allocated() if cuda else _peak()
    result = {
        "seconds": median(seconds[4:]),
        "bytes": peak - idle,
        "estimate": plan.memory_needed(),
    }
    print(json.dumps(result))


def _forget_peak() -> None:
    """Let `_peak` count from now on, where that is possible."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _peak() -> int:
    """The process's largest resident size so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where ru_maxrss also counts the process that started this one
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


IN_CHILD = {
    "first_picture": FIRST_PICTURE,
    "memory": "import sys; from benchmarks import processes; processes.peak_memory(*sys.argv[1:])",
    "part": "import sys; from benchmarks import processes; processes.part(*sys.argv[1:])",
}
