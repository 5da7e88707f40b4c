"""Sketches: a drawing's lines stay, and its areas take the painting's colours."""

import pytest
import torch
from faults import refusal

import nstlab as nst
from nstlab.pictures import images as im
from nstlab.recipes.sketch import SketchSettings


@pytest.fixture
def make(tmp_path, painting, tiny_file):
    """Makes settings for a drawing of a black frame on grey paper."""
    drawing = torch.full((1, 3, 48, 40), 0.8)
    drawing[..., 10:38, 8:32] = 0.1
    drawing[..., 13:35, 11:29] = 0.8
    paths = {
        name: str(im.save(picture, tmp_path / f"{name}.png"))
        for name, picture in (("d", drawing), ("p", painting))
    }
    given = {
        "size": 48,
        "steps": 30,
        "levels": 1,
        "weights": str(tiny_file),
        "precision": "float32",
    }
    return lambda **changes: SketchSettings(paths["d"], paths["p"], **given | changes)


def test_lines_stay_dark_and_areas_are_coloured(make):
    with_lines, without = (nst.prepare(make(lines=lines), "cpu").solve() for lines in (1e5, 0.0))
    dark = torch.zeros(48, 40, dtype=torch.bool)
    dark[10:38, 8:32] = True
    dark[13:35, 11:29] = False
    light = {
        name: nst.luminance(result.image)[0, 0]
        for name, result in (("with", with_lines), ("without", without))
    }
    assert light["with"][dark].mean() < 0.3 < light["without"][dark].mean()
    assert light["with"][~dark].mean() > light["with"][dark].mean() + 0.1
    assert with_lines.terms["lines"] < 0.05
    chroma = with_lines.image - with_lines.image.mean(1, keepdim=True)
    assert chroma[..., ~dark].abs().max() > 0.02


def test_the_drawing_is_put_on_white_paper_before_anything_reads_it(make):
    plan = nst.prepare(make(init="content"), "cpu")
    assert plan.start[..., 0, 0].min() > 0.95
    assert plan.inputs["content"][..., 0, 0].max() == pytest.approx(0.8, abs=0.01)


def test_its_weights_go_with_one_convention_alone(make):
    assert "convention: sketch has weights that go with 'mean' alone" in refusal(
        make, convention="paper"
    )


def test_the_weight_of_lines_is_steered_and_a_sweep_of_it_has_a_sheet(make, tmp_path):
    plan = nst.prepare(make(), "cpu").with_all_layers()
    assert plan.steering(make(lines=7.0))["lines"] == 7.0
    runs = nst.Sweep(make(steps=1), {"lines": [1.0, 10.0]}).run(tmp_path / "results")
    assert len([axes for axes in nst.sheet(runs).axes if axes.get_images()]) == 4
