"""Sweeps: grids of settings, each run once, in process, in other processes, and on a Dask cluster that loses a worker."""

import os
import signal
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import raise_at

from nstlab.method.fast import arithmetic
from nstlab.recipes.plan import Plan
from nstlab.runs import sweep as sweeps
from nstlab.runs.stored import run_id
from nstlab.runs.sweep import Sweep
from nstlab.settings import InputError


@pytest.fixture
def base(settings):
    return settings.replace(steps=4)


@pytest.fixture
def folder(root):
    """Where the runs are."""
    return root / "runs" / "transfer"


# --- the grid ---------------------------------------------------------------------------------------------------


def test_axes_are_crossed_and_fields_of_one_axis_vary_together(base):
    layers = [(("conv2_2",), ("conv1_1",)), (("conv4_2",), ("conv1_1", "conv2_1"))]
    sweep = Sweep(base, {"beta": [1.0, 1e3], ("content_layers", "style_layers"): layers})
    found = [(c.settings.beta, c.settings.content_layers, c.settings.style_layers) for c in sweep.cases]
    assert found == [(beta, *pair) for beta in (1.0, 1e3) for pair in layers]
    assert sweep.cases[0].labels == {"beta": "1", "content_layers, style_layers": "conv2_2 conv1_1"}
    assert sweep.axes["beta"] == ["1", "1000"]


