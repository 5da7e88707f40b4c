"""Optimizers on problems with known answers, and the guard."""

import math

import pytest
import torch

from nstlab.method.lbfgs import LBFGS, Curvature, _cubic_minimum
from nstlab.method.optimizers import Adam, Evaluation, GradientDescent


def evaluator(f):
    """evaluate(x) for a scalar function of a tensor, and the list of losses it returned."""
    log = []

    def evaluate(x):
        x = x.detach().requires_grad_(True)
        loss = f(x)
        (grad,) = torch.autograd.grad(loss, x)
        log.append(float(loss.detach()))
        return Evaluation(loss.detach(), grad, loss.detach().view(1))

    return evaluate, log


def run(optimizer, f, x, steps):
    evaluate, log = evaluator(f)
    state = optimizer.init(x, evaluate)
    for _ in range(steps):
        state = optimizer.step(state, evaluate)
        if state.stalled:
            break
    return state, log


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def ill_conditioned(x):
    """A quadratic bowl in pictures, condition 1e4, lowest at 0.5."""
    return (torch.logspace(0, 4, x.numel(), dtype=x.dtype).view_as(x) * (x - 0.5) ** 2).sum()


FREE = {"bounds": None, "smooth": None}


def test_lbfgs_finds_rosenbrocks_valley():
    state, log = run(LBFGS(**FREE), rosenbrock, torch.tensor([-1.2, 1.0, -0.5, 0.8], dtype=torch.float64), 200)
    assert torch.allclose(state.x, torch.ones(4, dtype=torch.float64), atol=1e-6)
    assert len(log) < 200


def test_lbfgs_direction_equals_the_inverse_hessian_on_a_quadratic():
    """With exact pairs in every direction, H is A⁻¹: the compact form against plain linear algebra."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    a = root @ root.T + torch.eye(5, dtype=torch.float64)
    optimizer = LBFGS(history=5, **FREE)
    evaluate, _ = evaluator(lambda x: 0.5 * x @ a @ x)
    state = optimizer.init(torch.randn(5, generator=generator, dtype=torch.float64), evaluate)
    h = torch.eye(5, dtype=torch.float64)  # dense BFGS beside it, with the same pairs; H₀ is scaled by the last γ
    pairs = []
    for _ in range(4):
        new = optimizer.step(state, evaluate)
        pairs.append((new.x - state.x, new.at.grad - state.at.grad))
        state = new
    s, y = pairs[-1]
    h = h * (s @ y) / (y @ y)
    for s, y in pairs:
        v = torch.eye(5, dtype=torch.float64) - torch.outer(s, y) / (s @ y)
        h = v @ h @ v.T + torch.outer(s, s) / (s @ y)
    direction = optimizer._direction(state, torch.ones(5, dtype=torch.float64))
    expected = -h @ state.at.grad
    assert torch.allclose(direction / direction.norm(), expected / expected.norm(), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
def test_lbfgs_does_not_depend_on_the_scale_of_the_objective(scale):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, _ = run(LBFGS(), ill_conditioned, x, 40)
    scaled, _ = run(LBFGS(), lambda x: scale * ill_conditioned(x), x, 40)
    assert torch.allclose(plain.x, scaled.x, atol=1e-6)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_converges_where_torchs_stalls_on_small_losses(line_search):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = 1e-5 / float(ill_conditioned(x)) / 10  # all losses below 1e-5
    theirs = x.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([theirs], lr=1, max_iter=100, line_search_fn=line_search)

    def closure():
        optimizer.zero_grad()
        loss = scale * ill_conditioned(theirs)
        loss.backward()
        return loss

    optimizer.step(closure)
    start, stuck = float(ill_conditioned(x)), float(ill_conditioned(theirs.detach()))
    assert stuck > 0.5 * start  # torch's tolerances take the first picture for the last
    state, _ = run(LBFGS(), lambda x: scale * ill_conditioned(x), x, 100)
    assert float(ill_conditioned(state.x)) < 1e-4 * start


def test_lbfgs_converges_where_torchs_explodes_on_large_losses():
    def gram_like(x):  # of the fourth degree, as a Gram loss is
        return 1e10 * ((x**2).mean() - 0.1) ** 2 + 1e4 * ((x - x.roll(1, -1)) ** 4).mean()

    def highest(x):
        """Of the losses that torch's comes to, over the first one. Where it explodes depends on the last bits of products."""
        theirs, seen = x.clone().requires_grad_(True), []
        optimizer = torch.optim.LBFGS([theirs], lr=1, max_iter=100, tolerance_grad=0, tolerance_change=0)

        def closure():
            optimizer.zero_grad()
            loss = gram_like(theirs)
            loss.backward()
            seen.append(float(loss.detach()))
            return loss

        optimizer.step(closure)
        return max(seen) / seen[0]

    starts = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    assert max(map(highest, starts)) > 1000
    for x in starts:
        state, _ = run(LBFGS(bounds=None), gram_like, x, 100)
        assert state.loss < 1e-6 * float(gram_like(x))


