"""Runs on disk: what decides a run's id, that a run is whole or resumable however it ends, and never half written."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from faults import raise_at, refusal
from hypothesis import given
from hypothesis import strategies as st

from nstlab import cli
from nstlab import files as files_module
from nstlab import images as im
from nstlab.method import checkpoint
from nstlab.method.fast import arithmetic
from nstlab.method.weights import TORCHVISION, random_weights
from nstlab.recipes.plan import prepare
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import index, store
from nstlab.runs.store import Store, run_id
from nstlab.settings import InputError


@pytest.fixture
def files(tmp_path, photo, painting, tiny_file):
    """The pictures and the weights on disk: (photo, painting, weights)."""
    return im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png"), tiny_file


@pytest.fixture
def plan(files):
    """Makes the plan of a small transfer; its arguments change the settings."""

    def make(**changes):
        usual = {"photo": files[0], "painting": files[1], "weights": files[2], "size": 32, "steps": 12, "normalize": False}
        return prepare(TransferSettings(**usual | {"init": "white", "levels": 1} | changes), "cpu")

    return make


@pytest.fixture
def runs(tmp_path):
    return Store(tmp_path / "results")


def drain(steps):
    """Run to the end: the generator's value."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a history, without the seconds that they took."""
    with (folder / "history.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- what decides the id ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"size": 48},
        {"steps": 13},
        {"levels": 2},
        {"seed": 1},
        {"tv": 0.1},
        {"convention": "paper"},
        {"pool": "max"},
        {"normalize": True},
        {"optimizer": "adam"},
        {"history": 5},
        {"precision": "bfloat16"},
        {"stop_loss": 1.0},
        {"alpha": 2},
        {"beta": 2},
        {"style_layers": ("conv1_1",)},
        {"style_weights": (1, 1, 1, 1, 2)},
        {"content_layers": ("conv2_2",)},
        {"style_fit": "crop"},
        {"style_scale": 1.5},
        {"init": "content"},
    ],
    ids=str,
)
def test_whatever_may_change_the_picture_changes_the_id(plan, change):
    assert run_id(plan(**change)) != run_id(plan())


def test_pixels_decide_the_id_and_files_do_not(plan, files, tmp_path, photo):
    moved = im.save(im.load(files[0]), tmp_path / "elsewhere.tif")
    other = im.save((photo + 1 / 255).clamp(0, 1), tmp_path / "other.png")
    assert run_id(plan(photo=moved)) == run_id(plan())
    assert run_id(plan(photo=other)) != run_id(plan())
    assert run_id(plan(painting=other)) != run_id(plan())
    assert run_id(plan(photo=files[1], painting=files[0])) != run_id(plan())


def test_numbers_of_the_weights_decide_the_id_and_files_do_not(plan, files, tmp_path, tiny):
    moved = Path(shutil.copy(files[2], tmp_path / "moved"))
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(random_weights(1, (4, 6, 8, 8, 8)).tensors, other, {"input": str(TORCHVISION)})
    assert run_id(plan(weights=moved)) == run_id(plan())
    assert run_id(plan(weights=other)) != run_id(plan())


def test_the_type_that_a_machine_computes_in_decides_the_id(plan, monkeypatch):
    """It changes the pixels, and "auto" does not say which it is."""
    ids = set()
    for halves in ((), (torch.bfloat16,)):
        monkeypatch.setattr(arithmetic, "native_halves", lambda device, halves=halves: halves)
        ids.add(run_id(plan()))
    assert len(ids) == 2


def test_a_first_picture_from_a_file_decides_the_id_by_its_pixels(plan, files, tmp_path):
    moved = Path(shutil.copy(files[1], tmp_path / "moved.png"))
    assert run_id(plan(init=str(files[0]))) != run_id(plan(init=str(files[1])))
    assert run_id(plan(init=str(moved))) == run_id(plan(init=str(files[1])))


def test_recipes_do_not_share_ids(files):
    usual = {"weights": str(files[2]), "size": 32, "normalize": False}
    plans = prepare(ReconstructSettings(str(files[0]), **usual), "cpu"), prepare(TextureSettings(str(files[0]), **usual), "cpu")
    assert run_id(plans[0]) != run_id(plans[1])


def test_an_id_is_the_same_in_every_process(plan):
    assert run_id(plan()) == run_id(plan())
    assert len(run_id(plan())) == 16
    assert int(run_id(plan()), 16) >= 0


