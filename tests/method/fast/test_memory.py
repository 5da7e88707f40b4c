"""Estimates of memory, and the size that fits."""

import torch

from nstlab.method.fast import arithmetic, memory
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Adam
from nstlab.networks.vgg import VGG19


def test_memory_needed_grows_with_the_pixels_and_the_largest_size_fits(net):
    def needed(shape):
        return memory.run_bytes(net, ["relu4_2"], shape, LBFGS())

    small, large = (needed((s, s)) for s in (128, 256))
    assert small < large < 4.1 * small
    size = memory.largest_size(needed, (256, 128), small)
    assert needed((size, size // 2)) <= small < needed((size + 16, size // 2 + 8))
    assert memory.largest_size(needed, (256, 128), 1000) is None
    assert (
        needed((256, 256)) - memory.run_bytes(net, ["relu4_2"], (256, 256), Adam())
        == 2 * LBFGS.history * 3 * 256**2 * 4
    )


def test_what_ends_in_float32_needs_its_memory(net, tiny, monkeypatch):
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    auto, half = (
        memory.evaluation_bytes(VGG19(tiny, precision=p), ["relu4_2"], (64, 64))
        for p in ("auto", "bfloat16")
    )
    assert half < auto == memory.evaluation_bytes(net, ["relu4_2"], (64, 64))
    assert memory.evaluation_bytes(net, [], (64, 64)) == 0  # total variation alone
