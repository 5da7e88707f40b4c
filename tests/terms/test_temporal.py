"""The temporal term: the squared difference from an earlier frame, where that can be relied on."""

import pytest
import torch

from nstlab.method.conventions import convention_named
from nstlab.terms.temporal import Temporal


def term(earlier, reliable):
    return Temporal(
        "temporal",
        ("conv1_1",),
        (1.0,),
        convention_named("mean"),
        earlier=earlier,
        reliable=reliable,
    )


def test_differences_count_where_the_earlier_frame_can_be_relied_on(photo):
    reliable = torch.zeros_like(photo[:, :1])
    reliable[..., :12, :] = 1  # a quarter of the rows
    held = term(photo, reliable)
    assert float(held.statistic(photo, None)) == 0
    assert float(held.statistic(photo + 0.2, None)) == pytest.approx(0.25 * 0.04, rel=1e-4)
    other = photo.clone()
    other[..., 12:, :] = 0
    assert float(held.statistic(other, None)) == 0


def test_it_is_compared_at_the_size_of_the_picture(photo):
    small = torch.nn.functional.interpolate(photo, (24, 20), mode="area")
    assert float(term(photo, torch.ones_like(photo[:, :1])).statistic(small, None)) < 1e-3
