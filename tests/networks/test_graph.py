"""Networks of torchvision: layers, pooling, normalized and smoothed activations, and how the method
works with them."""

import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from faults import refusal
from torchvision import models

import nstlab as nst
from nstlab.method.fast import tiles as fast
from nstlab.networks.architectures import ARCHITECTURES, architecture
from nstlab.networks.base import soften
from nstlab.networks.graph import GraphNetwork
from nstlab.networks.weights import Weights, load, random_weights

GRAPHS = [name for name, known in ARCHITECTURES.items() if not known.blocks]
SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def weights():
    return random_weights(0, network=SMALL)


@pytest.fixture
def net(weights):
    return GraphNetwork(SMALL, weights, pool="max")


def torchvisions(name, image, weights):
    """{layer: features} of torchvision's own network, copied as they are computed."""
    options, found = ARCHITECTURES[name].options, {}
    model = models.get_model(name, weights=None, **options).eval()
    model.load_state_dict(weights.tensors, strict=False)
    for layer, node in ARCHITECTURES[name].nodes.items():
        model.get_submodule(node).register_forward_hook(
            lambda *given, layer=layer: found.update({layer: given[2].clone()})
        )
    model(weights.preprocessing(image))
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", GRAPHS)
def test_every_layer_is_torchvisions(name):
    image, own = (
        torch.rand(1, 3, 96, 80, generator=torch.Generator().manual_seed(0)),
        random_weights(3, network=name),
    )
    expected = torchvisions(name, image, own)
    net = GraphNetwork(name, own, pool="max")
    found = net(image, ARCHITECTURES[name].layers)
    assert list(found) == list(ARCHITECTURES[name].layers)
    assert net.shapes(found, (96, 80)) == {
        layer: tuple(features.shape[1:]) for layer, features in found.items()
    }
    for layer, features in found.items():
        assert torch.allclose(
            features, expected[layer], rtol=1e-3, atol=1e-4 * float(expected[layer].abs().max())
        ), layer


def test_nothing_is_computed_beyond_the_deepest_layer_that_is_read(net, photo):
    computed = []
    for path, part in net.module.named_modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda *_, path=path: computed.append(path))
    (features,) = net(photo, ["fire2"]).values()
    assert computed == [
        "features.0",
        *(f"features.3.{part}" for part in ("squeeze", "expand1x1", "expand3x3")),
    ]
    assert not features.requires_grad


@pytest.mark.parametrize("pool", ["avg", "l2"])
def test_poolings_that_reduce_the_picture_are_exchanged_in_their_windows(weights, photo, pool):
    found = GraphNetwork(SMALL, weights, pool)(photo, ["relu1", "pool1"])
    window = {"kernel_size": 3, "stride": 2, "ceil_mode": True, "count_include_pad": False}
    x = found["relu1"] if pool == "avg" else found["relu1"].square()
    expected = F.avg_pool2d(x, **window)
    assert torch.allclose(found["pool1"], expected if pool == "avg" else expected.sqrt(), atol=1e-5)
    inception = GraphNetwork("googlenet", "random", pool)
    # which reduces nothing
    assert isinstance(inception.module.get_submodule("inception3a.branch4.0"), torch.nn.MaxPool2d)
    assert not isinstance(inception.module.get_submodule("maxpool1"), torch.nn.MaxPool2d)


def test_the_gradient_of_an_objective_is_that_of_finite_differences(weights, photo, painting):
    net = nst.normalize_activations(GraphNetwork(SMALL, weights), [photo, painting]).double()
    goal = nst.content("fire3", photo) + 20 * nst.style(["conv1", "fire2"], painting)
    bound, x = fast.bind(goal, net, photo.shape[-2:]), nst.white_noise(photo).double()
    total, grad, values = bound.evaluate(x)
    direction = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    ahead, behind = (bound.evaluate(x + step * direction)[0] for step in (1e-6, -1e-6))
    assert (grad * direction).sum() == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)
    assert float(total) * bound.scale == pytest.approx(float(values[0] + 20 * values[1]))


