"""Grids of settings, carried out on this machine, on several GPUs, or on a Dask cluster.

    settings = TransferSettings("coffee", "mosaic", size=256)
    sweep = Sweep(settings, vary={"beta": [1e2, 1e3], "seed": range(4)})
    for run in sweep.run("results"):
        print(run.case, run.terms, run.stored.folder)

Runs belong to the store, not to the sweep: what any sweep or command has computed before is found.
So a sweep that was stopped, or lost a worker, goes on when it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from pathlib import Path
from typing import Any

import torch

from nstlab.base import signals
from nstlab.base.errors import InputError
from nstlab.base.options import RESULTS
from nstlab.base.settings import DEVICES, to_python
from nstlab.method.steps import Step
from nstlab.recipes.base import RunSettings, named
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare, prepare_here
from nstlab.runs.finished import Case, FinishedRun
from nstlab.runs.store import Store

PATIENCE = 60  # seconds that workers have to keep what they have done when they are to end
# Seconds within which a scheduler must answer, and between two looks for workers.
WORKER_TIMEOUT = 10


# Called after a step, or when the case is done.
Report = Callable[[Case, Step | None, FinishedRun | None], None]


class Sweep:
    """A grid of settings around `base`.

    A key of several fields, ("content_layers", "style_layers"), has values for all of them, which
    vary together. Values may also be a mapping {label: value}, for better labels.

    Args:
        vary: {field: values}; several fields are crossed.
        axes: {axis: its labels}.
        cases: all points of the grid; the last axis changes fastest.

    Raises:
        InputError: for a field or value that is not allowed.
    """

    def __init__(
        self,
        base: RunSettings,
        vary: Mapping[str | tuple[str, ...], Iterable[Any] | Mapping[str, Any]],
    ):
        names = [name for key in vary for name in _fields(key)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{name}: is varied by two axes; each field may be in one")
        axes = {", ".join(_fields(key)): _points(key, values) for key, values in vary.items()}
        self.base = base
        self.axes = {axis: [text for text, _ in points] for axis, points in axes.items()}
        self.cases: list[Case] = []
        for point in itertools.product(*axes.values()):
            labels = dict(zip(axes, (text for text, _ in point), strict=True))
            changes = {}
            for _, values in point:
                changes |= values
            self.cases.append(Case(labels, base.replace(**changes)))

    def run(
        self,
        root: str | Path = RESULTS,
        executor: Executor | None = None,
        device: str = DEVICES[0],
        report: Report | None = None,
    ) -> list[FinishedRun]:
        """Find or compute the run of every case; return them in the order of `cases`.

        A KeyboardInterrupt cancels what has not begun; what is finished stays stored. If runs fail,
        the others are finished first, then the first error is raised, with its case. With several
        GPUs a script needs `if __name__ == "__main__":`, as always with processes.

        Args:
            executor: any of concurrent.futures; its workers must see the same files. By default one
                process for each GPU if there are several, else this process.
            report: called when a case is done and, in this process, after each step.
        """
        store = Store(root)
        report = report or (lambda *_: None)
        with contextlib.nullcontext(executor) if executor else gpu_executor(device) as chosen:
            if chosen is None:
                return _run_here(store, self.cases, device, report)
            return _run_elsewhere(chosen, store, self.cases, device, report)


def label(value: Any) -> str:
    """The text for an axis' value: 1000.0 -> "1000", ("conv1_1", "conv2_1") -> both."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(label, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fields(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _points(key: str | tuple[str, ...], values: Any) -> list[tuple[str, dict[str, Any]]]:
    """The points of an axis, (label, {field: value}) each, with labels that differ."""
    fields = _fields(key)
    axis = ", ".join(fields)
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{axis}: {values!r} is not a list of values")
    if isinstance(values, Mapping):
        labels = list(values)
        values = list(values.values())
    else:
        values = [to_python(value) for value in values]
        labels = [label(value) for value in values]
        if len(set(labels)) < len(labels):
            labels = [str(value) for value in values]
    if not values:
        raise InputError(f"{axis}: there are no values")
    if isinstance(key, str):
        return [(text, {key: value}) for text, value in zip(labels, values, strict=True)]
    for value in values:
        if not isinstance(value, (tuple, list)) or len(value) != len(fields):
            raise InputError(
                f"{axis}: {value!r} has not one value for each of the {len(fields)} fields"
            )
    return [
        (text, dict(zip(fields, value, strict=True)))
        for text, value in zip(labels, values, strict=True)
    ]


