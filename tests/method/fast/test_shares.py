"""Tiles, shared out to several ranks: the plain definition's terms and gradient, whatever the
picture, the tiles, the terms."""

import hypothesis.strategies as st
import pytest
import torch
from helpers import as_ranks, smooth
from hypothesis import example, given, settings

import nstlab as nst
from nstlab.method.conventions import convention_named
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.serving import serve
from nstlab.method.fast.tiles import TiledBound
from nstlab.method.fast.windows import Tiling
from nstlab.networks.weights import random_weights
from nstlab.terms.affine import Affine
from nstlab.terms.lines import Lines
from nstlab.terms.regions import region_styles
from nstlab.terms.statistics import kind, names
from nstlab.terms.temporal import Temporal

# exact: any difference is a fault
NET = nst.VGG19(random_weights(seed=0, widths=(2, 3, 3, 3, 3))).double()
LAYERS = ("conv1_1", "conv2_2", "conv3_1", "pool3", "conv4_2", "conv5_1")  # the last one last


def smooth64(height, width, seed):
    return smooth(height, width, seed).double()


def pixel_term(kind, **fields):
    return nst.Objective(
        ((1.0, kind("pixels", ("pixels",), (1.0,), convention_named("mean"), **fields)),)
    )


def region_term(shape, painting, layers):
    light, other = smooth64(*shape, 4)[:, :1], smooth64(*painting, 7)[:, :1]
    masks, own = (torch.cat([each, 1 - each], 1) for each in (light, other))
    return region_styles(layers, smooth64(*painting, 6), masks, own, (2.0, 1.0), "mean")


TERMS = {
    "content": lambda shape, painting, layers: nst.content(layers, smooth64(*shape, 2)),
    "content of another size": lambda shape, painting,
    layers: nst.content(layers, smooth64(*painting, 2)),
    "a painting that is cut": lambda shape, painting,
    layers: nst.style(layers, smooth64(*painting, 8), fit="area"),
    "regions": region_term,
    "smoothness": lambda shape, painting, layers: nst.total_variation(),
    "affine": lambda shape, painting, layers: pixel_term(Affine, photo=smooth64(*shape, 5)),
    "lines": lambda shape, painting,
    layers: pixel_term(Lines, drawing=smooth64(*shape, 5)[:, :1].expand(1, 3, *shape)),
    "time": lambda shape, painting, layers: pixel_term(
        Temporal, earlier=smooth64(*shape, 5), reliable=smooth64(*shape, 6)[:, :1]
    ),
} | {
    name: lambda shape, painting, layers, name=name: nst.term(
        kind(name), "style", layers, image=smooth64(*painting, 3), fitted=shape
    )
    for name in names()
}  # fmt: skip


@st.composite
def cases(draw):
    """(objective, shape, side of the tiles, number of ranks); some weights are 0 at first."""
    shape = draw(st.tuples(st.integers(24, 70), st.integers(24, 70)))
    painting = draw(st.tuples(st.integers(24, 50), st.integers(24, 50)))
    goal = nst.Objective(())
    first, others = (
        st.sampled_from(["content", *TERMS]),
        st.lists(st.sampled_from(list(TERMS)), max_size=2),
    )
    for i, name in enumerate([draw(first), *draw(others)]):
        layers = LAYERS[:-1] if name == "patches" else LAYERS  # which need three positions
        chosen = draw(st.lists(st.sampled_from(layers), min_size=1, max_size=2, unique=True))
        goal = goal + (draw(st.sampled_from([0.0, 0.5, 3.0])) if i else 1.0) * TERMS[name](
            shape, painting, chosen
        )
    return goal, shape, draw(st.integers(10, 40)), draw(st.sampled_from([3, 2, 4, 1]))


def evaluations(goal, shape, picture, side, team):
    """What the first rank finds with the weights as they are, and with those that are 0 raised."""
    tiling = Tiling(1 << 40, side, team)
    if not team.leads:
        serve(goal, NET, picture, tiling)
        return None
    bound = TiledBound(goal, NET, shape, arithmetic=Arithmetic(torch.float64), tiling=tiling)
    found = [bound.evaluate(picture)]
    bound.reweight(raised(goal))
    found.append(bound.evaluate(picture))
    team.broadcast(do="end")
    return found


def raised(goal):
    return {name: 0.7 for name, weight in goal.weights.items() if weight == 0}


@settings(max_examples=20)
@given(cases())
# no patch begins in the last tiles
@example((TERMS["patches"]((40, 40), (40, 40), ["conv3_1"]), (40, 40), 16, 2))
def test_terms_and_gradient_are_those_of_the_plain_definition(case):
    goal, shape, side, ranks = case
    picture, plain = smooth64(*shape, 1), goal.bind(NET, shape)
    results = as_ranks(ranks, lambda team: evaluations(goal, shape, picture, side, team))
    assert not any(isinstance(result, BaseException) for result in results), results
    for total, grad, values in results[0]:
        expected, own, each = plain.evaluate(picture)
        assert torch.allclose(values, each, rtol=1e-6, atol=1e-12)
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
        assert float((grad - own).norm()) <= 1e-6 * float(own.norm()) + 1e-12
        plain.reweight(raised(goal))
