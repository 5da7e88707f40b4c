"""Normalized activations: mean 1, the same function, computed once."""

import pytest
import torch
from faults import refusal

from nstlab.base.names import POOLS
from nstlab.networks import normalization
from nstlab.networks.normalization import SMALLEST_MEAN, mean_activations, normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights


@pytest.mark.parametrize("pool", POOLS)
def test_the_means_become_one_and_the_function_stays(tiny, photo, painting, pool):
    plain, images = VGG19(tiny, pool), [photo, painting]
    before, net = mean_activations(plain, images), normalize_activations(VGG19(tiny, pool), images)
    for layer, mean in mean_activations(net, images).items():
        alive = before[layer] > SMALLEST_MEAN * before[layer][before[layer] > 0].mean()
        assert alive.any()
        assert torch.allclose(mean[alive], torch.ones_like(mean[alive]), atol=1e-4), layer
    a, b = (each(photo, ["conv5_4"])["conv5_4"][0].flatten(1) for each in (plain, net))
    scale = (a * b).sum(1) / (b * b).sum(1)  # of each channel
    assert torch.allclose(a, scale[:, None] * b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


def test_a_dead_filter_stays_dead_and_finite_and_an_infinite_one_is_refused(tiny, photo):
    tensors = {name: tensor.clone() for name, tensor in tiny.tensors.items()}
    tensors["conv2_1.weight"][0], tensors["conv2_1.bias"][0] = 0, -1
    features = normalize_activations(VGG19(Weights(tensors, tiny.preprocessing, "x")), [photo])(
        photo, ["relu2_1", "conv5_4"]
    )
    assert features["relu2_1"][:, 0].abs().max() == 0
    assert features["conv5_4"].isfinite().all()
    tensors["conv2_1.bias"][0] = torch.inf
    net = VGG19(Weights(tensors, tiny.preprocessing, "infinite"))
    assert "'infinite' give activations that are not finite" in refusal(normalize_activations, net)


def test_the_means_over_the_sample_photos_are_kept_on_disk(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(normalization.platformdirs, "user_cache_dir", lambda *_: str(tmp_path))
    first = normalize_activations(VGG19(tiny)).conv5_4_weight
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    assert torch.equal(first, normalize_activations(VGG19(tiny)).conv5_4_weight)  # computed again
    monkeypatch.setattr(normalization, "mean_activations", lambda *_: pytest.fail("computed again"))
    net = normalize_activations(normalize_activations(VGG19(tiny)))  # the second time does nothing
    assert net.normalized
    assert torch.equal(first, net.conv5_4_weight)
    with pytest.raises(pytest.fail.Exception):
        normalize_activations(VGG19(tiny, pool="max"))  # another network, other means