# --- carrying it out ------------------------------------------------------------------------------


def _run_here(
    store: Store, cases: Sequence[Case], device: str, report: Report
) -> list[FinishedRun]:
    """Carry out one case after the other in this process; those with the same network share it."""
    done, failed, plan = [], [], None
    for case in cases:
        try:
            plan = prepare_here(case.settings, device, like=plan)
            run, was_stored = store.obtain(plan, lambda step, case=case: report(case, step, None))
        except Exception as error:
            failed.append((case, error))
        else:
            done.append(FinishedRun(case, run, was_stored))
            report(case, None, done[-1])
    _raise_first(failed, len(cases))
    return done


def _run_elsewhere(
    executor: Executor, store: Store, cases: Sequence[Case], device: str, report: Report
) -> list[FinishedRun]:
    """Carry out each case as a task of the executor, and report cases as they are done.

    The workers decide the ids of the runs, since these depend on the arithmetic there."""
    root = str(Path(store.root).absolute())
    futures, done, failed = {}, {}, []
    # All of them, before anything runs.
    inputs = [_inputs(prepare(case.settings, "cpu")) for case in cases]
    try:
        for case, files_of_case in zip(cases, inputs, strict=True):
            try:
                job = case.settings.recipe, case.settings.absolute(), root, device, files_of_case
                futures[executor.submit(work, *job)] = case
            except RuntimeError as error:  # its workers have died, or it was shut down
                failed.append((case, BrokenExecutor(str(error))))
        for future in _as_completed(futures, getattr(executor, "alive", lambda: True)):
            case = futures[future]
            try:
                name, was_stored = future.result()
                run = store.stored(case.settings.recipe, name)
                if not run.is_whole():
                    raise InputError(
                        f"{run.folder} is not here; workers must share the folder of results"
                    )
            except Exception as error:
                failed.append((case, error))
            else:
                done[future] = FinishedRun(case, run, was_stored)
                report(case, None, done[future])
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    _raise_first(failed, len(cases))
    return [done[future] for future in futures]


def _as_completed(futures: Iterable[Future], alive: Callable[[], bool]) -> Iterator[Future]:
    """Yield the futures as they complete. Raises InputError if no worker has been alive at two
    looks in a row."""
    pending = set(futures)
    missed = 0
    while pending:
        finished, pending = wait(pending, WORKER_TIMEOUT, "FIRST_COMPLETED")
        yield from finished
        missed = 0 if finished or alive() else missed + 1
        if missed > 1:
            raise InputError(
                "no worker is left; what is finished is kept; start workers and run the same again"
            )


def _raise_first(failed: Sequence[tuple[Case, Exception]], total: int) -> None:
    """Raise the first error, if there are any, with its case and how many there are."""
    if not failed:
        return
    case, error = failed[0]
    count = f"{len(failed)} of {total} runs failed"
    lost = isinstance(error, CancelledError)  # with its scheduler, which is no fault of the case
    if not lost and (isinstance(error, (InputError, BrokenExecutor)) or _is_dask(error)):
        reason = str(error) or type(error).__name__
        raise InputError(f"{case}: {reason} ({count}); what is finished is kept") from error
    error.add_note(f"in the sweep's case {case}; {count}")
    raise error


def _inputs(plan: Plan) -> dict[str, Any]:
    """What must be the same on all machines: hashes of pictures and weights, version."""
    identity = plan.identity()
    return {name: identity[name] for name in ("inputs", "weights", "version")}


def work(
    recipe: str, settings: dict[str, Any], root: str, device: str, inputs: dict[str, Any]
) -> tuple[str, bool]:
    """Obtain a run in a worker; return its id, and whether it was found.

    Raises:
        InputError: before anything is computed, if the worker's inputs are not those of the machine
            that sent it the run.
    """
    plan = prepare_here(named(recipe).from_dict(settings), device)
    if _inputs(plan) != inputs:
        raise InputError(
            "a worker has other weights, pictures or another nstlab than the machine that sent "
            "it the run"
        )
    run, was_stored = Store(root).obtain(plan)
    return run.id, was_stored


