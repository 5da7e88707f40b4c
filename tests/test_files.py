"""Files: what is no file is refused and not waited for, places are tried, and what stood there stays until the new is whole."""

import os
import re

import pytest
from faults import refusal

from nstlab import files
from nstlab.settings import InputError


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left on device")])
def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with files.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(InputError if isinstance(error, OSError) else error):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_replacing_leaves_the_old_file_when_the_renaming_fails(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(5, "Input/output error")

    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(InputError, match=r"a\.txt: cannot be written \(Input/output error\)"),
        files.replacing(path) as temporary,
    ):
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_replacing_writes_through_a_link_and_the_link_stays(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    files.check_place(link)
    with files.replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_what_is_no_regular_file_is_refused_and_a_link_to_one_is_not(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in (tmp_path / "pipe", "/dev/zero"):
        assert "is not a regular file" in refusal(files.regular, name)
        assert "is not a regular file" in refusal(files.check_place, name)
    assert "is a folder" in refusal(files.regular, tmp_path)
    assert files.regular(tmp_path / "link") == tmp_path / "link"


@pytest.mark.parametrize("name", ["x" * 300, "nothing/x", "x\0y", "x" * 252 + ".png"], ids=["long", "no folder", "nul", "256"])
def test_a_place_where_nothing_can_be_written_is_refused_and_nothing_is_left(tmp_path, name):
    assert "x" in refusal(files.check_place, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_a_file_can_have_is_one_that_can_be_written(tmp_path):
    path = files.check_place(tmp_path / ("x" * 251 + ".png"))
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_place_is_tried_since_permissions_do_not_tell_it_all(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.Path, "touch", full)
    assert "Read-only file system" in refusal(files.check_place, tmp_path / "a.png")


def test_leftovers_are_removed_and_other_hidden_things_are_not(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / f"{files.TEMPORARY}0.png").touch()
    (tmp_path / f"{files.TEMPORARY}folder").mkdir()
    (tmp_path / ".hidden").touch()
    files.remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {".ipynb_checkpoints", ".hidden", "frames", f"{files.TEMPORARY}folder"}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{", "1" * 5000, b"\xff"])
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        files.parse_json(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"a": 1}, "'b' is a required property"),
        ({"a": True, "b": []}, "a: True is not of type 'number'"),
        ({"a": 1, "b": ["x", 3]}, "b.1: 3 is not of type 'string'"),
        ({"a": float("inf"), "b": []}, "a: inf"),
        ({"a": 10**400, "b": []}, "a: 1000"),
        ([], "is not of type 'object'"),
    ],
)
def test_json_of_another_form_is_a_value_error_that_says_where(data, says):
    schema = files.object_with(a=files.NUMBER, b=files.list_of(files.TEXT))
    files.check_json({"a": 1.5, "b": ["x"], "more": None}, schema)
    with pytest.raises(ValueError, match=re.escape(says)):
        files.check_json(data, schema)
