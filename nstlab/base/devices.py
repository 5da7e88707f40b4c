"""Where to compute, and how exactly."""

from __future__ import annotations

import torch

from nstlab.base.errors import InputError
from nstlab.base.settings import DEVICES


def device(name: str | torch.device = DEVICES[0]) -> torch.device:
    """The device of that name.

    Args:
        name: one of settings.DEVICES; "auto" is CUDA, else MPS, else the CPU. A device is returned
            as it is.

    Raises:
        InputError: for an unknown name, and for a device that this machine does not have.
    """
    if isinstance(name, torch.device):
        return name
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name):
        allowed = [kind for kind in DEVICES if available.get(kind, True)]
        raise InputError(
            f"device: there is no '{name}' on this machine (allowed here: {', '.join(allowed)})"
        )
    return torch.device(name)


def set_exact_convolutions() -> None:
    """Let cuDNN compute the same numbers each time, and float32 without TF32 (10 bits of mantissa).

    These are flags of the process, which its threads share. Whoever makes a network calls this, and
    nobody changes them back.
    """
    cudnn = torch.backends.cudnn
    cudnn.deterministic = True
    cudnn.benchmark = False
    cudnn.allow_tf32 = False  # first, since it sets both of the next ones to what another flag says
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
