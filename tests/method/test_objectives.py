"""Objectives: the conventions against their formulas, gradients against the closed forms, the algebra, weights that change."""

import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st

import nstlab as nst
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.fast import evaluation as fast
from nstlab.method.fast.evaluation import vjp
from nstlab.method.network import VGG19
from nstlab.method.objectives import Objective, content, style, total_variation


@pytest.fixture
def net(tiny):
    """A tiny network in float64."""
    return VGG19(tiny).double()


@pytest.fixture
def image(photo):
    return torch.rand(photo.shape, generator=torch.Generator().manual_seed(7)).double()


# --- each convention against its published formula, written out for features F (N, M) ---------------------------


def error(f, p):
    """½ Σ (F - P)²."""
    return 0.5 * ((f - p) ** 2).sum()


def mse(f, p):
    return ((f - p) ** 2).mean()


def gatys(f, s):
    """1/(4 N² M²) Σ (G - A)², with G = F Fᵀ."""
    return ((f @ f.T - s @ s.T) ** 2).sum() / (4 * f.shape[0] ** 2 * f.shape[1] ** 2)


def gram_mse(f, s):
    """MSE of Gram / (N M)."""
    return mse(f @ f.T / f.numel(), s @ s.T / s.numel())


FORMULAS = {  # content, style, weight of a style layer
    "paper": (error, gatys, lambda layers: 1 / layers),
    "mean": (lambda f, p: mse(f, p) / 2, gatys, lambda layers: 1 / layers),
    "notebook": (mse, lambda f, s: mse(f @ f.T / f.shape[1], s @ s.T / s.shape[1]) / f.shape[0] ** 2, lambda layers: 1),
    "neural-style": (mse, gram_mse, lambda layers: 1),
    "tutorial": (mse, gram_mse, lambda layers: 1),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_convention_follows_its_formula(name, net, image, photo, painting):
    layers, shape = ("conv1_1", "conv3_1"), image.shape[-2:]
    reads = layers if name == "tutorial" else ("relu1_1", "relu3_1")
    of_image, of_photo, of_painting = (
        [f[0].flatten(1) for f in net(x.double(), reads).values()] for x in (image, photo, nst.fit(painting, shape))
    )
    goal = content("conv3_1", photo, convention=name) + style(layers, painting, convention=name)
    _, terms = goal.bind(net, shape)(image)
    content_formula, style_formula, layer_weight = FORMULAS[name]
    assert torch.allclose(terms["content"], content_formula(of_image[1], of_photo[1]))
    assert torch.allclose(terms["style"], layer_weight(2) * sum(map(style_formula, of_image, of_painting)))


def test_total_variation_of_neural_style_is_half_the_sum_over_256_shades(net):
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).double().expand(1, 3, 16, 16)
    _, terms = total_variation("neural-style").bind(net, (16, 16))(board)
    assert float(terms["tv"]) == pytest.approx(0.5 * 255**2 * 2 * board.numel())  # both directions' mean is 1 an element
    assert total_variation().bind(net, (16, 16))(board)[1]["tv"] == 2.0


def test_conventions_give_the_published_weights_and_layers():
    published = {name: (c.alpha, c.beta, c.tv) for name, c in CONVENTIONS.items() if name not in ("mean", "paper")}
    assert published == {"notebook": (1, 1e3, 0), "neural-style": (5, 100, 1e-3), "tutorial": (1, 1e6, 0)}
    assert CONVENTIONS["tutorial"].content_layers == ("conv2_2",)
    assert CONVENTIONS["tutorial"].style_layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")


# --- gradients --------------------------------------------------------------------------------------------------


def at_the_convolution(objective, f, picture):
    """The gradient of an objective of one term and layer: by autograd, and by the term's vjp."""
    ((_, term),) = objective.terms
    f = f.clone().requires_grad_(True)
    rectified, target = f.relu(), term.target(picture.relu())
    statistic = term.statistic(rectified, target)
    score = term.score(statistic, target, rectified)
    slope, by_autograd = torch.autograd.grad(score, [statistic, f], retain_graph=True)
    written, added = torch.empty_like(f), torch.ones_like(f)
    with torch.no_grad():
        vjp(term, slope, rectified, target, written, add=False)
        vjp(term, slope, rectified, target, added, add=True)
    assert torch.allclose(added, written + 1)
    return by_autograd, written * (f > 0)


def test_gradients_at_the_convolution_are_the_papers_closed_forms():
    generator = torch.Generator().manual_seed(0)
    f, p = (torch.randn(1, 5, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))  # of both signs
    equation_2 = (f.relu() - p.relu()) * (f > 0)
    rows, target = f.relu()[0].flatten(1), p.relu()[0].flatten(1)  # (N, M)
    products = rows.T @ (rows @ rows.T - target @ target.T)
    equation_6 = products.T.view_as(f) / (5**2 * 42**2) * (f > 0)
    for objective, expected in (
        (content("conv1_1", p, convention="paper"), equation_2),
        (content("conv1_1", p, convention="mean"), equation_2 / f.numel()),
        (style("conv1_1", p, convention="paper"), equation_6),
    ):
        for found in at_the_convolution(objective, f, p):
            assert torch.allclose(found, expected)


