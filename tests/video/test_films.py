"""Films: frames are kept as they are finished, an interrupted film goes on to the same pixels, and
it flickers less."""

import itertools
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pytest
import torch
from faults import refusal
from helpers import smooth, transform_network, until
from making import make_clip, told

from nstlab.base import files
from nstlab.cli import main as cli
from nstlab.feedforward.model import StyleModel
from nstlab.method.terms import Term
from nstlab.pictures import images as im
from nstlab.recipes import prepare as plan
from nstlab.video import filming, films
from nstlab.video.clips import clip
from nstlab.video.film_folder import FACTS
from nstlab.video.films import paint_film
from nstlab.video.flow import dis, temporal_error
from nstlab.video.settings import VideoSettings


@pytest.fixture
def scene():
    """Six frames of a window that moves over a picture."""
    wide = smooth(64, 120, seed=1)
    return [wide[..., 4:52, 6 * i : 6 * i + 64] for i in range(6)]


@pytest.fixture
def settings(scene, tiny_file, painting, tmp_path):
    """Makes the settings of a small film, of these frames or others."""

    def settings(frames=scene, **changes):
        source = make_clip(
            tmp_path / "clip.mp4", frames, sound=changes.pop("sound", None), options={"crf": "5"}
        )
        own = (
            "weights",
            str(tiny_file),
            "normalize",
            "False",
            "steps",
            "12",
            "levels",
            "1",
            *changes.pop("own", ()),
        )
        given = {
            "size": 64,
            "steps": 4,
            "parameters": own,
            "device": "cpu",
            "results": tmp_path / "results",
        }
        given |= {
            "painting": str(im.save(painting, tmp_path / "painting.png")),
            "out": tmp_path / "film.mp4",
        }
        return VideoSettings(changes.pop("clip", str(source)), **given | changes)

    return settings


def frames_of(film, run=1):
    frames = [im.load(film.frame_path(run, i)) for i in range(len(film.times))]
    assert run < film.settings.passes or all(map(torch.equal, frames, film.frames))
    return frames


def test_a_film_is_painted_kept_and_found_again(settings, tmp_path):
    given, seen = settings(sound="aac"), []
    film = paint_film(given, seen.append)
    assert [(frame.index, frame.count, frame.was_kept) for frame in seen] == [
        (i, 6, False) for i in range(6)
    ]
    count, length, codecs, sound = told(given.out)
    assert (count, codecs) == (6, ["h264", "aac"])
    assert (length, sound) == (pytest.approx(0.6, abs=0.1), pytest.approx(0.6, abs=0.1))
    rows = pandas.read_csv(film.path / "frames.csv")
    assert rows["steps"].tolist() == [12, 4, 4, 4, 4, 4]
    assert rows["begins"].tolist() == [True] + [False] * 5
    assert rows["temporal"].iloc[1:].gt(0).all()
    assert {path.name for path in film.path.iterdir()} == {"pass1", "frames.csv"}
    whole = given.out.read_bytes()
    seen.clear()
    paint_film(given, seen.append)
    assert all(frame.was_kept for frame in seen)
    assert given.out.read_bytes() == whole


def test_it_flickers_less_than_frames_that_are_painted_alone(settings, scene):
    def flickers(**changes):
        film = paint_film(settings(**changes))
        frames, photos = frames_of(film), [shot.photo for shot in film.shots()]
        flows = [dis(b, a) for a, b in itertools.pairwise(photos)]
        where = torch.ones(1, 1, 48, 64)
        where[..., 56:] = 0
        pairs = zip(frames, frames[1:], flows, strict=False)
        return sum(temporal_error(b, a, flow, where) for a, b, flow in pairs)

    held, alone = flickers(), flickers(earlier=(), own=("init", "noise"))
    assert held < 0.5 * alone