# --- a run that is finished -------------------------------------------------------------------------------------


def test_a_finished_run_is_whole(plan, runs):
    todo = plan()
    assert runs.find(todo) is None
    stored = drain(runs.run(todo))
    assert stored.folder == runs.folder(todo)
    assert stored.id == run_id(todo)
    assert names(stored.folder) == {"manifest.json", "history.csv", "final.png"}
    assert names(stored.folder.parent) == {stored.id}
    assert runs.find(todo) == stored
    assert im.load(stored.picture).shape == (1, 3, 32, 27)
    assert im.read_settings(stored.picture) == todo.settings.to_dict()


def test_the_manifest_says_what_was_done_and_where(plan, runs):
    todo = plan()
    manifest = drain(runs.run(todo)).manifest
    assert manifest["id"] == run_id(todo)
    assert manifest["recipe"] == "transfer"
    assert TransferSettings.from_dict(manifest["settings"]) == todo.settings
    assert manifest["weights"] == todo.net.weights.digest
    assert manifest["inputs"].keys() == {"content", "style"}
    assert (manifest["result"]["steps"], manifest["result"]["status"]) == (12, "all steps done")
    assert manifest["result"]["evaluations"] >= 13
    assert manifest["environment"]["device"].startswith("cpu")
    assert torch.__version__.startswith(manifest["environment"]["versions"]["torch"])


def test_the_history_has_a_row_for_the_first_picture_and_every_step(plan, runs):
    todo = plan(tv=0.5)
    stored = drain(runs.run(todo))
    rows = history(stored.folder)
    assert [int(row["step"]) for row in rows] == list(range(13))
    assert set(rows[0]) == {"step", "level", "loss", "content", "style", "tv", "evaluations", "event"}
    for row in rows:
        total = todo.settings.alpha * float(row["content"]) + todo.settings.beta * float(row["style"]) + 0.5 * float(row["tv"])
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
    assert min(float(row["loss"]) for row in rows) == stored.manifest["result"]["loss"]


def test_a_run_of_no_steps_is_the_first_picture(plan, runs):
    todo = plan(steps=0, init="content")
    stored = drain(runs.run(todo))
    assert len(history(stored.folder)) == 1
    assert (im.load(stored.picture) - todo.start).abs().max() <= 0.51 / 255


def test_computing_anew_gives_the_same_run(plan, runs):
    first = drain(runs.run(plan()))
    before = first.picture.read_bytes(), history(first.folder)
    second = drain(runs.run(plan(), resume=False))
    assert (second.picture.read_bytes(), history(second.folder)) == before


def test_an_earlier_result_stays_until_the_new_one_is_whole(plan, runs):
    stored = drain(runs.run(plan()))
    again = runs.run(plan(), resume=False)
    for _ in range(5):
        next(again)
    assert runs.find(plan()) == stored
    again.close()
    assert runs.find(plan()) == stored


# --- progress pictures ------------------------------------------------------------------------------------------


def test_progress_pictures_are_kept_if_asked_for(plan, runs):
    stored = drain(runs.run(plan(), frames=4))
    assert [path.name for path in stored.frames] == ["000000.png", "000001.png", "000003.png", "000012.png"]
    assert (im.load(stored.frames[0]) - plan().start).abs().max() <= 0.51 / 255
    assert runs.find(plan(), frames=4) == stored


@pytest.mark.parametrize("there", [0, 3])
def test_a_run_with_fewer_progress_pictures_is_not_found_when_more_are_wanted(plan, runs, there):
    stored = drain(runs.run(plan(), frames=there))
    assert runs.find(plan(), frames=there) == stored
    assert runs.find(plan(), frames=there + 1) is None
    drain(runs.run(plan(), frames=there + 1))
    assert runs.find(plan(), frames=there + 1) == runs.find(plan(), frames=there) == stored
    assert len(stored.frames) == there + 1
    assert len(stored.some_frames(there)) == there
    assert stored.some_frames(there)[-1:] == stored.frames[-1:] * (there > 0)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:60]), Path.unlink], ids=["cut", "missing"])
def test_a_run_whose_progress_pictures_are_damaged_is_not_found_when_such_are_wanted(plan, runs, damage):
    stored = drain(runs.run(plan(), frames=4))
    damage(stored.frames[1])
    assert runs.find(plan()) == stored
    assert runs.find(plan(), frames=4) is None
    assert len(drain(runs.run(plan(), frames=4)).frames) == 4
    assert runs.find(plan(), frames=4) == stored


