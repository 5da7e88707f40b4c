"""Finding or computing runs: nothing is computed twice, lost, or half written, however computing
ends."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from faults import raise_at, refusal
from helpers import until

from nstlab.base import files
from nstlab.base.names import OPTIMIZERS
from nstlab.cli import main as cli
from nstlab.method.checkpoint import Checkpoint
from nstlab.pictures import images as im
from nstlab.runs import store as stores
from nstlab.runs.store import Store
from nstlab.runs.stored import Record, read_rows


def rows(folder):
    """The history in a folder, without the seconds that the steps took."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_rows(folder / "history.csv")
    ]


def same(run, other):
    """Whether two runs have the same pixels and histories, and ended in the same way."""
    timeless = [
        {k: v for k, v in each.manifest["result"].items() if k != "seconds"}
        for each in (run, other)
    ]
    pixels = run.picture.read_bytes() == other.picture.read_bytes()
    return pixels and rows(run.folder) == rows(other.folder) and timeless[0] == timeless[1]


def temporary(folder):
    return list(folder.rglob(f"{files.TEMPORARY}*"))


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def fail_at(monkeypatch, name):
    """Let the disk be full when the file of that name takes its place, or, at "rename", when the
    folder gets its name."""
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda *to: full() if Path(to[1]).name == name else replace(*to)
    )
    if name == "rename":
        monkeypatch.setattr(Path, "rename", full)


@pytest.fixture
def whole(tmp_path):
    """Computes a plan's run without interruption, in a store of its own."""
    return lambda plan: Store(tmp_path / "whole").obtain(plan).run


# --- computing anew -------------------------------------------------------------------------------


def test_computing_anew_begins_at_the_first_picture_and_the_earlier_run_stays_until_then(
    plan, store, interrupt, whole
):
    interrupt(plan())
    seen, there = [], []
    run = store.obtain(plan(), lambda step: seen.append(step.index), resume=False).run
    assert seen == [*range(13)]
    assert store.obtain(plan(), lambda step: there.append(store.find(plan())), resume=False) == (
        run,
        False,
    )
    assert there == [run] * 13
    assert same(run, whole(plan()))


# --- progress pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize("interrupted", [False, True])
def test_progress_pictures_are_kept_if_asked_for_also_of_a_run_that_stops_early(
    plan, store, interrupt, interrupted
):
    if interrupted:
        interrupt(plan(), frames=4)
    run = store.obtain(plan(), frames=4, strict=True).run
    assert [path.name for path in run.frames] == [
        "000000.png",
        "000001.png",
        "000003.png",
        "000012.png",
    ]
    assert (im.load(run.frames[0]) - plan().start).abs().max() <= 0.51 / 255
    assert store.find(plan(), frames=4) == run
    early = plan(stop_loss=1e30)
    assert store.obtain(early, frames=4).run == store.find(early, frames=4)


@pytest.mark.parametrize("there", [0, 1, 3])
def test_a_run_with_fewer_progress_pictures_is_found_only_where_fewer_are_wanted(
    plan, store, there
):
    run = store.obtain(plan(), frames=there).run
    assert store.find(plan(), frames=there) == run
    assert store.find(plan(), frames=there + 1) is None
    assert store.obtain(plan(), frames=there + 1) == (run, False)
    assert store.find(plan(), frames=there + 1) == store.find(plan(), frames=there) == run
    assert len(run.frames) == there + 1
    run.frames[0].unlink()
    assert (store.find(plan()), store.find(plan(), frames=1)) == (run, None)


@pytest.mark.parametrize("before", [0, 4])
def test_an_interrupted_run_without_its_progress_pictures_is_refused_with_both_ways_out(
    plan, store, interrupt, before
):
    partial = interrupt(plan(), frames=before)
    if before:
        (partial / "frames" / "000001.png").write_bytes(b"damaged")
    message = refusal(store.obtain, plan(), frames=4, strict=True)
    assert all(each in message for each in (str(partial), "--frames 0", "--no-resume"))
    seen = []
    assert store.obtain(plan(), lambda step: seen.append(step.index), strict=True).run.frames == []
    assert seen[0] == 5
    assert len(store.obtain(plan(), resume=False, frames=4).run.frames) == 4


