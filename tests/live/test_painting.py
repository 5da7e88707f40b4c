"""Paintings: the run goes on, or begins anew from its picture, as settings change; no threads
here."""

import gc
import itertools
import weakref

import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st

from nstlab.live.film import LENGTH, Film, Snapshot
from nstlab.live.painting import Back, Change, Painting, Restart, Save
from nstlab.method.fast.propagation import Propagation
from nstlab.method.terms import Content, Style
from nstlab.pictures import images as im
from nstlab.pictures import starts
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from nstlab.runs.store import Store
from nstlab.runs.stored import run_id


@pytest.fixture
def settings(small_transfer):
    return small_transfer.replace(steps=12, init="noise")


@pytest.fixture
def live(settings, tmp_path):
    return Painting(settings, Store(tmp_path / "results"), "cpu")


def begun(live, steps=0):
    run = live.steps()
    for _ in range(steps + 1):
        next(run)
    return run


def near(picture, other):
    """Whether a picture is another one that was kept in 256 shades."""
    return (picture - other).abs().max() <= 0.5 / 255 + 1e-6


def test_weights_and_layers_steer_the_run_and_nothing_is_computed_without_need(
    live, settings, monkeypatch
):
    made = []
    for kind in (Content, Style):
        whole = kind.target
        monkeypatch.setattr(
            kind, "target", lambda self, f, whole=whole: made.append(self.name) or whole(self, f)
        )
    run = begun(live, 2)
    plan, wanted = live.run.plan, settings.replace(beta=5.0, tv=0.5)
    step = run.send([Change(wanted)])
    assert (step.weights["style"], step.weights["tv"], step.terms.keys()) == (
        5.0,
        0.5,
        {"content", "style", "tv"},
    )
    run.send([Change(wanted.replace(init="grey", seed=5))])  # how a run starts no longer matters
    assert live.run.record.changes == [(2, {"style": 5.0, "tv": 0.5})]
    assert live.run.described(live.settings, None) == wanted
    assert sorted(made) == ["content"] + ["style"] * 5
    step = run.send(
        [Change(settings.replace(content_layers="conv2_2", style_layers=("conv1_1", "conv3_1")))]
    )
    wanted = {"content:conv4_2": 0, "style:conv5_1": 0, "content:conv2_2": 1, "style:conv1_1": 0.5}
    assert step.weights | wanted == step.weights
    run.send([Change(settings)])
    step = run.send([Change(settings.replace(alpha=0, style_layers=("conv1_1",)))])
    assert (step.index, step.terms.keys(), live.run.plan) == (7, {"style"}, plan)
    assert made[6:] == ["content"]  # conv2_2's
    read, whole = set(), Propagation.forward
    monkeypatch.setattr(
        Propagation, "forward", lambda self, x: read.add(frozenset(self.reads)) or whole(self, x)
    )
    next(run)
    assert read == {frozenset({"relu1_1"})}


@pytest.mark.parametrize(
    "changes", [{"pool": "max"}, {"size": 32}, {"optimizer": "adam"}, {"convention": "paper"}]
)
def test_more_than_weights_begins_a_new_run_from_the_picture(live, settings, changes):
    run = begun(live, 3)
    before, net = live.step.snapshot(), live.run.plan.net
    step = run.send([Change(settings.replace(**changes))])
    assert (step.index, live.run.number, live.run.record.changes) == (0, 2, [])
    assert near(step.snapshot(), im.fit(before, step.shape))
    assert live.settings == settings.replace(**changes)
    if changes.keys() & {"size", "optimizer"}:
        assert live.run.plan.net is net
    assert next(run).index == 1


def test_a_photo_of_other_proportions_begins_from_the_first_picture_of_its_settings(live, settings):
    step = begun(live, 3).send([Change(settings.replace(photo=settings.painting, init="grey"))])
    assert step.shape == im.load(settings.painting, 48).shape[-2:]
    assert torch.equal(step.snapshot(), starts.grey(step.snapshot()))


def test_back_restores_picture_and_settings_and_undoes_a_change(live, settings):
    run = begun(live, 5)
    before = im.quantize(live.step.snapshot())
    run.send([Change(settings.replace(beta=5.0))])
    first, kept = live.film.frames[0], live.film.frames[-1]
    assert (kept.index, kept.settings) == (5, settings)
    step = run.send([Back(kept)])
    assert torch.equal(step.snapshot(), before)
    assert (live.settings, step.weights["style"]) == (settings, settings.beta)
    step = run.send([Back(first), Change(settings.replace(tv=0.5))])  # moved after the click
    assert torch.equal(step.snapshot(), first.picture)
    assert step.weights["tv"] == 0.5


@pytest.mark.parametrize(
    ("changes", "free", "says"),
    [
        ({"photo": "nowhere.png"}, None, "nowhere.png: no such file"),
        ({"weights": "nothing.pth"}, None, "nothing.pth"),
        ({"pool": "max", "size": 64}, 1000, "needs about"),
    ],
)
def test_a_command_that_cannot_be_obeyed_changes_nothing_and_says_why(
    live, settings, monkeypatch, changes, free, says
):
    run = begun(live, 2)
    if free is not None:
        monkeypatch.setattr("nstlab.method.fast.memory.available", lambda device: free)
    step = run.send([Change(settings.replace(**changes))])
    assert says in live.news[-1].text
    assert (step.index, live.settings, live.run.number) == (3, settings, 1)
    run.send([Change(settings.replace(beta=2.0))])
    assert len(live.news) == 1
    live.store.root.write_text("a file, not a folder")
    run.send([Save()])
    assert "cannot be written" in live.news[-1].text


