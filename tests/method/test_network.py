"""VGG19: names, truncation, pooling, arithmetic, preprocessing, and normalization that keeps the function."""

import pytest
import torch
import torch.nn.functional as F

from nstlab.method import network, normalization
from nstlab.method.names import LAYERS, POOLS
from nstlab.method.network import VGG19
from nstlab.method.normalization import mean_activations, normalize_activations
from nstlab.method.weights import CAFFE, Weights, random_weights
from nstlab.settings import InputError


def reference(weights, image, pool="max"):
    """VGG19 written down plainly: {name: features} of all layers."""
    found, x = {}, weights.preprocessing(image)
    for block, count in enumerate((2, 2, 4, 4, 4), 1):
        for i in range(1, count + 1):
            name = f"conv{block}_{i}"
            x = F.conv2d(x, weights.tensors[f"{name}.weight"], weights.tensors[f"{name}.bias"], padding=1)
            found[name] = x
            x = found[f"relu{block}_{i}"] = x.clamp(min=0)
        x = found[f"pool{block}"] = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pool](x, 2)
    return found


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_every_layer_equals_a_plain_vgg19(tiny, photo, pool):
    net = VGG19(tiny, pool=pool)
    expected = reference(tiny, photo, pool)
    found = net(photo, LAYERS)
    assert set(found) == set(LAYERS)
    for name, features in found.items():
        assert torch.allclose(features, expected[name], rtol=1e-4, atol=1e-5), name


def test_equals_torchvision_in_its_own_names():
    from torchvision.models import vgg19

    weights = random_weights(3)
    model = vgg19(weights=None).features.eval()
    model.load_state_dict(
        dict(zip(model.state_dict(), [weights.tensors[n] for n in sorted(weights.tensors, key=_order)], strict=True))
    )
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(weights.preprocessing(image))
    found = VGG19(weights, pool="max")(image, ["pool5"])["pool5"]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def _order(name):
    layer, part = name.split(".")
    return layer, part == "bias"


def test_nothing_is_computed_beyond_the_deepest_layer(tiny, photo, monkeypatch):
    net, seen = VGG19(tiny), []
    layer = net.layer
    monkeypatch.setattr(net, "layer", lambda name, x: seen.append(name) or layer(name, x))
    assert list(net(photo, ["relu2_1", "conv1_2"])) == ["conv1_2", "relu2_1"]
    assert seen[-1] == "relu2_1"
    assert len(seen) == 7


def test_sequential_index_is_an_alias(tiny, photo):
    net = VGG19(tiny)
    assert torch.equal(net(photo, [4])["conv2_2"], net(photo, ["conv2_2"])["conv2_2"])


def test_l2_pooling_is_the_root_of_the_mean_square(tiny):
    x = torch.tensor([[[[1.0, 1.0], [5.0, 3.0]]]])
    assert torch.isclose(VGG19(tiny, pool="l2").pooled(x), torch.tensor(3.0))


def test_l2_pooling_of_zeros_has_a_finite_gradient(tiny):
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    VGG19(tiny, pool="l2").pooled(x).sum().backward()
    assert x.grad.isfinite().all()


def test_rescaled_pooling_is_larger_by_a_constant(tiny, photo):
    plain, rescaled = (VGG19(tiny, rescale_pool=on)(photo, ["pool1"])["pool1"] for on in (False, True))
    assert torch.allclose(rescaled, 2 * plain)


def test_preprocessing_belongs_to_the_weights(photo):
    expected = photo.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    assert torch.allclose(CAFFE(photo), expected, atol=1e-3)


@pytest.mark.parametrize("pool", POOLS)
def test_normalization_keeps_the_function_and_makes_the_means_one(tiny, photo, painting, pool):
    plain, net = (VGG19(tiny, pool=pool) for _ in range(2))
    before = mean_activations(plain, [photo, painting])
    normalize_activations(net, [photo, painting])
    for layer, mean in mean_activations(net, [photo, painting]).items():
        alive = before[layer] > normalization.SMALLEST_MEAN * before[layer][before[layer] > 0].mean()
        assert alive.any()
        assert torch.allclose(mean[alive], torch.ones_like(mean[alive]), atol=1e-4), layer
    a, b = plain(photo, ["conv5_4"])["conv5_4"][0].flatten(1), net(photo, ["conv5_4"])["conv5_4"][0].flatten(1)
    scale = (a * b).sum(1) / (b * b).sum(1)  # of each channel
    assert torch.allclose(a, scale[:, None] * b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def test_a_dead_filter_stays_dead_and_finite(tiny, photo):
    tensors = {name: tensor.clone() for name, tensor in tiny.tensors.items()}
    tensors["conv2_1.weight"][0], tensors["conv2_1.bias"][0] = 0, -1
    net = normalize_activations(VGG19(Weights(tensors, tiny.preprocessing, "x")), [photo])
    features = net(photo, ["relu2_1", "conv5_4"])
    assert features["relu2_1"][:, 0].abs().max() == 0
    assert features["conv5_4"].isfinite().all()


def test_the_means_over_sample_photos_are_kept_on_disk(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(normalization.platformdirs, "user_cache_dir", lambda *_: str(tmp_path))
    first = normalize_activations(VGG19(tiny))
    monkeypatch.setattr(normalization, "mean_activations", lambda *_: pytest.fail("computed again"))
    second = normalize_activations(VGG19(tiny))
    assert torch.equal(first.conv5_4_weight, second.conv5_4_weight)
    with pytest.raises(pytest.fail.Exception):
        normalize_activations(VGG19(tiny, pool="max"))  # another network, other means


def test_no_parameter_requires_a_gradient(tiny):
    assert not any(t.requires_grad for t in VGG19(tiny).state_dict(keep_vars=True).values())


def test_missing_layers_are_named(tiny, photo):
    partial = {name: t for name, t in tiny.tensors.items() if name < "conv3_3"}
    net = VGG19(Weights(partial, tiny.preprocessing, "partial"))
    assert net(photo, ["conv3_2"])
    with pytest.raises(InputError, match=r"end at conv3_2 and lack conv3_3, conv3_4, conv4_1, conv4_2"):
        net(photo, ["conv4_2"])


@pytest.mark.parametrize("wrong", [{"pool": "median"}, {"precision": "int8"}])
def test_wrong_choices_name_what_is_allowed(tiny, wrong):
    with pytest.raises(InputError, match="is not one of"):
        VGG19(tiny, **wrong)


def test_an_image_too_small_for_a_layer_is_refused(tiny):
    with pytest.raises(InputError, match="too small for pool5: 32 px"):
        VGG19(tiny)(torch.rand(1, 3, 16, 40), ["pool5"])