def test_values_may_have_labels(base):
    sweep = Sweep(base, {"beta": {"little": 1.0, "much": 100.0}, "seed": range(2)})
    assert [str(case) for case in sweep.cases][:2] == ["beta little, seed 0", "beta little, seed 1"]
    assert [case.settings.seed for case in sweep.cases] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("vary", "labels", "last"),
    [
        ({("beta", "seed"): zip([1.0, 2.0], [3, 4], strict=True)}, {"beta, seed": ["1 3", "2 4"]}, (2.0, 4)),  # read once
        ({"beta": [1234567.0, 1234568.0]}, {"beta": ["1234567.0", "1234568.0"]}, (1234568.0, 0)),  # not "1.23457e+06"
        ({"beta": np.logspace(0, 2, 3), "seed": np.arange(2)}, {"beta": ["1", "10", "100"], "seed": ["0", "1"]}, (100.0, 1)),
    ],
    ids=["iterator", "alike", "numpy"],
)
def test_anything_with_values_is_an_axis(base, vary, labels, last):
    sweep = Sweep(base, vary)
    assert sweep.axes == labels
    assert [(case.settings.beta, case.settings.seed) for case in sweep.cases][-1] == last


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ({"betta": [1]}, "did you mean 'beta'"),
        ({"beta": [-1]}, "beta: -1.0 is not allowed"),
        ({"pool": ["avg", "min"]}, "pool: 'min'"),
        ({("beta", "seed"): [(1, 2, 3)]}, "beta, seed"),
        ({("beta", "seed"): [1, 2]}, "beta, seed: 1 has not one value"),
        ({"beta": 3.0}, "beta: 3.0 is not a list"),
        ({"beta": []}, "beta: there are no values"),
        ({"beta": [1], ("beta", "seed"): [(5, 0)]}, "beta: is varied by two axes"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_runs(base, vary, says):
    with pytest.raises(InputError, match=says):
        Sweep(base, vary)


# --- in this process --------------------------------------------------------------------------------------------


def test_every_case_has_its_run_in_order_and_a_second_time_all_are_found(base, root):
    sweep, seen = Sweep(base, {"beta": [1.0, 10.0], "seed": [0, 1]}), []
    done = sweep.run(root, report=lambda case, step, done: seen.append((str(case), step is None)))
    assert [d.case for d in done] == sweep.cases
    assert [d.run.manifest["settings"]["beta"] for d in done] == [1, 1, 10, 10]
    assert not any(d.found for d in done)
    assert [name for name, whole in seen if whole] == [str(case) for case in sweep.cases]
    assert sum(not whole for _, whole in seen) == 4 * 5  # a first picture and four steps each
    again = sweep.run(root)
    assert all(d.found for d in again)
    assert [d.run for d in again] == [d.run for d in done]


def test_an_interrupted_sweep_goes_on(base, root, folder, monkeypatch):
    sweep = Sweep(base, {"seed": range(3)})
    with monkeypatch.context() as patch:
        raise_at(patch, 3)  # each run counts its own evaluations: the very first run is interrupted
        with pytest.raises(KeyboardInterrupt):
            sweep.run(root)
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    assert len({d.run.id for d in sweep.run(root)}) == 3
    assert not list(folder.glob("*.partial"))


def test_a_run_that_fails_does_not_keep_the_others_from_finishing(base, root, folder, monkeypatch):
    steps = Plan.steps

    def fail_once(plan, *at):
        if plan.settings.seed == 1:
            raise RuntimeError("broken")
        return steps(plan, *at)

    monkeypatch.setattr(Plan, "steps", fail_once)
    with pytest.raises(RuntimeError, match="broken") as error:
        Sweep(base, {"seed": range(3)}).run(root)
    assert error.value.__notes__ == ["in the sweep's case seed 1; 1 of 3 runs failed"]
    assert len([path for path in folder.iterdir() if path.suffix == ""]) == 2


# --- elsewhere --------------------------------------------------------------------------------------------------


class Immediate(Executor):
    """Runs what is submitted at once."""

    def submit(self, function, /, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Elsewhere(Executor):
    """Runs nothing; what is submitted gets this outcome, if there is one, and no worker is alive."""

    def __init__(self, error=None, room=9):
        self.error, self.room, self.futures = error, room, []

    def submit(self, *_):
        if len(self.futures) == self.room:
            raise KeyboardInterrupt
        self.futures.append(Future())
        if self.error is not None:
            self.futures[-1].set_exception(self.error)
        return self.futures[-1]

    def alive(self):
        return False


@pytest.mark.parametrize("executor", [Immediate, lambda: ThreadPoolExecutor(2)])
@pytest.mark.parametrize("betas", [[1.0, 2.0, 3.0], [1.0, 1.0]])
def test_any_executor_will_do_and_equal_cases_are_one_run(base, root, folder, executor, betas):
    sweep, seen = Sweep(base, {"beta": betas}), []
    with executor() as chosen:
        done = sweep.run(root, chosen, report=lambda case, step, done: seen.append(done.run.id))
    assert [d.case for d in done] == sweep.cases
    assert sorted(seen) == sorted(d.run.id for d in done)
    assert len(list(folder.iterdir())) == len(set(betas)) == len(set(seen))
    assert all(d.found for d in sweep.run(root))


def test_a_worker_with_other_pictures_refuses(base, root):
    with pytest.raises(InputError, match="other weights, pictures or another nstlab"):
        sweeps.work("transfer", base.to_dict(), str(root), "cpu", {"inputs": {}, "weights": "x", "algorithm": 0})
    assert not root.exists()


def test_workers_may_compute_in_another_type(base, root, monkeypatch):
    sweep = Sweep(base, {"seed": range(2)})
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: ())
    here = sweep.run(root)
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    there = sweep.run(root, Immediate())  # as on a machine of another kind
    assert {d.run.id for d in here}.isdisjoint(d.run.id for d in there)
    assert all(d.found for d in sweep.run(root, Immediate()))


def test_workers_that_keep_their_results_elsewhere_are_told_of(base, root, tmp_path, monkeypatch):
    work = sweeps.work
    monkeypatch.setattr(sweeps, "work", lambda *job: work(*job[:2], str(tmp_path / "elsewhere"), *job[3:]))
    with pytest.raises(InputError, match="workers must share the folder of results"):
        Sweep(base, {"seed": range(2)}).run(root, Immediate())


def test_workers_in_another_folder_find_the_pictures(base, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = base.replace(photo="photo.png", painting="painting.png", weights="tiny.safetensors")
    seen, work = [], sweeps.work
    monkeypatch.setattr(sweeps, "work", lambda *job: seen.append(job) or work(*job))
    Sweep(relative, {"seed": [0]}).run(root, Immediate())
    assert all(Path(seen[0][1][name]).is_absolute() for name in ("photo", "painting", "weights"))


def test_workers_that_are_gone_for_good_are_an_error_and_not_a_wait(base, root, monkeypatch):
    monkeypatch.setattr(sweeps, "WORKER_TIMEOUT", 0.01)
    with pytest.raises(InputError, match="no worker is left"):
        Sweep(base, {"seed": range(2)}).run(root, Elsewhere())


@pytest.mark.parametrize("error", [BrokenExecutor("a process died"), CancelledError()])
def test_lost_workers_are_one_line(base, root, error):
    with pytest.raises(InputError, match=r"seed \d: .* \(2 of 2 runs failed\)"):
        Sweep(base, {"seed": range(2)}).run(root, Elsewhere(error))


def test_what_has_not_begun_is_cancelled_by_ctrl_c(base, root):
    executor = Elsewhere(room=2)
    with pytest.raises(KeyboardInterrupt):
        Sweep(base, {"seed": range(3)}).run(root, executor)
    assert [future.cancelled() for future in executor.futures] == [True, True]


@pytest.mark.parametrize(("visible", "names"), [("", {"0", "1"}), ("5,7", {"5", "7"})])
def test_each_gpu_gets_a_process_that_sees_it_alone(monkeypatch, visible, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with sweeps.gpu_executor("auto") as executor:
        assert executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() in names
    with sweeps.gpu_executor("cpu") as executor:
        assert executor is None  # GPUs that are not asked for are left alone
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with sweeps.gpu_executor("auto") as executor:
        assert executor is None


# --- Dask -------------------------------------------------------------------------------------------------------

quiet = pytest.mark.filterwarnings("default")  # of the cluster's own making, when a worker is killed


def traced(*job):
    """`sweep.work`, noting when a run begins and ends to be computed; all but the first one wait until a worker is killed."""
    log, steps = Path(job[2]).parent / "log", Plan.steps

    def note(what, plan):
        with log.open("a") as file:
            file.write(f"{what} {run_id(plan)} {os.getpid()}\n")

    def waiting(plan, checkpoint):
        note("begin", plan)
        course = steps(plan, checkpoint)
        while True:
            try:
                step = next(course)
            except StopIteration as end:
                note("end", plan)
                return end.value
            while plan.settings.seed > 0 and step.index == 2 and not log.with_name("killed").exists():
                time.sleep(0.05)
            yield step

    Plan.steps = waiting
    try:
        return sweeps.work(*job)
    finally:
        Plan.steps = steps


@quiet
def test_a_cluster_that_loses_a_worker_loses_no_run_and_does_none_twice(base, root, folder, cluster, monkeypatch):
    sweep, killed = Sweep(base, {"seed": range(6)}), []
    log = root.parent / "log"

    def lines():
        return [line.split() for line in log.read_text().splitlines()] if log.is_file() else []

    def kill_one(case, step, done):
        """After the first run is done, kill the process that is at work on another."""
        if killed:
            return
        busy = []
        while not busy:  # a worker may just be between two runs
            time.sleep(0.05)
            ended = {name for what, name, _ in lines() if what == "end"}
            busy = [int(pid) for what, name, pid in lines() if what == "begin" and name not in ended]
        killed.append((busy[-1], ended))
        os.kill(busy[-1], signal.SIGKILL)
        log.with_name("killed").touch()

    monkeypatch.setattr(sweeps, "work", traced)
    with sweeps.dask(cluster.scheduler_address) as executor:
        done = sweep.run(root, executor, report=kill_one)
    (victim, ended_before), found = killed[0], lines()
    assert len({d.run.id for d in done}) == 6
    assert all(d.run.picture.is_file() for d in done)
    ends = [name for what, name, _ in found if what == "end"]
    assert sorted(ends) == sorted(d.run.id for d in done)  # each exactly once
    begins = [name for what, name, _ in found if what == "begin"]
    again = {name for name in begins if begins.count(name) > 1}
    assert again  # what the lost worker had begun was taken up
    assert not again & ended_before
    assert not any(pid == str(victim) and what == "end" for what, _, pid in found[-3:])
    assert not list(folder.glob("*.partial"))


@quiet
def test_what_a_cluster_lacks_is_said_at_once(cluster):
    with pytest.raises(InputError, match="none of the 2 workers has a GPU"), sweeps.dask(cluster.scheduler_address, "cuda"):
        pass
    cluster.scale(0)
    while cluster.scheduler_info["workers"]:
        time.sleep(0.05)
    with pytest.raises(InputError, match="has no workers"), sweeps.dask(cluster.scheduler_address):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_refused(address, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(sweeps, "WORKER_TIMEOUT", 1)
    with pytest.raises(InputError, match="no scheduler answers"), sweeps.dask(address):
        pass
