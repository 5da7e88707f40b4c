"""Finding or computing runs: nothing is computed twice, lost, or half written, however computing ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from faults import raise_at, refusal
from hypothesis import given
from hypothesis import strategies as st

from nstlab import cli, files
from nstlab import images as im
from nstlab.method.checkpoint import Checkpoint
from nstlab.recipes.plan import Plan
from nstlab.runs import store as stores
from nstlab.runs.store import Store, frame_steps
from nstlab.runs.stored import Record, read_rows
from nstlab.settings import InputError


def rows(folder):
    """The history in a folder, without the seconds that the steps took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_rows(folder / "history.csv")]


def same(run, other):
    """Whether two runs have the same pixels and histories, and ended in the same way."""
    timeless = [{k: v for k, v in each.manifest["result"].items() if k != "seconds"} for each in (run, other)]
    pixels = run.picture.read_bytes() == other.picture.read_bytes()
    return pixels and rows(run.folder) == rows(other.folder) and timeless[0] == timeless[1]


def temporary(folder):
    return list(folder.rglob(f"{files.TEMPORARY}*"))


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def fail_at(monkeypatch, name):
    """Let the disk be full when the file of that name takes its place, or, at "rename", when the folder gets its name."""
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *to: full() if Path(to[1]).name == name else replace(*to))
    if name == "rename":
        monkeypatch.setattr(Path, "rename", full)


@pytest.fixture
def whole(tmp_path):
    """Computes a plan's run without interruption, in a store of its own."""
    return lambda plan: Store(tmp_path / "whole").obtain(plan).run


# --- computing anew ---------------------------------------------------------------------------------------------


def test_computing_anew_gives_the_same_run_and_the_earlier_one_stays_until_then(plan, store, whole):
    run = store.obtain(plan()).run
    there = []
    again = store.obtain(plan(), lambda step: there.append(store.find(plan())), resume=False)
    assert again == (run, False)
    assert there == [run] * 13
    assert same(run, whole(plan()))


def test_not_resuming_begins_at_the_first_picture(plan, store, interrupt):
    interrupt(plan())
    seen = []
    store.obtain(plan(), lambda step: seen.append(step.index), resume=False)
    assert seen == list(range(13))


def test_a_run_that_needs_too_much_memory_is_refused_before_anything_is_written(plan, store, monkeypatch):
    monkeypatch.setattr(Plan, "memory_needed", lambda *_: 10**18)
    assert "GB of memory" in refusal(store.obtain, plan())
    assert not list(store.root.glob("runs/*/*"))


# --- progress pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupted", [False, True])
def test_progress_pictures_are_kept_if_asked_for(plan, store, interrupt, interrupted):
    if interrupted:
        interrupt(plan(), frames=4)
    run = store.obtain(plan(), frames=4, strict=True).run
    assert [path.name for path in run.frames] == ["000000.png", "000001.png", "000003.png", "000012.png"]
    assert (im.load(run.frames[0]) - plan().start).abs().max() <= 0.51 / 255
    assert store.find(plan(), frames=4) == run


@pytest.mark.parametrize("there", [0, 1, 3])
def test_a_run_with_fewer_progress_pictures_is_computed_again_when_more_are_wanted(plan, store, there):
    run = store.obtain(plan(), frames=there).run
    assert store.find(plan(), frames=there) == run
    assert store.find(plan(), frames=there + 1) is None
    assert store.obtain(plan(), frames=there + 1) == (run, False)
    assert store.find(plan(), frames=there + 1) == store.find(plan(), frames=there) == run
    assert len(run.frames) == there + 1
    some = run.some_frames(there)
    assert len(some) == there
    assert some[-1:] == (run.frames[-1:] if there else [])
    assert some[:1] == (run.frames[:1] if there > 1 else some)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:60]), Path.unlink], ids=["cut", "missing"])
def test_damaged_progress_pictures_are_computed_again_when_they_are_wanted(plan, store, damage):
    run = store.obtain(plan(), frames=4).run
    damage(run.frames[1])
    assert store.find(plan()) == run
    assert store.obtain(plan(), frames=4) == (run, False)
    assert len(run.frames) == 4


@pytest.mark.parametrize("before", [0, 4])
def test_an_interrupted_run_without_its_progress_pictures_is_refused_with_both_ways_out(plan, store, interrupt, before):
    partial = interrupt(plan(), frames=before)
    if before:
        (partial / "frames" / "000001.png").write_bytes(b"damaged")
    message = refusal(store.obtain, plan(), frames=4, strict=True)
    assert all(each in message for each in (str(partial), "--frames 0", "--no-resume"))
    seen = []
    assert store.obtain(plan(), lambda step: seen.append(step.index), strict=True).run.frames == []
    assert seen[0] == 5
    assert len(store.obtain(plan(), resume=False, frames=4).run.frames) == 4


