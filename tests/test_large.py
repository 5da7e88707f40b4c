"""Tensors in files, and computing band by band."""

import errno
import mmap
import os
import shutil

import pytest
import torch
from faults import refusal

from nstlab import large


@pytest.fixture(params=["memory", "file"])
def picture(request, tmp_path, monkeypatch):
    """(1, 3, 37, 41), which is large here, in memory or in a file."""
    monkeypatch.setattr(large, "LARGE", 500)
    monkeypatch.setattr(large, "SMALL", 500)
    monkeypatch.setattr(large, "BAND", 700)
    monkeypatch.setattr(large, "STRIP", 10)
    values = torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    if request.param == "memory":
        return values
    mapped = large.Mapped.empty(values.shape, torch.float32, tmp_path)
    mapped.copy_(values)
    return mapped


def test_what_is_computed_in_bands_is_what_is_computed_at_once(picture):
    plain = torch.tensor(picture.numpy())
    made = large.over(lambda a, b: a * 2 - b, picture, picture.square())
    assert isinstance(made, large.Mapped) == isinstance(picture, large.Mapped)
    assert torch.equal(made, plain * 2 - plain.square())
    assert len(list(large.bands(picture))) > 3
    assert torch.allclose(large.sums(torch.sum, picture), plain.sum())


def test_a_spectrum_is_weighted_rows_first(picture):
    def weight(down, across):
        return 1 / (1 + 9 * down.abs() + across)

    plain = torch.tensor(picture.numpy())
    expected = torch.fft.irfft2(
        torch.fft.rfft2(plain) * weight(*large.frequencies(37, 41, plain.device, plain.dtype)), s=(37, 41)
    )
    assert torch.allclose(large.filtered(picture, weight), expected, atol=1e-6)


def test_parts_are_read_and_written(picture):
    plain, rows, columns = torch.tensor(picture.numpy()), slice(3, 30), slice(5, 9)
    found = large.part(picture, rows, columns)
    assert torch.equal(found, plain[..., rows, columns])
    large.put(picture, rows, columns, found, add=True)
    plain[..., rows, columns] *= 2
    assert torch.equal(picture, plain)


def test_one_is_written_into_many(picture):
    rows = large.zeros(picture, (2, *picture.shape), torch.bfloat16)
    large.write(picture, rows, (1,))
    assert torch.equal(rows[1], picture.to(torch.bfloat16))
    assert not rows[0].any()


def test_a_file_keeps_its_numbers_when_memory_is_given_back(tmp_path):
    mapped = large.Mapped.empty((3, 1000, 1000), torch.float32, tmp_path)
    mapped[1] = 7.0
    before = resident()
    mapped.release()
    if hasattr(mmap, "MADV_DONTNEED"):
        assert resident() < before - 3_000_000
    assert bool((mapped[1] == 7).all())
    rows = large.view(mapped, lambda t: t.view(3000, 1000))
    assert rows[1500, 0] == 7
    assert isinstance(rows, large.Mapped)
    assert not list(tmp_path.iterdir())  # it has no name, and ends with the process


@pytest.mark.parametrize("refused", [True, False])
def test_blocks_are_taken_at_once_or_counted(tmp_path, monkeypatch, refused):
    def allocate(*_):
        raise OSError(errno.ENOSPC if refused else errno.EOPNOTSUPP, "reason")

    monkeypatch.setattr(os, "posix_fallocate", allocate, raising=False)
    shape = (3, 1000, 1000) if refused else (shutil.disk_usage(tmp_path).free, 2)
    said = refusal(large.Mapped.empty, shape, torch.float32, tmp_path)
    assert f"{tmp_path}: a temporary file of" in said
    if not refused:
        assert large.Mapped.empty((3, 1000), torch.float32, tmp_path).shape == (3, 1000)
    assert not list(tmp_path.iterdir())


def resident() -> int:
    """Bytes of this process in memory."""
    import psutil

    return psutil.Process().memory_info().rss