def test_normalized_layers_have_a_mean_of_one_and_are_otherwise_as_before(weights, photo, painting):
    plain, net = (
        GraphNetwork(SMALL, weights),
        nst.normalize_activations(GraphNetwork(SMALL, weights), [photo, painting]),
    )
    assert net.normalized
    for layer in ("relu1", "fire3"):
        each = [net(picture, [layer])[layer] for picture in (photo, painting)]
        assert torch.cat([f.flatten(2) for f in each], 2).mean() == pytest.approx(1, rel=1e-4)
        ratio = each[0] / plain(photo, [layer])[layer]
        assert torch.allclose(ratio[ratio.isfinite()], ratio[ratio.isfinite()].median(), rtol=1e-4)


def test_smoothed_activations_are_a_softmax_whose_mean_is_one(photo, tiny):
    features = (
        torch.rand(1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 9
    )
    smooth, exponentials = soften(features, 2.0), (features / 2).exp()
    assert smooth.mean() == pytest.approx(1)
    assert torch.allclose(smooth, 1 + 2 * (exponentials / exponentials.mean() - 1))
    assert torch.equal(soften(features, 0.0), features)
    assert torch.allclose(soften(features, 1e6), features - features.mean() + 1, atol=1e-4)
    net = nst.VGG19(tiny, temperature=3.0)
    assert torch.allclose(
        net(photo, ["relu2_1"])["relu2_1"],
        soften(nst.VGG19(tiny)(photo, ["relu2_1"])["relu2_1"], 3.0),
    )


def test_a_vgg_with_a_temperature_is_normalized_by_layers_and_its_gradient_is_right(
    tiny, photo, painting
):
    net = nst.normalize_activations(nst.VGG19(tiny, temperature=5.0), [photo, painting]).double()
    bound = fast.bind(nst.style(["conv1_1", "conv2_1"], painting), net, photo.shape[-2:])
    direction, x = (
        torch.randn(photo.shape, generator=torch.Generator().manual_seed(1)).double(),
        photo.double(),
    )
    ahead, behind = (bound.evaluate(x + step * direction)[0] for step in (1e-6, -1e-6))
    assert (bound.evaluate(x)[1] * direction).sum() == pytest.approx(
        float(ahead - behind) / 2e-6, rel=1e-4
    )


def test_what_each_layer_sees_is_known(weights):
    """From the gradient: in a network of ones and a white picture, every pixel that is seen counts,
    since no ReLU is 0."""
    ones = {name: torch.full_like(t, float(t.ndim > 1)) for name, t in weights.tensors.items()}
    net = GraphNetwork(SMALL, Weights(ones, weights.preprocessing, "ones")).double()
    image = torch.ones(1, 3, 160, 160, dtype=torch.float64).requires_grad_(True)
    fields = nst.fields(SMALL)
    assert {layer: fields[layer].depth for layer in ("conv1", "fire2", "fire9")} == {
        "conv1": 1,
        "fire2": 3,
        "fire9": 17,
    }
    for layer in ("conv1", "pool1", "fire2", "pool3", "fire5"):
        features = net(image, [layer])[layer]
        middle = features.shape[-1] // 2
        (slope,) = torch.autograd.grad(features[..., middle, middle].sum(), image)
        seen = slope[0, 0].abs().sum(0).nonzero()
        assert int(seen.max() - seen.min()) + 1 == fields[layer].across, layer


def test_weights_are_read_in_half_precision_and_others_are_refused(
    weights, tmp_path, tiny_file, photo
):
    path = tmp_path / "half.safetensors"
    halves = {f"module.{name}": t.half() for name, t in weights.tensors.items()}
    safetensors.torch.save_file(halves | {"steps": torch.tensor(3)}, path)
    net = GraphNetwork(SMALL, path)
    assert torch.allclose(
        net(photo, ["fire2"])["fire2"],
        GraphNetwork(SMALL, weights)(photo, ["fire2"])["fire2"],
        atol=1e-2,
    )
    assert "not the weights of squeezenet1_1; features.0.weight is missing" in refusal(
        GraphNetwork, SMALL, tiny_file
    )
    wide = Weights(
        {**weights.tensors, "features.0.bias": torch.zeros(3)}, weights.preprocessing, "wide"
    )
    assert "features.0.bias has the shape (3,), expected is (64,)" in refusal(
        GraphNetwork, SMALL, wide
    )
    assert "holds conv3_4" in refusal(nst.VGG16, tiny_file)
    assert "are those of vgg19" in refusal(nst.VGG16, load(tiny_file))


def test_what_a_network_cannot_do_is_refused_in_words(net, photo):
    assert "too small for fire9 of squeezenet1_1" in refusal(
        net, torch.rand(1, 3, 16, 20), ["fire9"]
    )
    assert "squeezenet1_1 has no layer 'conv4_2'" in refusal(net, photo, ["conv4_2"])
    assert "known for VGGs" in refusal(nst.loss_network, SMALL, weights="random", rescale_pool=True)
    for name in (SMALL, "vgg19"):
        message = refusal(
            nst.loss_network, name, weights="random", precision="bfloat16", temperature=1.0
        )
        assert message.endswith("allowed: auto, float32")
    assert "tables of whole numbers" in refusal(GraphNetwork, "swin_t", "random")
    resnet = GraphNetwork("resnet18", "random")
    assert "fc of resnet18 has no positions" in refusal(resnet, photo, ["fc"])
    before, after = resnet(photo, ["layer1.0.bn2", "layer1.0.add"]).values()
    assert not torch.equal(before, after)  # though torchvision adds in place


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=CUDA)])
def test_it_moves_to_a_device(net, photo, painting, device):
    net = nst.normalize_activations(net, [photo, painting]).to(device)
    assert net.device.type == device
    features = net(photo.to(device), ["fire2"])["fire2"]
    assert features.device.type == device