@pytest.mark.parametrize("before", [0, 4])
def test_an_interrupted_run_without_the_progress_pictures_is_refused_with_both_ways_out(plan, runs, before):
    steps = runs.run(plan(), frames=before)
    for _ in range(6):
        next(steps)
    steps.close()
    if before:
        (runs.partial(plan()) / "frames" / "000001.png").write_bytes(b"damaged")
    message = refusal(next, runs.run(plan(), frames=4))
    assert str(runs.partial(plan())) in message
    assert "--frames 0" in message
    assert "--no-resume" in message
    taken = runs.run(plan())
    assert next(taken).index == 6
    taken.close()
    assert len(drain(runs.run(plan(), resume=False, frames=4)).frames) == 4


def test_an_interrupted_run_goes_on_with_its_progress_pictures(plan, runs):
    steps = runs.run(plan(), frames=4)
    for _ in range(6):
        next(steps)
    steps.close()
    assert next(taken := runs.run(plan(), frames=4)).index == 6
    assert [path.name for path in drain(taken).frames] == ["000000.png", "000001.png", "000003.png", "000012.png"]


@pytest.mark.parametrize("frames", [1, 5])
def test_a_run_that_stops_early_is_found_with_its_progress_pictures(plan, runs, frames):
    early = plan(stop_loss=1e30)
    stored = drain(runs.run(early, frames=frames))
    assert len(stored.frames) >= 1
    assert runs.find(early, frames=frames) == stored


@given(st.integers(1, 5000), st.integers(1, 500))
def test_progress_pictures_are_no_more_than_asked_for_and_reach_the_end(total, frames):
    kept = store._frame_indices(total, frames)
    assert 1 <= len(kept) <= frames
    assert max(kept) == total
    assert min(kept) == 0 or frames == 1
    assert store._frame_indices(total, 0) == set()


# --- a run that is interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{}, {"optimizer": "adam"}, {"optimizer": "gd"}, {"levels": 2, "size": 80, "steps": 7}, {"history": 3}, {"tv": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("stop", [1, 3, 9])
def test_a_closed_run_goes_on_to_the_same_pixels(plan, runs, tmp_path, change, stop):
    todo = plan(**change)
    whole = drain(Store(tmp_path / "whole").run(todo))
    steps = runs.run(todo)
    for _ in range(stop):
        last = next(steps)
    steps.close()
    assert runs.find(todo) is None
    assert {"checkpoint.safetensors", "best.png", "history.csv"} <= names(runs.partial(todo))
    assert (im.load(runs.partial(todo) / "best.png") - last.best()).abs().max() <= 0.51 / 255
    assert next(runs.run(todo)).index == stop
    stored = drain(runs.run(todo))
    assert stored.picture.read_bytes() == whole.picture.read_bytes()
    assert history(stored.folder) == history(whole.folder)
    for key in ("loss", "terms", "status", "steps", "evaluations", "events"):
        assert stored.manifest["result"][key] == whole.manifest["result"][key], key
    assert not runs.partial(todo).exists()


@pytest.mark.parametrize("evaluation", [2, 3, 8, 13])
def test_a_run_interrupted_within_an_evaluation_goes_on_to_the_same_pixels(plan, runs, tmp_path, monkeypatch, evaluation):
    whole = drain(Store(tmp_path / "whole").run(plan()))
    with monkeypatch.context() as patch:
        raise_at(patch, evaluation)
        with pytest.raises(KeyboardInterrupt):
            drain(runs.run(plan()))
    assert runs.checkpoint(plan()) is not None
    stored = drain(runs.run(plan()))
    assert stored.picture.read_bytes() == whole.picture.read_bytes()
    assert history(stored.folder) == history(whole.folder)


def test_a_run_interrupted_again_and_again_goes_on_to_the_same_pixels(plan, runs, tmp_path):
    whole = drain(Store(tmp_path / "whole").run(plan()))
    for _ in range(20):  # a step each time, and the last of them only finishes
        steps = runs.run(plan())
        try:
            next(steps)
        except StopIteration:
            break
        steps.close()
    assert runs.find(plan()).picture.read_bytes() == whole.picture.read_bytes()
    assert history(runs.folder(plan())) == history(whole.folder)


