"""Paintings: the run goes on, or begins anew from its picture, as settings change; no threads here."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab import images as im
from nstlab.live.painting import FILM, Back, Change, Film, Painting, Restart, Save, Snapshot
from nstlab.recipes.plan import prepare
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.store import Store
from nstlab.runs.stored import run_id
from nstlab.settings import InputError


@pytest.fixture
def settings(photo, painting, tiny_file, tmp_path):
    """Settings of a small transfer whose pictures are files."""
    paths = [tmp_path / "photo.png", tmp_path / "live.png"]
    for picture, path in zip((photo, painting), paths, strict=True):
        im.save(picture, path)
    small = {"size": 48, "steps": 12, "weights": str(tiny_file), "normalize": False, "precision": "float32"}
    return TransferSettings(*map(str, paths), init="noise", levels=1, **small)


@pytest.fixture
def live(settings, tmp_path):
    return Painting(settings, Store(tmp_path / "results"), "cpu")


def begun(live, steps=0):
    run = live.steps()
    next(run)
    for _ in range(steps):
        next(run)
    return run


def test_without_commands_it_is_the_recipes_own_run(live, settings):
    ours, plain = begun(live, 5), prepare(settings, "cpu").steps()
    for _ in range(6):
        expected = next(plain)
    assert torch.equal(live.run.record.last.snapshot(), expected.snapshot())
    assert live.run.record.last.terms == expected.terms
    ours.close()


def test_weights_steer_the_run_and_nothing_is_recomputed(live, settings, monkeypatch):
    run = begun(live, 2)
    plan, bound = live.run.plan, []
    monkeypatch.setattr("nstlab.method.objectives.Objective.bind", lambda *_: bound.append(1))
    step = run.send([Change(settings.replace(beta=5.0, tv=0.5))])
    assert (step.index, live.run.plan, bound) == (3, plan, [])
    assert (step.weights["style"], step.weights["tv"]) == (5.0, 0.5)
    assert live.run.record.changes == [(2, {"style": 5.0, "tv": 0.5})]
    assert set(step.terms) == {"content", "style", "tv"}
    run.send([Change(settings.replace(beta=5.0, tv=0.5))])  # nothing new
    assert len(live.run.record.changes) == 1


def test_layers_are_steered_as_well_and_their_targets_are_computed_once(live, settings, monkeypatch):
    from nstlab.method.objectives import Content, Style

    made = []
    for kind in (Content, Style):
        whole = kind.target
        monkeypatch.setattr(kind, "target", lambda self, f, whole=whole: made.append(self.name) or whole(self, f))
    run = begun(live, 1)
    assert sorted(made) == ["content"] + ["style"] * 5
    step = run.send([Change(settings.replace(content_layers="conv2_2", style_layers=("conv1_1", "conv3_1")))])
    assert step.index == 2
    assert step.weights["content:conv4_2"] == step.weights["style:conv5_1"] == 0
    assert step.weights["content:conv2_2"] == 1
    assert step.weights["style:conv1_1"] == 0.5
    assert len(made) == 7  # conv2_2's content
    run.send([Change(settings)])
    run.send([Change(settings.replace(beta=1.0))])
    assert len(made) == 7


def test_a_weight_of_zero_costs_nothing(live, settings, monkeypatch):
    run = begun(live, 1)
    step = run.send([Change(settings.replace(alpha=0, style_layers=("conv1_1",)))])
    assert set(step.terms) == {"style"}
    read = []
    from nstlab.method.fast.propagation import Propagation

    whole = Propagation.forward
    monkeypatch.setattr(Propagation, "forward", lambda self, x: read.append(self.reads) or whole(self, x))
    next(run)
    assert set(map(frozenset, read)) == {frozenset({"relu1_1"})}


@pytest.mark.parametrize("changes", [{"pool": "max"}, {"size": 32}, {"optimizer": "adam"}, {"convention": "paper"}])
def test_more_than_weights_begins_a_new_run_from_the_picture(live, settings, changes):
    run = begun(live, 3)
    before = live.run.record.last.snapshot()
    step = run.send([Change(settings.replace(**changes))])
    assert (step.index, live.run.number) == (0, 2)
    assert live.run.record.changes == []
    shape = step.snapshot().shape[-2:]
    assert (step.snapshot() - im.fit(before, shape)).abs().max() <= 0.5 / 255 + 1e-6
    assert live.settings == settings.replace(**changes)
    assert next(run).index == 1


def test_another_photo_of_other_proportions_begins_from_the_settings_start(live, settings, painting):
    run = begun(live, 3)
    step = run.send([Change(settings.replace(photo=settings.painting, init="grey"))])
    assert step.shape == im.load(settings.painting, 48).shape[-2:]
    assert torch.equal(step.snapshot(), im.grey(step.snapshot()))


def test_the_network_is_kept_while_it_can_be(live, settings):
    run = begun(live)
    net = live.run.plan.net
    run.send([Change(settings.replace(size=32))])
    assert live.run.plan.net is net
    run.send([Change(settings.replace(pool="max"))])
    assert live.run.plan.net is not net


def test_restart_takes_the_settings_start_or_the_present_picture(live, settings):
    run = begun(live, 4)
    now = live.run.record.last.snapshot()
    step = run.send([Restart(live.settings, current=True)])
    assert step.index == 0
    assert (step.snapshot() - now).abs().max() <= 0.5 / 255 + 1e-6
    step = run.send([Restart(settings.replace(seed=7))])
    assert torch.equal(step.snapshot(), im.noise(now, 7))


def test_the_start_settings_alone_change_nothing(live, settings):
    run = begun(live, 2)
    step = run.send([Change(settings.replace(init="grey", seed=5))])
    assert (step.index, live.run.number) == (3, 1)


def test_back_restores_picture_and_settings(live, settings):
    run = begun(live, 5)
    run.send([Change(settings.replace(beta=1.0))])
    first = live.film.frames[0]
    step = run.send([Back(first)])
    assert torch.equal(step.snapshot(), first.picture)
    assert live.settings == settings
    assert step.weights["style"] == settings.beta


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"photo": "nowhere.png"}, "nowhere.png: no such file"), ({"weights": "nothing.pth"}, "nothing.pth")],
)
def test_a_command_that_cannot_be_obeyed_changes_nothing_and_says_why(live, settings, changes, says):
    run = begun(live, 2)
    step = run.send([Change(settings.replace(**changes))])
    assert says in live.news[-1].text
    assert (step.index, live.settings, live.run.number) == (3, settings, 1)
    run.send([Change(settings.replace(beta=2.0))])
    assert len(live.news) == 1


def test_the_first_plan_must_be_possible(settings, tmp_path):
    live = Painting(settings.replace(photo="nowhere.png"), Store(tmp_path), "cpu")
    with pytest.raises(InputError, match="nowhere"):
        next(live.steps())


def test_memory_is_checked_before_the_old_run_is_given_up(live, settings, monkeypatch):
    run = begun(live, 2)
    monkeypatch.setattr("nstlab.method.memory.available", lambda device: 1000)
    step = run.send([Change(settings.replace(pool="max", size=64))])
    assert "needs about" in live.news[-1].text
    assert step.index == 3


def test_at_its_end_a_run_rests_and_goes_on_from_its_picture_when_something_is_commanded(live, settings):
    run = begun(live, 12)
    last = live.run.record.last
    assert next(run) is None
    assert run.send([Save()]) is None
    assert live.news[-1].saved.id == run_id(prepare(settings, "cpu"))
    step = run.send([Change(settings.replace(beta=1.0))])
    assert step.index == 0
    assert step.weights["style"] == 1.0
    assert (step.snapshot() - last.snapshot()).abs().max() <= 0.5 / 255 + 1e-6
    for _ in range(12):
        next(run)
    assert next(run) is None
    assert next(run).index == 0  # it was roused


def test_after_a_failure_it_begins_from_the_last_picture(live, monkeypatch):
    run = begun(live, 3)
    now = live.run.record.last.snapshot()
    monkeypatch.setattr("nstlab.method.engine._Run.advance", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(run)
    step = next(live.steps())
    assert (step.snapshot() - now).abs().max() <= 0.5 / 255 + 1e-6


def test_going_back_undoes_a_change(live, settings):
    run = begun(live, 5)
    before = live.run.record.last.snapshot()
    run.send([Change(settings.replace(beta=5.0))])
    kept = live.film.frames[-1]
    assert (kept.index, kept.settings) == (5, settings)
    assert torch.equal(kept.picture, im.quantized(before))
    step = run.send([Back(kept), Change(settings.replace(tv=0.5))])  # moved after the click
    assert torch.equal(step.snapshot(), kept.picture)
    assert step.weights["tv"] == 0.5


def test_what_a_restart_replaces_stays_on_the_film_and_is_gone_back_to_after_a_failure(live, settings, monkeypatch):
    run = begun(live, 7)
    now = im.quantized(live.run.record.last.snapshot())
    monkeypatch.setattr("nstlab.method.engine._Run.begin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.send([Restart(live.settings)])
    assert torch.equal(live.film.frames[-1].picture, now)
    monkeypatch.undo()
    assert torch.equal(next(live.steps()).snapshot(), now)


def test_weights_that_meet_the_end_of_a_run_begin_another_one(live, settings):
    run = begun(live, 12)
    step = run.send([Change(settings.replace(beta=5.0))])
    assert (step.index, live.run.number) == (0, 2)
    assert step.weights["style"] == 5.0


def test_to_save_is_no_step_even_with_other_commands(live, settings):
    run = begun(live, 2)
    last = live.run.record.last
    assert run.send([Save(), Change(settings.replace(beta=5.0))]) is last
    assert next(run).weights["style"] == 5.0


def test_a_layer_out_of_reach_is_refused_not_fatal(live, settings):
    run = begun(live, 1)
    run.send([Change(settings.replace(size=20, style_layers=("conv1_1", "pool5"), style_weights=(1.0, 0.0)))])
    assert live.news == []
    step = run.send([Change(live.settings.replace(style_weights=(1.0, 1.0)))])
    assert "too small for pool5" in live.news[-1].text
    assert (len(live.news), live.settings.style_weights, step.index) == (1, (1.0, 0.0), 1)


def curvature_pairs():
    """The memories of all optimizers that are alive."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is torch.Tensor and each.ndim == 3 and each.shape[0] == 2]


