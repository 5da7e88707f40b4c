"""Objectives: the algebra, the conventions against their formulas, gradients against the closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nstlab as nst
from nstlab.method import statistics
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.fast import evaluation as fast
from nstlab.method.fast.evaluation import vjp
from nstlab.method.network import VGG19
from nstlab.method.objectives import Objective, content, style, total_variation
from nstlab.settings import InputError


@pytest.fixture
def net(tiny):
    """A tiny network in float64."""
    return VGG19(tiny).double()


@pytest.fixture
def image(photo):
    noise = torch.rand(photo.shape, generator=torch.Generator().manual_seed(7))
    return noise.double()


def features(net, image, layer):
    return net(image, [layer])[layer][0].flatten(1)  # (N, M)


# --- each convention against its published formula, written out with sums over F (N, M) -------------------------


def content_formula(name, f, p):
    return {
        "paper": 0.5 * ((f - p) ** 2).sum(),
        "mean": 0.5 * ((f - p) ** 2).mean(),
        "notebook": ((f - p) ** 2).mean(),
        "neural-style": ((f - p) ** 2).mean(),
        "tutorial": ((f - p) ** 2).mean(),
    }[name]


def style_formula(name, f, s, layers):
    n, m = f.shape
    g, a = f @ f.T, s @ s.T
    return {
        "paper": ((g - a) ** 2).sum() / (4 * n**2 * m**2) / layers,
        "mean": ((g - a) ** 2).sum() / (4 * n**2 * m**2) / layers,
        "notebook": ((g / m - a / m) ** 2).mean() / n**2,
        "neural-style": ((g / (n * m) - a / (n * m)) ** 2).mean(),
        "tutorial": ((g / (n * m) - a / (n * m)) ** 2).mean(),
    }[name]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_content_follows_its_formula(name, net, image, photo):
    read = "conv3_1" if name == "tutorial" else "relu3_1"
    _, terms = content("conv3_1", photo, convention=name).bind(net, image.shape[-2:])(image)
    expected = content_formula(name, features(net, image, read), features(net, photo.double(), read))
    assert torch.allclose(terms["content"], expected)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_style_follows_its_formula(name, net, image, painting):
    layers, shape = ("conv1_1", "conv3_1"), image.shape[-2:]
    _, terms = style(layers, painting, convention=name).bind(net, shape)(image)
    seen = nst.fit(painting, shape).double()
    expected = 0
    for layer in layers:
        read = layer if name == "tutorial" else layer.replace("conv", "relu")
        expected += style_formula(name, features(net, image, read), features(net, seen, read), len(layers))
    assert torch.allclose(terms["style"], expected)


def test_total_variation_of_neural_style_is_half_the_sum_over_levels(net):
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).double().expand(1, 3, 16, 16)
    _, terms = total_variation("neural-style").bind(net, (16, 16))(board)
    differences = 2 * 3 * 16 * 16  # mean of both directions' squares, times elements, as the mean form has it
    assert torch.allclose(terms["tv"], torch.tensor(0.5 * 255**2 * differences, dtype=torch.float64))
    assert total_variation().bind(net, (16, 16))(board)[1]["tv"] == 2.0


def test_conventions_give_the_published_weights():
    given = {name: (c.alpha, c.beta, c.tv) for name, c in CONVENTIONS.items()}
    assert given["notebook"] == (1, 1e3, 0)
    assert given["neural-style"] == (5, 100, 1e-3)
    assert given["tutorial"] == (1, 1e6, 0)
    assert CONVENTIONS["tutorial"].content_layers == ("conv2_2",)
    assert CONVENTIONS["tutorial"].style_layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")


def test_mean_content_does_not_depend_on_the_size(net, image, photo):
    wide = [torch.cat([x, x], -1) for x in (image, photo)]
    single = statistics.mean_square_error(image, photo)
    assert torch.allclose(statistics.mean_square_error(*wide), single)


# --- gradients at the convolution against the closed forms ------------------------------------------------------


def gradients(objective, f, picture):
    """At the convolution, of an objective with one term and layer: by autograd, and by the term's vjp."""
    ((_, term),) = objective.terms
    f = f.clone().requires_grad_(True)
    rectified, target = f.relu(), term.target(picture.relu())
    statistic = term.statistic(rectified, target)
    score = term.score(statistic, target, rectified)
    slope, expected = torch.autograd.grad(score, [statistic, f], retain_graph=True)
    pulled, added = torch.empty_like(f), torch.ones_like(f)
    with torch.no_grad():
        vjp(term, slope, rectified, target, pulled, add=False)
        vjp(term, slope, rectified, target, added, add=True)
    assert torch.allclose(added, pulled + 1)
    return expected, pulled * (f > 0)


