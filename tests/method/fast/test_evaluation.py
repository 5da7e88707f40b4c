"""Fast evaluations give loss, gradient and values of the plain definition, for each term,
convention, pooling and precision."""

import gc
import itertools
import weakref

import pytest
import torch
from helpers import Means

import nstlab as nst
from nstlab.base.names import POOLS
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.fast import arithmetic
from nstlab.method.fast import tiles as fast
from nstlab.method.fast.arithmetic import arithmetic_of, native_halves
from nstlab.networks.vgg import VGG19
from nstlab.terms.regions import region_styles


def split(shape, part):
    """The masks (1, 2, H, W) of a left part of a picture and of the rest, with a soft edge."""
    left = (part * shape[1] - torch.arange(shape[1])).div(4).add(0.5).clamp(0, 1).expand(shape)
    return torch.stack([left, 1 - left])[None]


def goals(convention, photo, painting):
    """An objective of each kind of term, and two of all together, in which each kind once adds to
    another's gradient."""
    content = nst.content(["conv2_1", "conv3_1"], photo, convention=convention)
    style = nst.style(["conv1_1", "pool2", "conv3_1"], painting, [1, 2, 3], convention)
    means = nst.term(Means, "means", ["conv2_2", "conv3_1"], convention=convention, image=painting)
    smooth = 0.1 * nst.total_variation(convention)
    masks, own = (
        split(picture.shape[-2:], part).to(picture)
        for picture, part in ((photo, 0.4), (painting, 0.7))
    )
    regions = region_styles(
        ["conv1_1", "conv3_1", "pool3"], painting, masks, own, [1, 3], convention
    )
    found = {
        "content": content,
        "style": style,
        "means": means,
        "smooth": smooth,
        "regions": regions,
    }
    return found | {
        "all": content + 3 * style + means + smooth + regions,
        "all, the other way round": smooth + regions + means + style + content,
    }


@pytest.mark.parametrize(
    ("kind", "convention", "pool"),
    [
        *zip(itertools.repeat("all"), CONVENTIONS, itertools.cycle(POOLS)),
        *[
            (kind, "mean", "avg")
            for kind in (
                "content",
                "style",
                "means",
                "smooth",
                "regions",
                "all, the other way round",
            )
        ],
        *[("all", "tutorial", pool) for pool in POOLS],
    ],
)
def test_fast_is_plain(tiny, photo, painting, kind, convention, pool):
    net, image = VGG19(tiny, pool).double(), nst.white_noise(photo).double()
    goal = goals(convention, photo.double(), painting.double())[kind]
    plain, quick = goal.bind(net, image.shape[-2:]), fast.bind(goal, net, image.shape[-2:])
    for expected, found in zip(plain.evaluate(image), quick.evaluate(image), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("capability", "plain", "normalized"), [
    ((6, 1), "float32", "float32"), ((7, 5), "float32", "float16"), ((8, 0), "bfloat16", "float16"),
])  # fmt: skip
def test_auto_takes_float16_only_for_normalized_activations(
    net, tiny, monkeypatch, capability, plain, normalized
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        arithmetic, "native_halves", lambda device: native_halves(torch.device("cuda"))
    )
    auto = VGG19(tiny)
    assert arithmetic_of(auto).name == plain
    auto.normalized = True
    assert arithmetic_of(auto).name == normalized
    assert [arithmetic_of(VGG19(tiny, precision=name)).name for name in ("float16", "tf32")] == [
        "float16",
        "tf32",
    ]
    assert arithmetic_of(net.double()).name == "float64"


def test_its_memory_is_free_as_soon_as_nobody_holds_it(tiny, photo):
    """As the engine needs it: the next size takes its memory only then."""
    bound = fast.bind(nst.content("conv2_1", photo), VGG19(tiny), photo.shape[-2:])
    bound.evaluate(photo)
    held = weakref.ref(bound)
    gc.disable()
    try:
        del bound
        assert held() is None
    finally:
        gc.enable()
