"""Where to compute."""

from __future__ import annotations

import torch

from nstlab.settings import DEVICES, InputError


def device(name: str | torch.device = DEVICES[0]) -> torch.device:
    """The device of that name, one of settings.DEVICES; auto takes CUDA, else MPS, else the CPU.

    Raises: InputError for an unknown name, and for a device that this machine does not have."""
    if isinstance(name, torch.device):
        return name
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there.get(name):
        allowed = [kind for kind in DEVICES if there.get(kind, True)]
        raise InputError(f"device: there is no '{name}' on this machine (allowed here: {', '.join(allowed)})")
    return torch.device(name)
