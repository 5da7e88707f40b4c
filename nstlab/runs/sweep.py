"""Grids of settings, carried out on this machine, on several GPUs, or on a Dask cluster; each run is kept and found again.

    sweep = Sweep(TransferSettings("coffee", "mosaic", size=256), vary={"beta": [1e2, 1e3], "seed": range(4)})
    for done in sweep.run("results"):
        print(done.case, done.run.picture)

A run belongs to the store, not to the sweep: whatever was computed before, by whichever sweep or command, is found. So a
sweep that was stopped, or lost a worker, is taken up by starting it again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nstlab.method.engine import Step
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import RunSettings, named
from nstlab.runs.store import Store, StoredRun
from nstlab.settings import DEVICES, RESULTS, InputError, plain

PATIENCE = 10  # seconds in which a scheduler has to answer, and after which workers are looked for


def label(value: Any) -> str:
    """A value of an axis as it is shown: 1000.0 -> "1000", ("conv1_1", "conv2_1") -> "conv1_1 conv2_1"."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(label, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Case:
    """One point of a grid: its labels by axis, and its settings."""

    labels: dict[str, str]
    settings: RunSettings

    def __str__(self) -> str:
        return ", ".join(f"{axis} {text}" for axis, text in self.labels.items())


@dataclass(frozen=True)
class Done:
    """A case and its finished run; `found` says that it had been computed before."""

    case: Case
    run: StoredRun
    found: bool


Report = Callable[[Case, Step | None, Done | None], None]  # after a step, or when the case is done


