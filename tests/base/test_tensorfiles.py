"""Files of tensors: formats are known by their content, what cannot be meant is refused, and
nothing in a file is run."""

import pickle
import zipfile
from functools import partial

import pytest
import safetensors.torch
import torch
from faults import damaged, read_or_refused, refusal
from torch.testing import assert_close

from nstlab.base import tensorfiles

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
    return tensorfiles.as_finite(path, tensors)


@pytest.mark.parametrize("kind", SAVE)
def test_each_format_is_read_and_a_damaged_file_is_read_or_refused_by_name_but_never_breaks(
    path, kind
):
    SAVE[kind](TENSORS, path)
    tensors, metadata = tensorfiles.read(path)
    assert all(torch.equal(tensors.pop(name), tensor) for name, tensor in TENSORS.items())
    assert (tensors, metadata) == ({}, {"title": "two"} if kind == "safetensors" else {})
    whole = path.read_bytes()
    for content in damaged(whole):
        found = read_or_refused(checked, path, content)
        assert found is None or len(content) == len(whole)  # what is cut is always refused


def test_a_state_dict_may_be_in_a_dict_of_other_things_and_is_read_as_plain_float32(path):
    stored = {"a": torch._neg_view(TENSORS["a"]), "b": TENSORS["b"].double()}
    torch.save({"epoch": 3, "state_dict": stored | {"count": 5}}, path)
    found = checked(path)
    assert_close(found, {"a": -TENSORS["a"], "b": TENSORS["b"]}, atol=0, rtol=0)
    assert not found["a"].is_neg()


def test_a_file_of_something_else_is_refused_by_name(path):
    for content in (
        b"",
        b"{",
        b"\0",
        b"text, no weights",
        b"\xff" * 8 + b"{",
        b"PK\3\4",
        b"\x89PNG\r\n\x1a\n",
    ):
        assert read_or_refused(tensorfiles.read, path, content) is None
    for thing in ([1, 2], torch.zeros(3), 5, None, {"state_dict": [1]}, {"b": bytearray(3)}):
        torch.save(thing, path)
        assert refusal(tensorfiles.read, path).startswith(f"{path}: holds ")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "would unpack to 0.01 GB" in refusal(tensorfiles.read, path)


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_refused_and_not_run(path):
    trap = Trap(path.with_name("sprung"))
    for save in (
        SAVE["zip"],
        SAVE["legacy"],
        lambda state, path: path.write_bytes(pickle.dumps(state["trap"])),
    ):
        save(TENSORS | {"trap": trap}, path)
        assert str(path) in refusal(tensorfiles.read, path)
        assert not trap.path.exists()


NOT_STORED, NOT_FINITE = (
    "a does not consist of stored numbers",
    "a holds numbers that are not finite",
)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.ones(9).to_sparse()}, NOT_STORED),
        ({"a": torch.ones(9).int()}, NOT_STORED),
        ({"a": torch.ones(9).cfloat()}, NOT_STORED),
        ({"a": torch.ones(9).expand(10**7, 9)}, NOT_STORED),
        (dict.fromkeys("abc", torch.zeros(10**4)), "its tensors share their numbers"),
        ({"a": torch.tensor([1.0, torch.nan])}, NOT_FINITE),
        ({"a": torch.tensor([1.0, torch.inf])}, NOT_FINITE),
    ],
)
def test_tensors_that_are_not_plain_finite_floats_are_refused(path, tensors, message):
    torch.save(tensors, path)
    assert refusal(checked, path).startswith(f"{path}: {message}")