@pytest.mark.parametrize("frames", [1, 5])
def test_a_run_that_stops_early_is_found_with_its_progress_pictures(plan, store, frames):
    early = plan(stop_loss=1e30)
    run = store.obtain(early, frames=frames).run
    assert len(run.frames) >= 1
    assert store.find(early, frames=frames) == run


@given(st.integers(1, 5000), st.integers(1, 500))
def test_progress_pictures_are_no_more_than_asked_for_and_reach_the_end(total, frames):
    kept = frame_steps(total, frames)
    assert 1 <= len(kept) <= frames
    assert max(kept) == total
    assert min(kept) == 0 or frames == 1
    assert frame_steps(total, 0) == set()


# --- interruption -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{}, {"optimizer": "adam"}, {"optimizer": "gd"}, {"levels": 2, "size": 80, "steps": 7}, {"history": 3}, {"tv": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_an_interrupted_run_goes_on_to_the_same_pixels(plan, store, interrupt, whole, change, steps):
    partial, seen = interrupt(plan(**change), steps), []
    assert store.find(plan(**change)) is None
    assert {"checkpoint.safetensors", "best.png", "history.csv"} <= set(os.listdir(partial))
    run = store.obtain(plan(**change), seen.append, strict=True).run
    assert seen[0].index == steps
    assert same(run, whole(plan(**change)))
    assert os.listdir(run.folder.parent) == [run.id]
    assert set(os.listdir(run.folder)) == {"manifest.json", "history.csv", "final.png"}


def test_an_interrupted_run_leaves_the_best_picture_so_far(plan, store):
    seen = []

    def watch(step):
        seen.append(step)
        if step.index == 4:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        store.obtain(plan(), watch)
    assert (im.load(store.partial(plan()) / "best.png") - seen[-1].best()).abs().max() <= 0.51 / 255


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("evaluation", [2, 3, 8, 13])
def test_a_run_that_ends_within_an_evaluation_goes_on_to_the_same_pixels(plan, store, whole, monkeypatch, error, evaluation):
    with monkeypatch.context() as patch:
        raise_at(patch, evaluation, error)
        with pytest.raises(error):
            store.obtain(plan())
    assert store.checkpoint(plan()) is not None
    assert same(store.obtain(plan(), strict=True).run, whole(plan()))


def test_a_run_interrupted_again_and_again_goes_on_to_the_same_pixels(plan, store, interrupt, whole):
    for _ in range(13):  # a step each time
        interrupt(plan(), steps=1, strict=True)
    seen = []
    assert same(store.obtain(plan(), seen.append, strict=True).run, whole(plan()))
    assert not seen  # all that was left to do was to finish


def test_a_run_that_stops_when_nothing_changes_stops_at_the_same_step_when_resumed(plan, store, interrupt, whole):
    todo = plan(steps=40, stop_change=0.9)
    interrupt(todo, steps=8)
    run = store.obtain(todo, strict=True).run
    assert run.manifest["result"]["status"] == "loss no longer changes"
    assert same(run, whole(todo))


def test_a_run_interrupted_before_its_first_step_begins_anew(plan, store, monkeypatch):
    with monkeypatch.context() as patch:
        raise_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            store.obtain(plan())
    assert store.find(plan()) is None
    assert store.checkpoint(plan()) is None
    assert store.obtain(plan(), strict=True).run.manifest["result"]["steps"] == 12


def test_what_jupyter_leaves_in_a_runs_folder_is_no_obstacle(plan, store, interrupt):
    (interrupt(plan()) / ".ipynb_checkpoints").mkdir()
    assert store.obtain(plan(), strict=True).run.problem() == ""


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_what_stands_in_a_runs_place_gives_way_and_what_a_link_names_does_not(plan, store, tmp_path, what):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    for place in (store.partial(plan()), store.folder(plan())):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way") if what == "file" else place.symlink_to(tmp_path / ("mine" if what == "link" else "no"))
    run = store.obtain(plan()).run
    assert run.problem() == ""
    assert not run.folder.is_symlink()
    assert os.listdir(tmp_path / "mine") == ["mine.txt"]


# --- checkpoints ------------------------------------------------------------------------------------------------


