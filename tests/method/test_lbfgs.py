"""L-BFGS on problems with known answers, at any scale of the objective."""

import pytest
import torch
from problems import FREE, evaluator, ill_conditioned, random_picture, run

from nstlab.method.lbfgs import LBFGS, Curvature


def test_it_finds_rosenbrocks_valley():
    def rosenbrock(x):
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    states, log = run(LBFGS(**FREE), rosenbrock, torch.tensor([-1.2, 1.0, -0.5, 0.8], dtype=torch.float64), 200)
    assert torch.allclose(states[-1].x, torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert len(log) < 200


def test_the_compact_product_is_that_of_dense_bfgs():
    """With seven pairs for five slots, of which one is free, the last four count."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    hessian, eye = root @ root.T + torch.eye(6), torch.eye(6, dtype=torch.float64)
    metric = torch.diag(torch.rand(6, generator=generator, dtype=torch.float64) + 0.5)
    steps = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    curvature = Curvature([], {})
    for s in steps:
        curvature = curvature.added(s, hessian @ s, metric @ hessian @ s, slots=5)
    pairs = [(s, hessian @ s) for s in steps[-4:]]
    s, y = pairs[-1]
    h = metric * (s @ y) / (y @ metric @ y)
    for s, y in pairs:
        v = eye - torch.outer(s, y) / (s @ y)
        h = v @ h @ v.T + torch.outer(s, s) / (s @ y)
    g = torch.randn(6, generator=generator, dtype=torch.float64)
    assert torch.allclose(curvature.product(g, metric @ g), h @ g)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
def test_the_scale_of_the_objective_does_not_matter(scale):
    x = random_picture(8, 8, dtype=torch.float64)
    plain, scaled = (run(LBFGS(), f, x, 40)[0][-1] for f in (ill_conditioned, lambda x: scale * ill_conditioned(x)))
    assert torch.allclose(plain.x, scaled.x, atol=1e-6)


def torchs(f, x, **options):
    """The losses that torch's L-BFGS comes to."""
    x, losses = x.clone().requires_grad_(True), []
    optimizer = torch.optim.LBFGS([x], lr=1, max_iter=100, **options)

    def closure():
        optimizer.zero_grad()
        loss = f(x)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    optimizer.step(closure)
    return losses


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_it_converges_where_torchs_stalls_on_small_losses(line_search):
    x = random_picture(8, 8)
    scale = 1e-6 / float(ill_conditioned(x))
    losses = torchs(lambda x: scale * ill_conditioned(x), x, line_search_fn=line_search)
    assert losses[-1] > 0.5 * losses[0]  # torch's tolerances take the first picture for the last
    states, _ = run(LBFGS(), lambda x: scale * ill_conditioned(x), x, 100)
    assert states[-1].loss < 1e-4 * losses[0]


def test_it_converges_where_torchs_explodes_on_large_losses():
    def gram_like(x):  # of the fourth degree, as a Gram loss is
        return 1e10 * ((x**2).mean() - 0.1) ** 2 + 1e4 * ((x - x.roll(1, -1)) ** 4).mean()

    def explodes(x):
        losses = torchs(gram_like, x, tolerance_grad=0, tolerance_change=0)
        return max(losses) > 1000 * losses[0]

    pictures = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(12))
    x = next(filter(explodes, pictures))  # which one it is depends on the last bits of products
    states, _ = run(LBFGS(bounds=None), gram_like, x, 100)
    assert states[-1].loss < 1e-6 * states[0].loss


def test_the_loss_never_rises_and_a_step_costs_about_one_evaluation():
    states, log = run(LBFGS(), ill_conditioned, random_picture(8, 8), 60)
    losses = [state.loss for state in states]
    assert losses == sorted(losses, reverse=True)
    assert len(states) == 61
    assert len(log) < 1.3 * 60


def test_the_first_step_is_in_pixel_units():
    (before, after), _ = run(LBFGS(smooth=None), lambda x: 1e-9 * x.sum(), torch.full((1, 3, 8, 8), 0.5), 1)
    assert float((after.x - before.x).square().mean().sqrt()) == pytest.approx(LBFGS.first_step, rel=1e-4)


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
    _, log = run(optimizer, lambda x: (a * x**3 + b * x**2 + c * x).sum(), torch.zeros(1, dtype=torch.float64), 1)
    assert [float(x) for x, _ in log] == pytest.approx([0.0, 1.0, expected])


def test_history_fits_the_memory_budget():
    x = torch.zeros(1, 3, 100, 100)
    pair = 2 * x.numel() * 4
    assert [LBFGS(history=50, memory=memory).pairs(x) for memory in (None, 11 * pair, 1)] == [50, 10, 1]


def test_an_interrupted_step_leaves_the_previous_state_whole():
    x, optimizer = random_picture(4, 4, dtype=torch.float64), LBFGS(history=3)
    states, _ = run(optimizer, ill_conditioned, x, 10)
    evaluate, _ = evaluator(ill_conditioned)
    once, again = (optimizer.step(states[-1], evaluate) for _ in range(2))  # the first one writes into the state's matrix
    assert torch.equal(once.x, again.x)


def test_it_stalls_at_the_minimum():
    states, log = run(LBFGS(), lambda x: ((x - 0.5) ** 2).sum(), torch.full((1, 3, 4, 4), 0.5), 50)
    assert states[-1].stalled
    assert len(log) < 50
