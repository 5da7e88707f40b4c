"""Pictures larger than memory: tensors in temporary files, and computing with some rows at a time.

    free = large.over(lambda x, g: g * (x > 0), x, g)         # a tensor like x, band by band
    length = large.sums(lambda x: torch.dot(x.flatten(), x.flatten()), x)

Small tensors are one band, and an operation on them is the plain one. What is made from a tensor in a file is in a file, too.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nstlab.settings import InputError

LARGE = 1 << 22  # numbers; pictures with more (1.4 million pixels) are computed with in bands
BAND = 1 << 21  # numbers in a band
STRIP = 64  # rows of a narrow part of a file that are read or written at a time
SMALL = 1 << 18  # numbers; fewer are not worth a file


class Mapped(Tensor):
    """A tensor on the CPU whose numbers are in an unnamed temporary file, which ends with it.

    It is a Tensor in every respect; what PyTorch computes from it, views included, is in memory. Pages that were read or
    written take memory until `release`."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    folder: str
    _map: mmap.mmap

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: torch.dtype, folder: str | Path) -> Self:
        """A tensor of zeros in a file in this folder. Raises InputError if the disk is full."""
        size = max(1, prod(shape) * dtype.itemsize)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.truncate(size)
                _allocate(file.fileno(), size, folder)
                mapping = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            what = f"{folder}: a temporary file of {size / 1e9:.2f} GB cannot be made"
            raise InputError(f"{what} ({error.strerror or error})") from None
        made = torch.Tensor._make_subclass(cls, torch.frombuffer(mapping, dtype=dtype, count=prod(shape)).view(*shape))
        made._map, made.folder = mapping, str(folder)
        return made

    @classmethod
    def over(cls, whole: Mapped, view: Tensor) -> Self:
        """A view of a tensor that is in a file, as such a tensor."""
        made = torch.Tensor._make_subclass(cls, view)
        made._map, made.folder = whole._map, whole.folder
        return made

    def release(self) -> None:
        """Give the memory of its pages back to the system; the numbers stay in the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _allocate(file: int, size: int, folder: str | Path) -> None:
    """Take an open file's blocks on the disk now: a disk that is full when pages are written kills
    the process. OSError if it has too few. Where blocks cannot be taken, they are counted."""
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def release(*tensors: Any) -> None:
    """`Mapped.release` for those that are in files."""
    for tensor in tensors:
        if isinstance(tensor, Mapped):
            tensor.release()


def view(tensor: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """A view of a tensor, made by a function; in the same file, if the tensor is in one."""
    return Mapped.over(tensor, of(tensor)) if isinstance(tensor, Mapped) else of(tensor)


def folder_of(tensor: Tensor) -> str | None:
    """The folder in which the tensor's file is; None if it is in memory."""
    return tensor.folder if isinstance(tensor, Mapped) else None


