"""The studio without a browser: what its page and its controls would send is sent by hand, and each effect is waited for."""

import gc
import io
import threading
import time
import weakref

import ipywidgets
import pytest
import torch
from helpers import until
from PIL import Image

import nstlab as nst
from nstlab import images as im
from nstlab.live import audience
from nstlab.live import session as sessions
from nstlab.live.session import Phase
from nstlab.live.studio import STATIC, Studio
from nstlab.live.viewer import jpeg
from nstlab.method.lbfgs import LBFGS
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import InputError

LONG = 60.0  # seconds


@pytest.fixture
def settings(small_transfer):
    return small_transfer


@pytest.fixture
def make(settings, tmp_path):
    """Makes studios that are closed in the end, with nothing left running."""
    made = []

    def make(wanted=settings, **options):
        made.append(Studio(wanted, results=tmp_path / "results", device="cpu", **options))
        return made[-1]

    yield make
    for studio in made:
        studio.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nstlab session"]


@pytest.fixture
def studio(make):
    return make()


def tell(studio, do, *buffers, **content):
    """A message from the page."""
    message = {"method": "custom", "content": {"do": do, **content}}
    studio.view.comm.handle_msg({"content": {"data": message}, "buffers": list(buffers)})


def begun(studio, steps=3):
    """Begin, and wait for so many steps."""
    tell(studio, "resume")
    until(lambda: studio.session.step is not None and studio.session.step.index >= steps)
    return studio


def shows(studio, state, text=""):
    return studio.view.status["state"] == state and studio.view.status["text"].startswith(text)


def paused(studio):
    """Pause, and wait for that; the last step."""
    tell(studio, "pause")
    until(lambda: shows(studio, "paused"))
    return studio.session.step


def move(studio, name, value):
    """Move the control of a field."""
    studio.controls.views[name].widget.value = value


def run_number(studio, number):
    """Wait, in a pause, for the first step of that run."""
    until(lambda: studio.painting.run.number == number and shows(studio, "paused", "paused · step 0 of"))
    return studio.session.step


# --- beginning, pausing, ending ---------------------------------------------------------------------------------


def test_it_begins_when_somebody_looks_and_not_before(studio):
    assert studio.painting.run is None
    assert studio.session.phase is Phase.READY
    tell(studio, "seen")
    until(lambda: studio.view.picture)
    assert studio.view.status["text"].startswith("painting")
    assert studio.view.shape == [40, 48]


def test_one_that_is_not_to_start_by_itself_begins_when_it_is_told(make):
    studio = make(start=False)
    tell(studio, "seen")
    assert studio.session.phase is Phase.READY
    studio.restart()  # from before the start, this is a start
    until(lambda: studio.session.step is not None and studio.session.step.index >= 3)
    assert studio.painting.run.number == 1


def test_without_a_browser_it_can_be_waited_for(make, settings):
    studio = make(settings.replace(steps=5))
    studio.resume()
    assert studio.wait(LONG) is Phase.RESTING
    assert studio.session.step.index == 5
    until(lambda: studio.view.status["text"] == "finished · step 5 of 5")
    tell(studio, "resume")
    until(lambda: studio.painting.run.number == 2)


def test_where_nobody_can_use_it_it_is_a_picture(make, settings, monkeypatch):
    studio = make(settings.replace(steps=2))
    assert "application/vnd.jupyter.widget-view+json" in studio._repr_mimebundle_()
    monkeypatch.setenv(STATIC, "1")
    data = studio._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert "first 2 steps" in data["text/plain"]
    assert studio.session.phase is Phase.READY


def test_a_closed_studio_is_gone(settings, tmp_path):
    before = ipywidgets.Widget.get_manager_state()["state"].keys()
    studio = begun(Studio(settings, fields=["size"], results=tmp_path, device="cpu"))
    studio.close()
    assert ipywidgets.Widget.get_manager_state()["state"].keys() == before
    live = weakref.ref(studio.painting)
    del studio
    gc.collect()
    assert live() is None


# --- steering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "term", "weight"),
    [
        ("beta", 1e-5, "style", 1e5),
        ("content_layers", ("conv2_2",), "content:conv2_2", 1.0),
        ("tv", 0.1, "tv", 0.1),
        ("style_layers", ("conv1_1", "conv1_2"), "style:conv1_2", 0.5),
    ],
)
def test_a_moved_control_steers_the_run(studio, field, value, term, weight):
    begun(studio)
    move(studio, field, value)
    until(lambda: studio.session.step.weights[term] == weight)
    studio.controls.views["style_weights"].sliders[0].value = 0.75
    until(lambda: studio.session.step.weights["style:conv1_1"] == 0.75)
    assert studio.painting.run.number == 1


