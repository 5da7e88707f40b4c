"""What the studio's page is given, pictures as JPEGs and curves; and what it sends, answers and
uploads."""

import io
import shutil
from pathlib import Path

import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nstlab.live import pages, viewer
from nstlab.live.audience import ANSWER_WAIT, AWAY, Audience
from nstlab.live.brush import Brush
from nstlab.live.camera import Camera
from nstlab.live.player import Screen
from nstlab.live.uploads import CHUNK, MOST, Uploads
from nstlab.live.viewer import POINTS, Viewer, curve_points, evaluation_rate, jpeg
from nstlab.pictures import images as im
from nstlab.runs.stored import Record


def test_a_page_is_one_module_made_of_its_files_as_they_are_when_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "FOLDER", Path(shutil.copytree(pages.FOLDER, tmp_path / "page")))
    before = Viewer()
    assert "import " not in before._esm
    assert before._esm.count("export ") == before._esm.count("export default { render }") == 1
    assert before._esm.count("function make(") == 1
    with open(tmp_path / "page" / "elements.js", "a") as script:
        script.write("export const NEW = 1;\n")
    (tmp_path / "page" / "view.css").write_text(".new {}")
    after = Viewer()
    assert "\nconst NEW = 1;\n" in after._esm
    assert after._css == ".new {}"
    assert "NEW" not in before._esm


