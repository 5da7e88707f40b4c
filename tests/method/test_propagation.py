"""Features forward and gradients backward by hand, against autograd through the plain network."""

import itertools
import math

import pytest
import torch

from nstlab.method.fast import propagation
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.convolutions import Convolution, OneDNN
from nstlab.method.fast.propagation import Layout, Propagation
from nstlab.method.network import VGG19
from nstlab.method.weights import random_weights

LAYERS = {
    "usual": ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"],
    "every kind": ["relu1_1", "relu1_2", "conv2_2", "pool2", "relu3_1", "conv3_4", "relu3_4", "pool3", "relu4_1", "conv5_1"],
    "first convolution": ["conv1_1"],
    "first ReLU": ["relu1_1"],
    "a convolution": ["conv3_2"],
    "a pooling": ["pool3"],
    "before a pooling": ["relu2_2", "relu3_1"],
}
SHAPE = (53, 71)  # odd, also after poolings


def at_layers(net, image, layers):
    """By autograd: (features, a gradient at each of them, the gradient at the image that follows)."""
    image = image.clone().requires_grad_(True)
    features = net(image, layers)
    generator = torch.Generator().manual_seed(1)
    # One that goes with the features, as those of losses do: rounding would drown a random one.
    given = {
        name: f.detach() * (1 + 0.3 * torch.randn(f.shape, generator=generator).to(f)) / f.numel()
        for name, f in features.items()
    }
    (grad,) = torch.autograd.grad(list(features.values()), image, list(given.values()))
    return {name: f.detach() for name, f in features.items()}, given, grad


def there_and_back(net, image, layers, given, arithmetic):
    """By hand, twice with the same memory: (features, the gradient at the image)."""
    way = Propagation(net, layers, image.shape[-2:], arithmetic)
    for _ in range(2):
        found = {name: f.clone() for name, f in way.forward(image)}
        grad = way.backward(lambda name, features, into: into.copy_(given[name]))
    return found, grad


def off(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("pool", ["avg", "max", "l2"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("budget", [0, propagation.BUDGET])
def test_equals_autograd(tiny, pool, layers, dtype, budget, monkeypatch):
    monkeypatch.setattr(propagation, "BUDGET", budget)
    net = VGG19(tiny, pool=pool).double()
    image = torch.rand(1, 3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, given, gradient = at_layers(net, image, LAYERS[layers])
    if dtype != torch.float64:
        net, image = net.float(), image.float()
    found, grad = there_and_back(net, image, LAYERS[layers], given, Arithmetic(dtype))
    near = {
        torch.float64: (1e-12, 1e-12),
        torch.float32: (1e-5, 1e-5),
        torch.bfloat16: (0.02, 0.25),
        torch.float16: (4e-3, 0.15),
    }
    assert list(found) == list(expected)
    for name, features in found.items():
        assert features.dtype == dtype
        assert off(features, expected[name]) < near[dtype][0], name
    assert grad.dtype == image.dtype
    assert off(grad, gradient) < near[dtype][1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pytorchs_convolutions_do_the_same_as_onednns(tiny, dtype, monkeypatch):
    net = VGG19(tiny)
    image = torch.rand(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    _, given, _ = at_layers(net, image, LAYERS["every kind"])
    _, packed = there_and_back(net, image, LAYERS["every kind"], given, Arithmetic(dtype))
    monkeypatch.setattr(OneDNN, "can", lambda *_: False)
    assert Convolution in {type(c) for c in Propagation(net, ["relu1_1"], SHAPE, Arithmetic(dtype)).convolutions.values()}
    _, plain = there_and_back(net, image, LAYERS["every kind"], given, Arithmetic(dtype))
    assert off(packed, plain) < (1e-5 if dtype == torch.float32 else 0.1)


def test_rescaled_pooling_goes_both_ways(tiny):
    net = VGG19(tiny, rescale_pool=True).double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, given, gradient = at_layers(net, image, ["pool2", "relu3_1"])
    found, grad = there_and_back(net, image, ["pool2", "relu3_1"], given, Arithmetic(torch.float64))
    assert torch.allclose(found["pool2"], expected["pool2"])
    assert torch.allclose(grad, gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_step_of_a_pixel_is_not_lost_in_16_bits(tiny, dtype):
    net = VGG19(tiny)
    image = torch.full((1, 3, 32, 32), 0.7)
    step = 0.7 * torch.finfo(dtype).eps / 16
    assert (image + step).to(dtype).equal(image.to(dtype))
    way = Propagation(net, ["conv1_1"], (32, 32), Arithmetic(dtype))
    inputs = [way._entry(x).double().clone() for x in (image, image + step)]
    seen = (inputs[1] - inputs[0])[:, :3] + (inputs[1] - inputs[0])[:, 3:6]  # what 16 bits hold, and the rest
    exact = (net.weights.preprocessing(image + step) - net.weights.preprocessing(image)).double()
    assert torch.allclose(seen, exact, rtol=0.1)


def test_every_evaluation_takes_the_same_memory(tiny):
    net = VGG19(tiny)
    way = Propagation(net, LAYERS["usual"], (48, 48), Arithmetic(torch.float32))
    places = []
    for _ in range(3):
        image = torch.rand(1, 3, 48, 48)
        places.append([f.data_ptr() for _, f in way.forward(image)])
        way.backward(lambda name, features, into: into.copy_(features))
    assert places[0] == places[1] == places[2]


def test_nothing_is_kept_beyond_rectified_outputs(tiny):
    net = VGG19(tiny)
    way = Propagation(net, LAYERS["usual"], (48, 48), Arithmetic(torch.float32))
    for _ in way.forward(torch.rand(1, 3, 48, 48)):
        pass
    assert set(way.memory) == {name.replace("conv", "relu") for name in net.path(["conv5_1"])}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("budget", [0, propagation.BUDGET])
def test_no_two_layers_share_a_place_unless_one_is_computed_twice(tiny, layers, dtype, budget, monkeypatch):
    monkeypatch.setattr(propagation, "BUDGET", budget)
    layout = Layout.of(VGG19(tiny), layers, SHAPE, dtype)
    assert bool(layout.twice) == ("relu2_1" in layout.shapes and (dtype == torch.float32 or budget == 0))
    for group in (layout.twice, [node for node in layout.shapes if node not in layout.twice]):
        scratch = [(0, max((math.prod(layout.shapes[node]) for node in group), default=0))]
        places = [(layout.offsets[n], layout.offsets[n] + math.prod(layout.shapes[n])) for n in group if n in layout.offsets]
        in_order = sorted(scratch + places)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(in_order))
        assert in_order[-1][1] <= layout.total


def test_the_first_block_computed_twice_takes_less_memory():
    net = VGG19(random_weights(0))
    usual = [Layout.of(net, LAYERS["usual"], (512, 512), dtype) for dtype in (torch.float32, torch.float16)]
    assert [bool(layout.twice) for layout in usual] == [True, False]
    assert usual[0].total < 0.6 * usual[1].total
