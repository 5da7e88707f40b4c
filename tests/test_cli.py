"""The command line: pictures come out, nothing is computed twice, and every bad input is one line and exit code 2."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
from faults import raise_at
from PIL import Image

from nstlab import cli
from nstlab import images as im
from nstlab.method import weights
from nstlab.method.fast import memory
from nstlab.method.fast.evaluation import FastBound
from nstlab.method.names import OPTIMIZERS
from nstlab.method.weights import TORCHVISION, Download
from nstlab.recipes import plan as recipes
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import DEVICES

SENTINEL = b"an older picture"


@pytest.fixture
def files(tmp_path, photo, painting, tiny_file):
    """The pictures and the weights on disk: (photo, painting, weights)."""
    return im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png"), tiny_file


@pytest.fixture
def command(files, tmp_path):
    """Makes the words of a command; small by default. An option of None is left out."""

    def make(recipe="transfer", *pictures, **options):
        usual = {"weights": files[2], "normalize": False, "size": 32, "steps": 4, "device": "cpu"}
        usual |= {"results": tmp_path / "results", "out": tmp_path / "out.png"}
        if not pictures:
            pictures = {"transfer": files[:2], "reconstruct": files[:1], "texture": files[1:2]}[recipe]
        words = [recipe, *map(str, pictures)]
        for name, value in (usual | options).items():
            if value is not None:
                words += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else [value])]
        return words

    return make


@pytest.fixture
def evaluations(monkeypatch):
    """The number of evaluations so far, as the length of a list."""
    seen, whole = [], FastBound.evaluate

    def evaluate(self, image):
        seen.append(1)
        return whole(self, image)

    monkeypatch.setattr(FastBound, "evaluate", evaluate)
    return seen


# --- pictures come out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "size", "shape", "suffix"),
    [("transfer", 48, (48, 40), "png"), ("reconstruct", 40, (40, 33), "jpg"), ("texture", 42, (30, 42), "tif")],
)
def test_a_recipe_makes_a_picture_of_the_size_with_its_settings(command, tmp_path, capsys, recipe, size, shape, suffix):
    out = tmp_path / f"a.{suffix}"
    assert cli.main(command(recipe, size=size, out=out)) == 0
    assert im.load(out).shape == (1, 3, *shape)
    stored = im.read_settings(out)
    assert (stored["size"], stored["steps"], stored["convention"]) == (size, 4, "mean")
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: done in ")
    assert "4 steps" in said
    assert len(said.splitlines()) == 1


def test_options_reach_the_settings(command, tmp_path):
    layers = ("conv1_1", "3")
    words = command(style_layers=layers, style_weights=(1, "2.5"), alpha="1e-1", optimizer="adam", seed=3, tv=0.5, init="grey")
    assert cli.main(words) == 0
    settings = TransferSettings.from_dict(im.read_settings(tmp_path / "out.png"))
    assert settings.style_layers == ("conv1_1", "conv2_1")
    assert settings.style_weights == (1.0, 2.5)
    assert (settings.alpha, settings.optimizer, settings.seed, settings.tv) == (0.1, "adam", 3, 0.5)
    assert (settings.init, settings.normalize) == ("grey", False)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_a_convention_can_be_chosen(command, tmp_path, optimizer):
    assert cli.main(command(optimizer=optimizer, convention="tutorial", steps=2)) == 0
    stored = im.read_settings(tmp_path / "out.png")
    assert (stored["optimizer"], stored["beta"]) == (optimizer, 1e6)


def test_samples_may_be_named_and_activations_are_normalized_unless_told_otherwise(command, tmp_path):
    assert cli.main(command("transfer", "rocket", "mosaic", steps=1, normalize=None)) == 0
    assert im.load(tmp_path / "out.png").shape == (1, 3, 21, 32)
    assert im.read_settings(tmp_path / "out.png")["normalize"] is True


def test_a_picture_as_long_as_allowed_comes_out(command, tmp_path):
    """Rounding may make the result a little longer than the limit for what is read."""
    long = im.save(torch.rand(1, 3, 25, 200), tmp_path / "long.png")
    assert im.fit_size((25, 200), 132) == (16, 132)
    assert cli.main(command("reconstruct", long, size=132, layer="conv1_1")) == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (132, 16)


# --- nothing is computed twice ----------------------------------------------------------------------------------


@pytest.fixture
def paint(command, capsys):
    """Carries out a small transfer, which must succeed, and returns what it printed."""

    def run(**options) -> str:
        capsys.readouterr()
        assert cli.main(command(**options)) == 0
        return capsys.readouterr().out

    return run


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


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"damaged"), Path.unlink])
def test_a_run_with_damaged_frames_is_computed_again_when_they_are_wanted(paint, tmp_path, damage):
    paint(frames=3)
    whole = (tmp_path / "out.gif").read_bytes()
    damage(sorted(tmp_path.glob("results/runs/*/*/frames/*.png"))[0])
    (tmp_path / "out.gif").unlink()
    assert "found in" not in paint(frames=3)
    assert (tmp_path / "out.gif").read_bytes() == whole
    assert "found in" in paint(frames=3)


def test_an_animation_has_the_frames_that_are_wanted_and_only_missing_ones_are_computed(paint, tmp_path):
    slow = {"steps": 20, "optimizer": "adam", "learning_rate": 0.1}

    def animate(frames):
        """Whether the run was found, and how many frames the animation has."""
        said = paint(frames=frames, **slow)
        assert f" and {tmp_path / 'out.gif'}: " in said
        with Image.open(tmp_path / "out.gif") as gif:
            assert gif.size == (27, 32)
            return "found in" in said, gif.n_frames

    paint(**slow)
    found, few = animate(3)
    assert not found
    assert 2 <= few <= 4
    found, many = animate(9)
    assert not found
    assert 5 < many <= 10
    assert animate(3) == (True, few)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_an_output_that_is_a_link_stays_one(command, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "out.png").symlink_to(tmp_path / "pictures" / "mine.png")
    assert cli.main(command()) == 0
    assert (tmp_path / "out.png").is_symlink()
    assert im.load(tmp_path / "pictures" / "mine.png").shape == (1, 3, 32, 27)


# --- every bad input is one line --------------------------------------------------------------------------------


@pytest.fixture
def refused(command, tmp_path, capsys):
    """Runs a command that must be refused: exit code 2, one line with certain texts, nothing written. Returns the line."""

    def run(words, *texts) -> str:
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
        for text in texts:
            assert text in said.err
        return said.err

    return run


def words_for(command, files, role, path, **options):
    """The words of a transfer in which a path has the role of a picture, of the weights, of the output or of the results."""
    pictures = {"photo": (path, files[1]), "painting": (files[0], path)}.get(role, files[:2])
    return command("transfer", *pictures, **options | ({} if role in ("photo", "painting") else {role: path}))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.png", "no such file"),
        ("missing", "a file, or one of astronaut"),
        ("text.png", "is not a picture"),
        ("small.png", "16 px or more"),
        ("folder.png", "is a folder"),
        ("pipe.png", "is not a regular file"),
        ("x" * 300 + ".png", "too long"),
    ],
    ids=lambda text: text[:9],
)
@pytest.mark.parametrize("role", ["photo", "painting", "init"])
def test_a_picture_that_cannot_be_used_is_refused(command, refused, files, tmp_path, evaluations, name, says, role):
    (tmp_path / "text.png").write_text("text " * 99)
    Image.new("RGB", (40, 15)).save(tmp_path / "small.png")
    (tmp_path / "folder.png").mkdir()
    if name == "pipe.png":
        if not hasattr(os, "mkfifo"):
            pytest.skip("POSIX pipes")
        os.mkfifo(tmp_path / name)
    refused(words_for(command, files, role, tmp_path / name), name, says)
    assert evaluations == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"style_layers": ("conv1_1", "conv9_9")}, ("conv9_9", "conv1_1 to conv5_4")),
        ({"content_layers": ("conv4_2", "conv4_2")}, ("conv4_2",)),
        ({"style_layers": "²"}, ("²", "conv1_1 to conv5_4")),
        ({"alpha": "-1"}, ("alpha", "-1", "from 0 to")),
        ({"beta": "nan"}, ("beta", "nan", "from 0 to")),
        ({"tv": "1e300"}, ("tv", "1e+300", "from 0 to")),
        ({"alpha": 0, "beta": 0}, ("alpha", "beta", "at least one must be more")),
        ({"style_weights": (1, 2)}, ("style_weights", "2", "5")),
        ({"size": 8}, ("size", "8", "from 16 to 16384 px")),
        ({"size": "large"}, ("size", "'large'")),
        ({"size": 16}, ("size", "photo.png", "or more")),
        ({"steps": "1" + "0" * 400}, ("steps",)),
        ({"pool": "mean"}, ("pool", "'mean'", "avg, max, l2")),
        ({"convention": "papr"}, ("did you mean 'paper'?",)),
        ({"normalize": "maybe"}, ("normalize", "maybe")),
        ({"seed": "1.5"}, ("seed", "1.5")),
        ({"device": "tpu"}, ("device", "'tpu'", ", ".join(DEVICES))),
        ({"weights": "imagnet"}, ("weights", "did you mean 'imagenet'?")),
        ({"weights": "imagenet"}, ("nstlab fetch --weights imagenet",)),
        ({"weights": "missing.pth"}, ("missing.pth", "no such file")),
        ({"frames": 1000}, ("frames", "1000", "from 0 to 500")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_setting_that_is_not_allowed_is_refused(command, refused, options, says):
    refused(command(**options), *says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["paint"], "paint"),
        (["transfer"], "PHOTO"),
        (["transfer", "coffee"], "PAINTING"),
        (["transfer", "coffee", "mosaic", "chelsea"], "chelsea"),
        (["transfer", "coffee", "mosaic", "--sise", "32"], "unrecognized arguments: --sise 32; see nstlab transfer --help"),
        (["transfer", "coffee", "mosaic", "--size"], "--size"),
        (["reconstruct", "coffee", "--init", "style"], "init: 'style' is not one of noise, "),
        (["transfer", "--size=32", "--", "--no_photo.png", "mosaic"], "--no_photo.png: no such file"),
        (["fetch", "--weights", "vgg16"], "imagenet, caffe"),
        (["info", "--size", "3"], "--size"),
        (["--frobnicate"], "--frobnicate"),
    ],
    ids=str,
)
def test_words_that_cannot_be_understood_are_refused(refused, words, says):
    refused(words, says)


@pytest.mark.parametrize("role", ["out", "weights", "results"])
def test_a_name_that_no_file_can_have_is_refused_before_any_work(command, refused, files, tmp_path, evaluations, role):
    assert "too long" in refused(words_for(command, files, role, tmp_path / ("x" * 300 + ".png")))
    assert evaluations == []


@pytest.mark.parametrize("role", ["photo", "painting", "weights", "init"])
def test_an_output_that_is_an_input_is_refused(command, files, tmp_path, capsys, role, evaluations):
    path = tmp_path / "both.png"
    shutil.copy(files[2] if role == "weights" else files[0], path)
    before = path.read_bytes()
    assert cli.main(words_for(command, files, role, path, out=path)) == 2
    assert f"is the {role}, which would be lost" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert evaluations == []


def test_an_animation_never_takes_the_place_of_an_input_or_a_folder(command, refused, files, tmp_path, evaluations):
    gif = tmp_path / "out.gif"
    gif.mkdir()
    assert "out.gif: is a folder" in refused(command(frames=3))
    gif.rmdir()
    im.to_pil(im.load(files[0])).save(gif)
    assert "out.gif: is the photo" in refused(command("transfer", gif, files[1], frames=2))
    assert evaluations == []
    assert cli.main(command("transfer", gif, files[1])) == 0


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("a.webp", ".png, .jpg"),
        ("a", ".png, .jpg"),
        ("missing/a.png", "there is no folder"),
        ("folder.png", "is a folder"),
        ("forbidden.png", "may not be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    command, refused, tmp_path, evaluations, monkeypatch, place, says
):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "forbidden.png").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: "forbidden" not in str(path))
    refused(command(out=tmp_path / place), place, says)
    assert evaluations == []


def test_results_that_cannot_be_kept_are_refused(command, refused, tmp_path, evaluations):
    (tmp_path / "file").write_text("in the way")
    refused(command(results=tmp_path / "file"), str(tmp_path / "file"))
    assert evaluations == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(command, refused):
    refused(command(device="cuda"), "no 'cuda' on this machine", "cpu")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_streams_that_are_closed_or_full_are_no_traceback(command):
    words = ["sh", sys.executable, "-m", "nstlab", *command(steps=1)]
    closed = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', *words], capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    full = subprocess.run(["sh", "-c", 'exec "$@" >/dev/full', *words], capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (2, "nstlab: error: the output: No space left on device\n")


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"text " * 99, lambda d: d[:5]])
def test_damaged_weights_are_refused_by_name(command, refused, files, damage):
    files[2].write_bytes(damage(files[2].read_bytes()))
    assert str(files[2]) in refused(command())


def test_weights_that_end_too_early_are_refused_with_the_layers_they_lack(command, refused, tmp_path, tiny):
    short = tmp_path / "short.safetensors"
    some = {name: t for name, t in tiny.tensors.items() if name[:5] not in ("conv4", "conv5")}
    safetensors.torch.save_file(some, short, {"input": str(TORCHVISION)})
    lacking = "lack conv4_1, conv4_2, conv4_3, conv4_4, conv5_1;"
    refused(command(weights=short), str(short), lacking, "up to conv3_4")
    assert cli.main(command(weights=short, content_layers="conv3_1", style_layers=("conv1_1", "conv2_1"))) == 0


@pytest.mark.parametrize(("factor", "normalize"), [(1e9, False), (1e37, True)])
def test_weights_whose_features_overflow_are_refused(command, refused, tmp_path, tiny, factor, normalize):
    large = tmp_path / "large.safetensors"
    safetensors.torch.save_file({n: t * factor for n, t in tiny.tensors.items()}, large, {"input": str(TORCHVISION)})
    assert "not finite" in refused(command(weights=large, normalize=normalize))


# --- memory -----------------------------------------------------------------------------------------------------


def limit_memory(monkeypatch, free: int) -> None:
    for known in ("available", "total"):
        monkeypatch.setattr(memory, known, lambda device: free)


def needed(files, size: int) -> int:
    settings = TransferSettings(*map(str, files[:2]), weights=str(files[2]), size=size, normalize=False)
    return recipes.prepare(settings, "cpu").memory_needed()


@pytest.mark.parametrize(("size", "part"), [(64, 0.7), (256, 0.3), (3000, 0.5)])
def test_a_size_beyond_the_memory_is_refused_with_one_that_fits(command, refused, files, monkeypatch, evaluations, size, part):
    free = int(needed(files, size) * part)
    limit_memory(monkeypatch, free)
    line = refused(command(size=size))
    assert evaluations == []
    assert f"size {size} needs about" in line
    (named,) = re.findall(r"--size (\d+) would fit", line)
    assert 16 <= int(named) < size
    assert needed(files, int(named)) <= free


@pytest.mark.parametrize("recipe", ["transfer", "reconstruct", "texture"])
def test_a_size_that_the_machine_can_never_hold_is_refused_before_a_picture_is_decoded(command, refused, monkeypatch, recipe):
    monkeypatch.setattr(memory, "total", lambda device: 10**9)
    monkeypatch.setattr(Image.Image, "crop", None)
    refused(command(recipe, size=16384), "size 16384 needs about", "1.00 GB can be had")


def test_a_painting_that_is_enlarged_counts(command, refused, files, monkeypatch, tmp_path):
    limit_memory(monkeypatch, 2 * needed(files, 128))
    assert cli.main(command(size=128, steps=1)) == 0
    shutil.rmtree(tmp_path / "results")
    assert "size 128 needs about" in refused(command(size=128, style_scale=10))


def test_no_size_is_named_where_none_fits(command, refused, monkeypatch):
    limit_memory(monkeypatch, 1)
    for size in (20, 64, 512):
        assert "would fit" not in refused(command(size=size))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_refused_with_a_smaller_size(command, refused, monkeypatch, error):
    raise_at(monkeypatch, 3, error)
    refused(command(size=64), "out of memory", "--size")


def test_another_failure_is_not_taken_for_a_bad_input(command, monkeypatch):
    raise_at(monkeypatch, 3, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(command())


def test_free_memory_is_what_the_machine_says():
    assert 0 < memory.available(torch.device("cpu")) <= memory.total(torch.device("cpu")) == psutil.virtual_memory().total


# --- Ctrl-C -----------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_the_best_picture_and_the_next_run_finishes(command, tmp_path, capsys, monkeypatch):
    out, whole = tmp_path / "out.png", tmp_path / "whole.png"
    assert cli.main(command(steps=10, results=tmp_path / "other", out=whole)) == 0
    with monkeypatch.context() as patch:
        raise_at(patch, 6)
        capsys.readouterr()
        assert cli.main(command(steps=10)) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"nstlab: interrupted; the best picture so far is {out}; to go on, run the same command again (--resume)\n"
    )
    assert im.read_settings(out) == im.read_settings(whole)
    assert im.load(out).shape == im.load(whole).shape
    assert out.read_bytes() != whole.read_bytes()

    assert cli.main(command(steps=10)) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_damaged_checkpoint_is_refused_with_the_way_out(command, refused, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        raise_at(patch, 3)
        assert cli.main(command()) == 130
    (checkpoint,) = tmp_path.glob("results/runs/*/*/checkpoint.safetensors")
    checkpoint.write_bytes(b"damaged")
    assert "--no-resume" in refused(command())
    assert cli.main([*command(), "--no-resume"]) == 0


def test_ctrl_c_before_the_first_picture_says_so_and_overwrites_nothing(command, tmp_path, capsys, monkeypatch):
    (tmp_path / "out.png").write_bytes(SENTINEL)
    raise_at(monkeypatch, 1)
    assert cli.main(command()) == 130
    assert capsys.readouterr().err == "nstlab: interrupted\n"
    assert (tmp_path / "out.png").read_bytes() == SENTINEL


SLOW = """
import itertools, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which processes started in the background do not have
from nstlab import cli
from nstlab.method.fast.evaluation import FastBound
whole, count = FastBound.evaluate, itertools.count()
def evaluate(self, image):
    time.sleep(0.01)
    if next(count) == 3:
        print("started", flush=True)
    return whole(self, image)