def test_twenty_quick_moves_are_one_change(studio):
    before = paused(begun(studio))
    for i in range(20):
        move(studio, "beta", 10.0 ** (-1 - i / 5))
    tell(studio, "single")
    until(lambda: studio.session.step.index == before.index + 1 and shows(studio, "paused"))
    assert len(studio.painting.run.record.changes) == 1
    assert studio.session.step.weights["style"] == pytest.approx(10**4.8, rel=1e-3)


@pytest.mark.parametrize("changes", [{"pool": "max"}, {"size": 32}, {"optimizer": "adam"}, {"convention": "tutorial"}])
def test_what_needs_a_new_run_gets_it_even_while_paused_and_keeps_the_picture(studio, settings, changes):
    before = paused(begun(studio, 20)).snapshot()
    for field, value in changes.items():
        move(studio, field, value)
    now = run_number(studio, 2).snapshot()
    assert (now - im.fit(before, now.shape[-2:])).abs().max() < 0.01
    assert studio.painting.run.plan.settings == studio.settings == settings.replace(**changes)


def test_restart_begins_as_the_controls_say(studio, settings):
    paused(begun(studio))
    move(studio, "init", "content")
    assert studio.painting.run.number == 1
    restart, from_current = (part for part in parts(studio) if isinstance(part, ipywidgets.Button))
    restart.click()
    assert torch.equal(run_number(studio, 2).snapshot(), im.load(settings.photo, 48))
    tell(studio, "single")
    until(lambda: studio.session.step.index == 1 and shows(studio, "paused"))
    before = im.quantized(studio.session.step.snapshot())
    from_current.click()
    assert torch.equal(run_number(studio, 3).snapshot(), before)


def parts(widget):
    """All that a widget contains, in order."""
    return [widget, *(part for child in getattr(widget, "children", ()) for part in parts(child))]


def test_a_click_on_the_film_goes_back_to_picture_and_settings(studio, settings):
    move(begun(studio, 5), "beta", 1e-6)
    until(lambda: studio.painting.run.record.changes)
    paused(studio)
    first = studio.painting.film.frames[0]
    tell(studio, "back", id=first.count)
    assert studio.settings == settings
    move(studio, "tv", 0.1)  # after the click
    assert torch.equal(run_number(studio, 2).snapshot(), first.picture)
    tell(studio, "single")
    until(lambda: studio.session.step.weights["tv"] == 0.1)
    assert studio.painting.settings == settings.replace(tv=0.1)


@pytest.mark.parametrize("recipe", ["reconstruct", "texture"])
@pytest.mark.parametrize("alone", [False, True])
def test_other_recipes_have_studios_too(make, settings, recipe, alone):
    common = {name: getattr(settings, name) for name in ("size", "steps", "weights", "normalize", "precision")}
    other, field, value, term = {
        "reconstruct": (ReconstructSettings(settings.photo, **common), "layer", "conv1_1", "content:conv1_1"),
        "texture": (TextureSettings(settings.painting, **common), "style_layers", ("conv1_1",), "style:conv1_1"),
    }[recipe]
    studio = begun(make(other, fields=[field, "pool"] if alone else None))
    move(studio, field, value)
    until(lambda: studio.session.step.weights[term] == 1)
    assert studio.painting.run.number == 1
    assert studio.view.compared == {"reconstruct": "photo", "texture": "painting"}[recipe]


def test_every_field_has_its_place(studio):
    tabs = studio.children[0].children[0]
    assert tabs.titles == ("Live", "Pictures", "Network", "Optimizer")
    assert {view.widget for view in studio.controls.views.values()} <= set(parts(tabs))


def test_what_is_not_allowed_is_refused_where_it_is_made(settings):
    with pytest.raises(InputError, match="there is no setting 'betta'; did you mean 'beta'"):
        Studio(settings, fields=["betta"])
    with pytest.raises(InputError, match="beta"):
        Studio(TransferSettings("coffee", "mosaic", beta=-1))


# --- what is shown, saved and copied ----------------------------------------------------------------------------


def test_pictures_are_shown_before_the_start(make, settings):
    studio = make(start=False)
    assert [each["label"] for each in studio.view.inputs] == ["photo", "painting"]
    for photo in (settings.painting, "nowhere.png"):  # that it is nowhere is told when it begins
        studio.controls.change(photo=photo)
        assert [each["label"] for each in studio.view.inputs] == ["painting", "painting"]


