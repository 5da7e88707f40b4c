"""The command line: pictures come out, nothing is computed twice, and every bad input is one line
and exit code 2."""

import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from faults import raise_at, refusal
from PIL import Image
from tqdm import tqdm

import nstlab as nst
from nstlab import __main__
from nstlab.base import signals
from nstlab.base.errors import InputError
from nstlab.base.names import OPTIMIZERS
from nstlab.base.options import field_type
from nstlab.base.settings import Settings
from nstlab.cli import console
from nstlab.cli import main as cli
from nstlab.cli import program as programs
from nstlab.course import report
from nstlab.method.fast import memory
from nstlab.method.fast.evaluation import FastBound
from nstlab.networks import sources
from nstlab.networks.downloads import Download
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.pictures import images as im
from nstlab.recipes.prepare import prepare
from nstlab.recipes.transfer import TransferSettings
from nstlab.video.settings import VideoSettings

SENTINEL = b"an older picture"


@pytest.fixture
def files(tmp_path, photo, painting, tiny_file):
    """The pictures and the weights on disk: (photo, painting, weights)."""
    return (
        im.save(photo, tmp_path / "photo.png"),
        im.save(painting, tmp_path / "painting.png"),
        tiny_file,
    )


@pytest.fixture
def command(files, tmp_path):
    """Makes the words of a command; small by default. An option of None is left out."""

    def make(recipe="transfer", *pictures, photo=files[0], painting=files[1], **options):
        usual = {"weights": files[2], "normalize": False, "size": 32, "steps": 4, "device": "cpu"}
        usual |= {"results": tmp_path / "results", "out": tmp_path / "out.png"}
        named = {"transfer": (photo, painting), "reconstruct": (photo,), "texture": (painting,)}
        words = [recipe, *map(str, pictures or named[recipe])]
        for name, value in (usual | options).items():
            if value is not None:
                words += [
                    "--" + name.replace("_", "-"),
                    *map(str, value if isinstance(value, tuple) else [value]),
                ]
        return words

    return make


@pytest.fixture
def paint(command, capsys):
    """Carries out a small command, which must succeed, and returns the line that it printed."""

    def run(*words, **options) -> str:
        capsys.readouterr()
        assert cli.main(command(*words, **options)) == 0
        said = capsys.readouterr().out
        assert len(said.splitlines()) == 1
        return said

    return run


@pytest.fixture
def evaluations(monkeypatch):
    """The number of evaluations so far, as the length of a list."""
    seen, whole = [], FastBound.evaluate

    def evaluate(self, image):
        seen.append(1)
        return whole(self, image)

    monkeypatch.setattr(FastBound, "evaluate", evaluate)
    return seen


# --- pictures come out ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options", "shape", "stored"),
    [
        (
            "transfer",
            {"size": 48, "out": "a.png"},
            (48, 40),
            {"size": 48, "steps": 4, "convention": "mean"},
        ),
        ("reconstruct", {"size": 40, "out": "a.jpg"}, (40, 33), {"size": 40}),
        ("texture", {"size": 42, "out": "a.tif"}, (30, 42), {"size": 42}),
        (
            "transfer rocket mosaic",
            {"steps": 1, "normalize": None},
            (21, 32),
            {"photo": "rocket", "normalize": True},
        ),
        (
            "transfer",
            {
                "style_layers": ("conv1_1", "3"),
                "style_weights": (1, "2.5"),
                "alpha": "1e-1",
                "seed": 3,
                "init": "grey",
            },
            (32, 27),
            {
                "style_layers": ["conv1_1", "conv2_1"],
                "style_weights": [1, 2.5],
                "alpha": 0.1,
                "seed": 3,
                "init": "grey",
            },
        ),
        *[
            (
                "transfer",
                {"optimizer": name, "convention": "tutorial"},
                (32, 27),
                {"optimizer": name, "beta": 1e6},
            )
            for name in OPTIMIZERS
        ],
    ],
    ids=str,
)
def test_a_recipe_makes_a_picture_of_the_size_with_its_settings(
    paint, tmp_path, monkeypatch, words, options, shape, stored
):
    monkeypatch.chdir(tmp_path)
    out = options.get("out", "out.png")
    said = paint(*words.split(), **{"out": out} | options)
    assert said.startswith(f"{out}: done in ")
    assert f"{options.get('steps', 4)} steps" in said
    assert im.load(out).shape == (1, 3, *shape)
    settings = im.read_settings(out)
    assert settings == settings | stored