@pytest.mark.parametrize(
    ("shape", "shown"), [((40, 60), (60, 40)), ((700, 350), (256, 512)), ((1024, 2048), (512, 256))]
)
def test_a_picture_is_a_jpeg_of_limited_size(shape, shown):
    picture = torch.zeros(1, 3, *shape)
    picture[:, 0] = 1.0
    with Image.open(io.BytesIO(jpeg(picture))) as image:
        assert (image.format, image.size) == ("JPEG", shown)
        assert image.getpixel((shown[0] // 2, shown[1] // 2)) == pytest.approx((255, 0, 0), abs=4)


def rows(count, **terms):
    common = {"level": 0, "loss": 1.0, "event": "", **terms}
    return [{"step": i, "evaluations": 3 * i, "seconds": i / 4, **common} for i in range(count)]


@pytest.mark.parametrize(
    ("count", "rate"),
    [(0, 0), (1, 0), (2, 12), (POINTS, 12), (POINTS + 1, 12), (10 * POINTS + 7, 12)],
)
def test_curves_are_thinned_out_but_keep_their_ends_and_their_rate_is_of_evaluations(count, rate):
    record = Record(rows(count, content=0.5))
    shown = curve_points(record)
    assert shown["steps"][:1] + shown["steps"][-1:] == ([0, count - 1] if count else [])
    assert min(count, POINTS) // 2 <= len(shown["steps"]) <= POINTS + 1
    assert evaluation_rate(record) == rate


def test_curves_have_a_series_and_a_colour_for_each_term():
    record = Record(
        rows(2, content=0.5, style=1 / 3) + rows(3, content=0.25)[2:], [(1, {"style": 0.0})]
    )
    shown = curve_points(record)
    assert (shown["steps"], shown["marks"]) == ([0, 1, 2], [1])
    assert shown["series"] == {"content": [0.5, 0.5, 0.25], "style": [0.3333, 0.3333, 0.0]}
    assert len(set(shown["colours"])) == 2


def test_somebody_is_watching_as_long_as_pictures_are_answered():
    now = 0.0
    audience = Audience(lambda: now)
    audience.note_picture()  # nobody has ever come: there is nobody to miss
    now += 10 * AWAY
    assert (audience.busy, audience.gone) == (False, False)
    audience.note_answer()
    now += 10 * AWAY  # silence alone means nothing
    assert (audience.busy, audience.gone) == (False, False)
    audience.note_picture()
    assert audience.busy
    now += ANSWER_WAIT  # the next picture does not wait for ever
    assert not audience.busy
    audience.note_picture()
    now += AWAY - ANSWER_WAIT
    assert not audience.gone
    now += 0.1
    assert audience.gone  # since the first picture was not answered
    audience.note_picture()
    audience.note_answer()
    assert (audience.busy, audience.gone) == (False, False)


@given(st.data())
def test_parts_may_come_in_any_order_and_what_is_forgotten_begins_anew(data):
    uploads, whole = Uploads(None), data.draw(st.binary(min_size=1, max_size=40))
    uploads.add_part("x", 8, 9, "a", b"old")
    uploads.forget()
    parts = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    found = [
        uploads.add_part("x", i, len(parts), "a", parts[i])
        for i in data.draw(st.permutations(range(len(parts))))
    ]
    assert found == [None] * (len(parts) - 1) + [whole]


@pytest.mark.parametrize("name", ["../../my cat.png", "my cat.html", "my cat", "my cat.png.js"])
def test_a_picture_is_named_by_what_it_is(painting, tmp_path, name):
    path = im.save(painting, tmp_path / "other.png")
    kept = Uploads(tmp_path / "uploads").keep(name, path.read_bytes())
    assert kept.parent == tmp_path / "uploads"
    assert kept.name.startswith("my_cat")
    assert kept.suffix == ".png"
    assert torch.equal(im.load(kept), im.load(path))


@pytest.mark.parametrize(
    "name", ["cat.png", "a\\1.png", "C:\\gfx\\pic.png", "", "/", "x" * 500 + ".png"]
)
def test_what_is_no_picture_is_refused_by_its_own_name_and_leaves_nothing(tmp_path, name):
    im.to_pil(torch.zeros(1, 3, 8, 8)).save(tmp_path / "small.png")
    small = (tmp_path / "small.png").read_bytes()
    for data, problem in (
        (b"nothing", "is not a picture"),
        (b"", "is not a picture"),
        (small, "8×8"),
    ):
        assert refusal(Uploads(tmp_path / "uploads").keep, name, data).startswith(
            f"{name}: {problem}"
        )
    assert not list((tmp_path / "uploads").iterdir())


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(
        Uploads(tmp_path / "file" / "uploads").keep, "cat.png", b"x"
    )


def test_an_upload_takes_the_place_of_an_earlier_one_on_every_system(
    painting, tmp_path, monkeypatch
):
    data = im.save(painting, tmp_path / "cat.png").read_bytes()
    monkeypatch.setattr(Path, "rename", None)  # which Windows refuses where there is a file already
    kept = [Uploads(tmp_path / "uploads").keep("cat.png", data) for _ in range(2)]
    assert kept[0] == kept[1]
    assert kept[0].read_bytes() == data


def test_inputs_that_could_not_be_read_are_tried_again_and_the_newest_are_shown(
    painting, tmp_path, monkeypatch
):
    view, path, load = Viewer(), tmp_path / "late.png", im.load
    view.show_inputs({"photo": str(path)})
    assert view.inputs == []
    im.save(painting, path)
    view.show_inputs({"photo": str(path)})
    assert [each["label"] for each in view.inputs] == ["late"]
    im.save(painting, tmp_path / "newest.png")

    def slow(name, size):  # meanwhile another thread has something newer
        monkeypatch.setattr(viewer.im, "load", load)
        view.show_inputs({"photo": str(tmp_path / "newest.png")})
        return load(name, size)

    monkeypatch.setattr(viewer.im, "load", slow)
    view.show_inputs({"painting": str(path)})
    assert [(each["role"], each["label"]) for each in view.inputs] == [("photo", "newest")]


def test_parts_that_cannot_be_are_refused_and_few_files_are_on_their_way(tmp_path):
    uploads = Uploads(tmp_path)
    for number, count, data in (
        (0, 0, b""),
        (2, 2, b"x"),
        (-1, 2, b"x"),
        (0, 1, b"x" * (CHUNK + 1)),
    ):
        assert "cannot be used" in refusal(uploads.add_part, "a", number, count, "a.png", data)
    for i in range(3 * MOST):
        uploads.add_part(str(i), 0, 2, "a.png", b"x")
    assert list(uploads._parts) == [str(i) for i in range(2 * MOST, 3 * MOST)]
    uploads.add_part("x", 3, 9, "a.png", b"x")
    # another number of parts than was said before
    assert uploads.add_part("x", 1, 2, "a.png", b"x") is None


@pytest.mark.parametrize("page", [Viewer, Brush, Camera, Screen])
def test_a_script_is_bundled_with_each_module_that_it_imports_once(page):
    text = pages.bundle(page.script)
    assert "import " not in text
    assert text.count("function make(") == text.count("export ") == 1
    assert (pages.FOLDER / page.style).is_file()


def test_an_edited_page_is_seen_when_its_widget_is_made_again(tmp_path, monkeypatch):
    folder = shutil.copytree(pages.FOLDER, tmp_path / "page")
    monkeypatch.setattr(pages, "FOLDER", folder)
    before = Viewer()
    for name in ("elements.js", "view.css"):
        with (folder / name).open("a") as file:
            file.write("/* edited */")
    after = Viewer()
    assert "/* edited */" not in before._esm + before._css
    assert after._esm.count("/* edited */") == after._css.count("/* edited */") == 1