@pytest.fixture
def layer():
    """(1, 5, 6, 7) pre-activations F and P of both signs."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 5, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("way", [0, 1])
def test_content_gradient_is_the_closed_form(layer, way):
    f, p = layer
    expected = (f.relu() - p.relu()) * (f > 0)  # equation 2
    assert torch.allclose(gradients(content("conv1_1", p, convention="paper"), f, p)[way], expected)
    assert torch.allclose(gradients(content("conv1_1", p, convention="mean"), f, p)[way], expected / f.numel())


@pytest.mark.parametrize("way", [0, 1])
def test_style_gradient_is_the_closed_form(layer, way):
    f, a = layer
    n, m = 5, 42
    rows, target = f.relu()[0].flatten(1), a.relu()[0].flatten(1)  # (N, M)
    difference = rows @ rows.T - target @ target.T
    expected = (rows.T @ difference).T.view_as(f) / (n**2 * m**2) * (f > 0)  # equation 6
    assert torch.allclose(gradients(style("conv1_1", a, convention="paper"), f, a)[way], expected)


def test_gradient_at_the_pixels_agrees_with_finite_differences(net, image, photo, painting):
    goal = content("conv2_1", photo) + 10 * style(["conv1_1", "conv3_1"], painting) + 0.1 * total_variation()
    bound = goal.bind(net, image.shape[-2:])
    x = image.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(bound(x)[0], x)
    loss, again, values = bound.evaluate(image)
    assert torch.allclose(again * bound.scale, grad)
    assert torch.allclose(loss * bound.scale, bound(image)[0])
    assert torch.allclose(values, torch.stack(list(bound(image)[1].values())))
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction, h = torch.randn(x.shape, generator=generator, dtype=torch.float64), 1e-6
        slope = (bound(image + h * direction)[0] - bound(image - h * direction)[0]) / (2 * h)
        assert torch.isclose(slope, (grad * direction).sum(), rtol=1e-5)


# --- the algebra ------------------------------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_weights_multiply_and_add(a, b, factor):
    one = torch.rand(1, 3, 16, 16)
    goal = factor * (a * content("conv1_1", one) + b * style("conv1_1", one))
    assert goal.weights["content"] == factor * a
    assert goal.weights["style"] == factor * b


def test_sum_of_objectives(photo):
    goal = sum([content("conv1_1", photo), content("conv2_1", photo), content("conv3_1", photo)])
    assert [term.name for _, term in goal.terms] == ["content", "content_2", "content_3"]


def test_total_is_the_weighted_sum_of_terms(net, image, photo, painting):
    goal = 3 * content("conv2_1", photo) + 50 * style("conv1_1", painting)
    total, terms = goal.bind(net, image.shape[-2:])(image)
    assert torch.allclose(total, 3 * terms["content"] + 50 * terms["style"])


def test_objective_times_objective_is_an_error(photo):
    with pytest.raises(TypeError, match="multiplied by an objective"):
        content("conv1_1", photo) * content("conv1_1", photo)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_weights_that_are_not_allowed(photo, weight):
    with pytest.raises(InputError, match="not allowed"):
        weight * content("conv1_1", photo)


def test_wrong_layers_and_weights_are_named(photo):
    with pytest.raises(InputError, match="did you mean 'conv4_2'"):
        content("conv42", photo)
    with pytest.raises(InputError, match="each named once"):
        style(["conv1_1", 1], photo)
    with pytest.raises(InputError, match="2 layer weights given for 1 layers"):
        style("conv1_1", photo, weights=[1, 2])
    with pytest.raises(InputError, match="did you mean 'paper'"):
        style("conv1_1", photo, convention="papper")


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
    computed, whole = [], VGG19.path
    monkeypatch.setattr(VGG19, "path", staticmethod(lambda layers: computed.append(whole(layers)) or computed[-1]))
    bound = bind(0 * content("conv5_1", photo) + style("conv1_1", painting), net, image.shape[-2:])
    bound.evaluate(image)
    assert {tuple(path) for path in computed} == {("conv1_1",)}
    assert set(bound(image)[1]) == {"style"} == set(bound.names)
    bound.reweight({"content": 1.0})  # its target is computed now
    assert set(bound(image)[1]) == {"content", "style"}
    assert len(bound.evaluate(image)[2]) == 2


def test_a_refused_weight_changes_nothing(net, photo):
    bound = content("conv1_1", photo).bind(net, photo.shape[-2:])
    before = dict(bound.weights)
    for changes, message in (
        ({"contents": 1}, "did you mean"),
        ({"content": -1}, "not allowed"),
        ({"content": 0}, "all weights are 0"),
        ({"content:conv1_1": 0}, "all weights are 0"),
    ):
        with pytest.raises(InputError, match=message):
            bound.reweight(changes)
    assert bound.weights == before
