"""The type of numbers in which the engine evaluates: float32, or 16 bits where they are faster."""

from __future__ import annotations

from typing import NamedTuple

import torch

from nstlab.networks.base import Network

# Part of the last size's steps that is done in float32 after steps in a coarser type.
FLOAT32_SHARE = {torch.bfloat16: 0.2}


class Arithmetic(NamedTuple):
    """The type in which evaluations are done, and whether float32 convolutions may use TF32."""

    dtype: torch.dtype
    tf32: bool = False

    @property
    def name(self) -> str:
        """The name in names.PRECISIONS, such as "float16"."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")


def native_halves(device: torch.device) -> tuple[torch.dtype, ...]:
    """The 16-bit types in which the device multiplies matrices faster than in float32."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        least = {torch.float16: (7, 0), torch.bfloat16: (8, 0)}
        return tuple(dtype for dtype in least if capability >= least[dtype])
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return ()
    has = torch.cpu.get_capabilities()
    halves = []
    if has.get("amx_fp16") and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        halves.append(torch.float16)
    has_bfloat16 = has.get("amx_bf16") or has.get("avx512_bf16") or has.get("bf16")
    if has_bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        halves.append(torch.bfloat16)
    return tuple(halves)


def arithmetic_of(net: Network) -> Arithmetic:
    """The arithmetic of a network's evaluations, by its `precision`.

    "auto": the fastest type whose runs end within 1 % of the loss of float32 (the benchmarks check
    it). This is a 16-bit type if the device computes in one natively, else float32; float16, in
    which features must stay below 65504, only if the activations are normalized. "tf32" is float32
    on devices without TF32. A network in float64 stays in float64, and one that is evaluated by
    autograd in float32.
    """
    if net.uses_autograd or net.dtype != torch.float32:
        return Arithmetic(net.dtype)
    if net.precision == "auto":
        halves = [
            dtype for dtype in native_halves(net.device) if net.normalized or dtype != torch.float16
        ]
        return Arithmetic(halves[0] if halves else torch.float32)
    tf32 = net.precision == "tf32"
    return Arithmetic(torch.float32 if tf32 else getattr(torch, net.precision), tf32)
