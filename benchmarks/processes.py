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
    heavy = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    values = {"nstlab --help, s": min(seconds), "heavy imports": len(heavy)}
    yield Row("start-up", values, "1 s or less, none", min(seconds) <= 1 and not heavy)


def two_at_once(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """One run alone and two at once, each in a process of its own, on the processor; and the same
    with threads that spin as long as OpenMP lets them by default while they wait for each other."""
    shared, spinning = (
        dict.fromkeys(WAITING, None) | {POLICY: None},
        {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    )
    found: dict[str, list[float]] = {}
    for _ in range(3):
        for name, environment in (("", shared), (", spinning", spinning)):
            for count, what in ((1, "alone"), (2, "two at once")):
                found.setdefault(f"{what}{name}, s", []).append(
                    seconds_together(count, environment)
                )
    values = {name: median(seconds) for name, seconds in found.items()}
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
    """Seconds that so many runs take that begin at once.

    A variable that is None is removed from their environment.
    """
    variables = {
        name: value for name, value in (os.environ | environment).items() if value is not None
    }
    with tempfile.TemporaryDirectory() as folder:
        words = ["transfer", *PAIRS[0], *TOGETHER, "--init", "content", "--weights", "embedded"]
        command = [sys.executable, "-m", "nstlab", *words, "--device", "cpu"]
        began = time.perf_counter()
        places = [
            ["--results", f"{folder}/{i}", "--out", f"{folder}/{i}.png"] for i in range(count)
        ]
        running = [
            subprocess.Popen(command + place, stdout=subprocess.DEVNULL, env=variables)
            for place in places
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError("a run failed")
        return time.perf_counter() - began


def first_picture(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """The time from a new process to the first preview, and to a picture at 80 % of the style
    loss's final reduction."""
    for name in ("embedded", "random"):
        found = child("first_picture", name, device.type)
        values = {
            "import to preview, s": found["preview"],
            "process to preview, s": found["process"],
        }
        yield Row(
            f"first picture, {'VGG19' if name == 'random' else name}, 512 px",
            values | {"to 80 %, s": found["good"]},
        )


def memory(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Peak memory above that of the idle process (network and pictures loaded), with the same
    history in both contestants."""
    each = {}
    for size in GROWING:
        ours, plain = (
            child("memory", kind, str(size), device.type)["bytes"] for kind in ("ours", "plain")
        )
        history = 2 * KEPT * 3 * size * size * 4
        values = {"ours, MB": ours / 1e6, "plain, MB": plain / 1e6, "ours over plain": ours / plain}
        values["history's share of ours"] = history / ours
        each[size] = ours / size**2
        yield Row(f"memory at {size} px", values, "0.6 of plain's or less", ours <= 0.6 * plain)
    yield growth_row(
        "growth of memory", {f"{size} px, bytes a pixel": per for size, per in each.items()}
    )


def parts(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """A step's time and the run's peak of memory beside its estimate, with each statistic and each
    network."""
    base = TransferSettings(*PAIRS[0], size=PART, levels=1, weights="embedded")
    each = {f"{name} as style": {"statistic": (name,)} for name in statistics.names()}
    each["patches as style"] |= {"style_layers": ("conv3_1", "conv4_1")}
    each |= {f"{name}, random": {"network": name, "weights": "random"} for name in ARCHITECTURES}
    each["vgg19 embedded, smoothed"] = {"temperature": 20.0}
    for name, changes in each.items():
        found = child("part", json.dumps(base.replace(**changes).to_dict()), device.type)
        values = {
            "s": found["seconds"],
            "MB": found["bytes"] / 1e6,
            "estimated, MB": found["estimate"] / 1e6,
        }
        yield Row(
            f"{name}, {PART} px",
            values,
            "estimated no more than 100 MB too low",
            found["bytes"] < found["estimate"] + 1e8,
        )


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
    first, cuda = starts.white_noise(s.photo.cpu(), 0).to(device), device == "cuda"
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
    """Print the median time of an evaluation in a run's steps, its peak of memory, and the estimate
    of that."""
    plan, cuda, seconds = (
        prepare(TransferSettings.from_dict(json.loads(settings)), device),
        device == "cuda",
        [],
    )
    idle = torch.cuda.memory_allocated() if cuda else _resident()
    torch.cuda.reset_peak_memory_stats() if cuda else _forget_peak()
    began, evaluations = time.perf_counter(), 0
    for step in itertools.islice(plan.steps(), 16):
        ended = (float(step.loss), time.perf_counter())[1]  # once the device has computed it
        seconds.append((ended - began) / max(1, step.evaluations - evaluations))
        began, evaluations = ended, step.evaluations
    peak = torch.cuda.max_memory_allocated() if cuda else _peak()
    print(
        json.dumps(
            {"seconds": median(seconds[4:]), "bytes": peak - idle, "estimate": plan.memory_needed()}
        )
    )


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


IN_CHILD = {
    "first_picture": FIRST_PICTURE,
    "memory": "import sys; from benchmarks import processes; processes.peak_memory(*sys.argv[1:])",
    "part": "import sys; from benchmarks import processes; processes.part(*sys.argv[1:])",
}