def test_the_page_shows_inputs_curves_and_film(studio):
    paused(begun(studio, 10))
    assert [(each["role"], each["label"]) for each in studio.view.inputs] == [("photo", "photo"), ("painting", "painting")]
    assert studio.view.compared == "photo"
    assert set(studio.view.curves["series"]) == {"content", "style"}
    assert [each["label"] for each in studio.view.film][:3] == ["step 0", "step 4", "step 8"]
    with Image.open(io.BytesIO(studio.view.picture)) as picture:
        assert picture.size == (40, 48)


def test_save_writes_the_run_with_its_changes(studio, tmp_path):
    tell(studio, "save")
    assert "nothing to save" in studio.view.message["text"]
    move(begun(studio), "beta", 1e-5)
    until(lambda: studio.painting.run.record.changes)
    tell(studio, "save")
    until(lambda: studio.view.message["kind"] == "note" and studio.view.message["text"].startswith("Saved as"))
    (run,) = nst.runs(root=tmp_path / "results").itertuples()
    assert run.id in studio.view.message["text"]
    assert run.changes == 1
    until(lambda: shows(studio, "running"))  # it goes on


def test_code_is_for_the_settings_as_they_are(make, settings):
    studio = make(start=False)
    studio.controls.change(tv=0.25)
    assert "--tv 0.25" in studio.code()[1]
    studio.single()
    until(lambda: shows(studio, "paused"))
    assert studio.painting.run.plan.settings.tv == 0.25
    move(studio, "beta", 1e-1)
    tell(studio, "code")
    names = {}
    exec(studio.view.code["python"].split("plan =")[0], names)
    assert names["settings"] == settings.replace(tv=0.25, beta=10.0)
    for option in ("--beta 10.0", "--device cpu"):
        assert option in studio.view.code["command"]


# --- uploads ----------------------------------------------------------------------------------------------------


def upload(studio, role, name, data, size=1000):
    chunks = [data[i : i + size] for i in range(0, max(1, len(data)), size)]
    for part, chunk in enumerate(chunks):
        tell(studio, "upload", chunk, id="x", role=role, name=name, part=part, parts=len(chunks))


def test_an_upload_becomes_the_photo_with_one_command(studio, painting, tmp_path, monkeypatch):
    begun(studio)
    path = im.save(painting, tmp_path / "other.png")
    upload(studio, "photo", "../../my cat.png", path.read_bytes())
    until(lambda: studio.painting.run.number == 2)
    kept = studio.painting.settings.photo
    assert kept.startswith(str(tmp_path / "results" / "uploads" / "my_cat-"))
    assert torch.equal(im.load(kept), im.load(path))
    assert studio.view.message["text"] == ""
    until(lambda: studio.view.inputs[0]["label"].startswith("my_cat"))
    assert studio.painting.run.number == 2


def test_an_upload_that_is_refused_says_why_and_changes_nothing(studio, settings):
    upload(studio, "painting", "cat.png", b"")
    assert studio.view.message["kind"] == "error"
    assert studio.view.message["text"].startswith("cat.png: is not a picture")
    assert studio.settings == settings
    tell(studio, "read")
    assert studio.view.message["text"] == ""
    tell(studio, "upload", id="x", role="photo", name="large.png", part=0, parts=1000)
    assert studio.view.message["text"].startswith("large.png: has more than 200 MB")


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_a_value_that_is_not_allowed_is_told_and_changes_nothing(studio, settings):
    move(begun(studio), "stop_loss", "low")
    assert studio.view.message["kind"] == "error"
    assert "stop_loss" in studio.view.message["text"]
    assert studio.painting.settings == settings
    move(studio, "tv", 0.1)
    assert studio.view.message["text"] == ""


def test_a_command_that_cannot_be_obeyed_is_told_each_time_and_taken_back(studio, settings):
    begun(studio).controls.change(seed=7)  # prepared for a restart
    for _ in range(2):
        move(studio, "weights", "nowhere.pth")
        until(lambda: "nowhere.pth" in studio.view.message["text"])
        until(lambda: studio.settings == settings.replace(seed=7))
        tell(studio, "read")
    assert (studio.painting.run.number, studio.session.phase) == (1, Phase.RUNNING)