def test_gradients_are_computed_as_exactly_as_features(net, photo):
    """TF32 and kernels that add up in any order are off on the way back, too."""
    seen = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
            return grad

    whole = net.weights.preprocessing
    object.__setattr__(net.weights, "preprocessing", lambda image: whole(Look.apply(image)))
    nst.content("fire2", photo).bind(net, photo.shape[-2:]).evaluate(nst.white_noise(photo))
    assert seen == [(False, True)]


def test_normalizing_twice_changes_nothing_more_and_small_pictures_are_refused(
    weights, photo, tiny
):
    net = GraphNetwork(SMALL, weights)
    for _ in range(2):
        nst.normalize_activations(net, [photo])
        assert net(photo, ["fire2"])["fire2"].mean() == pytest.approx(1, rel=1e-4)
    assert "too small" in refusal(
        nst.normalize_activations, nst.VGG19(tiny), [torch.rand(1, 3, 8, 8)]
    )


def test_smoothing_is_for_each_picture_alone_and_has_no_negative_temperature(weights, photo):
    net = GraphNetwork(SMALL, weights, temperature=5.0)
    both = net(torch.cat([photo, 1 - photo]), ["fire2"])["fire2"]
    assert torch.allclose(both[:1], net(photo, ["fire2"])["fire2"], atol=1e-4)
    assert "temperature: -1" in refusal(GraphNetwork, SMALL, weights, temperature=-1)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("densenet121", "features.denseblock1.cat"),
        ("regnet_y_400mf", "trunk_output.block1"),
    ],
)
def test_other_classifiers_work_at_ones_own_risk(name, layer, photo):
    known = architecture(name)
    node = next((each for each in known.layers if each.startswith(layer)), None)
    assert node, known.layers[:40]
    net = GraphNetwork(name, "random", pool="max")
    features = net(photo, [node])[node]
    assert features.shape[1:] == net.shapes([node], photo.shape[-2:])[node]
    assert node in nst.fields(name)


def test_layers_whose_filters_come_last_are_none():
    assert "features.1.0.block.1" not in nst.fields("convnext_tiny")
    net = GraphNetwork("convnext_tiny", "random")
    assert "no positions" in refusal(net, torch.rand(1, 3, 64, 64), ["features.1.0.block.1"])


def test_old_names_in_files_of_densenets_are_read(tmp_path):
    own = random_weights(0, network="densenet121")
    path = tmp_path / "old.pth"
    torch.save(
        {
            re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): t
            for name, t in own.tensors.items()
        },
        path,
    )
    assert load(path, network="densenet121").tensors.keys() == own.tensors.keys()