def test_a_picture_as_long_as_allowed_comes_out_though_rounding_makes_it_longer(paint, tmp_path):
    long = im.save(torch.rand(1, 3, 25, 200), tmp_path / "long.png")
    paint("reconstruct", long, size=132, layer="conv1_1")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (132, 16)


def test_a_run_is_found_again_unless_it_is_to_be_computed_anew(paint, tmp_path, evaluations):
    paint()
    first, count = (tmp_path / "out.png").read_bytes(), len(evaluations)
    assert "found in" in paint(out=tmp_path / "again.png")
    assert len(evaluations) == count
    assert (tmp_path / "again.png").read_bytes() == first
    assert "found in" not in paint(no_resume=())
    assert len(evaluations) == 2 * count
    assert (tmp_path / "out.png").read_bytes() == first
    assert "found in" not in paint(seed=2)
    assert (tmp_path / "out.png").read_bytes() != first


def test_a_kept_picture_that_is_damaged_is_told_with_the_way_out(paint, command, tmp_path, capsys):
    paint()
    (picture,) = tmp_path.rglob("final.png")
    picture.write_bytes(picture.read_bytes()[:60])
    assert cli.main(command()) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("; --no-resume computes it anew")
    assert "found in" not in paint(no_resume=())


def test_an_animation_has_as_many_frames_as_wanted_and_only_missing_ones_are_computed(
    paint, tmp_path
):
    for frames, few, many, found in (
        (0, 0, 0, False),
        (3, 2, 4, False),
        (9, 6, 10, False),
        (3, 2, 4, True),
    ):
        said = paint(frames=frames, steps=20, optimizer="adam", learning_rate=0.1)
        assert ("found in" in said) == found
        if frames:
            assert f" and {tmp_path / 'out.gif'}: " in said
            with Image.open(tmp_path / "out.gif") as gif:
                assert gif.size == (27, 32)
                assert few <= gif.n_frames <= many


