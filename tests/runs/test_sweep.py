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
from helpers import local_cluster

from nstlab import images as im
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import store as stores
from nstlab.runs import sweep as sweeps
from nstlab.runs.store import Store
from nstlab.runs.sweep import Sweep
from nstlab.settings import InputError


@pytest.fixture
def base(tmp_path, photo, painting, tiny_file):
    pictures = im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png")
    return TransferSettings(*pictures, weights=tiny_file, size=32, steps=4, normalize=False)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


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


def test_axes_may_be_iterators_and_are_read_once(base):
    sweep = Sweep(base, {("beta", "seed"): zip([1.0, 2.0], [3, 4], strict=True)})
    assert [(c.settings.beta, c.settings.seed) for c in sweep.cases] == [(1, 3), (2, 4)]
    assert len(sweep.cases) == 2


def test_values_that_look_alike_keep_apart(base):
    sweep = Sweep(base, {"beta": [1234567.0, 1234568.0]})
    assert sweep.axes["beta"] == ["1234567.0", "1234568.0"]


def test_numpy_makes_good_axes(base):
    sweep = Sweep(base, {"beta": np.logspace(0, 2, 3), "seed": np.arange(2)})
    assert [(case.settings.beta, case.settings.seed) for case in sweep.cases][-1] == (100.0, 1)
    assert sweep.axes == {"beta": ["1", "10", "100"], "seed": ["0", "1"]}


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


def test_equal_cases_are_one_run(base, root):
    done = Sweep(base, {"beta": [10.0, 10.0]}).run(root)
    assert done[0].run == done[1].run
    assert len(list((root / "runs" / "transfer").iterdir())) == 1


def test_an_interrupted_sweep_keeps_what_is_finished_and_goes_on(base, root, monkeypatch):
    sweep = Sweep(base, {"seed": range(3)})
    with monkeypatch.context() as patched:
        raise_at(patched, 3)
        first = sweep.run  # each run counts its own evaluations: the very first run is interrupted
        with pytest.raises(KeyboardInterrupt):
            first(root)
    partial = list((root / "runs" / "transfer").glob("*.partial"))
    assert len(partial) == 1
    assert (partial[0] / "checkpoint.safetensors").is_file()
    done = sweep.run(root)
    assert len({d.run.id for d in done}) == 3
    assert not list((root / "runs" / "transfer").glob("*.partial"))


def test_a_run_that_fails_does_not_keep_the_others_from_finishing(base, root, monkeypatch):
    whole = Store.obtain

    def obtain(self, plan, watch=None):
        if plan.settings.seed == 1:
            raise RuntimeError("broken")
        return whole(self, plan, watch)

    monkeypatch.setattr(Store, "obtain", obtain)
    with pytest.raises(RuntimeError, match="broken"):
        Sweep(base, {"seed": range(3)}).run(root)
    assert len(list((root / "runs" / "transfer").iterdir())) == 2


# --- elsewhere --------------------------------------------------------------------------------------------------


