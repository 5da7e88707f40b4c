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
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstlab import recipes
from nstlab.engine import Step
from nstlab.settings import DEVICES, RECIPES, RESULTS, InputError, RunSettings
from nstlab.store import Store, StoredRun, run_id

PATIENCE = 10  # seconds in which a scheduler has to answer


def label(value: Any) -> str:
    """A value of an axis as it is shown: 1000.0 -> "1000", ("conv1_1", "conv2_1") -> "conv1_1 conv2_1"."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(label, value))
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _plain(value: Any) -> Any:
    """NumPy's numbers, which grids are often made of, as Python's."""
    return value.item() if isinstance(value, np.generic) else value


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
        _ = self.cases  # so that what is not allowed is refused now

    @property
    def axes(self) -> dict[str, list[str]]:
        """{axis: its labels}, in order."""
        return {self._name(key): [text for text, _ in self._values(values)] for key, values in self.vary.items()}

    @staticmethod
    def _name(key: str | tuple[str, ...]) -> str:
        return key if isinstance(key, str) else ", ".join(key)

    @staticmethod
    def _values(values: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
        named = values.items() if isinstance(values, Mapping) else ((label(value), value) for value in values)
        return [(text, _plain(value)) for text, value in named]

    @property
    def cases(self) -> list[Case]:
        """All points of the grid; the last axis changes fastest."""
        keys, found = list(self.vary), []
        for point in itertools.product(*(self._values(values) for values in self.vary.values())):
            changes: dict[str, Any] = {}
            for key, (_, value) in zip(keys, point, strict=True):
                names, each = ((key,), (value,)) if isinstance(key, str) else (key, value)
                if len(names) != len(each):
                    raise InputError(f"{self._name(key)}: {value!r} has not one value for each of the {len(names)} fields")
                changes |= dict(zip(names, each, strict=True))
            labels = {self._name(key): text for key, (text, _) in zip(keys, point, strict=True)}
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
        has not begun. If runs fail, the others are finished first; then the first error is raised."""
        store, report = Store(Path(root)), report or (lambda *_: None)
        jobs = [_Job.of(case, store, device) for case in self.cases]
        done = {job.id: Done(job.case, job.stored, True) for job in jobs if job.stored is not None}
        for found in done.values():
            report(found.case, None, found)
        todo = {job.id: job for job in jobs if job.id not in done}  # equal cases once
        with contextlib.nullcontext(executor) if executor or not todo else _gpus() as chosen:
            finished = _here(store, todo, device, report) if chosen is None else _elsewhere(chosen, store, todo, device, report)
        done |= finished
        return [Done(job.case, done[job.id].run, done[job.id].found) for job in jobs]


@dataclass(frozen=True, eq=False)
class _Job:
    """A case, the id of its run, and the run itself if it is stored."""

    case: Case
    recipe: str
    id: str
    stored: StoredRun | None

    @classmethod
    def of(cls, case: Case, store: Store, device: str) -> _Job:
        plan = recipes.prepare(case.settings, device)  # not kept: a network for each case is too much
        return cls(case, plan.recipe, run_id(plan), store.find(plan))


def _here(store: Store, todo: Mapping[str, _Job], device: str, report: Report) -> dict[str, Done]:
    """One after the other in this process."""
    done, errors = {}, []
    for job in todo.values():
        try:
            plan = recipes.prepare(job.case.settings, device)
            plan.check_memory()
            stored = store.obtain(plan, lambda step, case=job.case: report(case, step, None))
        except Exception as error:
            errors.append(error)
            continue
        done[job.id] = Done(job.case, stored, False)
        report(job.case, None, done[job.id])
    if errors:
        raise errors[0]
    return done


def _elsewhere(executor: Executor, store: Store, todo: Mapping[str, _Job], device: str, report: Report) -> dict[str, Done]:
    """One task a run; finished ones are reported as they come."""
    futures: dict[Future, _Job] = {}
    done, errors = {}, []
    try:
        for job in todo.values():
            what = (job.recipe, job.case.settings.to_dict(), str(Path(store.root).absolute()), device, job.id)
            futures[executor.submit(work, *what)] = job
        for future in as_completed(futures):
            job = futures[future]
            if error := _error(future):
                errors.append(error)
                continue
            done[job.id] = Done(job.case, store.stored(job.recipe, job.id), False)
            report(job.case, None, done[job.id])
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    if errors:
        raise errors[0]
    return done


def _error(future: Future) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def work(recipe: str, settings: dict[str, Any], root: str, device: str, expected: str) -> str:
    """A task: compute a run, or find it, or wait for whoever computes it; returns its id.

    Raises InputError, before anything is computed, if the worker's pictures or weights are others than the sender's."""
    plan = recipes.prepare(RECIPES[recipe].from_dict(settings), device)
    if run_id(plan) != expected:
        raise InputError("a worker has other weights, pictures or arithmetic than the machine that sent it the run")
    plan.check_memory()
    return Store(Path(root)).obtain(plan).id


# --- where ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _gpus() -> Iterator[Executor | None]:
    """A process for each GPU, if there are several; else None, for this process."""
    count = torch.cuda.device_count()
    if count < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    numbers = context.Queue()
    for i in range(count):
        numbers.put(i)
    with ProcessPoolExecutor(count, context, _take_gpu, (numbers,)) as executor:
        yield executor


def _take_gpu(numbers: Any) -> None:
    """A new process sees one GPU only."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(numbers.get())


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
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise InputError(f"dask: the scheduler at {address} has no workers; start some with `dask worker {address}`")
        gpus = any("GPU" in worker["resources"] for worker in workers.values())
        if device == "cuda" and not gpus:
            raise InputError(f"dask: none of the {len(workers)} workers has a GPU (start them with --resources 'GPU=1')")
        yield client.get_executor(pure=False, **({"resources": {"GPU": 1}} if gpus else {}))
