"""Regions in the studio: what the page shows of files and of what a run has found, and what becomes
of what it sends."""

import io

import numpy as np
import pytest
import torch
from faults import refusal
from PIL import Image

import nstlab as nst
from nstlab.live.brush import NONE, SIDE, RegionsView
from nstlab.live.studio import Studio
from nstlab.pictures import images as im
from nstlab.pictures import labels, sizes
from nstlab.pictures.encoding import picture_of
from nstlab.recipes.transfer import TransferSettings


def png(*colours, shape=(30, 40)):
    """A label picture of upright stripes, as PNG."""
    stripes = [
        torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, shape[0], shape[1] // len(colours))
        for colour in colours
    ]
    buffer = io.BytesIO()
    im.to_pil(torch.cat(stripes, -1)).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def make(tmp_path, photo, painting, tiny_file):
    """Makes settings with small pictures; the painting is wide, and a crop uses its middle."""
    wide = torch.cat([torch.zeros_like(painting), painting, torch.ones_like(painting)], -1)
    paths = {
        name: str(im.save(picture, tmp_path / f"{name}.png"))
        for name, picture in (("photo", photo), ("wide", wide))
    }
    for name, data in (("mask", png(RED, BLUE)), ("own", png(BLUE, RED))):
        (tmp_path / f"{name}.png").write_bytes(data)
        paths[name] = str(tmp_path / f"{name}.png")
    given = {
        "size": 48,
        "steps": 2,
        "levels": 1,
        "weights": str(tiny_file),
        "precision": "float32",
        "style_fit": "crop",
    }

    def make(masks=False, **changes):
        named = {"mask": paths["mask"], "painting_mask": paths["own"]} if masks else {}
        return TransferSettings(paths["photo"], paths["wide"], **given | named | changes)

    return make


def shown(view):
    """[(name, label picture or None)] on the page."""
    images = [(each["name"], each["labels"]) for each in view.widget.pictures]
    return [
        (
            name,
            picture_of(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) if data else None,
        )
        for name, data in images
    ]


def test_pictures_are_sent_when_somebody_looks_and_again_when_files_change(make):
    view = RegionsView()
    view.show(make())
    assert view.widget.pictures == []
    view.look()
    assert shown(view) == [("photo", None), ("painting", None)]
    view.show(make(masks=True))
    (_, first), (_, second) = shown(view)
    assert list(labels.colours(first)) == list(labels.colours(second)) == ["#0000ff", "#ff0000"]
    assert (first[0, 0, 0, 0], second[0, 0, 0, 0]) == (1, 0)
    sent = view.widget.pictures
    view.show(make(masks=True, beta=3.0))
    assert view.widget.pictures is sent  # nothing that concerns it has changed


def test_regions_that_a_run_has_found_are_shown_over_the_whole_painting_and_stay_while_it_runs(
    make,
):
    view, plan = RegionsView(), nst.prepare(make(regions=2), "cpu")
    view.look()
    view.show(plan.settings)
    view.show_found(plan, 1)
    (_, first), (_, second) = shown(view)
    assert set(labels.colours(first)) <= set(labels.PALETTE[::6])
    own = im.shape_of(plan.settings.painting)
    assert second.shape[-2:] == sizes.fit_size(own, SIDE)
    _, left, _, width = sizes.fit_geometry(own, plan.start.shape[-2:], "crop", 1.0)[0]
    scale = second.shape[-1] / own[1]
    part = im.resize(
        second[..., round(left * scale) : round((left + width) * scale)],
        plan.inputs["painting_mask"].shape[-2:],
    )
    assert (part - plan.inputs["painting_mask"]).abs().mean() < 0.05
    view.show(plan.settings.replace(beta=3.0))
    view.show_found(plan, 1)
    assert shown(view)[0][1] is not None
    view.show(plan.settings.replace(photo=plan.settings.painting))  # a change that is refused later
    assert shown(view)[0][1] is None
    view.show(plan.settings)
    assert torch.equal(shown(view)[0][1], first)
    view.show_found(nst.prepare(make(), "cpu"), 2)  # a run that has not looked for any
    view.show(make())
    assert shown(view)[0][1] is None


def test_what_is_painted_is_kept_and_used_and_can_be_left_again(make, tmp_path):
    studio = Studio(make(regions=2), results=tmp_path / "results", start=False)
    studio.use_regions(png(RED, BLUE), png(BLUE, RED))
    mask, own = studio.settings.mask, studio.settings.painting_mask
    assert (studio.settings.regions, im.shape_of(mask)) == (1, (30, 40))
    studio.resume()
    studio.wait()
    assert [term.name for _, term in studio.painting.run.plan.objective.terms] == [
        "content",
        "style",
        "style_2",
        "tv",
    ]
    assert {mask, own} == {str(path) for path in (tmp_path / "results" / "uploads").iterdir()}
    studio.inbox.receive(None, {"do": "no regions"}, [])
    assert all(getattr(studio.settings, name) == value for name, value in NONE.items())
    studio.close()


def test_a_region_that_the_painting_lacks_is_refused_and_the_old_ones_stay(make, tmp_path):
    studio = Studio(make(masks=True), results=tmp_path / "results", start=False)
    studio.resume()
    studio.wait()
    before, pictures = studio.settings, studio.editor.widget.pictures
    assert "painting_mask: has no #0000ff" in refusal(studio.use_regions, png(RED, BLUE), png(RED))
    assert (studio.settings, studio.editor.widget.pictures) == (before, pictures)
    assert "is not a picture" in refusal(studio.use_regions, b"", b"")
    studio.close()


def test_weights_of_regions_go_with_them(make, tmp_path):
    studio = Studio(
        make(masks=True, region_weights=(1.0, 2.0)), results=tmp_path / "results", start=False
    )
    studio.use_regions(png(RED, BLUE, RED), png(RED, BLUE))
    assert studio.settings.region_weights == ()
    studio.controls.change(regions=3)
    assert (studio.settings.mask, studio.settings.painting_mask, studio.settings.regions) == (
        None,
        None,
        3,
    )
    studio.controls.change(regions=1)
    assert studio.settings.regions == 1


def test_without_regions_what_was_painted_goes_from_the_page(make, tmp_path):
    studio = Studio(make(), results=tmp_path / "results", start=False)
    studio.editor.look()
    pictures = studio.editor.widget.pictures
    studio.inbox.receive(None, {"do": "no regions"}, [])
    assert studio.editor.widget.pictures is not pictures
    studio.close()


def test_what_could_not_be_read_is_tried_again_and_the_newest_offer_is_shown(make, tmp_path):
    view, settings = RegionsView(), make()
    (tmp_path / "photo.png").rename(tmp_path / "gone.png")
    view.look()
    view.show(settings)
    assert view.widget.pictures == []
    (tmp_path / "gone.png").rename(tmp_path / "photo.png")
    view.show(settings)
    assert [name for name, _ in shown(view)] == ["photo", "painting"]
    picture = im.load(settings.photo, 32)

    def slow():  # meanwhile another thread has something newer
        view._offer(lambda: [("new", picture, None)])
        return [("old", picture, None)]

    view._offer(slow)
    assert [name for name, _ in shown(view)] == ["new"]