def test_the_gradient_at_the_pixels_agrees_with_finite_differences(net, image, photo, painting):
    goal = content("conv2_1", photo) + 10 * style(["conv1_1", "conv3_1"], painting) + 0.1 * total_variation()
    bound = goal.bind(net, image.shape[-2:])
    loss, grad, values = bound.evaluate(image)
    total, terms = bound(image)
    assert torch.allclose(loss * bound.scale, total)
    assert torch.allclose(values, torch.stack(list(terms.values())))
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction, h = torch.randn(image.shape, generator=generator, dtype=torch.float64), 1e-6
        slope = (bound(image + h * direction)[0] - bound(image - h * direction)[0]) / (2 * h)
        assert torch.isclose(slope, bound.scale * (grad * direction).sum(), rtol=1e-5)


# --- the algebra ------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_weights_multiply_and_add(a, b, factor):
    picture = torch.ones(1, 3, 16, 16)
    goal = factor * (a * content("conv1_1", picture) + b * style("conv1_1", picture))
    assert (goal.weights["content"], goal.weights["style"]) == (factor * a, factor * b)


def test_terms_of_one_name_are_numbered(photo):
    goal = sum([content("conv1_1", photo), content("conv2_1", photo), content("conv3_1", photo)])
    assert [term.name for _, term in goal.terms] == ["content", "content_2", "content_3"]


def test_only_objectives_are_added_and_only_numbers_multiply_them(photo):
    goal = content("conv1_1", photo)
    for call, message in (
        (lambda: goal * goal, "multiplied by an objective"),
        (lambda: goal * "2", "unsupported|can't multiply"),
        (lambda: goal + 1, "unsupported"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: -1 * content("conv1_1", x), "not allowed"),
        (lambda x: float("nan") * content("conv1_1", x), "not allowed"),
        (lambda x: float("inf") * content("conv1_1", x), "not allowed"),
        (lambda x: style("conv1_1", x, [-1]), "not allowed"),
        (lambda x: content("conv42", x), "did you mean 'conv4_2'"),
        (lambda x: content([], x), "needs one layer or more"),
        (lambda x: style(["conv1_1", 1], x), "each named once"),
        (lambda x: style("conv1_1", x, weights=[1, 2]), "2 layer weights given for 1 layers"),
        (lambda x: style("conv1_1", x, convention="papper"), "did you mean 'paper'"),
        (lambda x: total_variation("papper"), "did you mean 'paper'"),
        (lambda x: style("conv1_1", x, fit="foo"), "fit: 'foo' is not one of"),
        (lambda x: style("conv1_1", x, scale=float("nan")), "scale: nan"),
        (lambda x: style("conv1_1", x, scale=-1.0), "scale: -1.0"),
        (lambda x: style("conv1_1", x[..., :0]), "style: "),
        (lambda x: content("conv1_1", x.numpy()), "content: a ndarray"),
        (lambda x: content("conv1_1", x / 0), "content: holds numbers that are not finite"),
        (lambda x: content("conv1_1", torch.cat([x, x], 1)).bind(VGG19("random"), (48, 40)), "3 channels"),
    ],
)
def test_what_cannot_be_meant_is_refused(photo, call, message):
    assert message in refusal(call, photo)


# --- weights that change ----------------------------------------------------------------------------------------


def test_reweighting_changes_the_total_but_no_target(net, image, photo, painting):
    bound = (content("conv2_1", photo) + style(["conv1_1", "conv2_1"], painting)).bind(net, image.shape[-2:])
    targets = dict(bound.targets)
    bound.reweight({"style": 7.0, "style:conv1_1": 0.25})
    total, terms = bound(image)
    assert torch.allclose(total, terms["content"] + 7 * terms["style"])
    assert all(bound.targets[key] is target for key, target in targets.items())


@pytest.mark.parametrize("bind", [Objective.bind, fast.bind])
def test_a_term_of_weight_zero_costs_nothing(net, image, photo, painting, bind, monkeypatch):
    computed, path = [], VGG19.path
    monkeypatch.setattr(VGG19, "path", staticmethod(lambda layers: computed.append(path(layers)) or computed[-1]))
    bound = bind(0 * content("conv5_1", photo) + style("conv1_1", painting), net, image.shape[-2:])
    bound.evaluate(image)
    assert {tuple(path) for path in computed} == {("conv1_1",)}
    assert set(bound(image)[1]) == {"style"} == set(bound.names)
    bound.reweight({"content": 1.0})  # its target is computed now
    assert set(bound(image)[1]) == {"content", "style"}
    assert len(bound.evaluate(image)[2]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contents": 1}, "did you mean"),
        ({"content": -1}, "not allowed"),
        ({"content": 0}, "all weights are 0"),
        ({"content:conv1_1": 0}, "all weights are 0"),
    ],
)
def test_a_refused_weight_changes_nothing(net, photo, changes, message):
    bound = content("conv1_1", photo).bind(net, photo.shape[-2:])
    before = dict(bound.weights)
    assert message in refusal(bound.reweight, changes)
    assert bound.weights == before