class Immediate(Executor):
    """Runs what is submitted at once."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("executor", [Immediate, lambda: ThreadPoolExecutor(2)])
def test_any_executor_will_do(base, root, executor):
    sweep, seen = Sweep(base, {"seed": range(3)}), []
    with executor() as chosen:
        done = sweep.run(root, chosen, report=lambda case, step, done: seen.append(done.run.id))
    assert sorted(seen) == sorted(d.run.id for d in done)
    assert all(d.run.picture.is_file() for d in done)
    assert all(d.found for d in sweep.run(root))


def test_a_worker_with_other_pictures_refuses(base, root):
    with pytest.raises(InputError, match="other weights, pictures or another nstlab"):
        sweeps.work("transfer", base.to_dict(), str(root), "cpu", {"inputs": {}, "weights": "x", "algorithm": 0})
    assert not root.exists()


def test_workers_may_compute_in_another_type(base, root, monkeypatch):
    from nstlab.method.fast import arithmetic

    sweep = Sweep(base, {"seed": range(2)})
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: ())
    here = sweep.run(root)
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    there = sweep.run(root, Immediate())  # as on a machine of another kind
    assert not any(d.found for d in there)
    assert {d.run.id for d in here}.isdisjoint(d.run.id for d in there)
    assert all(d.found for d in sweep.run(root, Immediate()))


def test_workers_that_keep_their_results_elsewhere_are_told_of(base, root, tmp_path, monkeypatch):
    whole = sweeps.work
    monkeypatch.setattr(sweeps, "work", lambda *job: whole(*job[:2], str(tmp_path / "elsewhere"), *job[3:]))
    with pytest.raises(InputError, match="workers must share the folder of results"):
        Sweep(base, {"seed": range(2)}).run(root, Immediate())


def test_workers_in_another_folder_find_the_pictures(base, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = base.replace(photo="photo.png", painting="painting.png", weights="tiny.safetensors")
    seen, whole = [], sweeps.work
    monkeypatch.setattr(sweeps, "work", lambda *job: seen.append(job) or whole(*job))
    Sweep(relative, {"seed": [0]}).run(root, Immediate())
    assert all(Path(seen[0][1][name]).is_absolute() for name in ("photo", "painting", "weights"))


def test_workers_that_are_gone_for_good_are_an_error_and_not_a_wait(base, root, monkeypatch):
    monkeypatch.setattr(sweeps, "PATIENCE", 0.01)

    class Gone(Executor):
        def submit(self, *_, **__):
            return Future()

        def alive(self):
            return False

    with pytest.raises(InputError, match="no worker is left"):
        Sweep(base, {"seed": range(2)}).run(root, Gone())


@pytest.mark.parametrize("error", [BrokenExecutor("a process died"), CancelledError()])
def test_lost_workers_are_one_line(base, root, error):
    class Lost(Executor):
        def submit(self, *_, **__):
            future = Future()
            future.set_exception(error)
            return future

    with pytest.raises(InputError, match=r"seed \d: .* \(2 of 2 runs failed\)"):
        Sweep(base, {"seed": range(2)}).run(root, Lost())


def test_what_has_not_begun_is_cancelled_by_ctrl_c(base, root):
    class Stopping(Executor):
        futures = []  # noqa: RUF012

        def submit(self, *_, **__):
            if len(self.futures) == 2:
                raise KeyboardInterrupt
            self.futures.append(Future())
            return self.futures[-1]

    with pytest.raises(KeyboardInterrupt):
        Sweep(base, {"seed": range(3)}).run(root, Stopping())
    assert [future.cancelled() for future in Stopping.futures] == [True, True]


def test_each_gpu_gets_a_process_that_sees_it_alone(monkeypatch):
    import queue

    numbers = queue.Queue()
    numbers.put("3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sweeps._take_gpu(numbers)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    with sweeps._gpus("auto") as executor:
        assert executor is None or torch.cuda.device_count() > 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with sweeps._gpus("cpu") as executor:
        assert executor is None  # GPUs that are not asked for are left alone


def test_a_run_in_another_process_is_waited_for_and_found(base, root, monkeypatch):
    from nstlab.recipes.plan import prepare

    plan, store, seen = prepare(base, "cpu"), Store(root), []
    monkeypatch.setattr(stores, "POLL", 0.01)
    steps = store.run(plan)  # holds the lock, as another process would
    next(steps)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Store(root).obtain, plan, seen.append)
        time.sleep(0.1)
        assert not waiting.done()
        for _ in steps:
            pass
        assert waiting.result(30).found
    assert not seen  # it computed nothing itself


# --- Dask -------------------------------------------------------------------------------------------------------

quiet = pytest.mark.filterwarnings("default")  # of the cluster's own making, when a worker is killed


def traced(*job):
    """`sweep.work`, noting when a run begins and ends to be computed, and taking its time over it."""
    log, whole = Path(job[2]).parent / "log", stores.Store._run

    def note(what, plan):
        with log.open("a") as file:
            file.write(f"{what} {stores.run_id(plan)} {os.getpid()}\n")

    def slowly(self, plan, resume, frames):
        note("begin", plan)
        steps = whole(self, plan, resume, frames)
        try:
            while True:
                step = next(steps)
                time.sleep(0.05)
                yield step
        except StopIteration as end:
            note("end", plan)
            return end.value

    stores.Store._run = slowly
    try:
        return sweeps.work(*job)
    finally:
        stores.Store._run = whole


@quiet
def test_a_cluster_that_loses_a_worker_loses_no_run_and_does_none_twice(base, root, cluster, monkeypatch):
    sweep, killed = Sweep(base.replace(steps=20), {"seed": range(6)}), []
    log = root.parent / "log"

    def lines():
        return [line.split() for line in log.read_text().splitlines()] if log.is_file() else []

    def kill_one(case, step, done):
        """After the first run is done, kill the process that is at work on another."""
        if killed:
            return
        busy = []
        while not busy:  # a worker may just be between two runs
            ended = {name for what, name, _ in lines() if what == "end"}
            busy = [int(pid) for what, name, pid in lines() if what == "begin" and name not in ended]
        killed.append((busy[-1], ended))
        os.kill(busy[-1], signal.SIGKILL)

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
    assert not list((root / "runs" / "transfer").glob("*.partial"))


@quiet
def test_a_cluster_without_workers_is_refused_at_once():
    with (
        local_cluster(0) as cluster,
        pytest.raises(InputError, match="has no workers"),
        sweeps.dask(cluster.scheduler_address),
    ):
        pass


@quiet
def test_a_gpu_is_not_waited_for_where_no_worker_has_one(cluster):
    with pytest.raises(InputError, match="none of the 2 workers has a GPU"), sweeps.dask(cluster.scheduler_address, "cuda"):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_refused(address, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(sweeps, "PATIENCE", 1)
    with pytest.raises(InputError, match="no scheduler answers"), sweeps.dask(address):
        pass