@pytest.mark.parametrize("optimizer", [Adam(), GradientDescent(), LBFGS()])
def test_a_picture_of_nan_is_rolled_back_though_a_relu_makes_its_loss_finite(optimizer):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def evaluate(x):  # gradients whose squares are infinite, as of a huge weight
        return Evaluation(x.relu().nan_to_num().sum(), torch.full_like(x, 1e30), torch.zeros(1))

    state = optimizer.init(x, evaluate)
    for _ in range(3):
        state = optimizer.step(state, evaluate)
        assert state.x.isfinite().all()


def test_lbfgs_never_raises_the_loss_and_costs_about_one_evaluation_a_step():
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    evaluate, log = evaluator(ill_conditioned)
    optimizer = LBFGS()
    state, losses = optimizer.init(x, evaluate), []
    for _ in range(60):
        state = optimizer.step(state, evaluate)
        losses.append(state.loss)
    assert losses == sorted(losses, reverse=True)
    assert len(log) < 1.3 * 60


def test_the_first_step_is_in_pixel_units():
    x = torch.full((1, 3, 8, 8), 0.5)
    state, _ = run(LBFGS(smooth=None), lambda x: 1e-9 * x.sum(), x, 1)
    assert math.isclose(float((state.x - x).square().mean().sqrt()), LBFGS.first_step, rel_tol=1e-4)


def test_pixels_stay_within_bounds_and_reach_the_constrained_minimum():
    target = torch.linspace(-0.5, 1.5, 48, dtype=torch.float64).view(1, 3, 4, 4)
    weights = torch.logspace(0, 1, 48, dtype=torch.float64).view_as(target)
    for optimizer, steps in ((LBFGS(), 60), (Adam(rate=0.05), 400), (GradientDescent(rate=0.02), 3000)):
        state, _ = run(optimizer, lambda x: (weights * (x - target) ** 2).sum(), torch.full_like(target, 0.5), steps)
        assert torch.allclose(state.x, target.clamp(0, 1), atol=1e-2), optimizer
        assert state.x.min() >= 0
        assert state.x.max() <= 1


def test_history_fits_the_memory_budget():
    x = torch.zeros(1, 3, 100, 100)
    pair = 2 * x.numel() * 4
    assert LBFGS(history=50, memory=None).pairs(x) == 50
    assert LBFGS(history=50, memory=11 * pair).pairs(x) == 10
    assert LBFGS(history=50, memory=1).pairs(x) == 1


def test_an_interrupted_step_leaves_the_previous_state_whole():
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = LBFGS(history=3)
    evaluate, _ = evaluator(ill_conditioned)
    state = optimizer.init(x, evaluate)
    for _ in range(10):
        state = optimizer.step(state, evaluate)
    once = optimizer.step(state, evaluate)
    again = optimizer.step(state, evaluate)  # from the same state, whose matrix the first step has written into
    assert torch.equal(once.x, again.x)


