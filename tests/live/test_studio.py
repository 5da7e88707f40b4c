"""The studio without a browser: what its page and its controls would send is sent by hand, and each
effect is waited for."""

import gc
import threading
import time
import weakref

import ipywidgets
import pytest
import torch
from faults import refusal
from helpers import until

from nstlab.live import audience
from nstlab.live import session as sessions
from nstlab.live.controls import parts_of
from nstlab.live.session import Phase
from nstlab.live.studio import Studio
from nstlab.live.uploads import CHUNK, MAX_BYTES
from nstlab.live.viewer import jpeg
from nstlab.method.lbfgs import LBFGS
from nstlab.pictures import images as im
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.terms.statistics import kind

LONG = 60.0  # seconds


@pytest.fixture
def make(small_transfer, tmp_path, monkeypatch):
    """Makes studios that are closed in the end, with nothing left running."""
    monkeypatch.setattr(audience, "AWAY", 10 * LONG)  # on a slow machine, too, nobody is missed
    made = []

    def make(settings=small_transfer, **options):
        made.append(Studio(settings, results=tmp_path / "results", device="cpu", **options))
        return made[-1]

    yield make
    for studio in made:
        studio.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nstlab session"]


@pytest.fixture
def studio(make):
    return make()


def tell(studio, do, **content):
    """A message from the page."""
    message = {"method": "custom", "content": {"do": do, **content}}
    studio.view.comm.handle_msg({"content": {"data": message}, "buffers": []})


def stepped(studio, steps):
    """Wait for so many steps."""
    until(lambda: studio.session.step is not None and studio.session.step.index >= steps)
    return studio


def begun(studio, steps=3):
    tell(studio, "resume")
    return stepped(studio, steps)


def shows(studio, state, text=""):
    """Wait for this status."""
    until(
        lambda: studio.view.status["state"] == state and studio.view.status["text"].startswith(text)
    )
    return studio.session.step


def paused(studio):
    """Pause, and wait for that; the last step."""
    tell(studio, "pause")
    return shows(studio, "paused")


def move(studio, name, value):
    """Move the control of a field."""
    studio.controls.views[name].widget.value = value


def first_picture(studio, run):
    """Wait, in a pause, for the first picture of that run."""
    until(lambda: studio.painting.run.number == run)
    return shows(studio, "paused", "paused · step 0 of").snapshot()


def test_one_that_is_not_to_start_by_itself_shows_its_pictures_and_begins_when_it_is_told(
    make, small_transfer
):
    studio = make(start=False)
    tell(studio, "seen")
    tell(studio, "save")
    assert "nothing to save" in studio.view.message["text"]
    assert [(each["role"], each["label"]) for each in studio.view.inputs] == [
        ("photo", "photo"),
        ("painting", "painting"),
    ]
    assert (studio.view.shape, jpeg(im.load(small_transfer.photo, 512))) == (
        [427, 512],
        studio.view.before,
    )
    # that it is nowhere is told when it begins
    for photo in (small_transfer.painting, "nowhere.png", small_transfer.painting):
        studio.controls.change(photo=photo, tv=0.25)
        assert [each["label"] for each in studio.view.inputs] == ["painting", "painting"]
    for option in ("--tv 0.25", "--device cpu"):
        assert option in studio.code()[1]
    assert studio.session.phase is Phase.READY
    studio.restart()  # from before the start, this is a start
    stepped(studio, 3)
    assert (studio.painting.run.number, studio.painting.run.plan.settings) == (1, studio.settings)


def test_who_waits_in_the_kernel_is_not_away(make, small_transfer, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.01)
    monkeypatch.setattr(sessions, "FRAMES", 1e9)
    studio = make(small_transfer.replace(steps=30))
    tell(studio, "seen")
    tell(studio, "gone")  # and nothing more, as where the kernel cannot hear while a cell waits
    assert studio.wait(LONG) is Phase.RESTING
    shows(studio, "resting", "finished · step 30 of 30")
    tell(studio, "resume")
    until(lambda: studio.painting.run.number == 2)


@pytest.mark.parametrize("fields", [["size"], None])
def test_a_closed_studio_is_gone(small_transfer, tmp_path, fields):
    before = ipywidgets.Widget.get_manager_state()["state"].keys()
    studio = begun(Studio(small_transfer, fields, tmp_path, device="cpu"))
    studio.close()
    assert ipywidgets.Widget.get_manager_state()["state"].keys() == before
    live = weakref.ref(studio.painting)
    del studio
    gc.collect()
    assert live() is None


