"""The guard of all optimizers (see also test_engine), and those of first order on problems with
known answers."""

import itertools
import math

import pytest
import torch
from problems import ill_conditioned, picture, run

from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Adam, Evaluation, GradientDescent

ALL = [LBFGS, Adam, GradientDescent]


@pytest.mark.parametrize("kind", ALL)
def test_a_picture_of_nan_is_rolled_back_though_a_relu_makes_its_loss_finite(kind):
    def evaluate(x):  # gradients whose squares are infinite, as of a huge weight
        return Evaluation(x.relu().nan_to_num().sum(), torch.full_like(x, 1e30), torch.zeros(1))

    state = kind().init(picture(8), evaluate)
    for _ in range(3):
        state = kind().step(state, evaluate)
        assert state.x.isfinite().all()
    # a first picture cannot be rolled back
    with pytest.raises(FloatingPointError, match="not finite"):
        run(kind(), lambda x: x.sum() * math.inf, picture(4), 0)


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [(LBFGS(), 60), (Adam(rate=0.05), 200), (GradientDescent(rate=0.2), 300)],
)
def test_pixels_stay_within_bounds_and_reach_the_constrained_minimum(optimizer, steps):
    target = torch.linspace(-0.5, 1.5, 48, dtype=torch.float64).view(1, 3, 4, 4)
    weights = torch.logspace(0, 1, 48, dtype=torch.float64).view_as(target)
    states, seen = run(
        optimizer,
        lambda x: (weights * (x - target) ** 2).sum(),
        torch.full_like(target, 0.5),
        steps,
    )
    assert torch.allclose(states[-1].x, target.clamp(0, 1), atol=1e-2)
    assert all(torch.equal(x, x.clamp(0, 1)) for x in seen)


@pytest.mark.parametrize("kind", [Adam, GradientDescent])
def test_an_exploding_step_is_rolled_back_and_halved(kind):
    (first, state), _ = run(
        kind(rate=30.0, bounds=None),
        lambda x: ((x - 0.5) ** 2).sum(),
        torch.full((1, 3, 4, 4), 0.51),
        1,
    )
    assert torch.equal(state.x, first.x)
    assert (state.event, state.numbers["rate"]) == ("loss exploded, rolled back", 15.0)


def test_gradient_descent_has_a_constant_factor():
    states, _ = run(
        GradientDescent(rate=1e-4, bounds=None), ill_conditioned, picture(4, torch.float64), 20
    )
    factors = [(new.x - old.x) / old.evaluation.grad for old, new in itertools.pairwise(states)]
    assert all(torch.allclose(factor, factors[0]) for factor in factors)


def test_adam_is_torchs():
    x = picture(4, torch.float64)
    theirs = x.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([theirs], lr=0.01, eps=1e-30)
    for _ in range(10):
        optimizer.zero_grad()
        ill_conditioned(theirs).backward()
        optimizer.step()
    states, _ = run(Adam(rate=0.01, epsilon=0.0, bounds=None), ill_conditioned, x, 10)
    assert torch.allclose(states[-1].x, theirs.detach(), atol=1e-9)


@pytest.mark.parametrize("optimizer", [Adam(), GradientDescent(), LBFGS()])
def test_a_loss_may_be_negative(optimizer):
    def evaluate(x):
        return Evaluation(x.mean() - 2, torch.full_like(x, 1 / x.numel()), x.mean()[None])

    state = optimizer.init(
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), evaluate
    )
    for _ in range(5):
        state = optimizer.step(state, evaluate)
        assert state.event == ""
    assert state.loss < -1.5
