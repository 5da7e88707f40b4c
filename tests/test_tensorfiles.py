"""Files of tensors: formats are known by their content, what cannot be meant is refused, and nothing in a file is run."""

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
TENSORS = {"a": torch.linspace(0, 1, 12).view(4, 3), "b": torch.ones(5)}


@pytest.fixture
def path(tmp_path):
    """A file that is to be written; its name says nothing of its format."""
    return tmp_path / "tensors"


def checked(path):
    """The tensors of a file, stored and finite."""
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


def test_float64_and_numbers_stored_with_their_signs_turned_are_read_as_float32(path):
    torch.save({"a": torch._neg_view(TENSORS["a"]), "b": TENSORS["b"].double()}, path)
    found = checked(path)
    assert torch.equal(found["a"], -TENSORS["a"])
    assert torch.equal(found["b"], TENSORS["b"])
    assert not found["a"].is_neg()


@pytest.mark.parametrize("kind", SAVE)
def test_a_damaged_file_is_read_or_refused_by_name_but_never_breaks(path, kind):
    SAVE[kind](TENSORS, path)
    whole, random, messages = path.read_bytes(), np.random.default_rng(0), []
    for end in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:end])
        assert refusal(tensorfiles.read, path).startswith(f"{path}: ")
    for _ in range(150):
        wrong = np.frombuffer(whole, np.uint8).copy()
        wrong[random.integers(0, len(whole), size=3)] = random.integers(0, 256, size=3)
        path.write_bytes(wrong)
        try:
            checked(path)
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("content", [b"", b"{", b"\0", b"text, no weights", b"\xff" * 8 + b"{", b"PK\3\4"])
def test_a_file_of_something_else_is_refused_by_name(path, content):
    path.write_bytes(content)
    assert refusal(tensorfiles.read, path).startswith(f"{path}: ")


@pytest.mark.parametrize("thing", [[1, 2], torch.zeros(3), 5, None, {"state_dict": [1]}, {"b": bytearray(3)}])
def test_a_torch_file_of_something_else_is_refused(path, thing):
    torch.save(thing, path)
    assert refusal(tensorfiles.read, path).startswith(f"{path}: holds ")


def test_a_picture_a_folder_and_a_compressed_archive_are_refused(path, tmp_path):
    Image.new("RGB", (20, 20)).save(path, "PNG")
    assert str(path) in refusal(tensorfiles.read, path)
    assert str(tmp_path) in refusal(tensorfiles.read, tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "would unpack to 0.01 GB" in refusal(tensorfiles.read, path)
    with pytest.raises(FileNotFoundError):
        tensorfiles.read(path.with_name("missing"))


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "save", [SAVE["zip"], SAVE["legacy"], lambda state, path: path.write_bytes(pickle.dumps(state["trap"]))]
)
def test_code_in_a_file_is_refused_and_not_run(path, save):
    trap = Trap(path.with_name("sprung"))
    save(TENSORS | {"trap": trap}, path)
    assert str(path) in refusal(tensorfiles.read, path)
    assert not trap.path.exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.ones(9).to_sparse()}, "a does not consist of stored numbers"),
        ({"a": torch.ones(9).int()}, "a does not consist of stored numbers"),
        ({"a": torch.ones(9).cfloat()}, "a does not consist of stored numbers"),
        ({"a": torch.ones(9).expand(10**7, 9)}, "a does not consist of stored numbers"),
        (dict.fromkeys("abc", torch.zeros(10**4)), "its tensors share their numbers"),
        ({"a": torch.tensor([1.0, torch.nan])}, "a holds numbers that are not finite"),
        ({"a": torch.tensor([1.0, torch.inf])}, "a holds numbers that are not finite"),
    ],
)
def test_tensors_that_are_not_plain_finite_floats_are_refused(path, tensors, message):
    torch.save(tensors, path)
    assert refusal(checked, path).startswith(f"{path}: {message}")
