"""The studio without a browser: what its page and its controls would send is sent by hand, and each effect is waited for."""

import io
import threading
import time

import pytest
import torch
from PIL import Image

import nstlab as nst
from nstlab import images as im
from nstlab.live import audience
from nstlab.live.session import OVER, State
from nstlab.live.studio import Studio
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import InputError

LONG = 60.0


@pytest.fixture
def settings(photo, painting, tiny_file, tmp_path):
    paths = [im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png")]
    return TransferSettings(
        *map(str, paths), size=48, steps=100_000, weights=str(tiny_file), normalize=False, precision="float32"
    )


@pytest.fixture
def make(settings, tmp_path):
    """Makes studios that are closed in the end, with nothing left running."""
    made = []

    def make(wanted=settings, **options):
        studio = Studio(wanted, results=tmp_path / "results", device="cpu", **options)
        made.append(studio)
        return studio

    yield make
    for studio in made:
        studio.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nstlab session"]


def until(wanted, seconds=LONG):
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def tell(studio, do, *buffers, **content):
    """A message from the page."""
    studio.view._handle_custom_msg({"do": do, **content}, list(buffers))


def shown(studio):
    """The picture on the page."""
    with Image.open(io.BytesIO(studio.view.picture)) as image:
        return torch.tensor(list(image.getdata())).float()


def painting_on(studio, steps=3):
    """Begin, and wait for so many steps."""
    tell(studio, "resume")
    until(lambda: studio.session.step is not None and studio.session.step.index >= steps)


def paused(studio):
    """Pause, and wait for that."""
    tell(studio, "pause")
    until(lambda: studio.view.status["state"] == "paused")
    return studio.session.step


def test_it_begins_when_somebody_looks_and_not_before(make):
    studio = make()
    assert studio.session.state is State.READY
    tell(studio, "seen")
    until(lambda: studio.view.picture)
    assert studio.view.status["text"].startswith("painting")
    assert studio.view.shape == [40, 48]


def test_one_that_is_not_to_start_by_itself_does_not(make):
    studio = make(start=False)
    tell(studio, "seen")
    assert studio.session.state is State.READY
    painting_on(studio)


def test_the_page_shows_inputs_curves_and_film(make):
    studio = make()
    painting_on(studio, 10)
    paused(studio)
    assert [(each["role"], each["label"]) for each in studio.view.inputs] == [("photo", "photo"), ("painting", "painting")]
    assert studio.view.compared == "photo"
    assert set(studio.view.curves["series"]) == {"content", "style"}
    assert [each["label"] for each in studio.view.film][:3] == ["step 0", "step 4", "step 8"]


@pytest.mark.parametrize(
    ("move", "name", "value"),
    [
        (lambda c: setattr(c.views["beta"].widget, "value", 1e-5), "style", 1e5),
        (lambda c: setattr(c.views["content_layers"].widget, "value", ("conv2_2",)), "content:conv2_2", 1.0),
        (lambda c: setattr(c.views["style_weights"].sliders[1], "value", 0.75), "style:conv2_1", 0.75),
        (lambda c: setattr(c.views["tv"].widget, "value", 0.1), "tv", 0.1),
        (lambda c: setattr(c.views["style_layers"].widget, "value", ("conv1_1", "conv1_2")), "style:conv1_2", 0.5),
    ],
    ids=["ratio", "content layer", "style weight", "smoothing", "style layers"],
)
def test_a_slider_steers_the_run(make, move, name, value):
    studio = make()
    painting_on(studio)
    move(studio.controls)
    until(lambda: studio.session.step.weights[name] == value)
    assert studio.painting.run.number == 1


def test_twenty_quick_moves_are_one_change(make):
    studio = make()
    painting_on(studio)
    before = paused(studio)
    for i in range(20):
        studio.controls.views["beta"].widget.value = 10.0 ** (-1 - i / 5)
    tell(studio, "single")
    until(lambda: studio.session.step.index == before.index + 1 and studio.view.status["state"] == "paused")
    assert len(studio.painting.run.record.changes) == 1
    assert studio.session.step.weights["style"] == pytest.approx(10**4.8, rel=1e-3)


def test_showing_settings_is_not_moving_controls(make):
    studio = make(TransferSettings("coffee", "mosaic", size=48, beta=1 / 3, learning_rate=0.0123), start=False)
    assert studio.settings == TransferSettings("coffee", "mosaic", size=48, beta=1 / 3, learning_rate=0.0123)


@pytest.mark.parametrize(("field", "value"), [("pool", "max"), ("size", 32), ("optimizer", "adam")])
def test_what_needs_a_new_run_gets_it_even_while_paused_and_keeps_the_picture(make, field, value):
    studio = make()
    painting_on(studio, 20)
    before = paused(studio).snapshot()
    studio.controls.views[field].widget.value = value
    until(lambda: studio.painting.run.number == 2 and studio.view.status["state"] == "paused")
    assert getattr(studio.painting.run.plan.settings, field) == value
    now = studio.session.step.snapshot()
    assert (now - im.fit(before, now.shape[-2:])).abs().max() < 0.01


def test_restart_begins_as_the_controls_say(make, settings):
    studio = make()
    painting_on(studio)
    paused(studio)
    studio.controls.views["init"].widget.value = "content"
    assert studio.painting.run.number == 1
    studio.restart()
    until(lambda: studio.painting.run.number == 2 and studio.view.status["state"] == "paused")
    assert torch.equal(studio.session.step.snapshot(), im.load(settings.photo, 48))
    studio.restart(current=True)
    until(lambda: studio.painting.run.number == 3)


def test_a_click_on_the_film_goes_back_to_picture_and_settings(make, settings):
    studio = make()
    painting_on(studio, 5)
    studio.controls.views["beta"].widget.value = 1e-6
    until(lambda: studio.painting.run.record.changes)
    paused(studio)
    first = studio.painting.film.frames[0]
    tell(studio, "back", id=first.count)
    until(lambda: studio.painting.run.number == 2 and studio.view.status["state"] == "paused")
    assert torch.equal(studio.session.step.snapshot(), first.picture)
    assert studio.settings == settings
    assert studio.controls.views["beta"].widget.value == pytest.approx(settings.alpha / settings.beta)


def test_save_writes_the_run_with_its_changes(make, tmp_path):
    studio = make()
    painting_on(studio)
    studio.controls.views["beta"].widget.value = 1e-5
    until(lambda: studio.painting.run.record.changes)
    tell(studio, "save")
    until(lambda: studio.view.message["text"])
    assert studio.view.message["kind"] == "note"
    (run,) = nst.runs(root=tmp_path / "results").itertuples()
    assert run.id in studio.view.message["text"]
    assert run.changes == 1
    until(lambda: studio.view.status["state"] == "running")  # it goes on


def test_code_is_for_the_settings_as_they_are(make, settings):
    studio = make()
    painting_on(studio)
    studio.controls.views["beta"].widget.value = 1e-1
    until(lambda: studio.painting.run.record.changes)
    tell(studio, "code")
    names = {}
    exec(studio.view.code["python"].split("plan =")[0], names)
    assert names["settings"] == settings.replace(beta=10.0)
    assert "--beta 10.0" in studio.view.code["command"]
    assert "--device cpu" in studio.view.code["command"]


def upload(studio, role, name, data, size=1000):
    parts = [data[i : i + size] for i in range(0, max(1, len(data)), size)]
    for part, chunk in enumerate(parts):
        tell(studio, "upload", chunk, id="x", role=role, name=name, part=part, parts=len(parts))


def test_an_upload_becomes_the_photo(make, painting, tmp_path):
    studio = make()
    painting_on(studio)
    path = im.save(painting, tmp_path / "other.png")
    upload(studio, "photo", "../../my cat.png", path.read_bytes())
    until(lambda: studio.painting.run.number == 2)
    kept = studio.painting.settings.photo
    assert kept.startswith(str(tmp_path / "results" / "uploads" / "my_cat-"))
    assert torch.equal(im.load(kept), im.load(path))
    assert studio.view.message["text"] == ""
    until(lambda: studio.view.inputs and studio.view.inputs[0]["label"].startswith("my_cat"))


@pytest.mark.parametrize("name", ["cat.html", "cat.svg", "cat", "cat.png.js"])
def test_an_upload_has_the_ending_of_what_it_is(make, painting, tmp_path, name):
    studio = make()
    upload(studio, "photo", name, im.save(painting, tmp_path / "other.png").read_bytes())
    (kept,) = (tmp_path / "results" / "uploads").iterdir()
    assert kept.suffix == ".png"
    assert str(kept) == studio.settings.photo


@pytest.mark.parametrize(
    ("data", "says"), [(b"nothing", "cat.png: is not a picture"), (b"", "cat.png: is not a picture"), ("small", "cat.png: 8×8")]
)
def test_an_upload_that_is_refused_says_why_and_leaves_nothing(make, settings, tmp_path, data, says):
    if data == "small":
        Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
        data = (tmp_path / "small.png").read_bytes()
    studio = make()
    upload(studio, "painting", "cat.png", data)
    assert studio.view.message["kind"] == "error"
    assert studio.view.message["text"].startswith(says)
    assert studio.settings == settings
    assert not list((tmp_path / "results" / "uploads").iterdir())
    tell(studio, "read")
    assert studio.view.message["text"] == ""


def test_an_upload_that_is_too_large_is_refused(make):
    studio = make()
    tell(studio, "upload", id="x", role="photo", name="large.png", part=0, parts=1000)
    assert studio.view.message["text"].startswith("large.png: has more than 200 MB")
    assert studio.uploads._parts == {}


def test_controls_that_contradict_each_other_are_told_and_change_nothing(make, settings):
    studio = make()
    painting_on(studio)
    studio.controls.views["stop_loss"].widget.value = "low"
    assert studio.view.message["kind"] == "error"
    assert "stop_loss" in studio.view.message["text"]
    assert studio.painting.settings == settings


def test_a_command_that_cannot_be_obeyed_is_told_and_taken_back(make, settings):
    studio = make()
    painting_on(studio)
    studio.controls.views["weights"].widget.value = "nowhere.pth"
    until(lambda: "nowhere.pth" in studio.view.message["text"])
    until(lambda: studio.settings == settings)
    assert studio.painting.run.number == 1
    assert studio.session.state is State.RUNNING


def test_an_exception_in_the_worker_is_shown_and_one_can_try_again(make, monkeypatch):
    studio = make()
    painting_on(studio, 5)
    with monkeypatch.context() as patch:
        patch.setattr("nstlab.method.engine._Run.advance", lambda self: 1 / 0)
        until(lambda: studio.view.status["state"] == "failed")
        until(lambda: "ZeroDivisionError" in studio.view.message["text"])
    before = studio.painting.run.record.last.snapshot()
    tell(studio, "resume")
    until(lambda: studio.painting.run.number == 2 and studio.session.step is not None)
    assert (studio.painting.run.plan.start - before).abs().max() <= 0.5 / 255 + 1e-6
    until(lambda: studio.view.status["state"] == "running")


def test_what_cannot_begin_says_why_and_can_be_mended(make, settings):
    studio = make(settings.replace(photo="nowhere.png"))
    tell(studio, "seen")
    until(lambda: studio.session.state in OVER)
    until(lambda: "nowhere.png: no such file" in studio.view.message["text"])
    studio.controls.change(photo=settings.photo)
    painting_on(studio)


def test_nothing_is_painted_while_nobody_looks(make):
    studio = make()
    tell(studio, "seen")
    until(lambda: studio.view.picture)
    tell(studio, "gone")
    until(lambda: studio.view.status["text"].startswith("paused: nobody is looking"))
    tell(studio, "seen")
    until(lambda: studio.view.status["state"] == "running")
    paused(studio)
    tell(studio, "gone")
    tell(studio, "seen")  # a pause of the user's own is not ended
    assert studio.session.state is State.PAUSED


def test_a_viewer_that_vanishes_without_a_word_is_missed(make, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.2)
    studio = make()
    tell(studio, "seen")
    until(lambda: studio.view.status["text"].startswith("paused: nobody is looking"))
    tell(studio, "seen")
    until(lambda: studio.view.status["state"] == "running")


def test_no_picture_is_sent_before_the_last_one_was_seen(make, monkeypatch):
    monkeypatch.setattr(audience, "PATIENCE", LONG)
    monkeypatch.setattr(audience, "AWAY", LONG)
    studio = make()
    studio.session.interval = 0.0
    sent = []
    studio.view.observe(lambda change: sent.append(change.new), names="picture")
    tell(studio, "seen")
    until(lambda: studio.session.step is not None and studio.session.step.index >= 30)
    assert len(sent) == 1
    tell(studio, "seen")
    until(lambda: len(sent) == 2)
    paused(studio)
    assert len(sent) == 3  # the last one is sent in any case


def test_a_viewer_is_missed_by_the_pictures_that_it_does_not_answer_not_by_its_silence(make, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.05)
    studio = make()
    answer(studio)
    tell(studio, "seen")
    until(lambda: studio.session.step is not None)
    before = paused(studio).index
    time.sleep(0.2)  # a long pause, in which nothing is sent and nothing answered
    tell(studio, "single")
    until(lambda: studio.session.step.index == before + 1 and studio.view.status["state"] == "paused")
    tell(studio, "save")
    until(lambda: studio.painting.news and studio.view.status["state"] == "paused")
    studio.controls.views["pool"].widget.value = "max"
    until(lambda: studio.painting.run.number == 2 and studio.view.status["text"] == "paused · step 0 of 100000")


def answer(studio):
    """A page that answers each picture and each change of its state."""
    studio.view.observe(lambda _: tell(studio, "seen"), names=["picture", "status"])


def test_steps_that_take_longer_than_a_viewer_is_missed_can_be_paused(make, monkeypatch):
    from nstlab.method.engine import _Run

    monkeypatch.setattr(audience, "AWAY", 0.05)
    whole = _Run.advance
    monkeypatch.setattr(_Run, "advance", lambda self: (time.sleep(0.1), whole(self)))
    studio = make()
    answer(studio)
    tell(studio, "seen")
    until(lambda: studio.session.step is not None and studio.session.step.index >= 2)
    before = paused(studio).index
    tell(studio, "gone")
    tell(studio, "seen")
    tell(studio, "single")
    until(lambda: studio.session.step.index == before + 1 and studio.view.status["state"] == "paused")


def test_who_waits_in_the_kernel_is_not_away(make, settings, monkeypatch):
    monkeypatch.setattr(audience, "AWAY", 0.01)
    studio = make(settings.replace(steps=300))
    tell(studio, "seen")  # and never again, as where the kernel cannot hear while a cell waits
    assert studio.wait(LONG) is State.RESTING


def test_what_is_moved_after_a_click_on_the_film_counts(make):
    studio = make()
    painting_on(studio)
    paused(studio)
    tell(studio, "back", id=studio.painting.film.frames[0].count)
    studio.controls.views["beta"].widget.value = 1e-5
    until(lambda: studio.painting.run.number == 2 and studio.view.status["state"] == "paused")
    tell(studio, "single")
    until(lambda: studio.session.step.weights["style"] == 1e5)


def test_the_same_refusal_is_told_each_time(make, settings):
    studio = make()
    painting_on(studio)
    for count in (1, 2):
        studio.controls.change(photo="nowhere.png")
        until(lambda n=count: len(studio.painting.news) == n and "nowhere.png" in studio.view.message["text"])
        until(lambda: studio.settings == settings)
        tell(studio, "read")


def test_a_refusal_leaves_what_is_prepared_for_a_restart(make, settings):
    studio = make()
    painting_on(studio)
    studio.controls.change(seed=7)
    studio.controls.change(photo="nowhere.png")
    until(lambda: studio.settings == settings.replace(seed=7))


def test_what_was_painted_before_a_failure_can_be_saved(make, monkeypatch):
    studio = make()
    painting_on(studio, 5)
    monkeypatch.setattr("nstlab.method.engine._Run.advance", lambda self: 1 / 0)
    until(lambda: studio.view.status["state"] == "failed")
    at = studio.painting.run.record.last.index
    tell(studio, "save")
    assert studio.painting.news[-1].saved.manifest["result"]["steps"] == at
    assert studio.view.message["text"].startswith("Saved as")
    assert studio.session.state is State.FAILED


def test_there_is_nothing_to_save_before_the_first_step(make):
    studio = make()
    tell(studio, "save")
    assert "nothing to save" in studio.view.message["text"]


def test_code_is_for_the_controls_before_the_start_and_in_a_pause(make, settings):
    studio = make(start=False)
    studio.controls.change(size=64)
    assert "--size 64" in studio.code()[1]
    studio.single()
    until(lambda: studio.view.status["state"] == "paused")
    assert studio.painting.run.plan.settings.size == 64
    studio.controls.change(tv=0.5)
    assert "--tv 0.5" in studio.code()[1]


def test_pictures_are_shown_before_the_start(make, settings):
    studio = make(start=False)
    assert [each["label"] for each in studio.view.inputs] == ["photo", "painting"]
    studio.controls.change(photo=settings.painting)
    assert [each["label"] for each in studio.view.inputs] == ["painting", "painting"]
    studio.controls.change(photo="nowhere.png")  # is told when it begins
    assert [each["label"] for each in studio.view.inputs] == ["painting", "painting"]


def test_where_nobody_can_use_it_it_is_a_picture(make, settings, monkeypatch):
    from nstlab.live.studio import STATIC

    studio = make(settings.replace(steps=2))
    assert "application/vnd.jupyter.widget-view+json" in studio._repr_mimebundle_()
    monkeypatch.setenv(STATIC, "1")
    data = studio._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert "first 2 steps" in data["text/plain"]
    assert studio.session.state is State.READY


def test_from_before_the_start_a_restart_is_a_start(make):
    studio = make(start=False)
    studio.restart()
    until(lambda: studio.session.step is not None and studio.session.step.index >= 3)
    assert studio.painting.run.number == 1


def test_another_convention_brings_its_weights_and_layers_into_the_controls(make, settings):
    studio = make()
    painting_on(studio)
    studio.controls.change(convention="tutorial")
    until(lambda: studio.painting.run.number == 2)
    assert studio.painting.run.plan.settings == settings.replace(convention="tutorial")
    assert studio.controls.views["style_layers"].widget.value == studio.painting.run.plan.settings.style_layers
    assert studio.controls.views["beta"].widget.value == pytest.approx(1e-6)


def test_an_upload_is_one_command(make, painting, tmp_path):
    studio = make()
    painting_on(studio)
    sent = []
    studio.session.send = sent.append
    upload(studio, "photo", "cat.png", im.save(painting, tmp_path / "cat.png").read_bytes())
    assert len(sent) == 1
    assert "uploads" in sent[0].settings.photo


@pytest.mark.parametrize("name", ["a\\1.png", "C:\\gfx\\pic.png", "", "/", "x" * 500 + ".png"])
def test_names_of_uploads_are_only_names(make, tmp_path, name):
    studio = make()
    upload(studio, "photo", name, b"nothing")
    assert studio.view.message["text"].startswith(f"{name}: is not a picture")


def test_what_goes_wrong_in_a_callback_is_told(make, monkeypatch, tmp_path):
    studio = make()
    monkeypatch.setattr(studio, "save", lambda: 1 / 0)
    monkeypatch.setattr(studio.session, "pause", lambda: None)
    tell(studio, "code")
    (tmp_path / "results").write_text("a file, not a folder")
    upload(studio, "photo", "cat.png", b"x")
    assert studio.view.message["text"].startswith("cat.png: cannot be written")


def test_fields_that_do_not_exist_are_refused(settings):
    with pytest.raises(InputError, match="there is no setting 'betta'; did you mean 'beta'"):
        Studio(settings, fields=["betta"])


def test_a_closed_studio_is_gone(settings, tmp_path):
    import gc
    import weakref

    from ipywidgets.widgets.widget import _instances

    before = len(_instances)
    studio = Studio(settings, results=tmp_path, device="cpu")
    painting_on(studio)
    studio.close()
    assert len(_instances) == before
    live = weakref.ref(studio.painting)
    del studio
    gc.collect()
    assert live() is None


def test_without_a_browser_it_can_be_waited_for(make, settings):
    studio = make(settings.replace(steps=5))
    studio.resume()
    assert studio.wait(LONG) is State.RESTING
    assert studio.session.step.index == 5
    until(lambda: studio.view.status["text"] == "finished · step 5 of 5")
    tell(studio, "resume")
    until(lambda: studio.painting.run.number == 2)


@pytest.mark.parametrize("fields", [None, ["layer", "pool"]])
def test_other_recipes_have_studios_too(make, settings, fields):
    common = {name: getattr(settings, name) for name in ("size", "steps", "weights", "normalize", "precision")}
    studio = make(ReconstructSettings(settings.photo, **common), fields=fields)
    painting_on(studio)
    studio.controls.views["layer"].widget.value = "conv1_1"
    until(lambda: studio.session.step.weights["content:conv1_1"] == 1)
    texture = make(TextureSettings(settings.painting, **common))
    painting_on(texture)
    until(lambda: texture.view.compared == "painting")


def test_every_field_has_its_place(make, settings):
    studio = make()
    tabs = studio.children[0].children[0]
    assert tabs.titles == ("Live", "Pictures", "Network", "Optimizer")

    def below(widget):
        return {widget}.union(*map(below, getattr(widget, "children", ())))

    there = below(tabs)
    assert {view.widget for view in studio.controls.views.values()} <= there


def test_it_is_quick_to_make_and_the_cell_returns(make):
    """Nothing is read or computed before somebody looks."""
    studio = make()
    assert studio.painting.run is None
    assert studio.session.state is State.READY


def test_bad_settings_are_refused_where_they_are_made():
    with pytest.raises(InputError, match="beta"):
        Studio(TransferSettings("coffee", "mosaic", beta=-1))