@pytest.mark.parametrize("times", [1, 2])
def test_after_a_failure_one_can_save_what_was_painted_and_try_again(studio, monkeypatch, times):
    begun(studio, 5)
    for _ in range(times):
        with monkeypatch.context() as patch:
            patch.setattr(LBFGS, "step", lambda *_: 1 / 0)
            tell(studio, "resume")
            until(lambda: shows(studio, "failed") and "ZeroDivisionError" in studio.view.message["text"])
            tell(studio, "read")
    last = studio.painting.step.snapshot()
    tell(studio, "save")
    assert studio.view.message["text"].startswith("Saved as")
    assert studio.session.phase is Phase.FAILED
    tell(studio, "resume")
    until(lambda: studio.painting.run.number == times + 1 and shows(studio, "running"))
    assert (studio.painting.run.plan.start - last).abs().max() <= 0.5 / 255 + 1e-6


def test_what_cannot_begin_says_why_and_can_be_mended(make, settings):
    studio = make(settings.replace(photo="nowhere.png"))
    tell(studio, "seen")
    until(lambda: shows(studio, "failed") and "nowhere.png: no such file" in studio.view.message["text"])
    studio.controls.change(photo=settings.photo)
    begun(studio)


def test_what_goes_wrong_in_a_callback_is_told(studio, monkeypatch, tmp_path):
    monkeypatch.setattr(studio, "save", lambda: 1 / 0)
    tell(studio, "save")
    assert studio.view.message == {"text": "ZeroDivisionError: division by zero", "kind": "error"}
    (tmp_path / "results").write_text("a file, not a folder")
    upload(studio, "photo", "cat.png", b"x")
    assert studio.view.message["text"].startswith("cat.png: cannot be written")


# --- who is watching --------------------------------------------------------------------------------------------


def answer(studio):
    """A page that answers each picture and each change of its state."""
    studio.view.observe(lambda _: tell(studio, "seen"), names=["picture", "status"])
    tell(studio, "seen")


def test_nothing_is_painted_while_nobody_looks(studio):
    tell(studio, "seen")
    until(lambda: studio.view.picture)
    tell(studio, "gone")
    until(lambda: shows(studio, "paused", "paused: nobody is looking"))
    tell(studio, "seen")
    until(lambda: shows(studio, "running"))
    paused(studio)
    tell(studio, "gone")
    tell(studio, "seen")  # a pause of the user's own is not ended
    assert studio.session.phase is Phase.PAUSED


def test_a_viewer_that_vanishes_without_a_word_is_missed(studio, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.2)
    for _ in range(2):
        tell(studio, "seen")
        until(lambda: shows(studio, "paused", "paused: nobody is looking"))


def test_no_picture_is_sent_before_the_last_one_was_seen(studio, monkeypatch):
    for module, name, value in ((audience, "ANSWER_WAIT", LONG), (audience, "AWAY", LONG), (sessions, "FRAMES", 1e9)):
        monkeypatch.setattr(module, name, value)
    sent = []
    studio.view.observe(lambda change: sent.append(change.new), names="picture")
    tell(studio, "seen")
    until(lambda: studio.session.step is not None and studio.session.step.index >= 30)
    assert len(sent) == 1
    tell(studio, "seen")
    until(lambda: len(sent) == 2)
    at = studio.session.step.index
    until(lambda: studio.session.step.index > at)
    last = paused(studio)
    assert len(sent) == 3
    assert sent[-1] == jpeg(last.snapshot())  # the last one is sent in any case


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_slow_steps_and_long_pauses_are_not_taken_for_absence(studio, monkeypatch, seconds):
    monkeypatch.setattr(audience, "AWAY", 0.05)
    whole = LBFGS.step
    monkeypatch.setattr(LBFGS, "step", lambda *arguments: time.sleep(seconds) or whole(*arguments))
    answer(studio)
    until(lambda: studio.session.step is not None and studio.session.step.index >= 2)
    for message in ("pause", "gone", "seen"):  # while the last step is still under way
        tell(studio, message)
    until(lambda: shows(studio, "paused", "paused · step"))
    before = studio.session.step.index
    time.sleep(0.2)  # nothing is sent and nothing answered
    tell(studio, "single")
    until(lambda: studio.session.step.index == before + 1 and shows(studio, "paused", "paused · step"))
    tell(studio, "save")
    until(lambda: studio.view.message["text"].startswith("Saved as") and shows(studio, "paused", "paused · step"))
    move(studio, "pool", "max")
    run_number(studio, 2)


def test_who_waits_in_the_kernel_is_not_away(make, settings, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.01)
    studio = make(settings.replace(steps=300))
    tell(studio, "seen")
    tell(studio, "gone")  # and nothing more, as where the kernel cannot hear while a cell waits
    assert studio.wait(LONG) is Phase.RESTING
