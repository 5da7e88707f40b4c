"""Objectives: the conventions against their formulas, gradients against the closed forms, the
algebra, weights that change."""

import math

import numpy as np
import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st

import nstlab as nst
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.factories import content, style, total_variation
from nstlab.method.fast import tiles as fast
from nstlab.method.objectives import Objective
from nstlab.method.pixel_terms import TotalVariation
from nstlab.method.terms import Content, Style, Term
from nstlab.networks.architectures import Architecture
from nstlab.networks.vgg import VGG19


@pytest.fixture
def net(tiny):
    """A tiny network in float64."""
    return VGG19(tiny).double()


@pytest.fixture
def image(photo):
    return torch.rand(photo.shape, generator=torch.Generator().manual_seed(7)).double()


def mse(a, b):
    return ((a - b) ** 2).mean()


def gatys(f, s):
    """Equations 3 to 5, for one layer."""
    (n, m), difference = f.shape, f @ f.T - s @ s.T
    return (difference**2).sum() / (4 * n**2 * m**2)


FORMULAS = {  # for features (N, M): content, style of a layer, and the weight of each of two layers
    "paper": (lambda f, p: 0.5 * ((f - p) ** 2).sum(), gatys, 1 / 2),
    "mean": (lambda f, p: 0.5 * mse(f, p), gatys, 1 / 2),
    "notebook": (
        mse,
        lambda f, s: mse(f @ f.T / f.shape[1], s @ s.T / s.shape[1]) / f.shape[0] ** 2,
        1,
    ),
    "neural-style": (mse, lambda f, s: mse(f @ f.T / f.numel(), s @ s.T / s.numel()), 1),
    "tutorial": (mse, lambda f, s: mse(f @ f.T / f.numel(), s @ s.T / s.numel()), 1),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_convention_follows_its_formula(name, net, image, photo, painting):
    layers, shape = ("conv1_1", "conv3_1"), image.shape[-2:]
    reads = layers if name == "tutorial" else ("relu1_1", "relu3_1")
    pictures = (image, photo.double(), nst.fit(painting, shape).double())
    of_image, of_photo, of_painting = (
        [f[0].flatten(1) for f in net(x, reads).values()] for x in pictures
    )
    goal = content("conv3_1", photo, convention=name) + style(layers, painting, convention=name)
    _, terms = goal.bind(net, shape)(image)
    content_error, style_error, layer_weight = FORMULAS[name]
    assert torch.allclose(terms["content"], content_error(of_image[1], of_photo[1]))
    assert torch.allclose(
        terms["style"], layer_weight * sum(map(style_error, of_image, of_painting))
    )


def test_total_variation_of_neural_style_is_half_the_sum_over_256_shades(net):
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).double().expand(1, 3, 16, 16)
    values = [
        total_variation(name).bind(net, (16, 16))(board)[1]["tv"]
        for name in ("mean", "neural-style")
    ]
    assert [float(value) for value in values] == pytest.approx(
        [2, 0.5 * 255**2 * 2 * board.numel()]
    )


