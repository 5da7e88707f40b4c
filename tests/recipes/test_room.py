"""Runs that do not fit into memory: tiles, and pictures in files."""

import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from faults import raise_at, refusal
from helpers import as_ranks

from nstlab import images as im
from nstlab import large
from nstlab.method.fast import memory
from nstlab.method.fast.tiles import TiledBound
from nstlab.recipes import room
from nstlab.recipes.room import Room, prepare_here, prepare_together
from nstlab.runs.store import Store


@pytest.fixture
def settings(small_transfer):
    return small_transfer.replace(size=96, steps=8, levels=2)


@pytest.fixture
def tiny_is_large(monkeypatch):
    """Everything is computed in bands, and kept in files where that is asked for."""
    for name, value in {"LARGE": 1000, "SMALL": 500, "BAND": 3000, "STRIP": 10}.items():
        monkeypatch.setattr(large, name, value)


@pytest.fixture
def pictures_do_not_fit(monkeypatch, tiny_is_large):
    monkeypatch.setattr(memory, "of_pixels", lambda *args: 1 << 60)


def solved(settings, **room):
    return prepare_here(settings, "cpu", Room(**room)).solve()


def test_a_run_in_tiles_is_the_run(settings):
    plain, cut = solved(settings), solved(settings, tile="32")
    assert cut.loss == pytest.approx(plain.loss, rel=1e-3)
    assert (cut.image - plain.image).abs().mean() < 1e-3


def test_memory_decides_what_is_cut(settings, monkeypatch, tmp_path):
    settings = settings.replace(history=1, size=160)
    assert prepare_here(settings, "cpu").tiling is None
    whole = prepare_here(settings, "cpu").memory_needed()
    monkeypatch.setattr(room, "LEAST", 48)
    monkeypatch.setattr(room, "SPARE", 1.0)
    monkeypatch.setattr(memory, "available", lambda device: whole - 1)
    plan = prepare_here(settings, "cpu", Room(folder=str(tmp_path)))
    assert (plan.folder, plan.on_host) == (None, False)
    assert plan.tiling.room + plan.pictures_needed() == plan.memory_needed() <= whole
    assert "--tile auto takes less" in refusal(prepare_here, settings, "cpu", Room(tile="off"))
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert "needs about" in refusal(prepare_here, settings, "cpu")
    assert "includes the process" not in refusal(prepare_here, settings, "cpu")
    assert "only vgg19" in refusal(prepare_here, settings.replace(temperature=1.0), "cpu", Room(tile="32"))


@pytest.mark.parametrize("tile", ["auto", "off", "32"])
def test_what_the_process_itself_takes_is_said_where_memory_is_too_little(settings, monkeypatch, tile):
    monkeypatch.setattr(room, "UNSEEN", 1 << 30)
    message = refusal(prepare_here, settings, "cpu", Room(tile=tile, memory=0.5))
    assert "0.00 GB can be had" in message
    assert re.search(r"--memory 0\.5 includes the process, which takes \d\.\d\d GB itself", message)


def test_pictures_in_files_make_the_same_pixels(settings, pictures_do_not_fit, tmp_path):
    plan = prepare_here(settings, "cpu", Room(tile="32", folder=str(tmp_path)))
    assert (plan.folder, isinstance(plan.start, large.Mapped)) == (str(tmp_path), True)
    found = plan.solve()
    assert isinstance(found.image, large.Mapped)
    assert plan.memory_needed() == plan.tiling.room + memory.BANDS
    in_memory = plan.__class__(**{**vars(plan), "folder": None, "start": plan.start.clone()}).solve()
    assert found.loss == pytest.approx(in_memory.loss, rel=1e-4)
    assert plan.identity() == prepare_here(settings, "cpu", Room(tile="32")).identity()


def test_ranks_take_the_memory_of_the_one_that_has_least_and_refuse_to_have_no_tiles(settings):
    def prepare(team):
        plan = prepare_here(settings, "cpu", Room(team=team))
        return replace(plan, tiling=replace(plan.tiling, room=3000 - 1000 * team.rank), on_host=team.rank == 1)

    plans = as_ranks(3, lambda team: prepare_together(lambda: prepare(team), team))
    assert {(plan.tiling.room, plan.on_host) for plan in plans} == {(1000, True)}
    assert [plan.tiling.team.rank for plan in plans] == [0, 1, 2]
    off = as_ranks(2, lambda team: prepare_together(lambda: prepare_here(settings, "cpu", Room("off", team=team)), team))
    assert "leave out --tile off" in str(off[0])


def test_history_in_16_bits_ends_where_float32_does(settings, monkeypatch):
    exact = solved(settings)
    monkeypatch.setattr(large, "LARGE", 1000)
    assert solved(settings).loss == pytest.approx(exact.loss, rel=0.02)


def test_an_interrupted_run_with_pictures_in_files_goes_on_to_the_same_pixels(
    settings, pictures_do_not_fit, tmp_path, monkeypatch
):
    where = Room(tile="32", folder=str(tmp_path))
    whole = Store(tmp_path / "whole").obtain(prepare_here(settings, "cpu", where)).run
    store, plan = Store(tmp_path / "halves"), prepare_here(settings, "cpu", where)
    with monkeypatch.context() as context:
        raise_at(context, 11, kind=TiledBound)
        with pytest.raises(KeyboardInterrupt):
            store.obtain(plan)
    checkpoint = store.partial(plan) / "checkpoint.safetensors"
    assert safetensors.torch.load_file(checkpoint)["x"].shape == plan.start.shape
    again = store.obtain(prepare_here(settings, "cpu", where)).run
    assert torch.equal(im.reopen(again.picture), im.reopen(whole.picture))
    assert again.manifest["result"]["loss"] == whole.manifest["result"]["loss"]


def test_what_needs_whole_pictures_is_refused_if_they_do_not_fit(settings, pictures_do_not_fit):
    for changes in ({"colour": "luminance"}, {"regions": 2}, {"match_histogram": True}):
        assert "needs about" in refusal(prepare_here, settings.replace(**changes), "cpu", Room(tile="32"))