FastBound.evaluate = evaluate
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_real_ctrl_c_ends_the_process_with_130_and_no_traceback(command, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *command(steps=100_000)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "started\n", process.communicate()[1]
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.startswith("nstlab: interrupted")
    assert len(err.splitlines()) == 1
    assert im.load(tmp_path / "out.png").shape == (1, 3, 32, 27)


# --- the program itself -----------------------------------------------------------------------------------------


def program(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_help_and_refusals_import_nothing_heavy_and_transfer_comes_first():
    code = """
import sys
from nstlab import cli
for words in (["--help"], ["transfer", "--help"], []):
    try:
        cli.main(words)
    except SystemExit as end:
        assert end.code in (0, None)
assert cli.main(["transfer", "coffee", "mosaic", "--size", "3"]) == 2
heavy = {"torch", "matplotlib", "numpy", "PIL", "IPython", "pandas", "skimage"} & set(sys.modules)
print("imported:", sorted(heavy))
"""
    done = program("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    for word in ("fetch", "info", "PHOTO", "PAINTING", "--style-layers", "long side", "(default: 512)", "from 16 to 16384 px"):
        assert word in done.stdout
    listed = [done.stdout.index(f"\n    {name}") for name in ("transfer", "reconstruct", "texture", "sweep")]
    assert listed == sorted(listed)


def test_words_of_a_command_may_come_in_any_order(command, tmp_path, capsys):
    words = command()
    assert cli.main([words[0], *words[3:], *words[1:3]]) == 0
    assert cli.main([words[0], words[1], *words[3:], words[2], "--style_scale=1", "--seed", "0"]) == 0
    capsys.readouterr()
    assert cli.main([words[0], *words[3:], "--", *words[1:3]]) == 0
    assert "found in" in capsys.readouterr().out
    (run,) = (tmp_path / "results" / "runs" / "transfer").iterdir()
    assert cli.main(["runs", "--results", str(tmp_path / "results"), "show", run.name]) == 0
    assert run.name in capsys.readouterr().out


def test_the_program_runs_as_a_module_and_refuses_in_one_line(command, tmp_path):
    done = program("-m", "nstlab", *command(steps=2))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(tmp_path / "out.png"))
    done = program("-m", "nstlab", *command(alpha="nan"))
    assert done.returncode == 2
    assert done.stderr == "nstlab: error: alpha: nan is not allowed; allowed is from 0 to 1e+12\n"


def test_info_names_versions_devices_weights_and_samples(capsys):
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    for text in (torch.__version__, "cpu", "imagenet", "nstlab fetch --weights caffe", "embedded", "astronaut", "mosaic"):
        assert text in said


def test_fetch_keeps_a_file_that_is_there_and_refuses_a_server_that_is_not(capsys, monkeypatch):
    here = Download("http://127.0.0.1:9/vgg19-e3b0c442.pth", "e3b0c442", 1)  # the hash of nothing
    there = Download("http://127.0.0.1:9/vgg19-00000000.pth", "00000000", 1)
    monkeypatch.setattr(weights, "SOURCES", {"imagenet": here, "caffe": there})
    here.path.parent.mkdir(parents=True)
    here.path.touch()
    assert cli.main(["fetch"]) == 0
    assert str(here.path) in capsys.readouterr().out
    assert cli.main(["fetch", "--weights", "caffe"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert there.url in said
