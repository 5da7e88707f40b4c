"""Problems with known answers, and how an optimizer is run on them."""

import torch

from nstlab.method.optimizers import Evaluation

FREE = {"bounds": None, "smooth": None}  # options of an L-BFGS for problems that are no pictures


def random_picture(*shape, dtype=torch.float32):
    return torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def evaluator(f):
    """evaluate(x) for a scalar function of a tensor, and the list of the pictures and losses that it saw."""
    log = []

    def evaluate(x):
        x = x.detach().requires_grad_(True)
        loss = f(x)
        (grad,) = torch.autograd.grad(loss, x)
        log.append((x.detach(), float(loss.detach())))
        return Evaluation(loss.detach(), grad, loss.detach().view(1))

    return evaluate, log


def run(optimizer, f, x, steps):
    """(the states from the first picture on until it stalls, the log of evaluations)."""
    evaluate, log = evaluator(f)
    states = [optimizer.init(x, evaluate)]
    while len(states) <= steps and not states[-1].stalled:
        states.append(optimizer.step(states[-1], evaluate))
    return states, log


def ill_conditioned(x):
    """A quadratic bowl in pictures, condition 1e4, lowest at 0.5."""
    return (torch.logspace(0, 4, x.numel(), dtype=x.dtype).view_as(x) * (x - 0.5) ** 2).sum()
