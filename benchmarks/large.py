"""The rows about large pictures, each measured in processes of its own: memory and
time by size, and ranks.

`python -m benchmarks.large SIZE STEPS TILE MEMORY` is one such process, or with torchrun one of
several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import psutil
import torch

from benchmarks.scene import PAIRS, BenchSettings, Row
from nstlab.method.fast.ranks import Team
from nstlab.method.fast.tiles import serve
from nstlab.recipes.capacity import MemoryBudget
from nstlab.recipes.prepare import prepare_here
from nstlab.recipes.transfer import TransferSettings

# GB that the process may take, by the size in px
BUDGETS = {1024: "2", 2048: "2.5", 4096: "3.5", 6000: "5"}
# px: sizes that are measured without tiles, too; only the first one fits into the budget as a whole
BOTH = (1024, 2048)
FLAT = 1.25  # the time per pixel of any larger size over that of any other
RANKED = 2048  # px: where ranks are compared
STEPS = 2


def large(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Peak memory of the whole process, and the time of an evaluation per pixel, by size.

    One rank against two.
    """
    whole, cut, peaks = {}, {}, {}
    for size in BOTH:
        whole[size] = process(size, "off", "100", device)["seconds a megapixel"]
    for size, budget in BUDGETS.items():
        found = process(size, "auto", budget, device)
        cut[size], peaks[size] = found["seconds a megapixel"], found["peak"] / 1e9
        values = {"peak, GB": peaks[size], "s a megapixel": cut[size]}
        if size in whole:
            values |= {
                "whole, s a megapixel": whole[size],
                "tiles over whole": cut[size] / whole[size],
            }
        kept = peaks[size] <= float(budget) and (
            size != BOTH[0] or values["tiles over whole"] <= 1.3
        )
        target = f"{budget} GB or less" + (
            ", tiles over whole 1.3 or less" if size == BOTH[0] else ""
        )
        yield Row(f"{size} px with {budget} GB", values, target, kept)
    # where a whole picture's features do not fit
    beyond = [cut[size] for size in BUDGETS if size > BOTH[0]]
    growth = max(beyond) / min(beyond)
    yield Row(
        "time per pixel beyond, longest over shortest",
        {"ratio": growth},
        f"{FLAT} or less",
        growth <= FLAT,
    )
    if device.type == "cpu" and hasattr(os, "sched_setaffinity"):
        seconds = {
            n: process(RANKED, "auto", "2", device, ranks=n)["seconds a megapixel"] for n in (1, 2)
        }
        values = {
            "one rank, s a megapixel": seconds[1],
            "two, s a megapixel": seconds[2],
            "speed-up": seconds[1] / seconds[2],
        }
        yield Row(
            f"two ranks at {RANKED} px, a core each",
            values,
            "1.7 times one or more",
            values["speed-up"] >= 1.7,
        )


def process(
    size: int, tile: str, memory: str, device: torch.device, ranks: int = 0
) -> dict[str, float]:
    """What a run of its own measures; ranks: how many, each on a core of its own; 0: one process on
    all cores."""
    launcher = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
        if ranks
        else []
    )
    command = [
        sys.executable,
        "-m",
        *launcher,
        "benchmarks.large",
        str(size),
        str(STEPS),
        tile,
        memory,
        device.type,
    ]
    environment = os.environ | ({"OMP_NUM_THREADS": "1", "PINNED": "1"} if ranks else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# --- what runs in those processes -----------------------------------------------------------------


def main(words: Sequence[str]) -> None:
    """Run a transfer at one size, and print its peak of memory and its time as JSON."""
    if "PINNED" in os.environ:
        os.sched_setaffinity(0, {int(os.environ.get("LOCAL_RANK", "0"))})
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with Team.join() as team:
            measure(words, team)
    else:
        measure(words, Team(0, 1))


def measure(words: Sequence[str], team: Team) -> None:
    """`main`, as one of a team."""
    size, steps, tile, memory, device = words
    settings = TransferSettings(
        *PAIRS[0], size=int(size), steps=int(steps), levels=1, weights="embedded"
    )
    peak, done = [0], threading.Event()
    threading.Thread(target=watch, args=(peak, done), daemon=True).start()
    plan = prepare_here(settings, device, MemoryBudget(tile, float(memory), team))
    if not team.leads:
        serve(plan.objective, plan.net, plan.start, plan.tiling)
        return
    moments = [(step.evaluations, time.perf_counter()) for step in plan.steps()]
    team.broadcast(do="end")
    (first, began), (last, ended) = moments[0], moments[-1]
    done.set()
    height, width = plan.shape
    seconds = (ended - began) / (last - first) / (height * width / 1e6)
    print(json.dumps({"seconds a megapixel": seconds, "peak": peak[0]}))


def watch(peak: list[int], done: threading.Event) -> None:
    """Note the most memory that the process ever has."""
    own = psutil.Process()
    while not done.wait(0.02):
        peak[0] = max(peak[0], own.memory_info().rss)


if __name__ == "__main__":
    main(sys.argv[1:])
