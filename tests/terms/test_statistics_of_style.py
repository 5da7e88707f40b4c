"""Statistics of style: known answers, and every one of them against autograd, in 16 bits, and with
other sizes."""

import pytest
import torch
from faults import refusal
from helpers import smooth

import nstlab as nst
from nstlab.method.conventions import convention_named
from nstlab.method.fast import tiles as fast
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.statistics import positions
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.terms.statistics import kind, names

LAYERS = ("conv1_1", "conv2_1")
FACTOR = convention_named("mean").style_factor


def made(name, **fields):
    return kind(name)("style", LAYERS, (0.5, 0.5), convention_named("mean"), **fields)


def features(count=4, height=6, width=7, seed=0, dtype=torch.float64):
    return torch.rand(
        1, count, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def error(term, own, other):
    return float(term.score(term.statistic(own, term.target(other)), term.target(other), own))


@pytest.fixture
def net(tiny):
    return nst.VGG19(tiny, precision="float32").to(torch.float64)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("own", [(40, 48), (32, 36)], ids=str)
def test_its_gradient_is_that_of_autograd_and_of_finite_differences(net, name, own):
    picture, painting = (
        smooth(*shape, seed).double() for seed, shape in enumerate([(40, 48), own])
    )
    goal = nst.content("conv2_1", picture.flip(-1)) + 3 * nst.term(
        kind(name), "style", LAYERS, image=painting, fitted=(40, 48)
    )
    plain, quick = goal.bind(net, (40, 48)), fast.bind(goal, net, (40, 48))
    (total, grad, values), (_, found, same) = plain.evaluate(picture), quick.evaluate(picture)
    assert torch.allclose(values, same, rtol=1e-9)
    assert torch.allclose(grad, found, rtol=1e-6, atol=1e-9 * float(grad.abs().max()))
    step = 1e-6 * grad / grad.norm()
    ahead, behind = (float(plain.evaluate(picture + sign * step)[0]) for sign in (1, -1))
    assert (ahead - behind) / 2e-6 == pytest.approx(float(grad.norm()), rel=1e-3)
    assert float(total) > 0


@pytest.mark.parametrize("name", names())
def test_it_is_nothing_for_the_painting_itself_and_about_the_same_in_16_bits(net, name):
    painting = smooth(40, 48, 3)
    goal, net = nst.term(kind(name), "style", LAYERS, image=painting), net.float()
    assert float(goal.bind(net, (40, 48))(painting)[0]) == pytest.approx(0, abs=1e-9)
    other = smooth(40, 48, 4)
    exact, half = (
        float(fast.bind(goal, net, (40, 48), Arithmetic(dtype)).evaluate(other)[0])
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half == pytest.approx(exact, rel=0.1)


def discrepancy(kernel, own, other):
    """The squared maximum mean discrepancy of all positions, by its definition."""
    x, y = positions(own), positions(other)
    return float(kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())


def test_the_quadratic_kernels_discrepancy_is_the_gram_loss():
    own, other = features(), features(seed=1)
    gram = error(made("gram"), own, other)
    assert error(made("mmd-poly", offset=0.0), own, other) == pytest.approx(gram, rel=1e-12)
    assert discrepancy(lambda x, y: (x @ y.T) ** 2, own, other) == pytest.approx(
        gram * 4**2 / FACTOR, rel=1e-9
    )


def test_discrepancies_are_those_of_their_kernels():
    own, other = features(), features(seed=1)
    found = {
        name: error(made(name), own, other) for name in ("mmd-linear", "mmd-poly", "mmd-gauss")
    }
    assert found["mmd-linear"] == pytest.approx(
        discrepancy(lambda x, y: x @ y.T, own, other) * FACTOR / 4, rel=1e-9
    )
    assert found["mmd-poly"] == pytest.approx(
        discrepancy(lambda x, y: (x @ y.T + 1) ** 2, own, other) * FACTOR / 16, rel=1e-9
    )
    far = 2 + other
    gauss = discrepancy(lambda x, y: torch.exp(-torch.cdist(x, y).square() / 8), own, far)
    assert error(made("mmd-gauss"), own, far) == pytest.approx(gauss, rel=0.1)


def test_covariance_and_deviation_do_not_see_what_they_should_not():
    own, other = features(), features(seed=1)
    assert error(made("covariance"), own, other + 5) == pytest.approx(
        error(made("covariance"), own, other), rel=1e-9
    )
    assert error(made("mean-std"), own, own.flip(-1)) == pytest.approx(0, abs=1e-12)
    assert error(made("mean-std"), own, own + 0.5) == pytest.approx(FACTOR * 0.5**2)
    assert error(made("mean-std"), own, 2 * own - own.mean((2, 3), keepdim=True)) == pytest.approx(
        FACTOR / 4 * float(own.var((2, 3), correction=0).sum()), rel=1e-4
    )


def test_the_sliced_distance_of_a_shift_is_its_square_in_any_order():
    own = features(count=3)
    assert error(made("wasserstein"), own, own.flip(-1)) == pytest.approx(0, abs=1e-12)
    shift = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
    assert error(made("wasserstein"), own, own + shift) == pytest.approx(
        FACTOR * float(shift.square().sum()) / 3, rel=0.2
    )


def test_each_patch_is_compared_with_the_one_that_is_most_like_it():
    own = features(count=2, height=12, width=12)
    part = own[..., 2:9, 3:11]  # all its patches are there
    assert error(made("patches"), part, own) == pytest.approx(0, abs=1e-12)
    assert error(made("patches"), own, part) > 0.001
    assert "patches is for layers of at most 20000 positions, here are 22500" in refusal(
        made("patches").target, torch.zeros(1, 1, 150, 150)
    )


def test_layers_may_have_different_statistics_and_what_cannot_be_is_refused(tiny_file):
    given = {"size": 48, "steps": 2, "levels": 1, "weights": str(tiny_file), "style_layers": LAYERS}
    plan = nst.prepare(TextureSettings("mosaic", statistic=("gram", "mean-std"), **given), "cpu")
    terms = {
        type(term): (term.name, term.layers, term.layer_weights)
        for _, term in plan.objective.terms[:2]
    }
    assert terms == {
        kind("gram"): ("style", LAYERS[:1], (0.5,)),
        kind("mean-std"): ("style_2", LAYERS[1:], (0.5,)),
    }
    assert plan.solve().image.isfinite().all()
    for changes, says in [
        ({"statistic": ("gram", "gram", "gram")}, "statistic: 3 given for 2 style layers"),
        ({"statistic": "grams"}, "did you mean 'gram'?"),
        ({"statistic": "covariance", "regions": 3}, "statistic: regions have Gram matrices"),
        (
            {
                "statistic": ("gram", "mean-std"),
                "more_paintings": "mosaic",
                "mix_layers": ("conv1_1", "conv2_1"),
            },
            "statistic: give one",
        ),
    ]:
        assert says in refusal(TransferSettings, "coffee", "mosaic", **given | changes)


@pytest.mark.parametrize("name", names())
def test_a_transfer_with_it_lowers_its_loss(tiny_file, name):
    given = {"size": 48, "steps": 8, "levels": 1, "weights": str(tiny_file), "style_layers": LAYERS}
    *_, last = nst.prepare(
        TransferSettings("coffee", "mosaic", statistic=name, alpha=1e-6, **given), "cpu"
    ).steps()
    first = next(
        nst.prepare(
            TransferSettings("coffee", "mosaic", statistic=name, alpha=1e-6, **given), "cpu"
        ).steps()
    )
    assert last.loss < 0.7 * first.loss


@pytest.mark.parametrize("width", [7, 3])  # more positions than filters, and fewer
def test_leading_eigenvalues_see_the_gram_matrix_along_their_directions_alone(width):
    own, other = (features(20, 6, width, seed) for seed in (0, 1))
    term = made("gram-leading")
    target, (values, vectors) = term.target(other), torch.linalg.eigh(nst.gram(other))
    leading = vectors[:, -2:]
    expected = (
        (leading.T @ nst.gram(own) @ leading - values[-2:].diag()).square().sum() * FACTOR / 20**2
    )
    assert float(term.score(term.statistic(own, target), target, own)) == pytest.approx(
        float(expected)
    )
    across = positions(other) @ vectors[:, :-2] @ vectors[:, :-2].T  # moved where it does not look
    changed = (positions(other) + 3 * across).T.reshape(1, 20, 6, width)
    assert error(term, changed, other) == pytest.approx(0, abs=1e-12)
