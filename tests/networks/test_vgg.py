"""VGG19: names, truncation, pooling, and arithmetic."""

import threading

import pytest
import torch
import torch.nn.functional as F
from faults import refusal
from torchvision.models.vgg import make_layers

from nstlab.base.names import CONVOLUTIONS, LAYERS
from nstlab.method.fast.propagation import Propagation
from nstlab.networks.preprocessing import CAFFE
from nstlab.networks.receptive import fields
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights, random_weights

POOLED = {
    "max": F.max_pool2d,
    "avg": F.avg_pool2d,
    "l2": lambda x, size: F.lp_pool2d(x, 2, size) / size,
}


def torchvisions(weights, image, pool):
    """{layer: features} by torchvision's layers, with the pooling exchanged."""
    channels = [len(weights.tensors[f"{name}.bias"]) for name in CONVOLUTIONS]
    modules = make_layers(
        [channels.pop(0) if name[:4] == "conv" else "M" for name in LAYERS if name[:4] != "relu"]
    )
    found, x = {}, weights.preprocessing(image)
    for name, module in zip(LAYERS, modules, strict=True):
        if name.startswith("conv"):
            module.load_state_dict(
                {part: weights.tensors[f"{name}.{part}"] for part in ("weight", "bias")}
            )
        # its ReLUs work in place
        x = found[name] = POOLED[pool](x, 2) if name.startswith("pool") else module(x.clone())
    return found


@torch.no_grad()
@pytest.mark.parametrize("pool", POOLED)
def test_every_layer_is_torchvisions(tiny, photo, pool):
    weights = Weights(tiny.tensors, CAFFE, "tiny")
    expected, found = torchvisions(weights, photo, pool), VGG19(weights, pool)(photo, LAYERS)
    assert list(found) == list(LAYERS)
    assert found["pool2"].shape[1:] == VGG19(weights).shapes(["pool2"], photo.shape[-2:])["pool2"]
    for name, features in found.items():
        assert torch.allclose(
            features, expected[name], rtol=1e-4, atol=1e-4 * float(expected[name].abs().max())
        ), name


@pytest.mark.parametrize(("pool", "gain"), [("avg", 2), ("max", 1), ("l2", 1.56)])
def test_rescaled_pooling_is_larger_by_a_constant_and_has_finite_gradients(tiny, photo, pool, gain):
    plain, rescaled = (
        VGG19(tiny, pool, rescale_pool=on)(photo, ["pool1"])["pool1"] for on in (False, True)
    )
    assert torch.allclose(rescaled, gain * plain)
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    VGG19(tiny, pool).pool_layer(x).sum().backward()
    assert x.grad.isfinite().all()  # at 0 too, where a root's is not


def test_what_weights_or_picture_do_not_reach_and_wrong_choices_are_named(net, tiny, photo):
    partial = {name: t for name, t in tiny.tensors.items() if name < "conv3_3"}
    short = VGG19(Weights(partial, tiny.preprocessing, "partial"))
    assert short(photo, ["conv3_2"])
    assert "end at conv3_2 and lack conv3_3, conv3_4, conv4_1, conv4_2" in refusal(
        short, photo, ["conv4_2"]
    )
    assert "too small for pool5: 32 px" in refusal(net, torch.rand(1, 3, 16, 40), ["pool5"])
    assert "3 channels" in refusal(net, photo[:, :1], ["conv1_1"])
    assert [short.reaches(layer, photo.shape[-2:]) for layer in ("conv3_2", "conv3_3")] == [
        True,
        False,
    ]
    assert "pool: 'median' is not one of avg, max, l2" in refusal(VGG19, tiny, pool="median")
    assert "precision: 'int8' is not one of auto" in refusal(VGG19, tiny, precision="int8")


# the deeper ones take long, and have the same rule
@pytest.mark.parametrize("layer", CONVOLUTIONS[:12])
def test_a_receptive_field_is_what_moves_a_position(layer):
    """Known from the gradient: through a network of ones, of one channel, every pixel that is seen
    counts."""
    weights = random_weights(0, widths=(1, 1, 1, 1, 1))
    for tensor in weights.tensors.values():
        tensor.fill_(1.0 if tensor.ndim > 1 else 0.0)
    net = VGG19(weights, precision="float32").double()
    image = torch.rand(
        1, 3, 320, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_(True)
    middle = 160 >> int(layer[4]) - 1
    (slope,) = torch.autograd.grad(net(image, [layer])[layer][..., middle, middle].sum(), image)
    seen = slope[0, 0].abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == fields("vgg19")[layer].across


def test_flags_of_the_process_stay_while_threads_compute_at_the_same_time(tiny, photo):
    flags, seen, begun, go = torch.backends.cudnn, [], threading.Event(), threading.Event()

    def compute(net):
        for _ in Propagation(net, ["relu1_1", "relu2_1"], photo.shape[-2:]).forward(photo):
            yield seen.append(
                (flags.enabled, flags.deterministic, flags.benchmark, flags.allow_tf32)
            )

    def other(steps):
        next(steps)
        begun.set()
        assert go.wait(60)
        list(steps)

    # as another library has left them
    with flags.flags(enabled=True, deterministic=False, benchmark=True, allow_tf32=True):
        nets = VGG19(tiny, precision="tf32"), VGG19(tiny, precision="float32")
        thread = threading.Thread(target=other, args=[compute(nets[0])])
        thread.start()
        assert begun.wait(60)
        steps = compute(nets[1])
        next(steps)
        go.set()
        thread.join()
        list(steps)
        assert seen == [(True, True, False, False)] * 4
        assert (flags.deterministic, flags.benchmark, flags.allow_tf32) == (True, False, False)
