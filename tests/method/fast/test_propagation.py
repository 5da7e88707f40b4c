"""Features forward and gradients backward by hand, against autograd through the plain network."""

import itertools

import pytest
import torch

from nstlab.base.names import POOLS
from nstlab.method.fast import layout
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.convolutions import OneDNN
from nstlab.method.fast.layout import BUDGET, Layout
from nstlab.method.fast.propagation import Propagation
from nstlab.networks.preprocessing import Preprocessing
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights, random_weights

LAYERS = {
    "usual": ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"],
    "every kind": [
        "relu1_1",
        "relu1_2",
        "conv2_2",
        "pool2",
        "relu3_1",
        "conv3_4",
        "relu3_4",
        "pool3",
        "relu4_1",
        "conv5_1",
    ],
    "first convolution": ["conv1_1"],
    "first ReLU": ["relu1_1"],
    "a convolution": ["conv3_2"],
    "a pooling": ["pool3"],
    "before a pooling": ["relu2_2", "relu3_1"],
}
SHAPE = (53, 71)  # odd, also after poolings
# Relative errors that are allowed of features and of gradients.
NEAR = {
    torch.float64: (1e-12,) * 2,
    torch.float32: (1e-5,) * 2,
    torch.bfloat16: (0.02, 0.25),
    torch.float16: (4e-3, 0.15),
}


@pytest.fixture
def image():
    return torch.rand(1, 3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def at_layers(net, image, layers):
    """By autograd: (features, a gradient at each of them, the gradient at the image that
    follows)."""
    image = image.clone().requires_grad_(True)
    features = net(image, layers)
    generator, given = torch.Generator().manual_seed(1), {}
    # it goes with the features, as those of losses do: rounding would drown a random one
    for name, f in features.items():
        given[name] = (
            f.detach() * (1 + 0.3 * torch.randn(f.shape, generator=generator).to(f)) / f.numel()
        )
    (grad,) = torch.autograd.grad(list(features.values()), image, list(given.values()))
    return {name: f.detach() for name, f in features.items()}, given, grad


def there_and_back(net, image, layers, given, arithmetic):
    """By hand, twice in the same memory: (features, the gradient at the image)."""
    way, places = Propagation(net, layers, image.shape[-2:], arithmetic), []
    for _ in range(2):
        found = {}
        for name, f in way.forward(image):
            found[name] = f.clone()
            places.append(f.data_ptr())
        grad = way.backward(lambda name, features, into: into.copy_(given[name]))
    assert places[: len(found)] == places[len(found) :]
    return found, grad


def relative_error(a, b):
    return float((a - b).double().norm() / b.double().norm())


@pytest.mark.parametrize(
    ("layers", "pool", "rescale", "dtype", "budget", "onednn"),
    [
        *itertools.product(LAYERS, POOLS, [False, True], [torch.float64], [BUDGET], [False]),
        *itertools.product(
            ["every kind"], POOLS, [False], [torch.float32], [BUDGET], [False, True]
        ),
        *itertools.product(
            ["every kind", "usual"],
            POOLS,
            [False],
            [torch.bfloat16, torch.float16],
            [0, BUDGET],
            [True],
        ),
        *itertools.product(LAYERS, ["avg"], [False], [torch.bfloat16], [0, BUDGET], [False]),
    ],
)
def test_by_hand_is_by_autograd(
    tiny, image, layers, pool, rescale, dtype, budget, onednn, monkeypatch
):
    monkeypatch.setattr(layout, "BUDGET", budget)
    monkeypatch.setattr(OneDNN, "supports", OneDNN.supports if onednn else lambda *_: False)
    net = VGG19(tiny, pool, rescale).double()
    expected, given, gradient = at_layers(net, image, LAYERS[layers])
    if dtype != torch.float64:
        net, image = net.float(), image.float()
    found, grad = there_and_back(net, image, LAYERS[layers], given, Arithmetic(dtype))
    assert list(found) == list(expected)
    for name, features in found.items():
        assert features.dtype == dtype
        assert relative_error(features, expected[name]) < NEAR[dtype][0], name
    assert grad.dtype == image.dtype
    assert relative_error(grad, gradient) < NEAR[dtype][1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
# multiples of eight are computed otherwise
@pytest.mark.parametrize("widths", [(4, 6, 8, 8, 8), (8, 16, 8, 8, 8)])
@pytest.mark.parametrize("layers", LAYERS)
def test_on_a_gpu_by_hand_is_by_autograd(image, layers, widths, dtype):
    net = VGG19(random_weights(0, widths)).double()
    expected, given, gradient = at_layers(net, image, LAYERS[layers])
    given = {name: each.to("cuda") for name, each in given.items()}
    found, grad = there_and_back(
        net.float().to("cuda"), image.float().to("cuda"), LAYERS[layers], given, Arithmetic(dtype)
    )
    for name, features in found.items():
        assert relative_error(features.cpu(), expected[name]) < NEAR[dtype][0], name
    assert relative_error(grad.cpu(), gradient) < NEAR[dtype][1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_differences_of_pixels_and_of_first_weights_are_not_lost_in_16_bits(dtype):
    small = torch.finfo(dtype).eps / 16
    weight, image = torch.zeros(2, 3, 3, 3), torch.full((1, 3, 8, 8), 0.7)
    weight[0, 0, 1, 1], weight[0, 1, 1, 1] = 1, -1  # one filter sees the difference of two channels
    # the other has unlike weights for two equal channels
    weight[1, 2, 1, 1], weight[1, 1, 1, 1] = 1 + small, -1
    image[:, 0] += small
    assert torch.tensor([0.7, 1]).to(dtype).equal(torch.tensor([0.7 + small, 1 + small]).to(dtype))
    tensors = {"conv1_1.weight": weight, "conv1_1.bias": torch.zeros(2)}
    net = VGG19(Weights(tensors, Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)), "differences"))
    ((_, features),) = Propagation(net, ["conv1_1"], (8, 8), Arithmetic(dtype)).forward(image)
    assert features[0, :, 4, 4].tolist() == pytest.approx([small, 0.7 * small], rel=0.1)


def test_the_first_block_computed_twice_takes_less_memory():
    net = VGG19(random_weights(0))
    usual = [
        Layout.of(net, LAYERS["usual"], (512, 512), dtype)
        for dtype in (torch.float32, torch.float16)
    ]
    assert [bool(layout.recomputed) for layout in usual] == [True, False]
    # nothing else is kept
    assert all(node.startswith("relu") for layout in usual for node in layout.offsets)
    assert usual[0].total < 0.6 * usual[1].total