# --- interruption ---------------------------------------------------------------------------------

SIZES = {"levels": 2, "size": 80, "steps": 7}  # three steps at half the size come first
CHANGES = [
    {},
    {"tv": 0.5},
    {"steps": 40, "stop_change": 0.9},
    *({**SIZES, "optimizer": name} for name in OPTIMIZERS),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_interrupted_run_goes_on_to_the_same_pixels(plan, store, interrupt, whole, change):
    uninterrupted = whole(plan(**change))
    for steps in (1, 3, 4, 8):
        partial, seen = interrupt(plan(**change), steps), []
        assert store.find(plan(**change)) is None
        assert {"checkpoint.safetensors", "best.png", "history.csv"} <= set(os.listdir(partial))
        run = store.obtain(plan(**change), seen.append, strict=True).run
        assert seen[0].index == steps
        assert same(run, uninterrupted)
        assert os.listdir(run.folder.parent) == [run.id]
        assert set(os.listdir(run.folder)) == {"manifest.json", "history.csv", "final.png"}
        shutil.rmtree(run.folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("evaluation", [1, 2, 3, 8, 13])
def test_a_run_that_ends_within_an_evaluation_goes_on_to_the_same_pixels(
    plan, store, whole, monkeypatch, error, evaluation
):
    todo = plan(history=3, precision="float32")  # so that curvature is overwritten
    with monkeypatch.context() as patch:
        raise_at(patch, evaluation, error)
        with pytest.raises(error):
            store.obtain(todo)
    assert store.find(todo) is None
    assert (store.checkpoint(todo) is None) == (evaluation == 1)
    assert same(store.obtain(todo, strict=True).run, whole(todo))


def test_a_run_interrupted_again_and_again_goes_on_to_the_same_pixels(
    plan, store, interrupt, whole
):
    for _ in range(13):  # a step each time
        folder = interrupt(plan(), steps=1, strict=True)
        (folder / ".ipynb_checkpoints").mkdir(exist_ok=True)  # as Jupyter does
    seen = []
    assert same(store.obtain(plan(), seen.append, strict=True).run, whole(plan()))
    assert not seen  # all that was left to do was to finish


def test_the_best_picture_so_far_is_left_even_where_no_checkpoint_can_be(
    plan, interrupt, monkeypatch, caplog
):
    fail_at(monkeypatch, "checkpoint.safetensors")
    exact = {"precision": "float32"}  # the result of a shorter run is this one's best so far
    # KeyboardInterrupt it was: why the run ended matters more
    picture = im.load(interrupt(plan(**exact)) / "best.png")
    assert "No space left" in caplog.text
    assert (picture - plan(steps=4, **exact).solve().image).abs().max() <= 0.51 / 255


OBSTACLES = {
    "a file": lambda place, mine: place.write_text("in the way"),
    "a link": lambda place, mine: place.symlink_to(mine),
    "a pipe for a checkpoint": lambda place, mine: (
        place.mkdir() or os.mkfifo(place / "checkpoint.safetensors")
    ),
}


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")
@pytest.mark.parametrize("stand", OBSTACLES.values(), ids=OBSTACLES)
def test_what_stands_in_a_runs_place_gives_way_and_what_a_link_names_does_not(
    plan, store, tmp_path, stand
):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "mine.txt").write_text("mine")
    store.folder(plan()).parent.mkdir(parents=True)
    stand(store.partial(plan()), mine)
    stand(store.folder(plan()), mine)
    run = store.obtain(plan()).run
    assert run.problem() == ""
    assert not run.folder.is_symlink()
    assert os.listdir(mine) == ["mine.txt"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")
@pytest.mark.parametrize("stand", ["a pipe", "a file", "a broken link"])
def test_what_stands_in_the_place_of_progress_pictures_is_named(plan, store, interrupt, stand):
    frames = interrupt(plan()) / "frames"
    frames.rmdir()
    {"a pipe": os.mkfifo, "a file": Path.touch, "a broken link": partial(os.symlink, "no")}[stand](
        frames
    )
    says = "is a file; a folder is needed" if stand == "a file" else "cannot be written"
    assert refusal(store.obtain, plan()).startswith(f"{frames}: {says}")


# --- checkpoints ----------------------------------------------------------------------------------


def test_checkpoints_are_written_under_way_and_if_one_cannot_be_the_one_before_stays(
    plan, store, monkeypatch, caplog
):
    monkeypatch.setattr(stores, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(stores, "CHECKPOINT_SHARE", 1e9)
    replace, saved = os.replace, []

    def watch(step):
        saved.append((store.checkpoint(plan()).data["index"], len(rows(store.partial(plan())))))
        monkeypatch.setattr(os, "replace", full if step.index == 3 else replace)

    assert len(store.obtain(plan(), watch).run.history()) == 13
    assert saved == [(index, index + 1) for index in (0, 1, 2, 3, 3, *range(5, 13))]
    assert "No space left on device" in caplog.text
    assert not temporary(store.root)


def cut(path):
    path.write_bytes(path.read_bytes().rstrip()[:-1])


def rewrite(path, tensors=lambda t: t, data=lambda d: d):
    """Change what a checkpoint holds, and write it with a checksum of its own: one of another
    run."""
    found = Checkpoint.load(path)
    Checkpoint(tensors(dict(found.tensors)), data(dict(found.data))).save(path)


CHECKPOINTS = {
    "damaged": cut,
    "of a smaller picture": partial(
        rewrite, tensors=lambda t: t | {"x": t["x"][..., 1:].contiguous()}
    ),
    "with a term more": partial(rewrite, tensors=lambda t: t | {"values": torch.zeros(3)}),
    "at an unknown size": partial(rewrite, data=lambda d: d | {"level": 1}),
    "with weights of another run": partial(
        rewrite, data=lambda d: d | {"weights": {"content": 1.0}}
    ),
    "with other weights": partial(
        rewrite, data=lambda d: d | {"weights": d["weights"] | {"style": 1.5}}
    ),
    "of more steps than there are": partial(rewrite, data=lambda d: d | {"index": 99}),
}
DAMAGE = [
    ("history.csv", cut),
    ("history.csv", Path.unlink),
    *(("checkpoint.safetensors", c) for c in CHECKPOINTS.values()),
]


@pytest.mark.parametrize(
    ("file", "change"), DAMAGE, ids=["history cut", "no history", *CHECKPOINTS]
)
def test_what_cannot_be_resumed_is_refused_or_given_up_where_nobody_can_decide(
    plan, store, interrupt, caplog, file, change
):
    change(interrupt(plan()) / file)
    assert "--no-resume begins anew" in refusal(store.obtain, plan(), strict=True)
    assert "begins anew" not in caplog.text
    assert len(store.obtain(plan()).run.history()) == 13
    assert "it begins anew" in caplog.text


def test_a_disk_that_fails_at_the_end_costs_no_computing(plan, store, monkeypatch):
    for failing in ("final.png", "manifest.json", "rename"):
        with monkeypatch.context() as patch:
            fail_at(patch, failing)
            assert "No space left on device" in refusal(store.obtain, plan(), strict=True)
        assert not store.folder(plan()).exists()
        assert not temporary(store.root)
        assert store.checkpoint(plan()).data["index"] == 12
    seen = []
    assert len(store.obtain(plan(), seen.append, strict=True).run.history()) == 13
    assert not seen


def test_an_earlier_run_that_cannot_give_way_stays_whole(plan, store, monkeypatch):
    run, rename = store.obtain(plan()).run, Path.rename

    def busy(path, target):  # as on Windows, where a program has one of its files open
        if path == run.folder:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", busy)
        assert "Permission denied" in refusal(store.obtain, plan(), resume=False)
    assert store.find(plan()) == run
    assert store.obtain(plan(), resume=False).run == run
    assert os.listdir(run.folder.parent) == [run.id]


def test_a_store_may_be_in_a_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with files.locked_results("~/r", Path("runs/transfer/0")):
        assert os.listdir(tmp_path / "r" / "locks") == ["transfer-0"]


# --- other processes ------------------------------------------------------------------------------


def test_a_run_under_way_is_refused_to_a_strict_process_and_waited_for_by_another(
    plan, store, monkeypatch
):
    monkeypatch.setattr(files, "POLL", 0.01)
    waiting, refused, seen = [], [], []

    def watch(step):
        if not waiting:
            waiting.append(pool.submit(Store(store.root).obtain, plan(), seen.append))
        time.sleep(0.02)
        refused.append(refusal(Store(store.root).obtain, plan(), strict=True))
        assert not waiting[0].done()

    with ThreadPoolExecutor(1) as pool:
        run = store.obtain(plan(), watch).run
        assert waiting[0].result(30) == (run, True)
    assert not seen  # it computed nothing itself
    assert len(refused) == len(run.history()) == 13
    assert all("is being computed by another process" in message for message in refused)


SLOW = """
    import sys, time
    from nstlab.cli import main as cli
    from nstlab.method.fast.evaluation import FastBound
    from nstlab.runs import store
    store.CHECKPOINT_EVERY, store.CHECKPOINT_SHARE = 0.0, 1e9
    whole = FastBound.evaluate
    FastBound.evaluate = lambda self, image: time.sleep(0.01) or whole(self, image)
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_killed_process_leaves_a_valid_checkpoint_and_the_same_command_finishes(
    settings, store, tmp_path
):
    out = tmp_path / "out.png"
    command = [
        "transfer",
        settings.photo,
        settings.painting,
        "--weights",
        settings.weights,
        "--normalize",
        "False",
    ]
    command += [
        "--size",
        "32",
        "--steps",
        "400",
        "--device",
        "cpu",
        "--results",
        str(store.root),
        "--out",
        str(out),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), *command],
        env=environment,
        stdout=subprocess.PIPE,
    )
    try:
        until(
            lambda: (
                process.poll() is not None
                or list(store.root.glob("runs/*/*.partial/checkpoint.safetensors"))
            )
        )
        time.sleep(0.3)  # a few steps more, to be hit anywhere within one
    finally:
        process.kill()
        process.communicate()  # until nobody writes
    assert not out.exists()
    (partial,) = store.root.glob("runs/transfer/*")
    assert partial.suffix == ".partial"
    (partial / f"{files.TEMPORARY}0.csv").touch()  # as if it had been hit while it wrote
    index = Checkpoint.load(partial / "checkpoint.safetensors").data["index"]
    assert index < 400
    assert len(rows(partial)) > index  # the history is written first

    assert cli.main(command) == 0
    assert out.exists()
    (folder,) = store.root.glob("runs/transfer/*")
    assert [row["step"] for row in rows(folder)] == list(range(401))
    assert not temporary(folder)


# --- runs that were computed elsewhere (those that were left early are saved in live/test_painting)


def recorded(plan, steps, changes=None):
    """The record of a run's first steps, with weights changed before the last of them."""
    record, run = Record(), plan.steps()
    record.note(next(run))
    for i in range(steps):
        sent = changes if i == steps - 1 else None
        step = run.send(sent)
        record.steer(sent)
        record.note(step)
    return record


def test_a_whole_run_that_is_kept_is_the_stores_own_unless_weights_were_changed(plan, store, whole):
    changed = store.keep(plan(), recorded(plan(), 12, {"style": 3.0}))
    assert changed.manifest["changes"] == [[11, {"style": 3.0}]]
    assert changed.manifest["result"]["status"] == "all steps done"
    assert store.find(plan()) is None
    kept, made = store.keep(plan(), recorded(plan(), 12)), whole(plan())
    assert kept.id == made.id
    assert same(kept, made)
    assert store.find(plan()) == kept
    one, other = (
        {k: v for k, v in run.manifest.items() if k not in ("environment", "result")}
        for run in (kept, made)
    )
    assert one == other
    written = kept.picture.stat().st_mtime_ns
    assert store.keep(plan(), recorded(plan(), 12)) == kept
    assert kept.picture.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "failing", ["history.csv", "final.png", "manifest.json", "start.png", "rename"]
)
def test_a_run_that_cannot_be_kept_leaves_nothing_behind(
    plan, store, interrupt, monkeypatch, failing
):
    todo = plan().starting_from(plan().start)
    record = recorded(todo, 12)
    interrupt(todo)  # the same run
    before = sorted(store.root.rglob("*.*"))
    with monkeypatch.context() as patch:
        fail_at(patch, failing)
        assert "No space left" in refusal(store.keep, todo, record)
    assert sorted(store.root.rglob("*.*")) == before
    assert store.checkpoint(todo).data["index"] == 4