def test_a_run_that_stops_when_nothing_changes_stops_at_the_same_step_when_resumed(plan, runs, tmp_path):
    todo = plan(steps=40, stop_change=0.9)
    whole = drain(Store(tmp_path / "whole").run(todo))
    assert whole.manifest["result"]["status"] == "loss no longer changes"
    steps = runs.run(todo)
    for _ in range(8):
        next(steps)
    steps.close()
    stored = drain(runs.run(todo))
    assert stored.manifest["result"]["steps"] == whole.manifest["result"]["steps"]
    assert stored.picture.read_bytes() == whole.picture.read_bytes()


def test_a_run_interrupted_before_its_first_step_begins_anew(plan, runs, monkeypatch):
    with monkeypatch.context() as patch:
        raise_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            drain(runs.run(plan()))
    assert runs.find(plan()) is None
    assert runs.checkpoint(plan()) is None
    assert drain(runs.run(plan())).manifest["result"]["steps"] == 12


def test_a_run_that_fails_leaves_a_checkpoint_as_well(plan, runs, monkeypatch):
    raise_at(monkeypatch, 5, RuntimeError)
    with pytest.raises(RuntimeError):
        drain(runs.run(plan()))
    assert runs.checkpoint(plan()) is not None


def test_not_resuming_begins_at_the_first_picture(plan, runs):
    steps = runs.run(plan())
    for _ in range(5):
        next(steps)
    steps.close()
    assert next(runs.run(plan(), resume=False)).index == 0


def test_a_run_whose_weights_were_changed_is_not_taken_for_the_one_that_was_planned(plan, runs, tmp_path):
    whole = drain(Store(tmp_path / "whole").run(plan()))
    steps = runs.run(plan())
    next(steps)
    assert steps.send({"style": 0.0}).weights["style"] == 0.0
    drain(steps)
    stored = runs.find(plan()) or drain(runs.run(plan()))
    assert stored.picture.read_bytes() == whole.picture.read_bytes()


def test_a_run_interrupted_after_its_weights_were_changed_is_not_taken_for_the_one_that_was_planned(plan, runs, tmp_path):
    whole = drain(Store(tmp_path / "whole").run(plan()))
    steps = runs.run(plan())
    next(steps)
    steps.send({"style": 0.0})
    steps.close()
    assert drain(runs.run(plan())).picture.read_bytes() == whole.picture.read_bytes()


def test_a_steered_run_that_is_under_way_cannot_be_removed(plan, runs):
    steps = runs.run(plan())
    next(steps)
    steps.send({"style": 3.0})
    (folder,) = (runs.root / "runs" / "transfer").iterdir()
    assert folder.name.endswith(".steered.partial")
    assert "is being computed" in refusal(index.remove, [folder.name[:10]], runs.root)
    assert drain(steps).manifest["changes"] == [[0, {"style": 3.0}]]