@pytest.fixture
def always_saved(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(stores, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(stores, "CHECKPOINT_SHARE", 1e9)


def test_checkpoints_are_written_while_the_run_is_under_way(plan, store, always_saved):
    saved = []
    store.obtain(plan(), lambda s: saved.append((store.checkpoint(plan()).data["index"], len(rows(store.partial(plan()))))))
    assert saved == [(index, index + 1) for index in range(13)]


DAMAGE = {
    "empty": lambda d: b"",
    "half": lambda d: d[: len(d) // 2],
    "a byte short": lambda d: d.rstrip()[:-1],
    "overwritten": lambda d: b"x" * len(d),
    "of another program": lambda d: safetensors.torch.save({"x": torch.zeros(3)}, {"format": "another"}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", ["checkpoint.safetensors", "history.csv"])
def test_what_cannot_be_resumed_is_refused_by_name_with_the_way_out(plan, store, interrupt, file, damage):
    path = interrupt(plan()) / file
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(store.obtain, plan(), strict=True)
    assert str(path) in message
    assert "--no-resume begins anew" in message
    assert len(store.obtain(plan(), resume=False, strict=True).run.history()) == 13


def rewrite(path, tensors=lambda t: t, data=lambda d: d):
    """Change what a checkpoint holds, and write it with a checksum of its own: one of another run."""
    found = Checkpoint.load(path)
    Checkpoint(tensors(dict(found.tensors)), data(dict(found.data))).save(path)


def damage(path):
    """Change one byte of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


CHANGES = {
    "damaged": damage,
    "a smaller picture": partial(rewrite, tensors=lambda t: t | {"x": t["x"][..., 1:].contiguous()}),
    "pictures of another type": partial(rewrite, tensors=lambda t: t | {"x": t["x"].double()}),
    "a term more": partial(rewrite, tensors=lambda t: t | {"values": torch.zeros(3)}),
    "an unknown size": partial(rewrite, data=lambda d: d | {"level": 1}),
    "another optimizer": partial(rewrite, data=lambda d: d | {"optimizer": "Adam(rate=1.0)"}),
    "weights of another run": partial(rewrite, data=lambda d: d | {"weights": {"content": 1.0}}),
    "other weights": partial(rewrite, data=lambda d: d | {"weights": d["weights"] | {"style": 1.5}}),
    "more steps than there are": partial(rewrite, data=lambda d: d | {"index": 99}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_is_not_the_runs_is_refused_or_given_up_where_nobody_can_decide(
    plan, store, interrupt, caplog, change
):
    change(interrupt(plan()) / "checkpoint.safetensors")
    assert "--no-resume begins anew" in refusal(store.obtain, plan(), strict=True)
    assert "begins anew" not in caplog.text
    assert len(store.obtain(plan()).run.history()) == 13
    assert "it begins anew" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_in_the_checkpoints_place_is_not_waited_for(plan, store, interrupt):
    path = interrupt(plan()) / "checkpoint.safetensors"
    path.unlink()
    os.mkfifo(path)
    assert len(store.obtain(plan()).run.history()) == 13


# --- when the disk fails ----------------------------------------------------------------------------------------


def test_a_results_folder_that_cannot_be_made_is_refused(plan, root):
    root.write_text("in the way")
    assert str(root) in refusal(Store(root).obtain, plan())


@pytest.mark.parametrize("failing", ["final.png", "manifest.json", "rename"])
def test_a_disk_that_fails_at_the_end_costs_no_computing(plan, store, monkeypatch, failing):
    with monkeypatch.context() as patch:
        fail_at(patch, failing)
        assert "No space left on device" in refusal(store.obtain, plan())
    assert not store.folder(plan()).exists()
    assert not temporary(store.root)
    assert store.checkpoint(plan()).data["index"] == 12
    seen = []
    assert len(store.obtain(plan(), seen.append, strict=True).run.history()) == 13
    assert not seen


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_the_run_goes_on(
    plan, store, always_saved, monkeypatch, caplog
):
    replace, saved = os.replace, []

    def watch(step):
        saved.append(store.checkpoint(plan()).data["index"])
        monkeypatch.setattr(os, "replace", full if step.index == 3 else replace)

    assert len(store.obtain(plan(), watch).run.history()) == 13
    assert saved == [0, 1, 2, 3, 3, *range(5, 13)]
    assert "No space left on device" in caplog.text
    assert not temporary(store.root)


def test_the_best_picture_survives_a_checkpoint_that_cannot_be_written(plan, interrupt, monkeypatch, caplog):
    monkeypatch.setattr(Checkpoint, "save", lambda self, path: refuse("No space left on device"))
    assert (interrupt(plan()) / "best.png").is_file()  # KeyboardInterrupt it was: why the run ended matters more
    assert "No space left" in caplog.text


def refuse(message):
    raise InputError(message)


# --- other processes --------------------------------------------------------------------------------------------


def test_a_run_under_way_is_not_begun_by_another_process_and_not_disturbed(plan, store):
    refused = []
    run = store.obtain(plan(), lambda step: refused.append(refusal(Store(store.root).obtain, plan(), strict=True))).run
    assert all("is being computed by another process" in message for message in refused)
    assert len(refused) == len(run.history()) == 13


def test_a_run_in_another_process_is_waited_for_and_found(plan, store, monkeypatch):
    monkeypatch.setattr(stores, "POLL", 0.01)
    waiting, seen = [], []

    def watch(step):
        if not waiting:
            waiting.append(pool.submit(Store(store.root).obtain, plan(), seen.append))
        time.sleep(0.02)
        assert not waiting[0].done()

    with ThreadPoolExecutor(1) as pool:
        run = store.obtain(plan(), watch).run
        assert waiting[0].result(30) == (run, True)
    assert not seen  # it computed nothing itself


SLOW = """
    import sys, time
    from nstlab import cli
    from nstlab.method.fast.evaluation import FastBound
    from nstlab.runs import store
    store.CHECKPOINT_EVERY, store.CHECKPOINT_SHARE = 0.0, 1e9
    whole = FastBound.evaluate
    FastBound.evaluate = lambda self, image: time.sleep(0.01) or whole(self, image)
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_killed_process_leaves_a_valid_checkpoint_and_the_same_command_finishes(settings, store, tmp_path):
    out = tmp_path / "out.png"
    command = ["transfer", settings.photo, settings.painting, "--weights", settings.weights, "--normalize", "False"]
    command += ["--size", "32", "--steps", "400", "--device", "cpu", "--results", str(store.root), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(store.root.glob("runs/transfer/*.partial/checkpoint.safetensors")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # a few steps more, to be hit anywhere within one
    finally:
        process.kill()
        process.communicate()
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


# --- runs that were computed elsewhere --------------------------------------------------------------------------


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


def test_a_whole_run_that_is_kept_is_the_run_that_the_store_would_have_made(plan, store, whole):
    kept, made = store.keep(plan(), recorded(plan(), 12)), whole(plan())
    assert kept.id == made.id
    assert same(kept, made)
    assert store.find(plan()) == kept
    one, other = ({k: v for k, v in run.manifest.items() if k not in ("environment", "result")} for run in (kept, made))
    assert one == other


def test_a_run_left_early_is_never_taken_for_the_whole_one(plan, store):
    kept = store.keep(plan(), recorded(plan(), 5, {"style": 3.0}))
    assert kept.problem() == ""
    assert kept.manifest["changes"] == [[4, {"style": 3.0}]]
    assert kept.manifest["result"]["status"] == "left before its end"
    assert store.find(plan()) is None
    assert kept.id != store.keep(plan(), recorded(plan(), 5)).id


def test_a_run_whose_weights_were_changed_is_never_taken_for_the_one_that_was_planned(plan, store):
    kept = store.keep(plan(), recorded(plan(), 12, {"style": 3.0}))
    assert kept.manifest["result"]["status"] == "all steps done"
    assert store.find(plan()) is None


def test_a_run_that_is_kept_twice_stays_as_it_is(plan, store):
    first = store.keep(plan(), recorded(plan(), 3))
    created = first.manifest["environment"]["created"], first.picture.stat().st_mtime_ns
    assert store.keep(plan(), recorded(plan(), 3)) == first
    assert (first.manifest["environment"]["created"], first.picture.stat().st_mtime_ns) == created


@pytest.mark.parametrize("failing", ["history.csv", "final.png", "manifest.json", "start.png", "rename"])
def test_a_run_that_cannot_be_kept_leaves_nothing_behind(plan, store, interrupt, monkeypatch, failing):
    todo = plan().begun_with(plan().start)
    record = recorded(todo, 12)
    interrupt(todo)  # the same run
    before = sorted(store.root.rglob("*.*"))
    with monkeypatch.context() as patch:
        fail_at(patch, failing)
        assert "No space left" in refusal(store.keep, todo, record)
    assert sorted(store.root.rglob("*.*")) == before
    assert store.checkpoint(todo).data["index"] == 4