def test_a_layer_out_of_reach_is_refused_not_fatal(live, settings, monkeypatch):
    run = begun(live, 1)
    # but what the run gives up counts as free
    monkeypatch.setattr("nstlab.method.fast.memory.available", lambda device: 0)
    run.send(
        [
            Change(
                settings.replace(
                    size=20, style_layers=("conv1_1", "pool5"), style_weights=(1.0, 0.0)
                )
            )
        ]
    )
    assert (live.news, live.run.number) == ([], 2)
    step = run.send([Change(live.settings.replace(style_weights=(1.0, 1.0)))])
    assert "too small for pool5" in live.news[-1].text
    assert (len(live.news), live.settings.style_weights, step.index) == (1, (1.0, 0.0), 1)


def test_the_recipes_own_run_rests_at_its_end_and_goes_on_when_something_is_commanded(
    live, settings
):
    run = begun(live, 12)
    last = live.step.snapshot()
    *_, expected = prepare(settings, "cpu").steps()
    assert torch.equal(last, expected.snapshot())
    assert next(run) is None
    assert run.send([Save()]) is None
    assert live.news[-1].saved.id == run_id(prepare(settings, "cpu"))
    step = run.send([Change(settings.replace(beta=1.0))])
    assert (step.index, step.weights["style"]) == (0, 1.0)
    assert near(step.snapshot(), last)
    for _ in range(12):
        next(run)
    step = run.send([Change(settings.replace(beta=5.0))])  # which meets the end
    assert (step.index, live.run.number, step.weights["style"]) == (0, 3, 5.0)
    for _ in range(12):
        next(run)
    assert next(run) is None
    assert next(run).index == 0  # it was resumed


def test_the_memory_of_a_run_is_free_when_the_next_begins(live, monkeypatch):
    def curvature_pairs():
        gc.collect()
        return [
            each
            for each in gc.get_objects()
            if type(each) is torch.Tensor and each.ndim == 3 and each.shape[0] == 2
        ]

    before = set(map(id, curvature_pairs()))
    run = begun(live, 3)
    alive = [weakref.ref(tensor) for tensor in curvature_pairs() if id(tensor) not in before]
    kept = live.step  # as a session does
    seen, whole = [], Plan.steps

    def steps(plan):
        gc.collect()
        seen.extend(ref() for ref in alive)
        return whole(plan)

    monkeypatch.setattr(Plan, "steps", steps)
    run.send([Restart(live.settings)])
    assert seen == [None] * len(alive) != []
    assert kept.snapshot().shape == live.step.snapshot().shape


def test_a_saved_run_has_its_changes_and_an_id_of_its_own(live, settings):
    run = begun(live, 2)
    run.send([Change(settings.replace(beta=5.0))])
    last = live.step
    assert run.send([Save(), Change(settings.replace(beta=2.0))]) is last  # saving makes no step
    saved = live.news[-1].saved
    assert live.news[-1].text == f"Saved as {saved.folder}"
    assert saved.manifest["changes"] == [[2, {"style": 5.0}]]
    assert saved.manifest["result"]["status"] == "left before its end"
    assert saved.manifest["settings"] == settings.to_dict()
    assert saved.problem() == ""
    assert not (saved.folder / "start.png").exists()
    assert torch.equal(im.reopen(saved.picture), im.quantize(last.best()))
    assert next(run).weights["style"] == 2.0
    run.send([Save()])
    assert len({live.news[-1].saved.id, saved.id, run_id(live.run.plan)}) == 3
    assert not list(live.store.root.rglob("*.partial"))
    assert run.send([Save(), Restart(settings)]).index == 0  # which is urgent


def test_a_run_from_a_picture_is_saved_with_it_and_can_be_described(live, settings, tmp_path):
    run = begun(live, 3)
    run.send([Change(settings.replace(pool="max"))])
    next(run)
    run.send([Save()])
    saved, plan = live.news[-1].saved, live.run.plan
    assert torch.equal(im.load(saved.folder / "start.png"), plan.start)
    described = live.run.described(live.settings, tmp_path / "starts")
    again = prepare(described, "cpu")
    assert torch.equal(again.start, plan.start)
    assert again.identity() == plan.identity()
    assert described.replace(init=settings.init) == live.settings
    assert saved.manifest["settings"]["init"] == "start.png"
    stored = settings.from_dict(saved.manifest["settings"]).replace(
        init=str(saved.folder / "start.png")
    )
    assert run_id(prepare(stored, "cpu"), [], left=live.step.index) == saved.id
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(
        live.run.described, settings, tmp_path / "file" / "starts"
    )


def filmed(counts):
    """Which of these steps a film keeps."""
    film = Film()
    for count in counts:
        film.add(Snapshot(count, 1, count, None, None, None))
    return [frame.count for frame in film.frames]


@given(st.lists(st.integers(1, 30), max_size=60))
def test_a_film_keeps_its_ends_and_its_order(gaps):
    counts = list(itertools.accumulate(gaps))
    kept = filmed(counts)
    assert kept == sorted(set(kept) & set(counts))
    assert len(kept) == min(len(gaps), LENGTH)
    assert kept[:1] + kept[-1:] == counts[:1] + counts[-1:]


def test_a_film_thins_out_where_pictures_are_near_each_other():
    assert filmed([0, 10, 11, 20, 30, 40, 50, 60, 70]) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert [index for index in range(70) if Film.wants(index)] == [0, 4, 8, 16, 32, 64]
