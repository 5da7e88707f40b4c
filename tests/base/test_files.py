"""Files: what is no file is refused and not waited for, places are tried, and what stood there
stays until the new is whole."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest
from faults import refusal

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.options import option
from nstlab.base.settings import Settings


def fail(error):
    """A function that raises an error, whatever it is given."""

    def failing(*args, **kwargs):
        raise error

    return failing


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError(), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("when", ["write", "rename"])
def test_replacing_leaves_the_old_file_when_writing_or_renaming_fails(
    tmp_path, monkeypatch, error, when
):
    path = tmp_path / "a.txt"
    path.write_text("old")
    if when == "rename":
        monkeypatch.setattr(os, "replace", fail(error))
    told = r"a\.txt: cannot be written \(No space left on device\)"
    expected = (
        pytest.raises(InputError, match=told)
        if isinstance(error, OSError)
        else pytest.raises(type(error))
    )
    with expected, files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        if when == "write":
            raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="POSIX file modes")
def test_a_file_gets_the_mode_of_the_umask_whatever_library_writes_it(tmp_path):
    (tmp_path / "usual").touch()
    with files.replacing(tmp_path / "a.txt") as temporary:
        (tmp_path / "other").touch(0o600)
        (tmp_path / "other").replace(temporary)
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")
def test_links_are_followed_and_stay_and_what_is_no_regular_file_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    target, link, pipe = tmp_path / "there" / "a.txt", tmp_path / "link.txt", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    assert files.regular_file(link) == files.check_writable(link) == link
    with files.replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["a.txt"]
    os.mkfifo(pipe)
    for name in (pipe, "/dev/zero"):
        for use in (files.regular_file, files.check_writable):
            assert "is not a regular file" in refusal(use, name)
    assert "is a folder" in refusal(files.regular_file, tmp_path)


def test_a_place_is_tried_since_permissions_and_lengths_of_names_do_not_tell_it_all(
    tmp_path, monkeypatch
):
    longest = tmp_path / ("x" * 251 + ".png")
    with files.replacing(files.check_writable(longest)) as temporary:
        temporary.write_text("new")
    assert longest.read_text() == "new"
    for name in ("x" * 300, "nowhere/x", "x\0y", "x" * 252 + ".png"):
        assert "x" in refusal(files.check_writable, tmp_path / name)
    monkeypatch.setattr(files.Path, "touch", fail(OSError(30, "Read-only file system")))
    assert "Read-only file system" in refusal(files.check_writable, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [longest]


@dataclass(frozen=True)
class Copying(Settings):
    """Settings with an input and an output, each a file or a folder."""

    source: str = option(help="a file, a folder or a name", paths=True)
    out: Path = option(help="a file or a folder", output=True)
    more: tuple[Path, ...] = option((), "more files", paths=True)


def test_a_folder_without_locks_has_files_for_locks_and_says_so(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl", reason="POSIX locks")

    def refuse(*args):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        caplog.clear()
        with files.locked(tmp_path / str(number), "is busy"):
            assert f"{tmp_path}: has no locks" in caplog.text
            message = refusal(files.locked(tmp_path / str(number), "is busy").__enter__)
            assert message.startswith("is busy; if there is none any more, delete ")
        with files.locked(tmp_path / str(number), "is busy"):
            pass
    number = errno.EIO
    assert "cannot be written" in refusal(files.locked(tmp_path / "other", "is busy").__enter__)
    # as older versions do
    monkeypatch.setattr(filelock.FileLock, "_acquire", fail(NotImplementedError()))
    with files.locked(tmp_path / "older", "is busy"):
        assert f"{tmp_path}: has no locks" in caplog.text


def test_a_home_folder_is_meant_by_a_tilde_and_a_file_of_that_name_by_a_path(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    place = files.make_folder("~/here") / "a.txt"
    assert place == tmp_path / "home" / "here" / "a.txt"
    with files.replacing("~/here/a.txt") as temporary:
        temporary.write_text("at home")
    assert files.regular_file("~/here/a.txt") == files.check_writable("~/here/a.txt") == place
    given = Copying("~/here/a.txt", "~/here/b.txt", ["~/x", Path("~/y"), "x~"])
    assert (given.source, given.out) == (str(place), place.with_name("b.txt"))
    assert given.more == (tmp_path / "home" / "x", tmp_path / "home" / "y", Path("x~"))
    assert Copying("a", "./~").replace(source="./~") == Copying("./~", tmp_path / "~")
    files.make_folder("./~")
    assert (tmp_path / "~").is_dir()
    assert files.make_folder("~nobody-of-this-name/x") == tmp_path / "~nobody-of-this-name" / "x"


def test_leftovers_are_removed_and_other_hidden_things_are_not(tmp_path):
    for folder in (".ipynb_checkpoints", "frames", f"{files.TEMPORARY}folder"):
        (tmp_path / folder).mkdir()
    for name in (f"frames/{files.TEMPORARY}0.png", ".hidden"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {".ipynb_checkpoints", ".hidden", "frames", f"{files.TEMPORARY}folder"}
