"""What L-BFGS knows of the inverse Hessian: pairs of steps and changes of the gradient.

The inverse Hessian H is never computed, only its product with a gradient. Before any pair is known
it is taken to be γ B, where B weights spatial frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# The history of pictures with more numbers, most of the optimizer's memory, is kept in 16 bits.
LARGE = 1 << 22


@dataclass(frozen=True, eq=False)
class Curvature:
    """Pairs of a step s, n = x.numel() numbers, and the change y of the gradient in it.

    One slot is always free, so that the previous state stays valid while the next pair is written,
    even if the step is interrupted.

    Attributes:
        order: the slots used, oldest first.
        tensors: `pairs`, one matrix (2, slots, n) of s and B y, in 16 bits for large pictures; `sy`
            and `yy`, (slots, slots), all products s_i·y_j and y_i·B y_j.
    """

    order: list[int]
    tensors: dict[str, Tensor]

    def with_pair(
        self, s: Tensor, y: Tensor, smooth: Callable[[Tensor, Tensor], None], slots: int
    ) -> Curvature:
        """A copy with one more pair, which replaces the oldest one if only one slot is free.

        Args:
            s, y: the step and the change of the gradient, of the picture's shape.
            smooth: smooth(y, row) writes B y into a row.
            slots: the number of pairs that are kept, and one.
        """
        tensors = dict(self.tensors) if self.tensors else _empty_history(s, slots)
        slot = next(i for i in range(slots) if i not in self.order)
        tensors["pairs"][0, slot] = s.flatten()
        del s  # frees a large picture
        smooth(y, tensors["pairs"][1, slot].view_as(y))
        s_y, y_y = _products(tensors["pairs"], y).to(tensors["sy"].dtype)
        tensors["sy"] = tensors["sy"].clone()
        tensors["sy"][:, slot] = s_y
        tensors["yy"] = tensors["yy"].clone()
        tensors["yy"][:, slot] = y_y
        tensors["yy"][slot, :] = y_y
        return Curvature([*self.order, slot][-(slots - 1) :], tensors)

    def product(self, g: Tensor, bg: Tensor) -> Tensor:
        """H g, by the compact representation (Byrd, Nocedal, Schnabel 1994, theorem 2.2).

        The scale γ of the initial H is that of the newest pair.

        Args:
            g: a gradient, of the picture's shape.
            bg: B g, whose memory the result takes.
        """
        pairs = self.tensors["pairs"]
        sy = self.tensors["sy"]
        # Does not wait for a GPU.
        order = torch.tensor(self.order, pin_memory=g.is_cuda).to(g.device, non_blocking=True)
        sg, yg = _products(pairs, g).to(sy.dtype)[:, order]
        r = sy[order][:, order].triu()
        yy = self.tensors["yy"][order][:, order]
        gamma = r[-1, -1] / yy[-1, -1]
        q = torch.linalg.solve_triangular(r, sg[:, None], upper=True)[:, 0]
        p = r.diagonal() * q + gamma * (yy @ q - yg)
        p = torch.linalg.solve_triangular(r.T, p[:, None], upper=False)[:, 0]
        coefficients = sy.new_zeros(2, pairs.shape[1])
        coefficients = coefficients.index_copy(1, order, torch.stack([p, -gamma * q]))
        total = bg.mul_(gamma.to(g.dtype)).flatten()
        return _add_combination(total, coefficients.to(g.dtype), pairs).view_as(bg)


def _empty_history(picture: Tensor, slots: int) -> dict[str, Tensor]:
    """The tensors of `Curvature` without pairs; products are in float64 where the device has it."""
    small = torch.float32 if picture.device.type == "mps" else torch.float64
    products = torch.zeros(slots, slots, dtype=small, device=picture.device)
    pairs = torch.zeros(
        2, slots, picture.numel(), dtype=_dtype_of_pairs(picture), device=picture.device
    )
    return {"pairs": pairs, "sy": products, "yy": products}


def _dtype_of_pairs(picture: Tensor) -> torch.dtype:
    """16 bits for large pictures: pairs are most of the optimizer's memory, and need no more."""
    return picture.dtype if picture.numel() <= LARGE else torch.bfloat16


def bytes_of_pair(picture: Tensor) -> int:
    """Bytes of the pair (s, B y) of a picture."""
    return 2 * picture.numel() * _dtype_of_pairs(picture).itemsize


def _products(pairs: Tensor, v: Tensor) -> Tensor:
    """(2, K, n), v of n numbers -> (2, K): the scalar product of each row with v."""
    rows = pairs.flatten(0, 1)
    v = v.flatten()
    if rows.dtype == v.dtype:
        return (rows @ v).view(pairs.shape[:2])
    products = v.new_empty(len(rows))
    for i, row in enumerate(rows):
        products[i] = row.to(v.dtype) @ v  # one row widened at a time
    return products.view(pairs.shape[:2])


def _add_combination(total: Tensor, coefficients: Tensor, pairs: Tensor) -> Tensor:
    """(n,), (2, K), (2, K, n) -> (n,): add the weighted sum of all rows to a total."""
    rows = pairs.flatten(0, 1)
    coefficients = coefficients.flatten()
    if rows.dtype == total.dtype:
        return total.add_(coefficients @ rows)
    for coefficient, row in zip(coefficients, rows, strict=True):
        total.addcmul_(coefficient, row.to(total.dtype))
    return total


# --- the initial inverse Hessian, without its scale: B --------------------------------------------


def smooth(picture: Tensor, out: Tensor, cutoff: float | None) -> None:
    """Write B x into `out`: each frequency f of x is weighted by 1 / sqrt(1 + (f / cutoff)²).

    Args:
        picture: x, (…, H, W); what has fewer dimensions is copied as it is.
        out: of the picture's shape, in any type.
        cutoff: in cycles per pixel; None for B = I.
    """
    if cutoff is None or picture.ndim < 2:
        out.copy_(picture)
        return
    shape = picture.shape[-2:]
    weights = _frequency_weights(*shape, cutoff, picture.device, picture.dtype)
    planes = planes_of(picture)
    for plane, out_plane in zip(planes, out.view_as(planes), strict=True):
        out_plane.copy_(torch.fft.irfft2(torch.fft.rfft2(plane).mul_(weights), s=shape))


@lru_cache(maxsize=4)
def _frequency_weights(
    height: int, width: int, cutoff: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(H, W // 2 + 1): cached, since computing them costs a GPU a tenth of a step."""
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=device, dtype=dtype)
    return (1 + (down**2 + across**2) / cutoff**2).rsqrt()


def planes_of(picture: Tensor) -> Tensor:
    """(P, …): the colour planes of a large picture, or any other one as a single plane.

    Temporary tensors are made of one plane at a time.
    """
    is_large = picture.numel() > LARGE and picture.ndim > 2
    return picture.flatten(0, -3) if is_large else picture[None]