def test_in_a_pause_weights_wait_for_a_step_and_all_else_begins_at_once(studio, small_transfer):
    before = paused(begun(studio, 20))
    for i in range(20):
        move(studio, "beta", 10.0 ** (-1 - i / 5))
    move(studio, "init", "content")  # which counts when it is restarted
    tell(studio, "single")
    last = shows(studio, "paused", f"paused · step {before.index + 1} of")
    assert studio.painting.run.record.changes == [
        (before.index, {"style": pytest.approx(10**4.8, rel=1e-3)})
    ]
    move(studio, "optimizer", "adam")
    assert (first_picture(studio, 2) - last.snapshot()).abs().max() < 0.01
    now = small_transfer.replace(beta=studio.settings.beta, init="content", optimizer="adam")
    assert studio.painting.settings == studio.settings == now

    buttons = {
        part.description: part for part in parts_of(studio) if isinstance(part, ipywidgets.Button)
    }
    buttons["Restart"].click()
    assert torch.equal(first_picture(studio, 3), im.load(small_transfer.photo, 48))
    tell(studio, "single")
    last = shows(studio, "paused", "paused · step 1 of")
    buttons["Restart from current"].click()
    assert torch.equal(first_picture(studio, 4), im.quantize(last.snapshot()))

    assert [each["label"] for each in studio.view.film][:2] == ["step 0", "step 4"]
    first = studio.painting.film.frames[0]
    tell(studio, "back", id=first.count)
    assert studio.settings == small_transfer
    move(studio, "tv", 0.1)  # after the click
    assert torch.equal(first_picture(studio, 5), first.picture)
    tell(studio, "single")
    assert shows(studio, "paused", "paused · step 1 of").weights["tv"] == 0.1


@pytest.mark.parametrize(
    ("recipe", "role", "field", "value", "term", "alone"),
    [
        (ReconstructSettings, "photo", "layer", "conv1_1", "content:conv1_1", True),
        (TextureSettings, "painting", "style_layers", ("conv1_1",), "style:conv1_1", False),
    ],
)
def test_other_recipes_have_studios_too(
    make, small_transfer, recipe, role, field, value, term, alone
):
    common = {
        name: getattr(small_transfer, name)
        for name in (role, "size", "steps", "weights", "normalize", "precision")
    }
    studio = begun(make(recipe(**common), fields=[field, "pool"] if alone else None))
    move(studio, field, value)
    until(lambda: studio.session.step.weights[term] == 1)
    assert (studio.painting.run.number, studio.view.compared) == (1, role)


def test_every_field_has_its_place_and_others_are_refused(studio, small_transfer):
    tabs = studio.children[0].children[0]
    assert tabs.titles == ("Live", "Pictures", "Regions", "Network", "Optimizer", "Film", "Camera")
    assert {view.widget for view in studio.controls.views.values()} <= parts_of(tabs)
    assert "there is no setting 'betta'; did you mean 'beta'" in refusal(
        Studio, small_transfer, fields=["betta"]
    )


def test_what_goes_wrong_is_told_each_time_and_what_cannot_be_obeyed_is_taken_back(
    studio, small_transfer, monkeypatch
):
    begun(studio).controls.change(seed=7)  # prepared for a restart
    for name, value, says in [
        ("stop_loss", "low", "stop_loss"),
        *[("weights", "nowhere.pth", "nowhere.pth")] * 2,
    ]:
        move(studio, name, value)
        until(lambda says=says: says in studio.view.message["text"])
        until(lambda: studio.settings == small_transfer.replace(seed=7))
        assert studio.view.message["kind"] == "error"
        tell(studio, "read")
    assert (studio.painting.run.number, studio.session.phase) == (1, Phase.RUNNING)
    tell(
        studio,
        "upload",
        id="x",
        role="photo",
        name="large.png",
        part=0,
        parts=MAX_BYTES // CHUNK + 1,
    )
    assert studio.view.message["text"].startswith("large.png: has more than 200 MB")
    monkeypatch.setattr(studio, "save", lambda: 1 / 0)
    tell(studio, "save")
    assert studio.view.message == {"text": "ZeroDivisionError: division by zero", "kind": "error"}
    move(studio, "tv", 0.1)
    assert studio.view.message["text"] == ""


def test_after_failures_one_can_save_what_was_painted_and_try_again(studio, monkeypatch):
    begun(studio, 5)
    for broken in ("step", "init", "step"):
        with monkeypatch.context() as patch:
            patch.setattr(LBFGS, broken, lambda *_: 1 / 0)
            tell(studio, "resume")
            until(lambda: "ZeroDivisionError" in studio.view.message["text"])
            shows(studio, "failed")
            tell(studio, "read")
    last = im.quantize(studio.painting.step.snapshot())
    tell(studio, "save")
    assert studio.view.message["text"].startswith("Saved as")
    assert studio.session.phase is Phase.FAILED
    tell(studio, "single")
    until(lambda: studio.painting.run.number == 4)
    shows(studio, "paused", "paused · step 1 of")
    assert torch.equal(studio.painting.run.plan.start, last)
    assert torch.equal(studio.painting.film.frames[-2].picture, last)


