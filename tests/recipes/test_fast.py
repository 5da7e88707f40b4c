"""Transfers that begin with a picture painted in one pass."""

import torch
from faults import refusal
from helpers import transform_network

import nstlab as nst
from nstlab.feedforward import model as models
from nstlab.feedforward.model import StyleModel
from nstlab.runs.stored import run_id


def settings(tiny_file, painting="mosaic", **changes):
    given = {
        "size": 48,
        "steps": 2,
        "levels": 1,
        "weights": str(tiny_file),
        "init": "fast",
        "precision": "float32",
    }
    return nst.TransferSettings("coffee", painting, **given | changes)


def test_the_first_picture_is_the_photo_as_the_model_paints_it_and_part_of_the_runs_id(
    tiny_file, monkeypatch
):
    names = ("mosaic", "ink_wash", "chalk")
    one, other = (StyleModel(transform_network(width=width), names) for width in (16, 24))
    found = {}
    for model in (one, other):
        monkeypatch.setattr(models, "shipped", lambda model=model: model)
        plan = nst.prepare(settings(tiny_file), "cpu")
        expected = model.painter("cpu")(plan.inputs["content"], model.mixture())
        torch.testing.assert_close(plan.start, expected, rtol=0, atol=1e-5)
        found[run_id(plan)] = plan
    assert len(found) == 2
    mixed = nst.prepare(settings(tiny_file, more_paintings=("ink_wash",), mix=(1, 3)), "cpu")
    expected = other.painter("cpu")(mixed.inputs["content"], other.mixture(names[:2], [1, 3]))
    torch.testing.assert_close(mixed.start, expected, rtol=0, atol=1e-5)
    assert mixed.solve().image.isfinite().all()


def test_a_painting_that_the_model_has_not_learnt_is_refused(tiny_file, tmp_path, painting):
    own = nst.save(painting, tmp_path / "mosaic.png")
    assert "has not learnt" in refusal(nst.prepare, settings(tiny_file, str(own)), "cpu")
    assert "init: 'fast' is not one of" in refusal(nst.TextureSettings, "mosaic", init="fast")