def blank(shape: Sequence[int], folder: str | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros on the CPU: in a file, if a folder is given and they are many."""
    return (
        torch.zeros(tuple(shape), dtype=dtype) if folder is None or prod(shape) <= SMALL else Mapped.empty(shape, dtype, folder)
    )


def zeros(like: Tensor, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros, by default of the shape and type of `like`: in a file if `like` is, and they are many; else on its device."""
    shape, dtype = like.shape if shape is None else shape, dtype or like.dtype
    folder = folder_of(like)
    return torch.zeros(tuple(shape), dtype=dtype, device=like.device) if folder is None else blank(shape, folder, dtype)


def unset(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As `zeros`, but numbers that are not written may be anything, and take no memory yet."""
    if isinstance(like, Mapped):
        return zeros(like, shape, dtype)
    return torch.empty(tuple(shape), dtype=dtype, device=like.device)


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor, in a file if `like` is in one."""
    if not isinstance(like, Mapped) or isinstance(tensor, Mapped):
        return tensor
    made = zeros(like, tensor.shape, tensor.dtype)
    made.copy_(tensor)
    release(made)
    return made


def is_small(picture: Tensor) -> bool:
    """Whether a tensor is computed with at once."""
    return picture.numel() <= LARGE and not isinstance(picture, Mapped)


def bands(picture: Tensor, planes: int = 1, dim: int = -2) -> Iterator[slice]:
    """The rows, or the positions along another dimension, of a tensor, all at once unless it is large.

    planes: how many numbers are held for each of its own."""
    length = picture.shape[dim]
    if is_small(picture):
        yield slice(0, length)
        return
    each = max(1, BAND * length // (picture.numel() * planes))
    for first in range(0, length, each):
        yield slice(first, min(first + each, length))


def over(function: Callable[..., Tensor], first: Tensor, *others: Tensor, planes: int = 1) -> Tensor:
    """function(*tensors), which works on each row by itself, computed band by band. The result is like the first tensor.

    Tensors are (…, H, W) with the same rows. planes: see `bands`."""
    if is_small(first):
        return function(first, *others)
    made = zeros(first)
    for rows in bands(first, planes):
        made[..., rows, :] = function(*(t[..., rows, :] for t in (first, *others)))
        release(made, first, *others)
    return made


def sums(function: Callable[..., Tensor], first: Tensor, *others: Tensor, planes: int = 1) -> Tensor:
    """function(*tensors), a sum over rows, computed band by band; see `over`."""
    if is_small(first):
        return function(first, *others)
    total: Any = 0
    for rows in bands(first, planes):
        total = total + function(*(t[..., rows, :] for t in (first, *others)))
        release(first, *others)
    return total


def _strips(tensor: Tensor, rows: slice) -> Iterator[tuple[slice, slice]]:
    """(rows of the tensor, the same counted from the first): all at once, or some at a time if it is in a file, since the
    system brings more of each row into memory than a part that is narrow."""
    each = STRIP if isinstance(tensor, Mapped) else rows.stop - rows.start
    for first in range(rows.start, rows.stop, each):
        last = min(first + each, rows.stop)
        yield slice(first, last), slice(first - rows.start, last - rows.start)
        release(tensor)


def part(tensor: Tensor, rows: slice, columns: slice) -> Tensor:
    """A copy of some rows and columns, in memory."""
    made = tensor.new_empty(*tensor.shape[:-2], rows.stop - rows.start, columns.stop - columns.start)
    for there, here in _strips(tensor, rows):
        made[..., here, :] = tensor[..., there, columns]
    return made


def put(tensor: Tensor, rows: slice, columns: slice, values: Tensor, add: bool = False) -> None:
    """Write values into some rows and columns, or add them."""
    for there, here in _strips(tensor, rows):
        place, new = tensor[..., there, columns], values[..., here, :]
        place.add_(new) if add else place.copy_(new)


def write(source: Tensor, into: Tensor, index: tuple[int, ...]) -> None:
    """into[index] = source, band by band."""
    if is_small(source):
        into[index] = source
        return
    for rows in bands(source):
        into[(*index, ..., rows, slice(None))] = source[..., rows, :]
        release(into, source)


def smoothed(picture: Tensor, cutoff: float) -> Tensor:
    """(…, H, W), each spatial frequency f, in cycles per pixel, weighted by 1 / sqrt(1 + (f / cutoff)²)."""
    if not is_small(picture):
        return filtered(picture, partial(_weight, cutoff))
    height, width = picture.shape[-2:]
    weight = _weights(height, width, cutoff, picture.device, picture.dtype)
    return torch.fft.irfft2(torch.fft.rfft2(picture) * weight, s=(height, width))


@lru_cache(maxsize=4)
def _weights(height: int, width: int, cutoff: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(H, W // 2 + 1): those of all frequencies; kept, since to make them costs a GPU as much as a tenth of a step."""
    return _weight(cutoff, *frequencies(height, width, device, dtype))


def _weight(cutoff: float, down: Tensor, across: Tensor) -> Tensor:
    return (1 + (down**2 + across**2) / cutoff**2).rsqrt()


def frequencies(height: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The frequencies, in cycles per pixel, of a picture's real Fourier transform: down (H, 1), across (W // 2 + 1,)."""
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    return down, torch.fft.rfftfreq(width, device=device, dtype=dtype)


def filtered(picture: Tensor, weight: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(…, H, W) with the amplitude of each spatial frequency multiplied: weight(down, across) gives the factors for
    frequencies in cycles per pixel, (H, 1) and (w,). Rows are transformed first, then columns, so that few are held at once."""
    height, width = picture.shape[-2:]
    down, across = frequencies(height, width, picture.device, picture.dtype)
    half = zeros(picture, (*picture.shape[:-1], len(across)), torch.promote_types(picture.dtype, torch.complex64))
    for rows in bands(picture, 4):
        half[..., rows, :] = torch.fft.rfft(picture[..., rows, :])
        release(half, picture)
    every = slice(0, height)
    for columns in bands(half, 8, dim=-1):
        block = torch.fft.fft(part(half, every, columns), dim=-2)
        put(half, every, columns, torch.fft.ifft(block.mul_(weight(down, across[columns])), dim=-2))
    return over(lambda picture, half: torch.fft.irfft(half, n=width), picture, half, planes=4)
