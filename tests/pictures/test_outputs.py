"""Outputs: no file that is read is written, by whatever name or link."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import refusal

from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.pictures import outputs


@dataclass(frozen=True)
class Copying(Settings):
    """Settings with an input and an output, each a file or a folder."""

    source: str = option(help="a file, a folder or a name", paths=True)
    out: Path = option(help="a file or a folder", output=True)
    more: tuple[Path, ...] = option((), "more files", paths=True)


@pytest.mark.skipif(os.name != "posix", reason="links")
@pytest.mark.parametrize(
    ("source", "out", "lost"),
    [
        ("a.png", "a.png", "a.png: is the source, which would be lost"),
        ("a.png", "folder/../a.png", "a.png, which would be lost"),
        ("a.png", "symbolic.png", "symbolic.png: is the source"),
        ("symbolic.png", "a.png", "a.png: is the source"),
        ("a.png", "hard.png", "hard.png: is the source"),
        ("folder", "folder/b.png", "b.png: is one of the files of the source"),
        # a link in the folder names it
        ("folder", "a.png", "a.png: is one of the files of the source"),
        ("folder/b.png", "folder", "b.png: is the source"),
        ("a.png", "folder", "linked.png: is the source"),
        ("folder", "folder", ".png: is one of the files of the source"),
        ("a.png", "b.png", ""),
        ("folder", "folder/new.png", ""),
        ("folder", "folder/model.safetensors", ""),  # there since an earlier time
        ("a.png", "empty", ""),
        ("sample", "a.png", ""),
        ("nowhere/a.png", "nowhere/a.png", ""),
        ("loop.png", "loop.png", ""),
    ],
)
def test_no_file_that_is_read_is_written_by_whatever_name(tmp_path, monkeypatch, source, out, lost):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("a.png", "folder/b.png", "folder/model.safetensors"):
        (tmp_path / name).write_text(name)
    Path("symbolic.png").symlink_to("a.png")
    Path("folder/linked.png").symlink_to("../a.png")
    Path("loop.png").symlink_to("loop.png")
    os.link("a.png", "hard.png")
    given = (
        (Copying(source, out),),
        (Copying("sample", "new.png", (source,)), Copying("sample", out)),
    )
    one_of_several = re.sub("(one of the files of )?the source", "one of the more", lost)
    # also where two objects name them
    for settings, says in zip(given, (lost, one_of_several), strict=True):
        if not lost:
            outputs.check_outputs(*settings)
            continue
        message = refusal(outputs.check_outputs, *settings)
        assert says in message
        assert message.endswith("would be lost; choose another --out")
