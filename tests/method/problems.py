"""Problems with known answers, and how an optimizer is run on them."""

import torch

from nstlab.method.optimizers import Evaluation


def picture(side, dtype=torch.float32):
    """A random picture."""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def ill_conditioned(x):
    """A quadratic bowl in pictures, condition 1e4, lowest at 0.5."""
    return (torch.logspace(0, 4, x.numel(), dtype=x.dtype).view_as(x) * (x - 0.5) ** 2).sum()


def evaluator(f):
    """evaluate(x) for a scalar function of a tensor."""

    def evaluate(x):
        x = x.detach().requires_grad_(True)
        loss = f(x)
        return Evaluation(loss.detach(), *torch.autograd.grad(loss, x), loss.detach().view(1))

    return evaluate


def run(optimizer, f, x, steps):
    """(the states from the first picture on, all pictures that were evaluated)."""
    seen, evaluate = [], evaluator(lambda x: seen.append(x.detach()) or f(x))
    states = [optimizer.init(x, evaluate)]
    for _ in range(steps):
        states.append(optimizer.step(states[-1], evaluate))
    return states, seen
