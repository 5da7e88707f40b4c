"""A run on disk: what decides its id, and what its folder holds. (Damage of all kinds is in
test_index.)"""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from faults import refusal

from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.weights import random_weights
from nstlab.pictures import images as im
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import stored
from nstlab.runs.stored import read_rows, run_id, write_rows


@pytest.mark.parametrize(
    "change",
    [
        {"size": 48}, {"steps": 13}, {"levels": 2}, {"seed": 1}, {"tv": 0.1},
        {"convention": "paper"}, {"pool": "max"},
        {"normalize": True}, {"optimizer": "adam"}, {"history": 5}, {"precision": "bfloat16"},
        {"stop_loss": 1.0},
        {"alpha": 2}, {"beta": 2}, {"style_layers": ("conv1_1",)},
        {"style_weights": (1, 1, 1, 1, 2)},
        {"content_layers": ("conv2_2",)}, {"style_fit": "crop"}, {"style_scale": 1.5},
        {"init": "content"},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_may_change_the_picture_changes_the_id(plan, change):
    assert run_id(plan(**change)) != run_id(plan())


def test_pixels_their_roles_and_numbers_decide_the_id_and_files_do_not(
    plan, settings, tmp_path, photo
):
    first = {name: Path(getattr(settings, name)) for name in ("photo", "painting", "weights")} | {
        "init": settings.photo
    }
    moved = {name: shutil.copy(path, tmp_path / f"moved {name}") for name, path in first.items()}
    moved["photo"] = im.save(im.load(settings.photo), tmp_path / "moved.tif")
    assert run_id(plan(**moved)) == run_id(plan(**first))
    picture, weights = (
        im.save((photo + 1 / 255).clamp(0, 1), tmp_path / "other.png"),
        tmp_path / "other.safetensors",
    )
    safetensors.torch.save_file(
        random_weights(1, (4, 6, 8, 8, 8)).tensors, weights, {"input": str(TORCHVISION)}
    )
    others = [{name: picture} for name in ("photo", "painting", "init")] + [{"weights": weights}]
    others += [{}, {"photo": settings.painting, "painting": settings.photo}]
    assert len({run_id(plan(**first | other)) for other in others}) == len(others)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_repository_that_has_the_package(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    module = tmp_path / "checkout" / "stored.py"
    module.parent.mkdir()
    module.touch()
    monkeypatch.setattr(stored, "__file__", str(module))
    assert stored._commit() is None
    git("init")
    git("commit", "--allow-empty", "-m", "another project")
    assert stored._commit() is None
    git("add", ".")
    git("commit", "-m", "with the package in it")
    assert re.fullmatch("[0-9a-f]{7,}", stored._commit())


def test_ids_of_earlier_runs_stay_what_they_are():
    plan = SimpleNamespace(
        identity=lambda: {"recipe": "transfer", "settings": {"size": 32, "layers": ["conv1_1"]}}
    )
    ids = (
        run_id(plan),
        run_id(plan, [(2, {"style": 5.0})]),
        run_id(plan, [], 7),
        run_id(plan, [(2, {"style": 5.0})], 7),
    )
    assert ids == ("abd88ad323f4d52e", "8ed267257054cf01", "a58f4384406c872d", "e848d96b1ccc2315")


def test_a_finished_run_is_whole_and_found_and_computed_again_if_it_is_gone(plan, store):
    todo = plan(tv=0.5)
    run, found = store.obtain(todo)
    assert (run.folder, run.id, found) == (store.folder(todo), run_id(todo), False)
    assert store.obtain(todo) == (run, True)
    assert im.load(run.picture).shape == (1, 3, 32, 27)
    assert im.read_settings(run.picture) == todo.settings.to_dict()

    manifest, rows = run.manifest, run.history()
    assert (manifest["id"], manifest["recipe"]) == (run.id, "transfer")
    assert TransferSettings.from_dict(manifest["settings"]) == todo.settings
    assert manifest["weights"] == todo.net.weights.digest
    assert manifest["inputs"].keys() == {"content", "style"}
    assert (manifest["result"]["steps"], manifest["result"]["status"]) == (12, "all steps done")
    assert manifest["result"]["evaluations"] >= 13
    assert manifest["environment"]["device"].startswith("cpu")
    assert torch.__version__.startswith(manifest["environment"]["versions"]["torch"])

    assert list(rows["step"]) == list(range(13))
    assert list(rows) == [
        "step",
        "level",
        "loss",
        "content",
        "style",
        "tv",
        "evaluations",
        "seconds",
        "event",
    ]
    total = (
        todo.settings.alpha * rows["content"]
        + todo.settings.beta * rows["style"]
        + 0.5 * rows["tv"]
    )
    assert list(rows["loss"]) == pytest.approx(list(total), rel=1e-4)
    assert rows["loss"].min() == manifest["result"]["loss"]

    run.picture.write_bytes(run.picture.read_bytes()[:60])
    assert store.obtain(todo) == (run, True)  # which was whole when it got its place
    assert "damaged" in refusal(im.reopen, run.picture)
    run.picture.unlink()
    assert store.find(todo) is None
    assert store.obtain(todo) == (run, False)
    assert run.problem() == ""
    assert im.load(run.picture).shape == (1, 3, 32, 27)


def test_a_history_comes_back_as_it_was_written(tmp_path):
    common = {"level": 0, "loss": 1 / 3, "seconds": 0.125, "evaluations": 2}
    rows = [
        {"step": 0, **common, "style": 1e-30, "event": ""},
        {"step": 1, **common, "tv": 2.0, "event": "rolled back, twice"},
    ]
    write_rows(tmp_path / "history.csv", rows)
    assert read_rows(tmp_path / "history.csv") == rows  # a term may come and go with its weight
    assert read_rows(tmp_path / "history.csv", last=0) == rows[:1]


HISTORY = "step,level,loss,evaluations,seconds,event\r\n0,0,1.5,1,0.1,\r\n1,0,1.5,1,0.1,\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "", "step\r\n0\r\n1\r\n", HISTORY[:-3], HISTORY[:-1] + "9", HISTORY + "3",
        HISTORY.replace("1.5", "low"),
        HISTORY.replace("\r\n0", "\r\n5"), HISTORY.replace("\r\n1,", "\r\n0,"),
        HISTORY.partition("\r\n1")[0], "\0", "\udcff",
    ],
    ids=range(11),
)  # fmt: skip
def test_a_damaged_history_is_refused(tmp_path, text):
    path = tmp_path / "history.csv"
    path.write_bytes(HISTORY.encode())
    assert len(read_rows(path, last=1)) == 2
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert str(path) in refusal(read_rows, path, 1)


def test_a_run_of_no_steps_is_the_first_picture(plan, store):
    todo = plan(steps=0, init="content")
    run = store.obtain(todo).run
    assert len(run.history()) == 1
    assert (im.load(run.picture) - todo.start).abs().max() <= 0.51 / 255
