"""The rows about large pictures, each measured in new processes: memory and time, and ranks.

`python -m benchmarks.large SIZE STEPS TILE MEMORY DEVICE` is one such process; with torchrun it is
one of several ranks.
"""

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
from nstlab.method.fast.serving import serve
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
    """Peak memory and time per pixel, by size; and one rank against two."""
    untiled = {size: process(size, "off", "100", device)["seconds a megapixel"] for size in BOTH}
    tiled = {}
    for size, budget in BUDGETS.items():
        numbers = process(size, "auto", budget, device)
        tiled[size] = numbers["seconds a megapixel"]
        yield _size_row(size, budget, numbers["peak"] / 1e9, tiled[size], untiled.get(size))
    # where the features of the whole picture do not fit
    beyond = [tiled[size] for size in BUDGETS if size > BOTH[0]]
    growth = max(beyond) / min(beyond)
    yield Row(
        "time per pixel beyond, longest over shortest",
        {"ratio": growth},
        f"{FLAT} or less",
        growth <= FLAT,
    )
    if device.type == "cpu" and hasattr(os, "sched_setaffinity"):
        yield _ranks_row(device)


def _size_row(
    size: int, budget: str, peak: float, seconds: float, untiled_seconds: float | None
) -> Row:
    """The row of a size: peak in GB, seconds a megapixel in tiles, and without tiles."""
    values = {"peak, GB": peak, "s a megapixel": seconds}
    target = f"{budget} GB or less"
    met = peak <= float(budget)
    if untiled_seconds is not None:
        ratio = seconds / untiled_seconds
        values |= {"whole, s a megapixel": untiled_seconds, "tiles over whole": ratio}
        if size == BOTH[0]:
            target += ", tiles over whole 1.3 or less"
            met = met and ratio <= 1.3
    return Row(f"{size} px with {budget} GB", values, target, met)


def _ranks_row(device: torch.device) -> Row:
    """The time of one rank on a core, and of two ranks on two."""
    one, two = (
        process(RANKED, "auto", "2", device, ranks=ranks)["seconds a megapixel"] for ranks in (1, 2)
    )
    return Row(
        f"two ranks at {RANKED} px, a core each",
        {"one rank, s a megapixel": one, "two, s a megapixel": two, "speed-up": one / two},
        "1.7 times one or more",
        one / two >= 1.7,
    )


def process(
    size: int, tile: str, memory: str, device: torch.device, ranks: int = 0
) -> dict[str, float]:
    """Run a transfer in a new process.

    Args:
        size: px, the long side.
        tile: as `nstlab transfer --tile` takes it.
        memory: GB that it may take.
        device: where it computes.
        ranks: how many, each on a core of its own; 0 for one process on all cores.

    Returns:
        {"seconds a megapixel", "peak" in bytes}.
    """
    launcher = []
    environment = dict(os.environ)
    if ranks:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
        environment |= {"OMP_NUM_THREADS": "1", "PINNED": "1"}
    words = [str(size), str(STEPS), tile, memory, device.type]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "benchmarks.large", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
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
    peak = [0]
    done = threading.Event()
    threading.Thread(target=watch, args=(peak, done), daemon=True).start()
    plan = prepare_here(settings, device, MemoryBudget(tile, float(memory), team))
    if not team.leads:
        serve(plan.objective, plan.net, plan.start, plan.tiling)
        return
    times = [(step.evaluations, time.perf_counter()) for step in plan.steps()]
    team.broadcast(do="end")
    first, began = times[0]
    last, ended = times[-1]
    done.set()
    height, width = plan.shape
    seconds = (ended - began) / (last - first) / (height * width / 1e6)
    print(json.dumps({"seconds a megapixel": seconds, "peak": peak[0]}))


def watch(peak: list[int], done: threading.Event) -> None:
    """Note the most memory that the process ever has."""
    process = psutil.Process()
    while not done.wait(0.02):
        peak[0] = max(peak[0], process.memory_info().rss)


if __name__ == "__main__":
    main(sys.argv[1:])
