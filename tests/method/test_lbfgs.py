"""L-BFGS on problems with known answers, at any scale of the objective. (The guard is in
test_optimizers.)"""

import pytest
import torch
from problems import ill_conditioned, picture, run

from nstlab.method.curvature import Curvature
from nstlab.method.lbfgs import LBFGS

FREE = {"bounds": None, "smooth": None}  # for problems that are no pictures


def test_it_finds_rosenbrocks_valley():
    def rosenbrock(x):
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    states, seen = run(
        LBFGS(**FREE), rosenbrock, torch.tensor([-1.2, 1.0, -0.5, 0.8], dtype=torch.float64), 100
    )
    assert torch.allclose(states[-1].x, torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert len(seen) < 200


def test_the_compact_product_is_that_of_dense_bfgs():
    """Of seven pairs in five slots, of which one is free, the last four count."""
    generator, eye = torch.Generator().manual_seed(0), torch.eye(6, dtype=torch.float64)
    root, steps = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (6, 7))
    hessian, metric = root @ root.T + eye, torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    curvature = Curvature([], {})
    for s in steps:
        smooth = lambda y, row: row.copy_(metric @ y)  # noqa: E731
        curvature = curvature.with_pair(s, hessian @ s, smooth, slots=5)
    s, y = steps[-1], hessian @ steps[-1]
    h = metric * (s @ y) / (y @ metric @ y)
    for s in steps[-4:]:
        y = hessian @ s
        v = eye - torch.outer(s, y) / (s @ y)
        h = v @ h @ v.T + torch.outer(s, s) / (s @ y)
    g = torch.arange(6, dtype=torch.float64)
    assert torch.allclose(curvature.product(g, metric @ g), h @ g)


def gram_like(x):
    """Of the fourth degree, as a Gram loss is."""
    return 1e6 * ((x**2).mean() - 0.1) ** 2 + ((x - x.roll(1, -1)) ** 4).mean()


@pytest.mark.parametrize("f", [ill_conditioned, gram_like])
@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_it_converges_in_the_same_way_at_any_scale_of_the_objective(f, scale):
    (states, seen), (scaled, _) = (
        run(LBFGS(), lambda x, factor=factor: factor * f(x), picture(8, torch.float64), 40)
        for factor in (1, scale)
    )
    losses = [state.loss for state in states]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3 * losses[0]
    assert len(seen) < 1.3 * len(states)  # about one evaluation a step
    assert torch.allclose(states[-1].x, scaled[-1].x, atol=1e-6)


def test_the_first_step_is_in_pixel_units():
    (before, after), _ = run(
        LBFGS(smooth=None), lambda x: 1e-9 * x.sum(), torch.full((1, 3, 8, 8), 0.5), 1
    )
    assert float((after.x - before.x).square().mean().sqrt()) == pytest.approx(
        LBFGS.first_step, rel=1e-4
    )


@pytest.mark.parametrize(
    ("cubic", "decrease", "expected"),
    [
        ((2.0, 0.4, -2.0), 1e-4, 0.51451986),  # (-0.8 + √48.64) / 12
        ((20.0, 0.0, -0.1), 1e-4, 0.05),  # too near
        ((0.0, 1.0, -2.0), 0.6, 0.9),  # too far, at 1
        ((0.0, 0.0, -1.0), 1.5, 0.3),  # nowhere
    ],
)
def test_the_line_search_goes_on_where_the_cubic_is_lowest(cubic, decrease, expected):
    a, b, c = cubic
    optimizer = LBFGS(first_step=1.0, decrease=decrease, trials=2, **FREE)
    _, seen = run(
        optimizer,
        lambda x: (a * x**3 + b * x**2 + c * x).sum(),
        torch.zeros(1, dtype=torch.float64),
        1,
    )
    assert [float(x) for x in seen] == pytest.approx([0.0, 1.0, expected])


def test_history_fits_the_memory_budget():
    x, pair = torch.zeros(1, 3, 100, 100), 2 * 3 * 100 * 100 * 4
    assert [LBFGS(history=50, memory=memory).pairs(x) for memory in (None, 11 * pair, 1)] == [
        50,
        10,
        1,
    ]