def test_the_memory_of_the_run_before_is_free_when_the_next_begins(live, settings):
    before = set(map(id, curvature_pairs()))
    run = begun(live, 3)
    alive = [weakref.ref(tensor) for tensor in curvature_pairs() if id(tensor) not in before]
    assert alive
    kept = live.run.record.last  # as a session does
    seen = []
    whole = Painting._close
    live._close = lambda: (whole(live), gc.collect(), seen.append([ref() is None for ref in alive]))
    run.send([Restart(live.settings)])
    assert seen[0] == [True] * len(alive)
    assert kept.snapshot().shape == live.run.record.last.snapshot().shape


def test_a_saved_run_has_its_changes_and_an_id_of_its_own(live, settings):
    run = begun(live, 2)
    run.send([Change(settings.replace(beta=5.0))])
    last = live.run.record.last
    assert run.send([Save()]) is last  # no step is made
    manifest = live.news[-1].saved.manifest
    assert manifest["changes"] == [[2, {"style": 5.0}]]
    assert manifest["result"]["status"] == "left before its end"
    assert manifest["settings"] == settings.to_dict()
    assert live.news[-1].saved.problem() == ""
    assert not (live.news[-1].saved.folder / "start.png").exists()
    assert torch.equal(im.reopen(live.news[-1].saved.picture), im.quantized(last.best()))
    assert live.news[-1].saved.id != run_id(live.run.plan)
    ids = {live.news[-1].saved.id}
    next(run)
    run.send([Save()])
    ids.add(live.news[-1].saved.id)
    assert len(ids) == 2
    assert not list(live.store.root.rglob("*.partial"))


