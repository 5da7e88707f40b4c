"""Runs whose features do not fit into memory: tiles."""

import re
from dataclasses import replace

import pytest
import torch
from faults import raise_at, refusal
from helpers import as_ranks

from nstlab.base.errors import InputError
from nstlab.method import curvature
from nstlab.method.fast import memory
from nstlab.method.fast.tiles import TiledBound
from nstlab.method.fast.windows import Tiling
from nstlab.pictures import images as im
from nstlab.recipes import capacity
from nstlab.recipes.agreement import agree
from nstlab.recipes.capacity import MemoryBudget
from nstlab.recipes.prepare import prepare, prepare_here
from nstlab.runs.store import Store


@pytest.fixture
def settings(small_transfer):
    return small_transfer.replace(size=64, steps=6, levels=2)


def solved(settings, **budget):
    return prepare_here(settings, "cpu", MemoryBudget(**budget)).solve()


def test_a_run_in_tiles_is_the_run(settings):
    plain, cut = solved(settings), solved(settings, tile="32")
    assert cut.loss == pytest.approx(plain.loss, rel=1e-3)
    assert (cut.image - plain.image).abs().mean() < 1e-3


def test_memory_decides_what_is_cut(settings, monkeypatch):
    settings = settings.replace(history=1, size=160)
    assert prepare_here(settings, "cpu").tiling is None
    whole = prepare_here(settings, "cpu").memory_needed()
    monkeypatch.setattr(capacity, "MIN_WINDOW", 48)
    monkeypatch.setattr(memory, "SPARE", 1.0)
    monkeypatch.setattr(memory, "available", lambda device: whole - 1)
    plan = prepare_here(settings, "cpu")
    assert not plan.on_host
    assert plan.tiling.budget + plan.pictures_needed() == plan.memory_needed() <= whole
    assert "--tile auto takes less" in refusal(
        prepare_here, settings, "cpu", MemoryBudget(tile="off")
    )
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert "needs about" in refusal(prepare_here, settings, "cpu")
    assert "includes the process" not in refusal(prepare_here, settings, "cpu")
    assert "only vgg19" in refusal(
        prepare_here, settings.replace(temperature=1.0), "cpu", MemoryBudget(tile="32")
    )


@pytest.mark.parametrize("tile", ["auto", "off", "32"])
def test_what_the_process_itself_takes_is_said_where_memory_is_too_little(
    settings, monkeypatch, tile
):
    monkeypatch.setattr(capacity, "UNSEEN", 1 << 30)
    message = refusal(prepare_here, settings, "cpu", MemoryBudget(tile=tile, memory=0.5))
    assert "0.00 GB is available" in message
    assert re.search(r"--memory 0\.5 includes the process, which takes \d\.\d\d GB itself", message)


@pytest.mark.parametrize(
    "changes",
    [{"colour": "luminance"}, {"colour": "matched"}, {"regions": 2}, {"match_histogram": True}],
)
def test_colours_and_regions_go_in_tiles_like_everything_else(settings, changes):
    settings = settings.replace(steps=2, levels=1, **changes)
    plain, cut = solved(settings), solved(settings, tile="32")
    assert cut.loss == pytest.approx(plain.loss, rel=1e-3)
    assert (cut.image - plain.image).abs().mean() < 1e-3


def test_ranks_take_the_memory_of_the_one_that_has_least_and_refuse_to_have_no_tiles(settings):
    whole = prepare(settings, "cpu")

    def in_tiles(team):
        tiling = Tiling(3000 - 1000 * team.rank, team=team)
        return replace(whole, tiling=tiling, on_host=team.rank == 1)

    plans = as_ranks(3, lambda team: agree(lambda: in_tiles(team), team))
    assert {(plan.tiling.budget, plan.on_host) for plan in plans} == {(1000, True)}
    assert [plan.tiling.team.rank for plan in plans] == [0, 1, 2]
    off = as_ranks(2, lambda team: prepare(settings, "cpu", MemoryBudget("off", team=team)))
    assert "leave out --tile off" in str(off[0])


def test_history_in_16_bits_ends_where_float32_does(settings, monkeypatch):
    exact = solved(settings)
    monkeypatch.setattr(curvature, "LARGE", 1000)
    assert solved(settings).loss == pytest.approx(exact.loss, rel=0.02)


def test_a_run_in_tiles_goes_on_to_the_same_pixels_after_an_interruption(
    settings, tmp_path, monkeypatch
):
    whole = (
        Store(tmp_path / "whole").obtain(prepare_here(settings, "cpu", MemoryBudget(tile="32"))).run
    )
    store, plan = Store(tmp_path / "halves"), prepare_here(settings, "cpu", MemoryBudget(tile="32"))
    with monkeypatch.context() as context:
        raise_at(context, 6, kind=TiledBound)
        with pytest.raises(KeyboardInterrupt):
            store.obtain(plan)
    again = store.obtain(prepare_here(settings, "cpu", MemoryBudget(tile="32"))).run
    assert torch.equal(im.reopen(again.picture), im.reopen(whole.picture))
    assert again.manifest["result"]["loss"] == whole.manifest["result"]["loss"]


def test_what_is_too_large_even_in_tiles_is_told_with_a_size_that_fits(settings, monkeypatch):
    monkeypatch.setattr(capacity, "MIN_WINDOW", 32)
    monkeypatch.setattr(memory, "available", lambda device: 12_000_000)
    settings = settings.replace(size=480, history=1)
    message = refusal(prepare_here, settings, "cpu")
    told = (
        r"^size 480 needs about 0\.\d\d GB of memory, 0\.01 GB is available; --size (\d+) "
        r"would fit$"
    )
    fits = int(re.search(told, message)[1])
    assert prepare_here(settings.replace(size=fits), "cpu").tiling is not None
    with pytest.raises(InputError):
        prepare_here(settings.replace(size=fits + 16), "cpu")