# --- every bad input is one line ------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys, evaluations):
    """Runs a command that must be refused: exit code 2, one line with certain texts, nothing
    written. Returns the line.

    Early: before any work."""
    monkeypatch.chdir(tmp_path)

    def run(words, *texts, early=True) -> str:
        out = tmp_path / "out.png"
        out.write_bytes(SENTINEL)
        capsys.readouterr()
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1, said.err
        assert said.err.startswith("nstlab: error: ")
        assert out.read_bytes() == SENTINEL
        assert not list((tmp_path / "results").rglob("final.png"))
        assert not (early and evaluations)
        for text in texts:
            assert text in said.err
        return said.err

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("paint", "paint"),
        ("--frobnicate", "--frobnicate"),
        ("transfer", "PHOTO"),
        ("transfer coffee", "PAINTING"),
        ("transfer coffee mosaic chelsea", "chelsea"),
        (
            "transfer coffee mosaic --sise 32",
            "unrecognized arguments: --sise 32; see nstlab transfer --help",
        ),
        ("transfer coffee mosaic ''", "unrecognized arguments: ''; see nstlab transfer --help"),
        (
            "transfer coffee mosaic 'a b' c",
            "unrecognized arguments: 'a b' c; see nstlab transfer --help",
        ),
        ("transfer coffee mosaic --size", "--size"),
        (
            "transfer coffee mosaic --size 8",
            "size: 8 is not allowed; allowed is from 16 to 16384 px",
        ),
        ("transfer rocket mosaic --size 16", "rocket"),
        ("transfer coffee mosaic --alpha -1", "alpha: -1"),
        ("transfer coffee mosaic --alpha -1e3", "alpha: -1000.0 is not allowed"),
        ("transfer coffee mosaic --alpha -.5", "alpha: -0.5 is not allowed"),
        ("transfer coffee mosaic --alpha -nan", "alpha: nan is not allowed"),
        ("transfer coffee mosaic --alpha -Infinity", "alpha: -inf is not allowed"),
        ("transfer coffee mosaic --style-weights 1 -2e0", "style_weights: -2.0 is not allowed"),
        ("transfer coffee mosaic --normalize maybe", "normalize: 'maybe'"),
        ("transfer coffee mosaic --style-layers conv1_1 conv9_9", "'conv9_9'"),
        ("transfer coffee mosaic --style-weights 1 2", "style_weights"),
        ("transfer coffee mosaic --frames 1000", "frames: 1000"),
        ("transfer coffee mosaic --weights imagnet", "did you mean 'imagenet'?"),
        ("transfer coffee mosaic --weights imagenet", "nstlab fetch --weights imagenet"),
        ("transfer coffee mosaic --device tpu", "device: 'tpu' is not one of auto, cpu"),
        pytest.param(
            "transfer coffee mosaic --device cuda",
            "no 'cuda' on this machine",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA"),
        ),
        ("transfer --size=32 -- --no_photo.png mosaic", "--no_photo.png: no such file"),
        ("transfer --size=32 coffee --seed 1 -- --help", "no picture '--help'"),
        ("transfer coffee --style-layers conv1_1 -- -1e3.png", "-1e3.png: no such file"),
        ("transfer -- coffee --size", "no picture '--size'"),
        ("learn mosaic --size 8 -- coffee", "size: 8 is not allowed"),
        ("fetch --weights vgg16", "imagenet, caffe"),
        ("info --size 3", "--size"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(refused, words, says):
    refused(shlex.split(words), says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{}", "choose from 'transfer', "),
        ("transfer coffee mosaic {}", "see nstlab transfer --help"),
        ("transfer coffee mosaic --optimizer {}", "is not one of lbfgs, "),
        ("transfer coffee mosaic --tile {}", "is not one of auto, off"),
        ("transfer coffee mosaic --depth {}", "is not an int"),
        ("sweep {}", "is not one of E1, "),
    ],
)
@pytest.mark.parametrize("word", ["x" * 5000, "9" * 5000, "x y " * 1250])
def test_of_a_word_of_thousands_of_letters_a_part_is_said(refused, words, says, word):
    said = refused(
        [word if each == "{}" else each for each in words.split()], word[:100].rstrip(), says
    )
    assert len(said) < 1200


PICTURES = "photo painting init"


