"""The type of numbers that evaluations are done in."""

import pytest
import torch

from nstlab.method.fast import arithmetic
from nstlab.method.fast.arithmetic import arithmetic_of, native_halves
from nstlab.method.network import VGG19


@pytest.mark.parametrize(("capability", "found"), [((6, 1), 0), ((7, 5), 1), ((8, 0), 2)])
def test_gpus_have_float16_first_and_bfloat16_later(monkeypatch, capability, found):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_halves(torch.device("cuda")) == (torch.float16, torch.bfloat16)[:found]
    assert native_halves(torch.device("mps")) == ()


@pytest.mark.parametrize(
    ("halves", "normalized", "precision", "name"),
    [
        ((), True, "auto", "float32"),
        ((torch.float16, torch.bfloat16), True, "auto", "float16"),
        ((torch.float16, torch.bfloat16), False, "auto", "bfloat16"),
        ((torch.float16,), False, "auto", "float32"),
        *[((torch.float16,), False, precision, precision) for precision in ("float32", "tf32", "float16", "bfloat16")],
    ],
)
def test_float16_is_taken_by_itself_only_for_normalized_activations(tiny, monkeypatch, halves, normalized, precision, name):
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: halves)
    net = VGG19(tiny, precision=precision)
    net.normalized = normalized
    assert arithmetic_of(net).name == name
    assert arithmetic_of(net.double()).name == "float64"