def test_gradients_at_the_convolution_are_the_papers_closed_forms():
    generator = torch.Generator().manual_seed(0)
    # of both signs
    f, p = (torch.randn(1, 5, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    equation_2 = (f.relu() - p.relu()) * (f > 0)
    rows, target = f.relu()[0].flatten(1), p.relu()[0].flatten(1)  # (N, M)
    equation_6 = (
        (rows.T @ (rows @ rows.T - target @ target.T)).T.view_as(f) / (5**2 * 42**2) * (f > 0)
    )
    for objective, expected in (
        (content("conv1_1", p, convention="paper"), equation_2),
        (content("conv1_1", p, convention="mean"), equation_2 / f.numel()),
        (style("conv1_1", p, convention="paper"), equation_6),
    ):
        ((_, term),), leaf = objective.terms, f.clone().requires_grad_(True)
        target = term.target(p.relu())
        score = term.score(term.statistic(leaf.relu(), target), target, leaf.relu())
        assert torch.allclose(torch.autograd.grad(score, leaf)[0], expected)


def test_the_gradient_at_the_pixels_agrees_with_finite_differences(net, image, photo, painting):
    goal = (
        content("conv2_1", photo)
        + 10 * style(["conv1_1", "conv3_1"], painting)
        + 0.1 * total_variation()
    )
    bound = goal.bind(net, image.shape[-2:])
    (loss, grad, values), (total, terms) = bound.evaluate(image), bound(image)
    assert torch.allclose(loss * bound.scale, total)
    assert torch.allclose(values, torch.stack(list(terms.values())))
    step = 1e-6 * torch.randn(
        image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    change = bound(image + step)[0] - bound(image - step)[0]
    assert torch.isclose(change, 2 * bound.scale * (grad * step).sum(), rtol=1e-5)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_weights_multiply_and_add_and_terms_of_one_name_are_numbered(a, b, factor):
    x = torch.ones(1, 3, 16, 16)
    goal = factor * sum([a * content("conv1_1", x), b * style("conv1_1", x), content("conv2_1", x)])
    weights = {name: weight for name, weight in goal.weights.items() if ":" not in name}
    assert weights == {"content": factor * a, "style": factor * b, "content_2": factor}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[
            (lambda x, w=w: w * content("conv1_1", x), "not allowed")
            for w in (-1, math.nan, math.inf)
        ],
        (lambda x: style("conv1_1", x, [-1]), "not allowed"),
        (lambda x: content("conv42", x).bind(VGG19("random"), (48, 40)), "did you mean 'conv4_2'"),
        (lambda x: content([], x), "needs one layer or more"),
        (lambda x: style(["conv1_1", 1], x), "each named once"),
        (lambda x: style("conv1_1", x, weights=[1, 2]), "2 layer weights given for 1 layers"),
        (lambda x: style("conv1_1", x, convention="papper"), "did you mean 'paper'"),
        (lambda x: style("conv1_1", x, fit="foo"), "fit: 'foo' is not one of"),
        *[(lambda x, s=s: style("conv1_1", x, scale=s), f"scale: {s}") for s in (-1.0, math.nan)],
        (lambda x: style("conv1_1", x[..., :0]), "style: "),
        (lambda x: content("conv1_1", x.numpy()), "content: a ndarray"),
        (lambda x: content("conv1_1", x / 0), "content: has values that are not finite"),
        (
            lambda x: content("conv1_1", torch.cat([x, x], 1)).bind(VGG19("random"), (48, 40)),
            "3 channels",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(photo, call, message):
    assert message in refusal(call, photo)


def test_reweighting_changes_the_total_but_no_target_and_a_refused_weight_changes_nothing(
    net, image, photo, painting
):
    bound = (content("conv2_1", photo) + style(["conv1_1", "conv2_1"], painting)).bind(
        net, image.shape[-2:]
    )
    targets = dict(bound.targets)
    bound.reweight({"style": 7.0, "style:conv1_1": 0.25})
    total, terms = bound(image)
    assert torch.allclose(total, terms["content"] + 7 * terms["style"])
    assert all(bound.targets[key] is target for key, target in targets.items())
    assert "did you mean" in refusal(bound.reweight, {"style": 1, "contents": 1})
    assert "not allowed" in refusal(bound.reweight, {"style": 1, "content": -1})
    assert "all weights are 0" in refusal(bound.reweight, {"style": 0, "content": 0})
    assert "all weights are 0" in refusal(bound.reweight, {"style": 0, "content:conv2_1": 0})
    assert torch.equal(bound(image)[0], total)


@pytest.mark.parametrize("bind", [Objective.bind, fast.bind])
def test_a_term_of_weight_zero_costs_nothing(net, image, photo, painting, bind, monkeypatch):
    computed, until = [], Architecture.convolutions_until
    monkeypatch.setattr(
        Architecture,
        "convolutions_until",
        lambda vgg, layers: computed.append(until(vgg, layers)) or computed[-1],
    )
    bound = bind(0 * content("conv5_1", photo) + style("conv1_1", painting), net, image.shape[-2:])
    bound.evaluate(image)
    assert set(computed) == {("conv1_1",)}
    assert set(bound(image)[1]) == {"style"} == set(bound.names)
    bound.reweight({"content": 1.0})  # its target is computed now
    assert set(bound(image)[1]) == {"content", "style"}
    assert len(bound.evaluate(image)[2]) == 2


def test_a_new_statistic_does_not_inherit_the_gradient_of_the_one_it_replaces():
    class Doubled(Style):
        def statistic(self, features, target):
            return 2 * super().statistic(features, target)

    class Renamed(Style):
        pass

    assert (Doubled.vjp, Renamed.vjp) == (Term.vjp, Style.vjp)


def test_objectives_terms_and_networks_say_what_they_are_and_not_their_pixels(net, photo):
    goal = content("conv4_2", photo) + 20 * style(("conv1_1", "conv2_1"), photo)
    assert repr(goal + 0.5 * total_variation()) == (
        "Objective(\n"
        "  1 × content: Content(1 conv4_2)\n"
        "  20 × style: Style(0.5 conv1_1, 0.5 conv2_1)\n"
        "  0.5 × tv: TotalVariation(pixels)\n"
        ")"
    )
    assert repr(net) == "VGG19(weights=random (seed 0), pool=avg, float64, cpu)"


def test_names_and_weights_of_terms_are_checked_and_pixel_terms_read_pixels(photo):
    assert "no colon" in refusal(nst.term, Style, "style:conv1_1", "conv2_1", image=photo)
    given = nst.term(Style, "style", ("conv1_1", "conv2_1"), np.array([1.0, 2.0]), image=photo)
    assert given.weights["style:conv2_1"] == 2.0
    assert nst.term(TotalVariation, "tv", ("conv1_1", "conv2_1")).weights.keys() == {
        "tv",
        "tv:pixels",
    }


@pytest.mark.parametrize("make", [Content, Style])
def test_a_term_that_matches_an_image_says_if_it_has_none(net, make):
    objective = nst.term(make, make.__name__.lower(), ["conv1_1"])
    message = refusal(objective.bind, net, (32, 32))
    assert message == f"{make.__name__.lower()}: needs an image, whose features are to be matched"
