"""Fast evaluations give loss, gradient and values of the plain definition, for each term, convention, pooling and precision."""

import itertools
from dataclasses import dataclass

import pytest
import torch

import nstlab as nst
from nstlab.method import statistics
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.fast import evaluation as fast
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.names import POOLS
from nstlab.method.network import VGG19


@dataclass(frozen=True, eq=False)
class Means(nst.Term):
    """Mean activations, a term that is defined here and has no vjp of its own."""

    def statistic(self, features, target):
        return statistics.mean(features)

    def score(self, statistic, target, features):
        return (statistic - target).square().mean()


def goals(convention, photo, painting):
    """An objective of each kind of term, and of all together."""
    content = nst.content(["conv2_1", "conv3_2"], photo, convention=convention)
    style = nst.style(["conv1_1", "pool2", "conv3_1"], painting, [1, 2, 3], convention)
    means = nst.term(Means, "means", ["conv2_2", "conv3_1"], convention=convention, image=painting)
    smooth = 0.1 * nst.total_variation(convention)
    return {"content": content, "style": style, "means": means, "smooth": smooth, "all": content + 3 * style + means + smooth}


@pytest.mark.parametrize(
    ("kind", "convention", "pool"),
    [
        *zip(itertools.repeat("all"), CONVENTIONS, itertools.cycle(POOLS)),
        *itertools.product(["content", "style", "means", "smooth"], ["mean"], ["avg"]),
        *itertools.product(["all"], ["tutorial"], POOLS),
    ],
)
def test_fast_is_plain(tiny, photo, painting, kind, convention, pool):
    net = VGG19(tiny, pool).double()
    goal = goals(convention, photo.double(), painting.double())[kind]
    image = nst.white_noise(photo).double()
    plain, quick = goal.bind(net, image.shape[-2:]), fast.bind(goal, net, image.shape[-2:])
    for expected, found in zip(plain.evaluate(image), quick.evaluate(image), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.05)])
def test_in_fewer_bits_it_is_nearly_so(net, photo, painting, dtype, near):
    image, goal = nst.white_noise(photo), goals("mean", photo, painting)["all"]
    loss, grad, _ = goal.bind(net, image.shape[-2:]).evaluate(image)
    quick, steep, _ = fast.bind(goal, net, image.shape[-2:], Arithmetic(dtype)).evaluate(image)
    assert float(abs(quick / loss - 1)) < near
    assert float((steep - grad).norm() / grad.norm()) < 3 * near