@pytest.mark.parametrize("optimizer", [LBFGS(bounds=None), Adam(bounds=None), GradientDescent(bounds=None)])
def test_a_loss_that_is_not_finite_never_reaches_the_picture(optimizer):
    calls = []

    def treacherous(x):
        calls.append(1)
        loss = ((x - 0.5) ** 2).sum()
        return loss * float("nan") if len(calls) == 4 else loss

    evaluate, _ = evaluator(treacherous)
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    state, events = optimizer.init(x, evaluate), []
    for _ in range(20):
        state = optimizer.step(state, evaluate)
        assert state.x.isfinite().all()
        assert math.isfinite(state.loss)
        events.append(state.event)
    assert events.count("loss not finite, rolled back") == 1
    assert state.loss < 0.5 * float(treacherous(x))


@pytest.mark.parametrize("kind", [Adam, GradientDescent])
def test_an_exploding_step_is_rolled_back_and_halved(kind):
    x = torch.full((1, 3, 4, 4), 0.51)
    state, _ = run(kind(rate=30.0, bounds=None), lambda x: ((x - 0.5) ** 2).sum(), x, 1)
    assert torch.equal(state.x, x)
    assert state.event == "loss exploded, rolled back"
    assert state.numbers["rate"] == 15.0


def test_a_rollback_of_gradient_descent_shortens_the_step():
    evaluate, _ = evaluator(ill_conditioned)
    optimizer = GradientDescent(rate=1e-4, bounds=None)
    state = optimizer.init(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), evaluate)
    for _ in range(20):
        state = optimizer.step(state, evaluate)
    usual = optimizer.step(state, evaluate)
    rolled = optimizer.step(state, lambda x: Evaluation(torch.tensor(float("nan")), x, x))
    assert torch.equal(rolled.x, state.x)
    after = optimizer.step(rolled, evaluate)
    assert torch.allclose(after.x - state.x, (usual.x - state.x) / 2, atol=1e-7)


def test_the_loss_stalls_at_the_minimum():
    state, log = run(LBFGS(), lambda x: ((x - 0.5) ** 2).sum(), torch.full((1, 3, 4, 4), 0.5), 50)
    assert state.stalled
    assert len(log) < 50


def test_adam_equals_torchs():
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = x.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([theirs], lr=0.01, eps=1e-30)
    for _ in range(10):
        optimizer.zero_grad()
        ill_conditioned(theirs).backward()
        optimizer.step()
    state, _ = run(Adam(rate=0.01, epsilon=0.0, bounds=None), ill_conditioned, x, 10)
    assert torch.allclose(state.x, theirs.detach(), atol=1e-9)


def test_gradient_descent_has_a_constant_factor():
    x = torch.tensor([[[[0.6, 0.7]]]])
    evaluate, _ = evaluator(lambda x: (x**2).sum())
    optimizer = GradientDescent(rate=0.01)
    one = optimizer.step(optimizer.init(x, evaluate), evaluate)
    two = optimizer.step(one, evaluate)
    assert torch.allclose((one.x - x) / (2 * x), (two.x - one.x) / (2 * one.x), rtol=1e-4)


def test_a_first_picture_without_a_finite_loss_is_refused():
    evaluate, _ = evaluator(lambda x: x.sum() * float("inf"))
    with pytest.raises(FloatingPointError, match="not finite"):
        LBFGS().init(torch.ones(1, 3, 4, 4), evaluate)


@pytest.mark.parametrize(("a", "b", "c"), [(1.0, -3.0, 0.5), (2.0, 0.4, -2.0)])
def test_cubic_interpolation_finds_the_minimum_of_a_cubic(a, b, c):
    f, slope = (lambda t: a * t**3 + b * t**2 + c * t), (lambda t: 3 * a * t * t + 2 * b * t + c)
    found = _cubic_minimum(f(0), slope(0), f(1), slope(1))
    assert found in (0.05, 0.9) or abs(slope(found)) < 1e-9
