"""Sweeps: grids of settings, each run once, in process, in other processes, and on a Dask cluster
that loses a worker."""

import contextlib
import multiprocessing
import os
import signal
import time
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from faults import raise_at, refusal
from helpers import until

from nstlab.method.fast import arithmetic
from nstlab.recipes import prepare as plans
from nstlab.recipes.plan import Plan
from nstlab.runs import sweep as sweeps
from nstlab.runs.sweep import Sweep


@pytest.fixture
def base(settings):
    return settings.replace(steps=4)


@pytest.fixture
def folder(root):
    """Where the runs are."""
    return root / "runs" / "transfer"


@pytest.fixture
def workers():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_axes_are_crossed_and_fields_of_one_axis_vary_together(base):
    layers = [(("conv2_2",), ("conv1_1",)), (("conv4_2",), ("conv1_1", "conv2_1"))]
    sweep = Sweep(base, {"beta": [1.0, 1e3], ("content_layers", "style_layers"): layers})
    found = [
        (c.settings.beta, c.settings.content_layers, c.settings.style_layers) for c in sweep.cases
    ]
    assert found == [(beta, *pair) for beta in (1.0, 1e3) for pair in layers]
    assert sweep.cases[0].labels == {"beta": "1", "content_layers, style_layers": "conv2_2 conv1_1"}
    assert str(sweep.cases[2]) == "beta 1000, content_layers, style_layers conv2_2 conv1_1"


@pytest.mark.parametrize(
    ("vary", "labels", "last"),
    [
        (
            {"beta": {"little": 1.0, "much": 9.0}, "seed": range(2)},
            {"beta": ["little", "much"], "seed": ["0", "1"]},
            (9.0, 1),
        ),
        # read once
        (
            {("beta", "seed"): zip([1.0, 2.0], [3, 4], strict=True)},
            {"beta, seed": ["1 3", "2 4"]},
            (2.0, 4),
        ),
        # not "1.23457e+06"
        ({"beta": [1234567.0, 1234568.0]}, {"beta": ["1234567.0", "1234568.0"]}, (1234568.0, 0)),
        (
            {"beta": np.logspace(0, 2, 3), "seed": np.arange(2)},
            {"beta": ["1", "10", "100"], "seed": ["0", "1"]},
            (100.0, 1),
        ),
    ],
    ids=["labelled", "iterator", "alike", "numpy"],
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
    assert says in refusal(Sweep, base, vary)


def test_an_interrupted_sweep_goes_on_to_all_runs_in_order_and_a_third_time_all_are_found(
    base, root, folder, monkeypatch
):
    sweep, seen = Sweep(base, {"beta": [1.0, 10.0], "seed": [0, 1]}), []
    with monkeypatch.context() as patch:
        raise_at(patch, 3)  # each run counts its own evaluations: the very first run is interrupted
        with pytest.raises(KeyboardInterrupt):
            sweep.run(root)
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    done = sweep.run(root, report=lambda case, step, done: seen.append((str(case), step is None)))
    assert not list(folder.glob("*.partial"))
    assert [d.case for d in done] == sweep.cases
    assert [d.stored.manifest["settings"]["beta"] for d in done] == [1, 1, 10, 10]
    assert not any(d.found for d in done)
    # a first picture, and four steps
    assert seen[-6:] == [*[(str(sweep.cases[-1]), False)] * 5, (str(sweep.cases[-1]), True)]
    assert [name for name, whole in seen if whole] == [str(case) for case in sweep.cases]
    assert [(d.stored, d.found) for d in sweep.run(root)] == [(d.stored, True) for d in done]


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


def test_any_executor_will_do_and_equal_cases_are_one_run(base, root, folder, workers):
    sweep, seen = Sweep(base, {"beta": [1.0, 2.0, 1.0]}), []
    done = sweep.run(root, workers, report=lambda case, step, done: seen.append(done.stored.id))
    assert [d.case for d in done] == sweep.cases
    assert sorted(seen) == sorted(d.stored.id for d in done)
    assert len(list(folder.iterdir())) == len(set(seen)) == 2
    assert all(d.found for d in sweep.run(root))


def test_a_worker_with_other_pictures_refuses(base, root):
    job = "transfer", base.to_dict(), str(root), "cpu", {"inputs": {}, "weights": "x", "version": 0}
    assert "other weights, pictures or another nstlab" in refusal(sweeps.work, *job)
    assert not root.exists()


def test_workers_may_compute_in_another_type_which_makes_other_runs(
    base, root, workers, monkeypatch
):
    sweep = Sweep(base, {"seed": range(2)})
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: ())
    here = sweep.run(root)
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    there = sweep.run(root, workers)  # as on a machine of another kind
    assert {d.stored.id for d in here}.isdisjoint(d.stored.id for d in there)
    assert all(d.found for d in sweep.run(root, workers))