def test_a_run_from_a_picture_is_saved_with_it_and_can_be_described(live, settings, tmp_path):
    run = begun(live, 3)
    run.send([Change(settings.replace(pool="max"))])
    next(run)
    run.send([Save()])
    start = im.load(live.news[-1].saved.folder / "start.png")
    assert torch.equal(start, live.run.plan.start)
    described = live.described(live.settings, tmp_path / "starts")
    again = prepare(described, "cpu")
    assert torch.equal(again.start, live.run.plan.start)
    assert again.identity() == live.run.plan.identity()
    assert described.replace(init=settings.init) == live.settings
    manifest = live.news[-1].saved.manifest
    assert manifest["settings"]["init"] == "start.png"
    stored = settings.from_dict(manifest["settings"]).replace(init=str(live.news[-1].saved.folder / "start.png"))
    assert run_id(prepare(stored, "cpu"), [], left=live.run.record.last.index) == live.news[-1].saved.id


def test_a_folder_that_cannot_be_written_is_a_reason(live, settings, tmp_path):
    run = begun(live, 1)
    run.send([Restart(live.settings, current=True)])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        live.described(settings, tmp_path / "file" / "starts")


def test_what_is_described_is_what_goes_on(live, settings, tmp_path):
    assert live.described(settings, tmp_path) == settings
    run = begun(live, 1)
    run.send([Change(settings.replace(beta=3.0, init="grey", seed=4))])
    assert live.described(live.settings, tmp_path) == settings.replace(beta=3.0)


def test_other_recipes_are_live_too(settings, tmp_path):
    common = {name: getattr(settings, name) for name in ("size", "steps", "weights", "normalize", "precision")}
    for first, second in (
        (ReconstructSettings(settings.photo, layer="conv2_1", **common), {"layer": "conv1_1"}),
        (TextureSettings(settings.painting, **common), {"style_layers": ("conv1_1",)}),
    ):
        live = Painting(first, Store(tmp_path / "r"), "cpu")
        run = begun(live, 1)
        assert run.send([Change(first.replace(**second))]).index == 2
        assert live.run.number == 1


@given(st.lists(st.integers(1, 30), max_size=60))
def test_a_film_keeps_its_ends_and_its_order(gaps):
    film, count = Film(), 0
    for gap in gaps:
        film.add(Snapshot(count, 1, count, None, None))
        count += gap
    counts = [frame.count for frame in film.frames]
    assert counts == sorted(set(counts))
    assert len(counts) == min(len(gaps), FILM)
    if gaps:
        assert counts[0] == 0
        assert counts[-1] == sum(gaps[:-1])


def test_a_film_thins_out_where_pictures_are_near_each_other():
    film = Film()
    for count in (0, 10, 11, 20, 30, 40, 50, 60, 70):
        film.add(Snapshot(count, 1, count, None, None))
    assert [frame.count for frame in film.frames] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert [index for index in range(70) if Film.wants(index)] == [0, 4, 8, 16, 32, 64]
