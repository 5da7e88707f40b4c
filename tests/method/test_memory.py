"""Estimates of memory, and the size that fits."""

import torch

from nstlab.method.fast import arithmetic, memory
from nstlab.method.lbfgs import LBFGS
from nstlab.method.network import VGG19
from nstlab.method.optimizers import Adam


def test_memory_needed_grows_with_the_pixels_and_the_largest_size_fits(net):
    def needed(shape):
        return memory.needed(net, ["relu4_2"], shape, LBFGS())

    small, large = (needed((s, s)) for s in (128, 256))
    assert small < large < 4.1 * small
    size = memory.largest_size(needed, (256, 128), small)
    assert needed((size, size // 2)) <= small < needed((size + 16, size // 2 + 8))
    assert memory.largest_size(needed, (256, 128), 1000) is None


def test_what_a_run_keeps_decides_what_it_needs(net, tiny, monkeypatch):
    shape, picture = (64, 64), 3 * 64 * 64 * 4
    assert memory.needed(net, [], shape, LBFGS()) - memory.needed(net, [], shape, Adam()) == 2 * 50 * picture
    assert memory.of_evaluation(net, [], shape) == 0
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    auto, half = (memory.of_evaluation(VGG19(tiny, precision=p), ["relu4_2"], shape) for p in ("auto", "bfloat16"))
    assert half < auto == memory.of_evaluation(net, ["relu4_2"], shape)  # it ends in float32
    assert 0 < memory.available(net.device) <= memory.total(net.device)