@pytest.mark.parametrize(
    ("roles", "name", "says"),
    [
        (PICTURES + " weights", "missing.png", "no such file"),
        (PICTURES, "missing", "a file, or one of astronaut"),
        (PICTURES, "text.png", "is not a picture"),
        ("weights results", "text.png", ""),
        (PICTURES, "small.png", "16 px or more"),
        (PICTURES + " out weights", "folder.png", "is a folder"),
        (PICTURES + " out weights", "pipe.png", "is not a regular file"),
        (PICTURES + " out weights results", "x" * 300 + ".png", "too long"),
        ("results", "small.png", "is a file; a folder is needed"),
        ("out", "a.webp", ".png, .jpg"),
        ("out", "a", ".png, .jpg"),
        ("out", "nowhere/a.png", "there is no folder"),
        ("out", "forbidden.png", "may not be written"),
    ],
    ids=lambda text: text[:30],
)
def test_a_path_that_cannot_be_used_is_refused_before_any_work(
    command, refused, tmp_path, monkeypatch, roles, name, says
):
    (tmp_path / "text.png").write_text("text " * 99)
    Image.new("RGB", (40, 15)).save(tmp_path / "small.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "forbidden.png").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: "forbidden" not in str(path))
    if name == "pipe.png":
        if not hasattr(os, "mkfifo"):
            pytest.skip("POSIX pipes")
        os.mkfifo(tmp_path / name)
    for role in roles.split():
        refused(command(**{role: tmp_path / name}), name, says)


def test_neither_picture_nor_animation_takes_the_place_of_an_input_or_a_folder(
    command, refused, files, tmp_path
):
    for role, path in (
        ("photo", files[0]),
        ("painting", files[1]),
        ("init", files[0]),
        ("weights", files[2]),
    ):
        both = tmp_path / f"{role}_too.png"
        before = path.read_bytes()
        both.write_bytes(before)
        for end in ("", "/", "/."):  # a path is the same file with them
            refused(
                command(**{"out": both, role: f"{both}{end}"}),
                f"is the {role}, which would be lost",
            )
        assert both.read_bytes() == before
    refused(
        command(out=tmp_path / "both.png", results=tmp_path / "both.png"), "both.png: is a folder"
    )
    gif = tmp_path / "out.gif"
    gif.mkdir()
    refused(command(frames=3), "out.gif: is a folder")
    gif.rmdir()
    im.to_pil(im.load(files[0])).save(gif)
    refused(command(photo=gif, frames=2), "out.gif: is the photo")
    assert cli.main(command(photo=gif)) == 0


def test_every_field_that_names_a_file_says_whether_it_is_read_or_written():
    for command in cli.commands().values():
        for cls in command.settings:
            for name, annotation, opt in cls.options():
                names_files = (
                    field_type(annotation)[0] is Path or " file" in opt.help or "folder" in opt.help
                )
                assert not names_files or opt.reads or opt.output or name == "results", (cls, name)


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("apply model photo.png --out model", "the model"),
        ("apply model photos --out painted", "photos/b.png"),  # painted/a.png is a link to it
        ("apply model photos --out photos", "photos/a.png: is one of the files of the photo"),
        ("export model.onnx --out model.onnx", "the model"),
        (
            "learn painting.png --out weights.safetensors --weights weights.safetensors",
            "the weights",
        ),
        (
            "learn painting.png --photos photos --out photos.safetensors",
            "is one of the photos, photos/b.png",
        ),
        ("video clip.mp4 painting.png --out clip.mp4", "the clip"),
        ("video photos painting.png --out painted", "photos/b.png"),
        ("video clip.mp4 painting.png --out .", "painting.png: is the painting"),
        (
            "video clip.mp4 mosaic --out film.gif -p mask film.gif -p painting_mask painting.png",
            "the mask",
        ),
        ("video clip.mp4 mosaic --out film.gif -p init film.gif", "the init"),
        (
            "video clip.mp4 mosaic --out film.gif -p more_paintings painting.png,film.gif",
            "the more_paintings",
        ),
        ("video clip.mp4 mosaic --out film.gif -p weights film.gif", "the weights"),
        ("video clip.mp4 mosaic --out model.gif --model model.gif", "the model"),
        (
            "transfer photos/a.png painting.png --more-paintings photos/b.png --out painted/a.png",
            "photos/b.png",
        ),
        ("sweep E1 --photo results/sweeps/E1-quick/sheet.png", "the photo"),
        ("sweep E1 --painting E1.jpg --gallery .", "the painting"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_no_command_writes_over_what_it_reads(refused, tmp_path, words, lost):
    names = (
        "model model.onnx model.gif weights.safetensors clip.mp4 film.gif painting.png "
        "photo.png E1.jpg photos/a.png"
    )
    for name in [*names.split(), "photos/b.png", "results/sweeps/E1-quick/sheet.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "painted").mkdir()
    (tmp_path / "painted" / "a.png").symlink_to("../photos/b.png")
    (tmp_path / "photos.safetensors").symlink_to("photos/b.png")
    refused(words.split(), lost, "which would be lost")
    for name in (*names.split(), "photos/b.png"):
        assert (tmp_path / name).read_text() == name


def test_notebooks_are_not_executed_in_their_own_place(refused, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_a.ipynb").touch()
    monkeypatch.setattr("nstlab.course.settings.shipped_folder", lambda name: tmp_path / name)
    refused(["notebooks", "run", "01", "--results", "."], "01_a.ipynb", "choose another --results")


def test_a_gallery_replaces_no_page_but_its_own(refused, tmp_path):
    page = tmp_path / "README.md"
    for text in ("# Gallery\n\nMy own pictures.\n", "\xff", ""):
        page.write_text(text)
        refused(["sweep", "E1", "--gallery", "."], "README.md is not a gallery's page")
        assert page.read_text() == text
    for text in (report.HEAD, report.HEAD.replace("\n", "\r\n") + "## E1"):
        page.write_text(text, newline="")
        report.check_gallery(tmp_path)


@pytest.mark.parametrize(("factor", "normalize"), [(1e9, False), (1e37, True)])
def test_weights_whose_features_overflow_are_refused(
    command, refused, tmp_path, tiny, factor, normalize
):
    large = tmp_path / "large.safetensors"
    safetensors.torch.save_file(
        {n: t * factor for n, t in tiny.tensors.items()}, large, {"input": str(TORCHVISION)}
    )
    refused(command(weights=large, normalize=normalize), "not finite", early=False)


# --- memory ---------------------------------------------------------------------------------------


def limit_memory(monkeypatch, free: int) -> None:
    monkeypatch.setattr(memory, "available", lambda device: free)


def needed(files, size: int) -> int:
    settings = TransferSettings(
        *map(str, files[:2]), weights=str(files[2]), size=size, normalize=False
    )
    return prepare(settings, "cpu").memory_needed()


@pytest.mark.parametrize(("size", "part"), [(64, 0.7), (256, 0.3), (3000, 0.5)])
def test_a_size_beyond_the_memory_is_refused_with_one_that_fits_if_any_does(
    command, refused, files, monkeypatch, size, part
):
    free = int(needed(files, size) * part)
    limit_memory(monkeypatch, free)
    (named,) = re.findall(
        r"--size (\d+) would fit",
        refused(command(size=size, tile="off"), f"size {size} needs about"),
    )
    assert 16 <= int(named) < size
    assert needed(files, int(named)) <= free
    limit_memory(monkeypatch, 1)
    assert "would fit" not in refused(command(size=size, tile="off"))


@pytest.mark.parametrize("recipe", ["transfer", "reconstruct", "texture"])
def test_a_size_that_the_machine_can_never_hold_is_refused_before_a_picture_is_decoded(
    command, refused, monkeypatch, recipe
):
    limit_memory(monkeypatch, 10**8)
    monkeypatch.setattr(Image.Image, "crop", None)
    refused(command(recipe, size=16384), "size 16384 needs about", "0.09 GB is available")


def test_a_painting_that_is_enlarged_counts(command, refused, files, monkeypatch):
    limit_memory(monkeypatch, 2 * needed(files, 128))
    refused(command(size=128, style_scale=10, tile="off"), "size 128 needs about")
    assert cli.main(command(size=128, steps=1)) == 0


def test_tiles_are_chosen_in_pixels_and_what_cannot_be_is_refused(command, refused, capsys):
    refused(command(tile="large"), "tile: 'large' is not one of auto, off")
    refused(command(tile=0), "tile: '0' is not one of auto, off")
    refused(command(memory=0.1), "memory: 0.1 is not allowed; allowed is 0.5 or more")
    assert cli.main(command(size=64, steps=1, tile=32)) == 0
    assert "nstlab: 53×64 in tiles, with 0.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried"
        ),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_refused_with_a_smaller_size(command, refused, monkeypatch, error):
    raise_at(monkeypatch, 3, error)
    refused(command(size=64), "out of memory", "--size", early=False)


def test_another_failure_is_not_taken_for_a_bad_input(command, monkeypatch):
    raise_at(monkeypatch, 3, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(command())


# --- Ctrl-C ---------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_best_picture_if_there_is_one_and_the_next_run_finishes(
    command, tmp_path, capsys, monkeypatch
):
    out, whole = tmp_path / "out.png", tmp_path / "whole.png"
    assert cli.main(command(steps=10, results=tmp_path / "other", out=whole)) == 0

    def interrupted(evaluation):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            raise_at(patch, evaluation)
            assert cli.main(command(steps=10)) == 130
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    out.write_bytes(SENTINEL)
    assert interrupted(1) == "nstlab: interrupted\n"
    assert out.read_bytes() == SENTINEL
    best = f"the best picture so far is {out}; to go on, run the same command again (--resume)"
    assert interrupted(6) == f"nstlab: interrupted; {best}\n"
    assert im.read_settings(out) == im.read_settings(whole)
    assert im.load(out).shape == im.load(whole).shape
    assert out.read_bytes() != whole.read_bytes()
    assert cli.main(command(steps=10)) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_an_interrupt_that_says_nothing_adds_nothing(command, monkeypatch, capsys):
    raise_at(monkeypatch, 1, KeyboardInterrupt("", "go on"))
    assert cli.main(command()) == 130
    assert capsys.readouterr().err == "nstlab: interrupted; go on\n"


SIGNALLED = """
import os, signal, sys
# which processes started in the background do not have
signal.signal(signal.SIGINT, signal.default_int_handler)
from nstlab.cli import main as cli
from nstlab.method.fast.evaluation import FastBound
whole, seen = FastBound.evaluate, []
def evaluate(self, image):
    seen.append(image)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return whole(self, image)
FastBound.evaluate = evaluate
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_real_ctrl_c_ends_the_process_with_130_and_no_traceback(command, tmp_path):
    words = [sys.executable, "-c", SIGNALLED, *command(steps=100_000)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (130, "", 1)
    assert done.stderr.startswith("nstlab: interrupted")
    assert im.load(tmp_path / "out.png").shape == (1, 3, 32, 27)


# --- whatever a command is ------------------------------------------------------------------------


@dataclass(frozen=True)
class NoSettings(Settings):
    """A command for tests."""


def program(function, words=()):
    """Run a program whose only command is the function, which returns nothing."""
    command = programs.Subcommand(lambda settings: function() or 0, (NoSettings,))
    return programs.run_program(lambda: {"do": command}, words, "do")


def both():
    """Two signals, by which a process is asked to end."""
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)


def ends_twice(done):
    """Is interrupted again and again, also while it keeps what it has done."""
    try:
        try:
            both()
        finally:
            both()
            done.append("kept")
    except KeyboardInterrupt:
        both()
        raise KeyboardInterrupt("what is done is kept") from None


def ends_in_an_error_of_a_library(done):
    with contextlib.suppress(KeyboardInterrupt):
        both()
    done.append("kept")
    raise AttributeError("module has no attribute")


def ends_in_an_error_that_is_not_the_users(done):
    with contextlib.suppress(KeyboardInterrupt):  # as a reader in another language may
        both()
    done.append("kept")
    raise InputError("tiny.safetensors: is damaged")


def ends_after_a_library_is_done(done):
    with signals.uninterrupted():
        both()
        done.append("kept")


ENDS = [
    ends_twice,
    ends_in_an_error_of_a_library,
    ends_in_an_error_that_is_not_the_users,
    ends_after_a_library_is_done,
]


@pytest.mark.parametrize("function", ENDS)
def test_signals_end_a_command_once_and_in_one_line_and_handlers_are_restored(function, capsys):
    before, done = [signal.getsignal(number) for number in signals.SIGNALS], []
    assert program(lambda: function(done)) == 130
    said = capsys.readouterr().err
    assert said in ("nstlab: interrupted\n", "nstlab: interrupted; what is done is kept\n")
    assert done == ["kept"]
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_what_cannot_be_kept_after_an_interrupt_is_said(capsys):
    def fails():
        try:
            both()
        finally:
            raise InputError("out.png: cannot be written")

    assert program(fails) == 130
    assert capsys.readouterr().err == "nstlab: interrupted; out.png: cannot be written\n"


def test_a_signal_while_the_program_is_imported_ends_in_one_line(monkeypatch, capsys):
    # which no handler has seen
    monkeypatch.setattr(cli, "main", Mock(side_effect=KeyboardInterrupt))
    assert __main__.main() == 130
    assert capsys.readouterr().err == "nstlab: interrupted\n"


def test_a_signal_while_commands_are_imported_ends_in_one_line(capsys):
    assert programs.run_program(both, (), "do") == 130
    assert capsys.readouterr().err == "nstlab: interrupted\n"


def test_after_an_interrupt_that_was_swallowed_the_next_one_counts(capsys):
    def swallows():
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                both()
        both()

    assert program(swallows) == 130


def test_a_process_that_was_interrupted_ignores_signals_until_its_end(monkeypatch, capsys):
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    monkeypatch.setattr(sys, "argv", ["do"])
    try:
        assert program(both, words=None) == 130
        both()
    finally:
        for number, handler in zip(signals.SIGNALS, before, strict=True):
            signal.signal(number, handler)


class Broken:
    """A stream to which nothing can be written."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = fileno = lambda self: self.write("")


@pytest.mark.parametrize(
    ("out", "code"),
    [
        (OSError(28, "No space left on device"), 2),
        (BrokenPipeError(), 0),
        (ValueError("I/O operation on closed file"), 2),
        (None, 0),
    ],
)
@pytest.mark.parametrize("err", [OSError(28, "No space left on device"), BrokenPipeError(), None])
def test_what_cannot_be_printed_keeps_no_command_from_its_work(
    tmp_path, monkeypatch, capsys, out, code, err
):
    def work():
        for name in "ab":
            console.tell(name)
            with tqdm(total=1, mininterval=0) as bar:
                bar.update()
                bar.write("done", file=sys.stderr)
            (tmp_path / name).touch()

    for name, error in (("stdout", out), ("stderr", err)):
        if error is not None:
            monkeypatch.setattr(sys, name, Broken(error))
    streams = sys.stdout, sys.stderr
    assert program(work) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (sys.stdout, sys.stderr) == streams
    if err is None and code:
        assert (
            f"nstlab: error: the output: {out.strerror if isinstance(out, OSError) else out}"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize("words", ["--help", "transfer --help", ""])
def test_help_that_cannot_be_printed_is_no_success(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().err == "nstlab: error: the output: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="a folder that is in use cannot be deleted")
def test_a_current_folder_that_is_gone_is_said_before_a_library_wants_it(
    tmp_path, monkeypatch, capsys
):
    gone, work = tmp_path / "gone", Mock()
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert program(work) == 2
    assert capsys.readouterr().err.startswith("nstlab: error: the current folder is gone (")
    work.assert_not_called()
    assert cli.main(["--help"]) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("NCOLS", "abc"), ("MININTERVAL", ""), ("BAR_FORMAT", "{nothing}"), ("FILE", "bar.txt")],
)
def test_variables_that_progress_bars_cannot_use_are_named(monkeypatch, capsys, name, value):
    for module in [each for each in sys.modules if each.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, module)  # which reads them when it is imported
    monkeypatch.setenv(f"TQDM_{name}", value)
    assert program(lambda: None) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"nstlab: error: TQDM_{name}: no progress bar can be shown like this (")


def test_the_log_has_the_labs_lines_and_no_other_packages(monkeypatch, capsys):
    def logs():
        logging.getLogger("distributed.client").error("lost\nTraceback")
        logging.getLogger("nstlab").warning("%s: is damaged", "a\x1b\nb")

    monkeypatch.setattr(logging.root, "handlers", [])
    assert program(logs) == 0
    assert capsys.readouterr().err == "nstlab: a\\x1b\\nb: is damaged\n"


def test_paths_from_python_may_begin_in_a_home_folder(
    files, photo, painting, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert nst.save(painting, "~/other.jpg") == tmp_path / "other.jpg"
    assert torch.equal(nst.load("~/photo.png"), im.load(files[0]))
    assert nst.read_settings(Path("~/photo.png")) == {}
    settings = TransferSettings(
        "~/photo.png", Path("~/other.jpg"), weights="~/tiny.safetensors", init="~/photo.png"
    )
    assert [settings.photo, settings.painting, settings.weights, settings.init] == [
        str(tmp_path / name) for name in ("photo.png", "other.jpg", "tiny.safetensors", "photo.png")
    ]
    assert VideoSettings(
        "~/c.mp4", "mosaic", parameters=("mask", "~/photo.png", "painting_mask", "~/photo.png")
    ).files["mask"] == (str(files[0]),)
    assert nst.VGG19("~/tiny.safetensors").weights.source == str(files[2])
    assert f"{tmp_path}/none.safetensors: no such file" in refusal(
        nst.StyleModel.load, "~/none.safetensors"
    )
    assert nst.runs(root="~/none").empty


def test_what_names_of_files_hold_is_shown_and_not_obeyed(capsys):
    name = "a\x1b[31m\r\n\u202eb\u2028\x9b\udcff\N{ZERO WIDTH JOINER}é ü.png"
    shown = "a\\x1b[31m\\r\\n\\u202eb\\u2028\\x9b\\udcff\N{ZERO WIDTH JOINER}é ü.png"
    assert str(InputError("a\x1bb\nc\u2066")) == "a\\x1bb c\\u2066"

    def prints():
        console.tell(name)
        console.print_table([(name, 1.5)])
        print("\x1b]0;title\x07")  # whoever prints
        console.say(name)
        tqdm.write("\x9b", file=sys.stderr)
        raise InputError(name)

    assert program(prints) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [shown, f"{shown}  1.5", "\\x1b]0;title\\x07"]
    first, second, third = said.err.splitlines()
    assert (first, second) == (f"nstlab: {shown}", "\\x9b")
    in_one_line = shown.replace("\\r\\n", " ").replace("\\u2028", " ")
    assert third == f"nstlab: error: {in_one_line}"


# --- the program itself ---------------------------------------------------------------------------


@pytest.mark.usefixtures("cold_python")
def test_help_and_refusals_import_nothing_heavy_and_transfer_comes_first():
    code = """
import sys
from nstlab.cli import main as cli
for words in (["--help"], ["transfer", "--help"], []):
    try:
        cli.main(words)
    except SystemExit as end:
        assert end.code in (0, None)
assert cli.main(["transfer", "coffee", "mosaic", "--size", "3"]) == 2
heavy = {"torch", "matplotlib", "numpy", "PIL", "IPython", "pandas", "skimage"} & set(sys.modules)
print("imported:", sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    for word in (
        "fetch",
        "info",
        "PHOTO",
        "PAINTING",
        "--style-layers",
        "long side",
        "(default: 512)",
        "from 16 to 16384 px",
    ):
        assert word in done.stdout
    listed = [
        done.stdout.index(f"\n    {name}")
        for name in ("transfer", "reconstruct", "texture", "sweep")
    ]
    assert listed == sorted(listed)


def test_words_of_a_command_may_come_in_any_order(command, capsys):
    recipe, photo, painting, *options = command()
    assert cli.main([recipe, *options, photo, painting]) == 0
    capsys.readouterr()
    for words in (
        [photo, *options, painting, "--style_scale=1", "--seed", "0"],
        [*options, "--", photo, painting],
    ):
        assert cli.main([recipe, *words]) == 0
        assert "found in" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize(
    ("streams", "options", "code", "out", "err"),
    [
        ("", {}, 0, "out.png: done in ", ""),
        ("2>&-", {}, 0, "out.png: done in ", ""),
        (">/dev/full", {}, 2, "", "nstlab: error: the output: No space left on device\n"),
        (
            "",
            {"alpha": "nan"},
            2,
            "",
            "nstlab: error: alpha: nan is not allowed; allowed is from 0 to 1e+12\n",
        ),
    ],
)
def test_the_program_runs_as_a_module_without_tracebacks(command, streams, options, code, out, err):
    words = [sys.executable, "-m", "nstlab", *command(steps=1, **options)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (code, err)
    assert out in done.stdout


def test_info_names_versions_devices_weights_and_samples(capsys):
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    for text in (
        torch.__version__,
        "cpu",
        "imagenet",
        "nstlab fetch --weights caffe",
        "embedded",
        "astronaut",
        "mosaic",
    ):
        assert text in said


def test_fetch_keeps_a_file_that_is_there_and_refuses_a_server_that_is_not(
    refused, capsys, monkeypatch
):
    here = Download("http://127.0.0.1:9/vgg19-e3b0c442.pth", "e3b0c442", 1)  # the hash of nothing
    there = Download("http://127.0.0.1:9/vgg19-00000000.pth", "00000000", 1)
    monkeypatch.setattr(sources, "SOURCES", {"imagenet": here, "caffe": there})
    here.path.parent.mkdir(parents=True)
    here.path.touch()
    assert cli.main(["fetch"]) == 0
    assert str(here.path) in capsys.readouterr().out
    refused(["fetch", "--weights", "caffe"], there.url)
