"""Files of tensors: formats are known by their content, what cannot be meant is refused, and nothing in a file is run."""

import io
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from faults import refusal
from PIL import Image

from nstlab import tensorfiles
from nstlab.settings import InputError

SAVE = {
    "zip": torch.save,
    "legacy": partial(torch.save, _use_new_zipfile_serialization=False),
    "safetensors": partial(safetensors.torch.save_file, metadata={"title": "two"}),
}
TENSORS = {"a": torch.rand(4, 3), "b": torch.rand(5)}


@pytest.fixture
def path(tmp_path):
    """A file that is to be written; its name says nothing of its format."""
    return tmp_path / "tensors"


def checked(path):
    """The finite tensors of a file."""
    tensors, _ = tensorfiles.read(path)
    tensorfiles.check_stored(path, tensors)
    return tensorfiles.finite(path, tensors)


@pytest.mark.parametrize("kind", SAVE)
def test_each_format_is_read(path, kind):
    SAVE[kind](TENSORS, path)
    tensors, metadata = tensorfiles.read(path)
    assert all(torch.equal(tensors.pop(name), tensor) for name, tensor in TENSORS.items())
    assert (tensors, metadata) == ({}, {"title": "two"} if kind == "safetensors" else {})


def test_a_state_dict_may_be_in_a_dict_of_other_things(path):
    torch.save({"epoch": 3, "state_dict": TENSORS | {"count": 5}}, path)
    assert checked(path).keys() == TENSORS.keys()


@pytest.mark.parametrize("kind", SAVE)
def test_a_damaged_file_is_read_or_refused_by_name_but_never_breaks(path, kind):
    SAVE[kind](TENSORS, path)
    whole, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for end in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:end])
        assert refusal(tensorfiles.read, path).startswith(f"{path}: ")
    for _ in range(200):
        wrong = bytearray(whole)
        for place in random.integers(0, len(whole), size=3):
            wrong[place] = random.integers(0, 256)
        path.write_bytes(wrong)
        try:
            checked(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            refused += 1
    assert refused


# --- files of something else ------------------------------------------------------------------------------------


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


FOREIGN = {
    "empty": b"",
    "brace": b"{",
    "zero": b"\0",
    "text": b"text, no weights\n" * 9,
    "picture": picture(),
    "huge header": b"\xff" * 8 + b"{",
    "zip header": b"PK\3\4",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_is_refused_by_name(path, content):
    path.write_bytes(content)
    assert refusal(tensorfiles.read, path).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "thing", [[1, 2], torch.zeros(3), 5, None, {"state_dict": [1]}, {"a": torch.zeros(2), "b": bytearray(3)}]
)
def test_a_torch_file_of_something_else_is_refused(path, thing):
    torch.save(thing, path)
    assert refusal(tensorfiles.read, path).startswith(f"{path}: holds ")


def test_a_folder_is_refused_and_a_missing_file_is_an_error_of_its_own(tmp_path, path):
    assert str(tmp_path) in refusal(tensorfiles.read, tmp_path)
    with pytest.raises(FileNotFoundError):
        tensorfiles.read(path)


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(path, kind):
    trap = Trap(path.with_name("sprung"))
    if kind == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        SAVE[kind](TENSORS | {"trap": trap}, path)
    assert str(path) in refusal(tensorfiles.read, path)
    assert not trap.path.exists()


def test_a_compressed_archive_is_refused_before_it_is_unpacked(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "would unpack to 0.01 GB" in refusal(tensorfiles.read, path)


# --- tensors of something else ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", [torch.Tensor.to_sparse, torch.Tensor.int, torch.Tensor.cfloat, lambda t: t[:1].expand(10**7, 3)]
)
def test_what_is_not_plain_stored_floats_is_refused(path, odd):
    torch.save(TENSORS | {"a": odd(TENSORS["a"])}, path)
    assert "a does not consist of stored numbers" in refusal(checked, path)


def test_tensors_that_share_their_numbers_are_refused(path):
    big = torch.zeros(10**5)
    torch.save({name: big for name in "abc"}, path)
    assert "share their numbers" in refusal(checked, path)


@pytest.mark.parametrize("hole", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", SAVE)
def test_numbers_that_are_not_finite_are_refused(path, kind, hole):
    SAVE[kind](TENSORS | {"b": torch.tensor([1.0, hole])}, path)
    assert "b holds numbers that are not finite" in refusal(checked, path)


def test_float64_and_numbers_stored_with_their_signs_turned_are_read_as_float32(path):
    torch.save({"a": torch._neg_view(TENSORS["a"]), "b": TENSORS["b"].double()}, path)
    found = checked(path)
    assert torch.equal(found["a"], -TENSORS["a"])
    assert torch.equal(found["b"], TENSORS["b"])
    assert not any(tensor.is_neg() for tensor in found.values())
