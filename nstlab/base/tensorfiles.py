"""Files of named tensors, safetensors and PyTorch state dicts, read without running their code."""

from __future__ import annotations

import mmap
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from nstlab.base import files
from nstlab.base.errors import InputError


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata.

    The format is detected from the content; a state dict has no metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: for a file that is damaged or holds something else.
    """
    try:
        return _read(path)
    except (FileNotFoundError, InputError):
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: is not a file of weights, is damaged, or holds more than tensors"
        ) from None
    except Exception as error:  # a damaged file can make its reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: is not a file of weights, or is damaged ({reason})") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with files.regular_file(path).open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # a safetensors file: eight bytes of length, then JSON
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    _check_pickle(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles that are refused anyway
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict")
    tensors = {
        name: t for name, t in state.items() if isinstance(name, str) and isinstance(t, Tensor)
    }
    return tensors, {}


def _check_pickle(path: Path) -> None:
    """Refuse a pickle that would take more memory than its size: a compressed archive, which
    PyTorch never writes, or one that asks for an array of bytes, which no weights need."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > path.stat().st_size:
            raise InputError(
                f"{path}: would unpack to {unpacked / 1e9:.2f} GB; files of weights are not "
                "compressed"
            )
    if path.stat().st_size:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.find(b"bytearray") >= 0:
                raise InputError(f"{path}: holds more than tensors")


def check_stored(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError unless every number of these tensors is in the file.

    Refused are sparse tensors, and views that repeat a few numbers a thousand times.
    """
    for name, tensor in tensors.items():
        is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
        is_plain = is_dense and tensor.is_floating_point()
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InputError(
                f"{path}: {name} does not consist of stored numbers; expected are plain tensors "
                "of floats"
            )
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise InputError(
            f"{path}: its tensors share their numbers; expected are tensors that are each stored"
        )


def as_finite(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as contiguous float32.

    Raises:
        InputError: if a number is not finite.
    """
    converted = {}
    for name, tensor in tensors.items():
        converted[name] = tensor.resolve_neg().to(torch.float32).contiguous()
        if not converted[name].isfinite().all():
            raise InputError(
                f"{path}: {name} holds numbers that are not finite; the file is damaged"
            )
    return converted
