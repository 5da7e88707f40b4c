"""What the studio's page is given: pictures as JPEGs, curves and a rate, and files that are there."""

import io

import pytest
import torch
from PIL import Image

from nstlab import images as im
from nstlab.live.viewer import PICTURE_SIDE, POINTS, Viewer, evaluation_rate, jpeg, loss_curves
from nstlab.runs.stored import Record


def opened(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize(("shape", "shown"), [((40, 60), (60, 40)), ((700, 350), (256, 512)), ((1024, 2048), (512, 256))])
def test_a_picture_is_a_jpeg_of_limited_size(shape, shown):
    picture = torch.zeros(1, 3, *shape)
    picture[:, 0] = 1.0
    image = opened(jpeg(picture))
    assert (image.format, image.size) == ("JPEG", shown)
    assert max(shown) <= PICTURE_SIDE
    assert image.getpixel((shown[0] // 2, shown[1] // 2)) == pytest.approx((255, 0, 0), abs=4)


def rows(count, **terms):
    common = {"level": 0, "loss": 1.0, "event": "", **terms}
    return [{"step": i, "evaluations": 3 * i, "seconds": i / 4, **common} for i in range(count)]


@pytest.mark.parametrize(("count", "rate"), [(0, 0), (1, 0), (2, 12), (POINTS, 12), (POINTS + 1, 12), (10 * POINTS + 7, 12)])
def test_curves_are_thinned_out_but_keep_their_ends_and_their_rate_is_of_evaluations(count, rate):
    record = Record(rows(count, content=0.5))
    shown = loss_curves(record)
    assert shown["steps"][:1] + shown["steps"][-1:] == ([0, count - 1] if count else [])
    assert min(count, POINTS) // 2 <= len(shown["steps"]) <= POINTS + 1
    assert evaluation_rate(record) == rate


def test_curves_have_a_series_and_a_colour_for_each_term():
    record = Record(rows(2, content=0.5, style=1 / 3) + rows(3, content=0.25)[2:], [(1, {"style": 0.0})])
    shown = loss_curves(record)
    assert (shown["steps"], shown["marks"]) == ([0, 1, 2], [1])
    assert shown["series"] == {"content": [0.5, 0.5, 0.25], "style": [0.3333, 0.3333, 0.0]}
    assert len(set(shown["colours"])) == 2


def test_inputs_are_shown_with_what_they_are(photo, painting, tmp_path, monkeypatch):
    view = Viewer()
    files = {"photo": str(im.save(photo, tmp_path / "cat.png")), "painting": str(im.save(painting, tmp_path / "night.png"))}
    view.show_inputs(files)
    assert (view.compared, view.shape, opened(view.before).size) == ("photo", [427, 512], (427, 512))
    assert [(shown["role"], shown["label"]) for shown in view.inputs] == [("photo", "cat"), ("painting", "night")]
    assert opened(view.inputs[1]["thumb"]).size == (160, 114)
    monkeypatch.setattr(im, "load", lambda *_: pytest.fail("they are shown already"))
    view.show_inputs(dict(files))
