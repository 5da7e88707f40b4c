"""Lines: a drawing on white, and how far a picture is from its dark strokes."""

import pytest
import torch

from nstlab.method.conventions import convention_named
from nstlab.pictures.colour import luminance
from nstlab.terms.lines import Lines, on_white


@pytest.fixture
def drawing():
    """A black column and a row of middle grey on white."""
    made = torch.ones(1, 3, 40, 50)
    made[..., 30, :] = 0.5
    made[..., 20] = 0.0
    return made


def term(drawing):
    return Lines("lines", ("conv1_1",), (1.0,), convention_named("mean"), drawing=drawing)


def test_only_dark_pixels_count_by_their_darkness(drawing):
    lines = term(drawing)
    assert float(lines.statistic(drawing, None)) == pytest.approx(0, abs=1e-12)
    other = drawing.clone()
    other[..., 0:10] = 0.3  # where it is white, but for the grey row
    error, dark = 10 * 0.5 * 0.2**2, 40 * 1.0 + 49 * 0.5
    assert float(lines.statistic(other, None)) == pytest.approx(error / dark, rel=1e-5)
    assert float(lines.statistic(torch.ones_like(drawing), None)) == pytest.approx(
        (40 + 49 * 0.5 * 0.25) / dark, rel=1e-5
    )


def test_a_drawing_is_compared_at_the_size_of_the_picture(drawing):
    small = torch.nn.functional.interpolate(drawing, (20, 25), mode="area")
    assert float(term(drawing).statistic(small, None)) < 0.05
    assert float(term(drawing).statistic(torch.ones_like(small), None)) > 0.1


@pytest.mark.parametrize("paper", [1.0, 0.8, 0.5])
def test_paper_becomes_white_even_where_light_falls_off_and_lines_stay(drawing, paper):
    light = paper * torch.linspace(0.7, 1.0, 50)
    found = on_white(drawing * light)
    assert torch.equal(found[:, 0], found[:, 2])
    assert found[..., :15, 40].min() > 0.9
    assert found[..., 20].max() < 0.05
    assert luminance(found)[0, 0, 30, 40] == pytest.approx(0.5, abs=0.1)