def test_workers_find_the_pictures_from_another_folder_and_must_share_the_results(
    base, root, tmp_path, workers, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    relative = base.replace(photo="photo.png", painting="painting.png", weights="tiny.safetensors")
    seen, work = [], sweeps.work
    monkeypatch.setattr(
        sweeps,
        "work",
        lambda *job: seen.append(job) or work(*job[:2], str(tmp_path / "there"), *job[3:]),
    )
    assert "workers must share the folder of results" in refusal(
        Sweep(relative, {"seed": [0]}).run, root, workers
    )
    assert all(Path(seen[0][1][name]).is_absolute() for name in ("photo", "painting", "weights"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (None, "no worker is left"),
        (BrokenExecutor("a process died"), "seed 0: a process died (2 of 2 runs failed)"),
        (
            CancelledError(),
            "dask: the scheduler at tcp://here is lost (CancelledError); what is finished is kept",
        ),
    ],
)
def test_workers_that_are_lost_are_one_line_and_not_a_wait(base, root, monkeypatch, error, says):
    monkeypatch.setattr(sweeps, "WORKER_TIMEOUT", 0.01)
    futures = Future(), Future()
    for future in futures if error else ():
        future.set_exception(error)
    executor = Mock(submit=Mock(side_effect=futures), alive=lambda: False)
    run = sweeps._lost_in_one_line("tcp://here")(Sweep(base, {"seed": range(2)}).run)
    message = refusal(run, root, executor)
    assert says in message.replace("seed 1", "seed 0")  # whichever is looked at first


def test_an_executor_that_takes_no_work_is_one_line_and_what_it_has_taken_is_kept(
    base, root, workers
):
    whole, taken = workers.submit, []

    def submit(*job):
        if taken:
            workers.shutdown(wait=False)
        taken.append(job)
        return whole(*job)

    workers.submit = submit
    message = refusal(Sweep(base, {"seed": range(3)}).run, root, workers)
    assert (
        "seed 1: cannot schedule new futures after shutdown (2 of 3 runs failed); what is "
        "finished is kept" in message
    )
    assert len(list(root.glob("runs/transfer/*/final.png"))) == 1


def test_cases_with_the_same_network_share_it_and_come_out_as_they_do_alone(
    base, root, monkeypatch
):
    make, networks = plans.loss_network, []

    def keep(*which, **options):
        networks.append(make(*which, **options))
        return networks[-1]

    monkeypatch.setattr(plans, "loss_network", keep)
    done = Sweep(base, {"pool": ["avg", "max"], "beta": [1.0, 100.0]}).run(root)
    assert [net.pool for net in networks] == ["avg", "max"]
    for finished in done:
        alone = plans.prepare(finished.settings, "cpu").solve().image
        assert float((finished.picture - alone).abs().max()) <= 0.5001 / 255


def test_what_has_not_begun_is_cancelled_by_ctrl_c(base, root):
    futures = Future(), Future()
    with pytest.raises(KeyboardInterrupt):
        Sweep(base, {"seed": range(3)}).run(
            root, Mock(submit=Mock(side_effect=[*futures, KeyboardInterrupt]))
        )
    assert [future.cancelled() for future in futures] == [True, True]


def test_each_gpu_gets_a_process_that_sees_it_alone_and_all_end_with_this_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sweeps._gpu_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with contextlib.suppress(KeyboardInterrupt), sweeps.gpu_executor("auto") as executor:
        assert executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() in {"5", "7"}
        executor.submit(time.sleep, 3600)
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    with sweeps.gpu_executor("cpu") as executor:
        assert executor is None  # GPUs that are not asked for are left alone
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with sweeps.gpu_executor("auto") as executor:
        assert executor is None


def dying(*job):
    """`sweep.work` in a process that is killed within the fourth run, the first time; it notes
    which ended."""
    steps, folder = Plan.steps, Path(job[2]).parent

    def killed(plan, checkpoint):
        course = steps(plan, checkpoint)
        yield next(course)
        if plan.settings.seed == 3 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result = yield from course
        with (folder / "ended").open("a") as file:
            file.write(f"{plan.settings.seed}\n")
        return result

    Plan.steps = killed
    try:
        return sweeps.work(*job)
    finally:
        Plan.steps = steps


# of the cluster's own making, when a worker is killed
quiet = pytest.mark.filterwarnings("default")


@quiet
def test_a_cluster_that_loses_a_worker_loses_no_run_and_does_none_twice(
    base, root, folder, cluster, monkeypatch
):
    sweep = Sweep(base, {"seed": range(6)})
    monkeypatch.setattr(sweeps, "work", dying)
    with sweeps.dask(cluster.scheduler_address) as executor:
        done = sweep.run(root, executor)
    assert (root.parent / "killed").exists()
    assert len({d.stored.id for d in done}) == 6
    assert all(d.stored.picture.is_file() for d in done)
    # each exactly once
    assert sorted((root.parent / "ended").read_text().split()) == list("012345")
    assert not list(folder.glob("*.partial"))


def refused_by(*where):
    return refusal(sweeps.dask(*where).__enter__)


@quiet
def test_what_a_cluster_lacks_is_said_at_once(cluster):
    assert "none of the 2 workers has a GPU" in refused_by(cluster.scheduler_address, "cuda")
    cluster.scale(0)
    until(lambda: not cluster.scheduler_info["workers"])
    assert "has no workers" in refused_by(cluster.scheduler_address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "", "tcp://[::1"])
def test_a_scheduler_that_does_not_answer_is_refused(address, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    monkeypatch.setattr(sweeps, "WORKER_TIMEOUT", 1)
    # one that never connected complains at the process's end
    monkeypatch.setattr(distributed, "Client", None)
    assert "no scheduler answers" in refused_by(address)


def test_a_scheduler_that_is_lost_is_one_line():
    comm = pytest.importorskip("distributed.comm", reason="dask.distributed is not installed")

    def lose(error):
        with sweeps._lost_in_one_line("tcp://here"):
            raise error

    assert "dask: the scheduler at tcp://here is lost (CommClosedError)" in refusal(
        lose, comm.CommClosedError("x")
    )
    with pytest.raises(OSError, match="another"):
        lose(OSError("another"))