def test_an_interrupted_film_goes_on_to_the_same_pixels(settings, tmp_path, monkeypatch):
    whole = frames_of(paint_film(settings(results=tmp_path / "other")))
    given, paint, count = settings(), filming.FramePainter.paint, []

    def failing(self, *args):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return paint(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(filming.FramePainter, "paint", failing)
        with pytest.raises(
            KeyboardInterrupt, match=r"film\.mp4 holds what is painted so far, 0\.30 s"
        ):
            paint_film(given)
    assert told(given.out)[0] == 3
    seen = []
    film = paint_film(given, seen.append)
    assert [frame.was_kept for frame in seen] == [True] * 3 + [False] * 3
    assert all(torch.equal(a, b) for a, b in zip(frames_of(film), whole, strict=True))


def test_a_film_under_way_is_refused_or_waited_for(settings, monkeypatch):
    monkeypatch.setattr(files, "POLL", 0.01)
    given, waiting, frames = settings(), [], []

    def watch(frame):
        if not waiting:
            waiting.append(pool.submit(paint_film, given, frames.append, wait=True))
        assert "is being computed by another process" in refusal(paint_film, given)
        assert not waiting[0].done()

    with ThreadPoolExecutor(1) as pool:
        film = paint_film(given, watch)
        assert waiting[0].result(60).path == film.path
    assert [frame.was_kept for frame in frames] == [True] * 6


def test_a_killed_film_goes_on_to_the_same_pixels(settings, tmp_path):
    given = settings()
    words = [
        "video",
        given.clip,
        given.painting,
        "--size",
        "64",
        "--steps",
        "4",
        "--device",
        "cpu",
        "--out",
        str(given.out),
    ]
    words += ["--results", str(tmp_path / "results")]
    for name, value in zip(given.parameters[::2], given.parameters[1::2], strict=True):
        words += ["-p", name, value]
    process = subprocess.Popen(
        [sys.executable, "-m", "nstlab", *words], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    until(lambda: list((tmp_path / "results").glob("films/*/pass1/000001.png")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()  # until nobody writes
    assert cli.main(words) == 0
    resumed = paint_film(given)
    whole = frames_of(paint_film(settings(results=tmp_path / "other")))
    assert all(torch.equal(a, b) for a, b in zip(frames_of(resumed), whole, strict=True))


def test_a_film_never_becomes_shorter_by_being_interrupted(settings):
    given = settings()
    paint_film(given)

    def stop(frame):
        if frame.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"holds what is painted so far, 0\.60 s"):
        paint_film(given, stop)
    assert told(given.out)[0] == 6


def test_a_scene_begins_where_nothing_was_seen_before_and_what_was_before_is_forgotten(
    settings, scene, monkeypatch
):
    paint, earlier = filming.FramePainter.paint, []

    def counting(self, path, seen, *rest):
        earlier.append(len(seen))
        return paint(self, path, seen, *rest)

    monkeypatch.setattr(filming.FramePainter, "paint", counting)
    film = paint_film(settings([*scene[:3], *(smooth(48, 64, seed=7).flip(-1) * 0.5,) * 2]))
    assert pandas.read_csv(film.path / "frames.csv")["begins"].tolist() == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert earlier == [0, 1, 2, 2, 1]


def test_a_films_networks_are_made_once(settings, scene, monkeypatch):
    make, made = plan.loss_network, []
    monkeypatch.setattr(
        plan, "loss_network", lambda *args, **options: made.append(args) or make(*args, **options)
    )
    others = [smooth(48, 64, seed) for seed in (7, 8)]
    frames = [*scene[:2], *(each for each in others for _ in range(2))]
    film = paint_film(settings(frames, own=("steps", "1"), steps=1))
    assert film.table["begins"].tolist() == [True, False] * 3
    assert len(made) == 2  # one of them takes float32 wherever another type is faster


def test_the_style_of_the_painting_is_computed_once_for_each_network(settings, scene, monkeypatch):
    target, layers = Term.target, []

    def counting(term, features):
        layers.append(term.name)
        return target(term, features)

    monkeypatch.setattr(Term, "target", counting)
    paint_film(settings(scene[:2], steps=1))
    once = len(layers)
    paint_film(settings(scene, steps=1))
    assert len(layers) == 2 * once > 0


@pytest.mark.parametrize("size", [33, 47])
def test_films_of_odd_sizes(settings, scene, tmp_path, size):
    count = []
    for name in ("film.mp4", "film.webm", "film.gif", "frames"):
        given = settings(
            scene[:2], size=size, passes=2, own=("steps", "1"), steps=1, out=tmp_path / name
        )
        film = paint_film(given, lambda frame: count.append(frame.was_kept))
        shown = next(clip(given.out).frames()).picture
        assert shown.shape[-2:] == film.shape == film.frames[0].shape[-2:]
        assert abs(max(film.shape) - size) == 1
    assert count == [False] * 4 + [True] * 12


def test_a_film_whose_clip_has_an_unknown_sound_is_silent_and_says_so_before_it_is_painted(
    settings, caplog
):
    given, told_by = settings(sound="aac", own=("steps", "1"), to=0.1), []
    content = Path(given.clip).read_bytes()
    Path(given.clip).write_bytes(content.replace(b"mp4a", b"apac").replace(b"esds", b"dapa"))
    paint_film(given, lambda frame: told_by.append(caplog.text))
    assert "silent" in told_by[0]
    assert told(given.out)[2] == ["h264"]


DISTORTED = {
    "time": ["", "x", "1/0", "-1", 0.1, None, "1e5", "9" * 50],
    "until": ["0/1", "-1/2", 3, []],
    "begins": ["True", 1, None],
    "seen": ["0.5", None, [1]],
    "pass": [2, "1", 1.0, -1],
    "frame": [0, None, True, 10**30],
    "seconds": ["soon"],
    "loss": ["much"],
}


def test_a_kept_frame_that_lacks_or_distorts_a_field_is_painted_again(settings, tmp_path):
    own = {
        "model": str(
            StyleModel(transform_network(), ("oil", "chalk", "ink")).save(
                tmp_path / "m.safetensors"
            )
        )
    }
    given = settings(**own, parameters=(), painting="oil", to=0.3)
    film = paint_film(given)
    path, whole = film.frame_path(1, 1), frames_of(film)
    about = film.facts(path)
    cases = [
        {name: value for name, value in about.items() if name != gone} for gone in FACTS["required"]
    ]
    cases += [about | {name: value} for name, values in DISTORTED.items() for value in values]
    for case in cases:
        im.save(whole[1], path, case)
        film._facts.clear()
        assert film.facts(path) == {}, case
    im.save(whole[1][..., :-2], path, about)
    assert film.facts(path) == {}
    for i, case in enumerate(
        (about | {"time": "1/7"}, {"frame": 1}, about | {"frame": 2, "time": "0/1"})
    ):
        im.save(1 - whole[i], film.frame_path(1, i), case)
    seen = []
    assert all(map(torch.equal, frames_of(paint_film(given, seen.append)), whole))
    assert [frame.was_kept for frame in seen] == [False] * 3


def test_frames_whose_times_do_not_rise_are_not_shown(settings, scene):
    film = paint_film(settings(scene[:3], passes=2, own=("steps", "1"), steps=1))
    place = film.frame_path(2, 1)
    im.save(im.load(place), place, film.facts(place) | {"time": "0", "until": "1"})
    film._facts.clear()
    # each pass shows it at the same time
    assert film.paths == [film.frame_path(2, 0), film.frame_path(1, 1), film.frame_path(2, 2)]
    for run in (1, 2):
        place = film.frame_path(run, 2)
        im.save(im.load(place), place, film.facts(place) | {"time": "0", "until": "1"})
    film._facts.clear()
    assert film.paths == [film.frame_path(2, 0), film.frame_path(1, 1)]


def test_parts_of_a_clip(settings):
    film = paint_film(settings(from_=0.1, to=0.5, every=2))
    assert [float(at) for at in film.times] == pytest.approx([0, 0.2])
    assert told(film.settings.out)[1] == pytest.approx(0.4, abs=0.05)
    # its last frame is shown for as long as there are frames that it stands for
    last = paint_film(settings(every=4, to=0.5))
    assert [float(at) for at in (*last.times, last.end)] == pytest.approx([0, 0.4, 0.5])
    seen = []
    # the third begins at exactly that time
    assert len(paint_film(settings(to=0.2), seen.append).times) == 2
    assert seen[0].count == 2
    assert "no frame" in refusal(paint_film, settings(from_=2.0))


def test_later_passes_go_back_and_forth_and_keep_the_photos_until_the_end(settings):
    seen = []
    film = paint_film(settings(passes=3), seen.append)
    assert [frame.index for frame in seen] == [*range(6), *reversed(range(6)), *range(6)]
    assert not any(
        torch.equal(a, b)
        for a, b in zip(frames_of(film, 1)[1:], frames_of(film, 3)[1:], strict=True)
    )
    assert not (film.path / "photos").exists()


def test_a_model_paints_the_frames_and_they_are_blended(settings, tmp_path):
    model = StyleModel(transform_network(), ("painting", "oil", "chalk"))
    path = str(model.save(tmp_path / "m.safetensors"))
    own = {"model": path, "parameters": (), "painting": "painting"}
    alone, held = paint_film(settings(**own | {"earlier": ()})), paint_film(settings(**own))
    photo = next(alone.shots()).photo
    expected = StyleModel.load(path).painter("cpu")(photo, model.mixture(["painting"]))
    torch.testing.assert_close(frames_of(alone)[0], im.quantize(expected), rtol=0, atol=1e-6)
    assert torch.equal(frames_of(alone)[0], frames_of(held)[0])
    assert not torch.equal(frames_of(alone)[1], frames_of(held)[1])
    other = paint_film(settings(**own | {"painting": "oil"}))
    assert not torch.equal(frames_of(other)[0], frames_of(held)[0])


def test_a_clip_that_is_damaged_gives_the_frames_before(settings, tmp_path, monkeypatch):
    given = settings()
    (tmp_path / "frames").mkdir()
    for i in range(3):
        im.save(smooth(48, 64, seed=1), tmp_path / "frames" / f"{i}.png")
    im.save(smooth(30, 64, seed=1), tmp_path / "frames" / "3.png")
    message = refusal(paint_film, given.replace(clip=str(tmp_path / "frames")))
    assert "changes its size" in message
    assert message.endswith("film.mp4 holds what is painted so far, 0.12 s")
    assert told(given.out)[0] == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("name", ["0.png", "3.png"])
def test_a_pipe_among_the_frames_of_a_folder_is_refused_before_it_is_painted(
    settings, tmp_path, name
):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(1, 3):
        im.save(smooth(48, 64, seed=1), folder / f"{i}.png")
    os.mkfifo(folder / name)
    given = settings(clip=str(folder))
    assert refusal(paint_film, given).startswith(f"{folder / name}: is not a regular file")
    assert not given.out.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recipe": "texture"}, "recipe: 'texture' does not repaint a photo"),
        ({"own": ("betta", "3")}, "no setting 'betta'; did you mean 'beta'"),
        ({"own": ("size", "64")}, "parameters: size is the film's own"),
        ({"parameters": ("seed",)}, "parameters: 'seed' has no value"),
        ({"from_": 2.0, "to": 1.0}, "to: 1 s is not after"),
        ({"from_": -1.0}, "from: -1.0 is not allowed"),
        ({"model": "shipped"}, "are for films by the optimizer"),
    ],
)
def test_what_cannot_be_filmed_is_refused(settings, changes, says):
    assert says in refusal(settings, **changes)


def test_the_clip_is_not_replaced_and_a_full_disk_loses_nothing(settings, monkeypatch, tmp_path):
    given = settings()
    assert "is the clip" in refusal(paint_film, given.replace(out=given.clip))
    given.out.write_bytes(b"an older film")
    save = im.save

    def full(image, path, *rest):
        if path.name == "000002.png" and "pass1" in str(path):
            raise films.InputError(f"{path}: cannot be written (No space left on device)")
        return save(image, path, *rest)

    monkeypatch.setattr(films.im, "save", full)
    message = refusal(paint_film, given)
    assert "No space left" in message
    assert "so far, 0.20 s" in message
    monkeypatch.setattr(films.im, "save", save)
    seen = []
    paint_film(given, seen.append)
    assert [frame.was_kept for frame in seen] == [True] * 2 + [False] * 4