@dataclass(frozen=True)
class Sweep:
    """A grid of settings around `base`.

    vary: {field: values}; several fields are crossed. A key of several fields, ("content_layers", "style_layers"), has
    values for all of them, which vary together. Where a label is better than the value itself, values may be a mapping
    {label: value}. Raises InputError for a field or value that is not allowed."""

    base: RunSettings
    vary: Mapping[str | tuple[str, ...], Sequence[Any] | Mapping[str, Any]]

    def __post_init__(self) -> None:
        """Read the axes once (they may be iterators), and refuse now what is not allowed."""
        object.__setattr__(self, "vary", {key: self._read(key, values) for key, values in self.vary.items()})
        names = [name for key in self.vary for name in self._fields(key)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{name}: is varied by two axes; each field may be in one")
        _ = self.cases

    @staticmethod
    def _fields(key: str | tuple[str, ...]) -> tuple[str, ...]:
        return (key,) if isinstance(key, str) else key

    def _read(self, key: str | tuple[str, ...], values: Any) -> tuple[tuple[str, Any], ...]:
        """The points of an axis, (label, value) each; values that look alike are written out."""
        axis = ", ".join(self._fields(key))
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise InputError(f"{axis}: {values!r} is not a list of values")
        named = isinstance(values, Mapping)
        found = tuple(values.items()) if named else tuple((label(value), value) for value in map(plain, values))
        if len({text for text, _ in found}) < len(found):
            found = tuple((str(value), value) for _, value in found)
        if not found:
            raise InputError(f"{axis}: there are no values")
        count = len(self._fields(key))
        for _, value in found:
            if not isinstance(key, str) and (not isinstance(value, (tuple, list)) or len(value) != count):
                raise InputError(f"{axis}: {value!r} has not one value for each of the {count} fields")
        return found

    @property
    def axes(self) -> dict[str, list[str]]:
        """{axis: its labels}, in order."""
        return {", ".join(self._fields(key)): [text for text, _ in points] for key, points in self.vary.items()}

    @property
    def cases(self) -> list[Case]:
        """All points of the grid; the last axis changes fastest."""
        found = []
        for point in itertools.product(*self.vary.values()):
            changes: dict[str, Any] = {}
            for key, (_, value) in zip(self.vary, point, strict=True):
                changes |= {key: value} if isinstance(key, str) else dict(zip(key, value, strict=True))
            labels = dict(zip(self.axes, (text for text, _ in point), strict=True))
            found.append(Case(labels, self.base.replace(**changes)))
        return found

    def run(
        self,
        root: str | Path = RESULTS,
        executor: Executor | None = None,
        device: str = DEVICES[0],
        report: Report | None = None,
    ) -> list[Done]:
        """Every case's finished run, in the order of `cases`; what is stored is found, the rest computed.

        executor: any of concurrent.futures; its workers must see the same files. By default one process for each GPU, if
        there are several, else this one. report: told of each case that is done, and in this process of each step.
        However it ends, what is finished stays finished and the rest can be taken up: a KeyboardInterrupt cancels what
        has not begun. If runs fail, the others are finished first; then the first error is raised, with its case. On several
        GPUs, as always with processes, a script needs `if __name__ == "__main__":`."""
        store, report = Store(Path(root)), report or (lambda *_: None)
        with contextlib.nullcontext(executor) if executor else _gpus(device) as chosen:
            if chosen is None:
                return _here(store, self.cases, device, report)
            return _elsewhere(chosen, store, self.cases, device, report)


def _here(store: Store, cases: Sequence[Case], device: str, report: Report) -> list[Done]:
    """One after the other in this process."""
    done, failed = [], []
    for case in cases:
        try:
            plan = recipes.prepare_here(case.settings, device)
            run, found = store.obtain(plan, lambda step, case=case: report(case, step, None))
        except Exception as error:
            failed.append((case, error))
            continue
        done.append(Done(case, run, found))
        report(case, None, done[-1])
    _raise(failed, len(cases))
    return done


def _elsewhere(executor: Executor, store: Store, cases: Sequence[Case], device: str, report: Report) -> list[Done]:
    """One task a run; finished ones are reported as they come. The workers decide what the runs' ids are, since these
    depend on the arithmetic there."""
    futures: dict[Future, list[Case]] = {}
    done: dict[int, Done] = {}
    failed: list[tuple[Case, BaseException]] = []
    try:
        tasks: dict[str, list[Case]] = {}
        for case in cases:
            settings = _absolute(case.settings)
            sent = (*settings, _inputs(recipes.prepare(case.settings, "cpu")))
            tasks.setdefault(json.dumps(sent, sort_keys=True), []).append(case)  # equal cases once
        for sent, alike in tasks.items():
            recipe, settings, inputs = json.loads(sent)
            futures[executor.submit(work, recipe, settings, str(Path(store.root).absolute()), device, inputs)] = alike
        for future in _as_completed(futures, getattr(executor, "alive", lambda: True)):
            for case in futures[future]:
                try:
                    name, found = future.result()
                    run = store.stored(case.settings.recipe, name)
                    if not run.is_whole():
                        raise InputError(f"{run.folder} is not here; workers must share the folder of results")
                except (CancelledError, Exception) as error:
                    failed.append((case, error))
                    continue
                done[id(case)] = Done(case, run, found)
                report(case, None, done[id(case)])
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    _raise(failed, len(cases))
    return [done[id(case)] for case in cases]


def _as_completed(futures: Iterable[Future], alive: Callable[[], bool]) -> Iterator[Future]:
    """The futures as they complete; InputError if the workers are gone for good."""
    pending, missed = set(futures), 0
    while pending:
        finished, pending = wait(pending, PATIENCE, "FIRST_COMPLETED")
        yield from finished
        missed = 0 if finished or alive() else missed + 1
        if missed > 1:
            raise InputError("no worker is left; what is finished is kept; start workers and run the same again")


def _raise(failed: Sequence[tuple[Case, BaseException]], total: int) -> None:
    """The first error, if there are any, with the case and how many more there are."""
    if not failed:
        return
    case, error = failed[0]
    lost = isinstance(error, (InputError, CancelledError, BrokenExecutor)) or type(error).__name__ == "KilledWorker"
    if not lost:
        error.add_note(f"in the sweep's case {case}; {len(failed)} of {total} runs failed")
        raise error
    raise InputError(f"{case}: {str(error) or type(error).__name__} ({len(failed)} of {total} runs failed)") from error


def _absolute(settings: RunSettings) -> tuple[str, dict[str, Any]]:
    """(recipe, settings as plain values), with the paths of files made absolute, for another working directory."""
    values = settings.to_dict()
    values |= {name: str(Path(path).absolute()) for name, path in settings.files.items()}
    return settings.recipe, values


def _inputs(plan: recipes.Plan) -> dict[str, Any]:
    """What must be the same on every machine: pictures and weights, by their hashes."""
    identity = plan.identity()
    return {name: identity[name] for name in ("inputs", "weights", "algorithm")}


def work(recipe: str, settings: dict[str, Any], root: str, device: str, inputs: dict[str, Any]) -> tuple[str, bool]:
    """A task: compute a run, or find it, or wait for whoever computes it; (its id, whether it was found).

    Raises InputError, before anything is computed, if the worker's pictures or weights are others than the sender's."""
    plan, store = recipes.prepare_here(named(recipe).from_dict(settings), device), Store(Path(root))
    if _inputs(plan) != inputs:
        raise InputError("a worker has other weights, pictures or another nstlab than the machine that sent it the run")
    run, found = store.obtain(plan)
    return run.id, found


# --- where ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _gpus(device: str) -> Iterator[Executor | None]:
    """A process for each GPU, if there are several and they may be used; else None, for this process."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if count < 2:
        yield None
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    names = context.Queue()
    for i in range(count):
        names.put(visible[i] if len(visible) >= count and visible[i] else str(i))
    with ProcessPoolExecutor(count, context, _take_gpu, (names,)) as executor:
        yield executor


def _take_gpu(names: Any) -> None:
    """A new process sees one GPU only."""
    os.environ["CUDA_VISIBLE_DEVICES"] = names.get()


@contextlib.contextmanager
def dask(address: str, device: str = DEVICES[0]) -> Iterator[Executor]:
    """An executor on a Dask.distributed cluster, whose scheduler gives a lost worker's runs to the others.

    Workers that were started with `--resources GPU=1` get one run a GPU. Raises InputError at once if dask is not installed,
    no scheduler answers, there is no worker, or device is "cuda" and no worker has a GPU."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("dask: dask.distributed is not installed; pip install 'nstlab[dask]'") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"dask: no scheduler answers at '{address}' ({type(error).__name__})") from None
    with client:
        workers = client.scheduler_info()["workers"]
        if not workers:
            raise InputError(f"dask: the scheduler at {address} has no workers; start some with `dask worker {address}`")
        gpus = any("GPU" in worker["resources"] for worker in workers.values())
        if device == "cuda" and not gpus:
            raise InputError(f"dask: none of the {len(workers)} workers has a GPU (start them with --resources 'GPU=1')")
        executor = client.get_executor(pure=False, **({"resources": {"GPU": 1}} if gpus else {}))
        executor.alive = lambda: bool(client.scheduler_info()["workers"])
        yield executor
