"""Tiles: the same loss and gradient as those of the whole picture."""

from math import prod

import pytest
import torch
from helpers import smooth

import nstlab as nst
from nstlab.method.conventions import convention_named
from nstlab.method.fast import geometry, layout, windows
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.tiles import TiledBound
from nstlab.method.fast.windows import Tiling
from nstlab.terms.affine import Affine
from nstlab.terms.lines import Lines
from nstlab.terms.regions import region_styles
from nstlab.terms.statistics import kind, names
from nstlab.terms.temporal import Temporal

LAYERS = ("conv1_1", "conv2_1", "conv3_1")
SHAPE = (93, 117)
FLOAT32 = Arithmetic(torch.float32)


def bound_in_tiles(goal, net, shape=SHAPE, side=32, budget=1 << 40, arithmetic=None):
    return TiledBound(
        goal,
        net,
        shape,
        arithmetic=arithmetic or Arithmetic(net.dtype),
        tiling=Tiling(budget, side),
    )


def compare(goal, net, picture, near=1e-5, **options):
    """Assert that value, gradient and terms of a picture are those without tiles."""
    plain, cut = (
        goal.bind(net, picture.shape[-2:]),
        bound_in_tiles(goal, net, picture.shape[-2:], **options),
    )
    (total, grad, values), (found, own, each) = plain.evaluate(picture), cut.evaluate(picture)
    assert float(found) == pytest.approx(float(total), rel=near)
    assert torch.allclose(each, values, rtol=10 * near)
    assert float((own - grad).norm() / grad.norm()) < near
    return cut


def pixel_term(kind, **fields):
    return nst.Objective(
        ((1.0, kind("pixels", ("pixels",), (1.0,), convention_named("mean"), **fields)),)
    )


@pytest.fixture
def picture():
    return smooth(*SHAPE, 1)


@pytest.mark.parametrize("pool", ["avg", "max", "l2"])
@pytest.mark.parametrize("shape", [SHAPE, (64, 96), (33, 150)], ids=str)
def test_the_gradient_is_that_of_the_whole_picture(tiny, pool, shape):
    net = nst.VGG19(tiny, pool=pool, rescale_pool=pool == "l2")
    photo, painting = smooth(*shape, 2), smooth(80, 70, 3)
    goal = (
        nst.content("conv4_2", photo)
        + 20 * nst.style(("conv1_1", "conv3_1", "conv5_1"), painting)
        + nst.total_variation()
    )
    cut = compare(goal, net, smooth(*shape, 1))
    assert len(cut._windows.tiles) > 3


@pytest.mark.parametrize("name", names())
def test_every_statistic_of_style(tiny, picture, name):
    net = nst.VGG19(tiny)
    if name == "patches":  # in float32, another patch may be the nearest
        net, picture = net.double(), picture.double()
    goal = nst.term(
        kind(name), "style", LAYERS, image=smooth(64, 80, 3), fitted=SHAPE
    ) + nst.content("conv2_2", picture.flip(-1))
    compare(goal, net, picture)


@pytest.mark.parametrize("side", [48, 500])
def test_terms_of_pixels_regions_and_mixtures(tiny, picture, side):
    net, other = nst.VGG19(tiny), smooth(*SHAPE, 5)
    masks = torch.cat([other[:, :1], 1 - other[:, :1]], 1)
    regions = region_styles(LAYERS, smooth(*SHAPE, 6), masks, masks.flip(-1), (2.0, 1.0), "mean")
    mixture = 0.3 * nst.style(LAYERS, other) + 0.7 * nst.style(
        "conv2_1", smooth(50, 60, 8), fit="area"
    )
    compare(regions + mixture, net, picture, side=side)
    for goal in (
        pixel_term(Affine, photo=other),
        pixel_term(Lines, drawing=other[:, :1].expand(1, 3, *SHAPE)),
        pixel_term(Temporal, earlier=other, reliable=masks[:, :1]),
        nst.total_variation("neural-style"),
    ):
        compare(goal, net, picture, side=side)


@pytest.mark.parametrize("kept", [0, 2, 100])
def test_features_are_kept_between_the_passes_where_there_is_room(tiny, picture, kept, monkeypatch):
    net = nst.VGG19(tiny)
    goal = nst.content("conv4_2", smooth(*SHAPE, 2)) + nst.style(LAYERS, smooth(*SHAPE, 3))
    margins = dict.fromkeys((*LAYERS, "relu4_2"), 0)
    each = (
        windows.bytes_a_pixel(net, margins, FLOAT32)
        * (32 + 2 * geometry.halo_of(net, margins)) ** 2
    )
    calls, forward = [], windows.Propagation.forward
    monkeypatch.setattr(
        windows.Propagation, "forward", lambda self, image: calls.append(1) or forward(self, image)
    )
    budget = windows.weight_bytes(net, margins, FLOAT32) + round((kept + 0.5) * each)
    cut = bound_in_tiles(goal, net, budget=budget)
    calls.clear()
    _, grad, _ = cut.evaluate(picture)
    count = len(cut._windows.tiles)
    assert len(calls) == 2 * count - cut._windows.kept
    assert {0: 1, 2: 2, 100: count}[kept] <= cut._windows.kept <= kept + 3
    assert torch.equal(cut.evaluate(picture)[1], grad)
    assert float((grad - goal.bind(net, SHAPE).evaluate(picture)[1]).norm() / grad.norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(tiny, picture, dtype):
    net = nst.VGG19(tiny)
    goal = nst.content("conv4_2", smooth(*SHAPE, 2)) + nst.style(LAYERS, smooth(*SHAPE, 3))
    compare(goal, net, picture, near=0.05, arithmetic=Arithmetic(dtype))


def test_weights_may_change(tiny, picture):
    goal = nst.content("conv4_2", smooth(*SHAPE, 2)) + 0.0 * nst.style(LAYERS, smooth(*SHAPE, 3))
    net = nst.VGG19(tiny)
    cut, plain = bound_in_tiles(goal, net), goal.bind(net, SHAPE)
    for changes in ({}, {"style": 5.0}, {"content": 0.0}):
        cut.reweight(changes)
        plain.reweight(changes)
        assert torch.allclose(
            cut.evaluate(picture)[1], plain.evaluate(picture)[1], rtol=1e-4, atol=1e-9
        )


def test_windows_whose_memory_is_not_in_the_order_of_their_sizes(tiny, picture, monkeypatch):
    """In 16 bits, features above a budget overwrite those of the first block, which then take less
    memory."""
    net = nst.VGG19(tiny)
    goal = nst.content("conv4_2", smooth(*SHAPE, 2)) + nst.style(LAYERS, smooth(*SHAPE, 3))
    # of the second largest window
    second = layout.Layout.of(net, goal.reads, (93, 93), torch.bfloat16)
    kept = sum(
        -(-prod(second.shapes[node]) // layout.ALIGNED) * layout.ALIGNED for node in second.offsets
    )
    monkeypatch.setattr(layout, "BUDGET", 2 * kept)
    cut = compare(
        goal, net, picture, near=0.05, side=64, budget=1, arithmetic=Arithmetic(torch.bfloat16)
    )
    assert {tile.window.shape for tile in cut._windows.tiles} >= {(93, 104), (93, 93)}