# --- executors ------------------------------------------------------------------------------------


@contextlib.contextmanager
def gpu_executor(device: str) -> Iterator[Executor | None]:
    """One process for each GPU if there are several and `device` allows GPUs, else None."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if count < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    names = context.Queue()
    for name in _gpu_names(count):
        names.put(name)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, context, _take_gpu, (names,)) as executor:
        try:
            with signals.handling(signal.SIG_IGN):  # workers inherit that; Ctrl-C reaches them, too
                for _ in range(count):
                    executor.submit(os.getpid)
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            _end_workers(others)
            raise


def _gpu_names(count: int) -> list[str]:
    """What GPUs are called in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [visible[i] if len(visible) >= count and visible[i] else str(i) for i in range(count)]


def _end_workers(others: Container[Any]) -> None:
    """End the processes that this one started, but for some others."""
    for attempt in itertools.count():
        left = [child for child in multiprocessing.active_children() if child not in others]
        if not left:
            return
        for process in left:
            process.terminate() if attempt < PATIENCE else process.kill()
        left[0].join(1.0)


def _take_gpu(names: Any) -> None:
    """Let this process see one GPU only, and end when the one that started it says so."""
    os.environ["CUDA_VISIBLE_DEVICES"] = names.get()
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: Any) -> None:
    """End what this process does, unless it is keeping what it has done."""
    if not signals.stems_from(sys.exception(), SystemExit):
        raise SystemExit(130)


@contextlib.contextmanager
def dask(address: str, device: str = DEVICES[0]) -> Iterator[Executor]:
    """An executor on a Dask.distributed cluster, whose scheduler gives a lost worker's runs to
    other workers.

    Workers started with `--resources GPU=1` get one run for each GPU.

    Raises:
        InputError: if dask is not installed, no scheduler answers, there is no worker, or device is
            "cuda" and no worker has a GPU.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "dask: dask.distributed is not installed; pip install 'nstlab[dask]'"
        ) from None
    try:
        # In a thread, since notebooks have a loop; a client that failed to connect would make noise
        # at exit.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _connect(address)).result()
        client = Client(address, timeout=WORKER_TIMEOUT, set_as_default=False)
    except Exception as error:  # an odd address, or another server that answers, can raise anything
        raise InputError(
            f"dask: no scheduler answers at '{address}' ({type(error).__name__})"
        ) from None
    with _lost_in_one_line(address), client:
        workers = client.scheduler_info()["workers"]
        if not workers:
            raise InputError(
                f"dask: the scheduler at {address} has no workers; start some with `dask worker "
                f"{address}`"
            )
        gpus = any("GPU" in worker["resources"] for worker in workers.values())
        if device == "cuda" and not gpus:
            raise InputError(
                f"dask: none of the {len(workers)} workers has a GPU (start them with --resources "
                "'GPU=1')"
            )
        resources = {"resources": {"GPU": 1}} if gpus else {}
        executor = client.get_executor(pure=False, **resources)
        executor.alive = lambda: bool(client.scheduler_info().get("workers"))
        yield executor


async def _connect(address: str) -> None:
    """Connect to a Dask scheduler, and leave it again."""
    from distributed.comm import connect
    from distributed.security import Security

    comm = await connect(address, WORKER_TIMEOUT, **Security().get_connection_args("client"))
    await comm.close()


@contextlib.contextmanager
def _lost_in_one_line(address: str) -> Iterator[None]:
    """Turn the errors of a connection that is lost in the block into InputError."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, CancelledError) or _is_dask(error)):
            raise
        lost = f"dask: the scheduler at {address} is lost ({type(error).__name__})"
        raise InputError(
            f"{lost}; what is finished is kept; start it and run the same again"
        ) from None


def _is_dask(error: BaseException) -> bool:
    """Whether an error is Dask's own, such as a lost connection or a killed worker."""
    return type(error).__module__.partition(".")[0] == "distributed"