def test_what_cannot_begin_says_why_and_can_be_mended(make, small_transfer):
    studio = make(small_transfer.replace(photo="nowhere.png"))
    tell(studio, "seen")
    shows(studio, "failed")
    assert studio.wait(LONG) is Phase.FAILED
    assert studio.view.message["text"].startswith("nowhere.png: no such file")
    studio.controls.change(photo=small_transfer.photo)
    begun(studio)


def test_nothing_is_painted_while_nobody_looks(studio, monkeypatch):
    assert (studio.painting.run, studio.session.phase) == (None, Phase.READY)
    tell(studio, "seen")
    until(lambda: studio.view.picture)
    assert (studio.view.shape, studio.view.compared) == ([40, 48], "photo")
    tell(studio, "gone")
    shows(studio, "paused", "paused: nobody is looking")
    tell(studio, "seen")
    shows(studio, "running", "painting")
    paused(studio)
    tell(studio, "gone")
    tell(studio, "seen")  # a pause of the user's own is not ended
    assert studio.session.phase is Phase.PAUSED
    monkeypatch.setattr(audience, "AWAY", 0.2)
    tell(studio, "resume")
    # the viewer has vanished without a word
    last = shows(studio, "paused", "paused: nobody is looking")
    tell(studio, "seen")
    stepped(studio, last.index + 1)


def test_no_picture_is_sent_before_the_last_one_was_seen(studio, monkeypatch):
    for module, name, value in (
        (audience, "ANSWER_WAIT", LONG),
        (audience, "AWAY", LONG),
        (sessions, "FRAMES", 1e9),
    ):
        monkeypatch.setattr(module, name, value)
    sent = []
    studio.view.observe(lambda change: sent.append(change.new), names="picture")
    tell(studio, "seen")
    stepped(studio, 30)
    assert len(sent) == 1
    tell(studio, "seen")
    until(lambda: len(sent) == 2)
    stepped(studio, studio.session.step.index + 1)
    last = paused(studio)
    assert len(sent) == 3
    assert sent[-1] == jpeg(last.snapshot())  # the last one is sent in any case


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_slow_steps_and_long_pauses_are_not_taken_for_absence(studio, monkeypatch, seconds):
    monkeypatch.setattr(audience, "AWAY", 0.05)
    whole = LBFGS.step
    monkeypatch.setattr(LBFGS, "step", lambda *arguments: time.sleep(seconds) or whole(*arguments))
    # a page that answers all it is sent
    studio.view.observe(lambda _: tell(studio, "seen"), names=["picture", "status"])
    tell(studio, "seen")
    stepped(studio, 2)
    for message in ("pause", "gone", "seen"):  # while the last step is still under way
        tell(studio, message)
    before = shows(studio, "paused", "paused · step").index
    time.sleep(0.2)  # nothing is sent and nothing answered
    tell(studio, "single")
    shows(studio, "paused", f"paused · step {before + 1}")
    tell(studio, "save")
    until(lambda: studio.view.message["text"].startswith("Saved as"))
    shows(studio, "paused", "paused · step")
    move(studio, "pool", "max")
    first_picture(studio, 2)


def test_the_statistic_of_style_is_changed_while_it_paints_and_the_picture_is_kept(studio):
    begun(studio)
    until(lambda: studio.session.step.index >= 2)
    studio.controls.change(statistic="mean-std")
    until(lambda: studio.painting.run.number == 2 and studio.session.step.index >= 1)
    kinds = {
        type(term) for _, term in studio.painting.run.plan.objective.terms if term.name == "style"
    }
    assert kinds == {kind("mean-std")}
    assert studio.painting.run.plan.inputs.keys() >= {"init"}  # the picture as it was


def test_the_network_is_changed_while_it_paints_and_the_picture_is_kept(studio):
    begun(studio)
    until(lambda: studio.session.step.index >= 2)
    studio.controls.change(weights="random", network="squeezenet1_1", pool="max")
    until(lambda: studio.painting.run.number == 2 and studio.session.step.index >= 1)
    run = studio.painting.run
    assert run.plan.net.weights.network == "squeezenet1_1"
    assert run.plan.inputs.keys() >= {"init"}
    layers = studio.controls.views["content_layers"].widget
    assert layers.value == ("fire5",)
    assert [name for name, _ in layers.options] == list(run.plan.net.architecture.offered)
    layers.value = ("fire3",)  # a weight, as always
    until(
        lambda: (
            studio.session.step.weights.get("content:fire3") == 1 and studio.session.step.index >= 2
        )
    )
    assert studio.painting.run is run