def test_checkpoints_are_written_while_the_run_is_under_way(plan, runs, monkeypatch):
    monkeypatch.setattr(store, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(store, "CHECKPOINT_SHARE", 1e9)
    steps = runs.run(plan())
    for _ in range(5):
        next(steps)
    assert runs.checkpoint(plan()).data["index"] == 4
    assert len(history(runs.partial(plan()))) == 5
    steps.close()


@pytest.mark.parametrize(
    "damage",
    [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: d[:-1], lambda d: b"x" * len(d)],
    ids=["empty", "half", "a byte short", "overwritten"],
)
def test_a_damaged_checkpoint_is_refused_by_name_with_the_way_out(plan, runs, damage):
    steps = runs.run(plan())
    for _ in range(3):
        next(steps)
    steps.close()
    path = runs.partial(plan()) / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(next, runs.run(plan()))
    assert str(path) in message
    assert "--no-resume" in message
    assert drain(runs.run(plan(), resume=False)).manifest["result"]["steps"] == 12


def test_a_checkpoint_of_another_program_is_refused(plan, runs):
    path = runs.partial(plan()) / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    safetensors.torch.save_file({"x": torch.zeros(3)}, path, {"format": "another"})
    assert str(path) in refusal(next, runs.run(plan()))


def edited(path: Path, tensors=lambda t: t, data=lambda d: d) -> None:
    """Change what a checkpoint holds, and write it as one that is whole."""
    found = checkpoint.Checkpoint.load(path)
    checkpoint.Checkpoint(tensors(dict(found.tensors)), data(dict(found.data))).save(path)


def without(name):
    return lambda values: {key: value for key, value in values.items() if key != name}


CHANGES = {
    **{
        f"no {name}": {"tensors": without(name)}
        for name in ("x", "grad", "loss", "values", "best_x", "memory.pairs", "memory.sy")
    },
    **{
        f"no {name}": {"data": without(name)}
        for name in ("index", "level", "weights", "numbers", "recent", "fine", "optimizer")
    },
    "a picture of NaN": {"tensors": lambda t: t | {"x": torch.full_like(t["x"], torch.nan)}},
    "a best picture of NaN": {"tensors": lambda t: t | {"best_x": torch.full_like(t["best_x"], torch.nan)}},
    "a history of infinity": {"tensors": lambda t: t | {"memory.pairs": torch.full_like(t["memory.pairs"], torch.inf)}},
    "a picture of integers": {"tensors": lambda t: t | {"x": t["x"].int()}},
    "a history of another type": {"tensors": lambda t: t | {"memory.pairs": t["memory.pairs"].half()}},
    "pictures of another type": {"tensors": lambda t: t | {name: t[name].double() for name in ("x", "grad", "best_x")}},
    "a smaller picture": {"tensors": lambda t: t | {"x": t["x"][..., 1:].contiguous()}},
    "a smaller history": {"tensors": lambda t: t | {"memory.pairs": t["memory.pairs"][:, 1:].contiguous()}},
    "a term more": {"tensors": lambda t: t | {name: torch.zeros(3) for name in ("values", "best_values")}},
    "a loss of NaN": {"data": lambda d: d | {"loss": float("nan")}},
    "an unknown size": {"data": lambda d: d | {"level": 1}},
    "an unknown slot": {"data": lambda d: d | {"numbers": d["numbers"] | {"order": [0, 99]}}},
    "a slot twice": {"data": lambda d: d | {"numbers": d["numbers"] | {"order": [0, 0]}}},
    "no length": {"data": lambda d: d | {"numbers": {"order": []}}},
    "words for a number": {"data": lambda d: d | {"index": "two"}},
    "weights of another run": {"data": lambda d: d | {"weights": {"content": 1.0}}},
    "a step that is no whole number": {"data": lambda d: d | {"index": float(d["index"])}},
    "a size that is no whole number": {"data": lambda d: d | {"level": 0.0}},
    "more steps than there are": {"data": lambda d: d | {"index": 99}},
    "other weights": {"data": lambda d: d | {"weights": d["weights"] | {"style": 1.5}}},
    "an infinite weight": {"data": lambda d: d | {"weights": dict.fromkeys(d["weights"], float("inf"))}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_lacks_something_is_refused_and_where_nobody_can_be_asked_the_run_begins_anew(plan, runs, change):
    steps = runs.run(plan())
    for _ in range(5):
        next(steps)
    steps.close()
    edited(runs.partial(plan()) / "checkpoint.safetensors", **change)
    assert "--no-resume" in refusal(next, runs.run(plan()))
    assert runs.obtain(plan()).run.manifest["result"]["steps"] == 12


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_what_stands_in_a_runs_place_gives_way_and_what_a_link_names_does_not(plan, runs, tmp_path, what):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    for place in (runs.partial(plan()), runs.folder(plan())):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way") if what == "file" else place.symlink_to(tmp_path / ("mine" if what == "link" else "no"))
    stored = runs.obtain(plan()).run
    assert stored.is_whole()
    assert not stored.folder.is_symlink()
    assert os.listdir(tmp_path / "mine") == ["mine.txt"]


def test_a_picture_of_another_size_is_not_the_runs(plan, runs, caplog):
    stored = runs.obtain(plan()).run
    im.save(torch.rand(1, 3, 50, 40), stored.picture)
    assert runs.find(plan()) is None
    assert "50 px" in caplog.text


@pytest.mark.parametrize(("optimizer", "missing"), [("adam", "memory.m"), ("adam", "memory.v")])
def test_a_checkpoint_of_a_first_order_optimizer_that_lacks_something_is_refused(plan, runs, optimizer, missing):
    todo = plan(optimizer=optimizer)
    steps = runs.run(todo)
    for _ in range(5):
        next(steps)
    steps.close()
    path = runs.partial(todo) / "checkpoint.safetensors"
    whole = path.read_bytes()
    for change in ({"tensors": without(missing)}, {"data": lambda d: d | {"numbers": {"rate": -1.0, "count": 4}}}):
        path.write_bytes(whole)
        edited(path, **change)
        assert "is not whole" in refusal(next, runs.run(todo))
    path.write_bytes(whole)
    assert next(runs.run(todo)).index == 5


@pytest.mark.parametrize("file", ["manifest.json", "history.csv", "final.png", "checkpoint.safetensors"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_a_pipe_in_a_runs_folder_is_damage_and_not_waited_for(plan, runs, file):
    steps = runs.run(plan())
    next(steps)
    folder = runs.partial(plan()) if file.startswith("checkpoint") else None
    steps.close() if folder else drain(steps)
    path = (folder or runs.folder(plan())) / file
    path.unlink()
    os.mkfifo(path)
    assert runs.obtain(plan()).run.is_whole()


def test_what_jupyter_leaves_in_a_runs_folder_is_no_obstacle(plan, runs):
    steps = runs.run(plan())
    for _ in range(3):
        next(steps)
    steps.close()
    (runs.partial(plan()) / ".ipynb_checkpoints").mkdir()
    assert drain(runs.run(plan())).manifest["result"]["steps"] == 12


# --- when the disk fails ----------------------------------------------------------------------------------------


def test_a_results_folder_that_cannot_be_made_is_refused(plan, tmp_path):
    (tmp_path / "results").write_text("in the way")
    assert str(tmp_path / "results") in refusal(next, Store(tmp_path / "results").run(plan()))


@pytest.mark.parametrize("failing", ["final.png", "manifest.json", "rename"])
def test_a_disk_that_fails_at_the_end_costs_no_computing(plan, runs, monkeypatch, failing):
    replace = os.replace

    def fail_at(source, target, **kwargs):
        if Path(target).name == failing:
            raise OSError(28, "No space left on device")
        return replace(source, target, **kwargs)

    def no_rename(self, target):
        raise OSError(28, "No space left on device")

    todo = plan()
    steps = runs.run(todo)
    for _ in range(13):
        next(steps)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at)
        if failing == "rename":
            patch.setattr(Path, "rename", no_rename)
        assert "No space left on device" in refusal(next, steps)
    assert not runs.folder(todo).exists()
    assert not [name for name in names(runs.partial(todo)) if name.startswith(".")]  # no temporary file is left
    assert runs.checkpoint(todo).data["index"] == 12
    assert len(list(runs.run(todo))) <= 1
    assert len(history(runs.folder(todo))) == 13


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_the_run_goes_on(plan, runs, monkeypatch, caplog):
    monkeypatch.setattr(store, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(store, "CHECKPOINT_SHARE", 1e9)
    steps = runs.run(plan())
    for _ in range(4):
        next(steps)

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert next(steps).index == 4
    assert "No space left on device" in caplog.text
    assert runs.checkpoint(plan()).data["index"] == 3
    steps.close()
    assert not [name for name in names(runs.partial(plan())) if name.startswith(".")]
    assert drain(runs.run(plan())).manifest["result"]["steps"] == 12


def test_weights_changed_after_the_last_step_make_another_run_as_well(plan, runs):
    steps = runs.run(plan())
    for _ in range(13):
        next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send({"style": 1.0})
    assert end.value.value.id != store.run_id(plan())
    assert runs.find(plan()) is None


def test_a_run_under_way_is_not_begun_by_another_process(plan, runs):
    steps = runs.run(plan())
    next(steps)
    assert "is being computed by another process" in refusal(next, runs.run(plan()))
    assert len(list(steps)) == 12  # the first one is not disturbed
    assert runs.find(plan()) is not None


def test_the_best_picture_survives_a_checkpoint_that_cannot_be_written(plan, runs, monkeypatch, caplog):
    def full(self, path):
        raise InputError("No space left on device")

    monkeypatch.setattr(store.Checkpoint, "save", full)
    steps = runs.run(plan())
    next(steps)
    with pytest.raises(KeyboardInterrupt):  # why the run ended matters more
        steps.throw(KeyboardInterrupt)
    assert "No space left" in caplog.text
    assert (runs.partial(plan()) / "best.png").is_file()


# --- when the process is killed ---------------------------------------------------------------------------------

SLOW = """
    import sys, time
    from nstlab import cli
    from nstlab.method import engine
    from nstlab.runs import store
    store.CHECKPOINT_EVERY, store.CHECKPOINT_SHARE = 0.0, 1e9
    whole = engine.Evaluator.__call__
    engine.Evaluator.__call__ = lambda self, x: time.sleep(0.01) or whole(self, x)
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_killed_process_leaves_a_valid_checkpoint_and_the_same_command_finishes(files, runs, tmp_path, capsys):
    out = tmp_path / "out.png"
    command = ["transfer", str(files[0]), str(files[1]), "--weights", str(files[2]), "--normalize", "False", "--size", "32"]
    command += ["--steps", "400", "--device", "cpu", "--results", str(runs.root), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW), *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(runs.root.glob("runs/transfer/*.partial/checkpoint.safetensors")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # a few steps more, to be hit anywhere within one
    finally:
        process.kill()
        process.communicate()
    assert not out.exists()
    (partial,) = runs.root.glob("runs/transfer/*")
    assert partial.suffix == ".partial"
    (partial / f"{files_module.TEMPORARY}0.csv").touch()  # as if it had been hit while it wrote
    index = checkpoint.Checkpoint.load(partial / "checkpoint.safetensors").data["index"]
    assert index < 400
    assert len(history(partial)) > index  # the history is written first

    assert cli.main(command) == 0
    assert out.exists()
    (folder,) = runs.root.glob("runs/transfer/*")
    assert [int(row["step"]) for row in history(folder)] == list(range(401))
    assert not [name for name in names(folder) if name.startswith(".")]


@pytest.mark.parametrize("file", ["manifest.json", "final.png", "history.csv"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_run_is_reported_and_computed_again(plan, runs, caplog, file, keep):
    done = runs.obtain(plan()).run
    path, whole = done.folder / file, (done.folder / file).read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))] if file != "history.csv" else b"")
    assert runs.find(plan()) is None
    assert f"{done.folder}: is damaged" in caplog.text
    again = runs.obtain(plan()).run
    assert again == done
    assert again.is_whole()
    assert im.reopen(again.picture).shape == (1, 3, 32, 27)


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "history.csv"])
def test_a_run_that_cannot_be_taken_up_begins_anew_where_nobody_can_be_asked(plan, runs, caplog, file):
    steps = runs.run(plan())
    for _ in range(5):
        next(steps)
    steps.close()
    (runs.partial(plan()) / file).write_bytes(b"")
    assert "--no-resume begins anew" in refusal(drain, runs.run(plan()))
    done = runs.obtain(plan()).run
    assert "begins anew" in caplog.text
    assert [int(row["step"]) for row in history(done.folder)] == list(range(13))


# --- runs that were carried out elsewhere


def recorded(plan, steps, changes=None):
    """The record of a run's first steps, with weights changed before the last of them."""
    record, run = store.Record(), plan.steps()
    record.note(next(run))
    for i in range(steps):
        sent = changes if i == steps - 1 else None
        step = run.send(sent)
        record.steer(sent)
        record.note(step)
    return record


def test_a_whole_run_that_is_kept_is_the_run_that_the_store_would_have_made(plan, runs, tmp_path):
    kept = runs.keep(plan(), recorded(plan(), 12))
    made = drain(Store(tmp_path / "other").run(plan()))
    assert kept.id == made.id
    one, other = (history(run.folder) for run in (kept, made))
    assert [row | {"seconds": 0} for row in one] == [row | {"seconds": 0} for row in other]
    assert kept.picture.read_bytes() == made.picture.read_bytes()
    assert runs.find(plan()) == kept
    changing = ("environment", "result")
    one, other = ({k: v for k, v in run.manifest.items() if k not in changing} for run in (kept, made))
    assert one == other


def test_a_run_left_early_is_never_taken_for_the_whole_one(plan, runs):
    kept = runs.keep(plan(), recorded(plan(), 5, {"style": 3.0}))
    assert kept.problem() == ""
    assert kept.manifest["changes"] == [[4, {"style": 3.0}]]
    assert kept.manifest["result"]["status"] == "left before its end"
    assert runs.find(plan()) is None
    assert kept.id != runs.keep(plan(), recorded(plan(), 5)).id


def test_a_run_that_cannot_be_kept_leaves_nothing_behind(plan, runs, monkeypatch):
    record = recorded(plan(), 3)
    runs.keep(plan(), record)
    before = sorted(runs.root.rglob("*.*"))
    record.note(record.last)
    for name in ("_write_rows", "_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(store, name, raising(OSError(28, "No space left on device")))
            with pytest.raises(InputError, match="No space left"):
                runs.keep(plan(), record)
        assert sorted(runs.root.rglob("*.*")) == before


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
