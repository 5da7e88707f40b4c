"""Runs from coarse to fine begin at the coarsest size that is large enough for all that they
read."""

import pytest
from faults import refusal
from helpers import smooth

from nstlab.pictures import images as im
from nstlab.recipes.prepare import prepare


@pytest.fixture
def plan(small_transfer, tmp_path):
    """Makes the plan of a run from a photo and a painting of 128 × 80 px."""
    paths = [im.save(smooth(80, 128, seed), tmp_path / f"{seed}.png") for seed in (0, 1)]
    small = small_transfer.replace(photo=str(paths[0]), painting=str(paths[1]), size=128, steps=2)
    return lambda **changes: prepare(small.replace(**changes), "cpu")


PATCHES = {"levels": 2, "statistic": ["patches"]}


@pytest.mark.parametrize(
    ("changes", "sizes", "layer"),
    [
        ({"levels": 2}, [(40, 64), (80, 128)], ""),
        (PATCHES | {"style_layers": ["conv4_1"]}, [(40, 64), (80, 128)], ""),
        (PATCHES | {"style_layers": ["conv4_1", "conv5_1"]}, [(80, 128)], "relu5_1"),
        (
            PATCHES | {"style_layers": ["conv5_1"], "levels": 3, "size": 256},
            [(80, 128), (160, 256)],
            "relu5_1",
        ),
        (PATCHES | {"style_layers": ["conv4_1"], "style_scale": 0.4}, [(80, 128)], "relu4_1"),
        ({"levels": 2, "style_layers": ["pool5"], "style_scale": 0.5}, [(80, 128)], "pool5"),
    ],
)
def test_sizes_that_are_too_small_for_a_layer_or_a_patch_are_left_out_and_that_is_said(
    plan, caplog, changes, sizes, layer
):
    made = plan(**changes)
    assert [level.shape for level in made.schedule] == sizes
    said = [record.getMessage() for record in caplog.records]
    (height, width), coarser = sizes[0], [side // 2 for side in sizes[0]]
    expected = (
        f"levels: begins at {width}×{height}; {coarser[1]}×{coarser[0]} is too small for {layer}"
    )
    assert said == ([expected] if layer else [])
    if layer and made.settings.size == 128:
        assert {step.shape for step in made.steps()} == set(sizes)


def test_a_picture_without_room_for_a_patch_is_refused_in_one_line(plan):
    narrow = plan(**PATCHES | {"style_layers": ["conv5_1"], "size": 64})
    assert "patches have 3×3 positions, a layer has 4×2 here" in refusal(narrow.solve)
