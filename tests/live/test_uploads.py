"""Uploads: files come whole or not at all, and only pictures are kept."""

import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st

from nstlab import images as im
from nstlab.live.uploads import CHUNK, MAX_BYTES, Uploads


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "uploads")


@given(st.data())
def test_parts_may_come_in_any_order_and_what_is_forgotten_begins_anew(data):
    uploads, whole = Uploads(None), data.draw(st.binary(min_size=1, max_size=40))
    uploads.part("x", 0, 9, "a", b"old")
    uploads.forget()
    parts = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    found = [uploads.part("x", i, len(parts), "a", parts[i]) for i in data.draw(st.permutations(range(len(parts))))]
    assert found == [None] * (len(parts) - 1) + [whole]


def test_a_file_that_is_too_large_is_refused_by_its_first_message(uploads):
    refused = refusal(uploads.part, "x", 0, MAX_BYTES // CHUNK + 1, "large.png", b"")
    assert refused.startswith("large.png: has more than 200 MB")


@pytest.mark.parametrize("name", ["../../my cat.png", "my cat.html", "my cat", "my cat.png.js"])
def test_a_picture_is_named_by_what_it_is(uploads, painting, tmp_path, name):
    path = im.save(painting, tmp_path / "other.png")
    kept = uploads.keep(name, path.read_bytes())
    assert kept.parent == tmp_path / "uploads"
    assert kept.name.startswith("my_cat")
    assert kept.suffix == ".png"
    assert torch.equal(im.load(kept), im.load(path))


@pytest.mark.parametrize("name", ["cat.png", "a\\1.png", "C:\\gfx\\pic.png", "", "/", "x" * 500 + ".png"])
def test_what_is_no_picture_is_refused_by_its_own_name_and_leaves_nothing(uploads, tmp_path, name):
    im.to_pil(torch.zeros(1, 3, 8, 8)).save(tmp_path / "small.png")
    small = (tmp_path / "small.png").read_bytes()
    for data, problem in ((b"nothing", "is not a picture"), (b"", "is not a picture"), (small, "8×8")):
        assert refusal(uploads.keep, name, data).startswith(f"{name}: {problem}")
    assert not list((tmp_path / "uploads").iterdir())


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(Uploads(tmp_path / "file" / "uploads").keep, "cat.png", b"x")
