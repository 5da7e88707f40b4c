"""Attacks: whatever is typed and whatever a file holds, a command ends with 0 or 2, in one line,
and nothing is lost.

Each test draws fifteen cases, the same ones every time; `NSTLAB_ATTACKS=1000 make test` draws a
thousand new ones.
"""

import copy
import io
import json
import math
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
from faults import raise_at
from helpers import smooth, transform_network
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from making import make_clip

import nstlab as nst
from nstlab.base.options import field_type
from nstlab.cli import main as cli
from nstlab.cli.main import JobSettings
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import ApplySettings, LearnSettings
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.factories import total_variation
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.weights import random_weights
from nstlab.pictures import images as im
from nstlab.pictures.opening import ALLOWING
from nstlab.recipes.base import known
from nstlab.video.clips import clip
from nstlab.video.settings import VideoSettings

FEW = 15
CASES = int(os.environ.get("NSTLAB_ATTACKS", FEW))
attack = hypothesis_settings(
    max_examples=CASES,
    derandomize=CASES == FEW,
    suppress_health_check=list(HealthCheck),
    print_blob=CASES != FEW,
)
SENTINEL = b"an older picture"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two pictures, a clip, small weights, a model, and results with a finished run and an
    interrupted one."""
    folder = tmp_path_factory.mktemp("scene")
    (
        im.save(smooth(20, 18, 1), folder / "photo.png"),
        im.save(smooth(17, 22, 2), folder / "painting.png"),
    )
    weights = random_weights(0, widths=(2, 3, 3, 3, 3)).tensors
    safetensors.torch.save_file(weights, folder / "tiny.safetensors", {"input": str(TORCHVISION)})
    assert run(transfer(folder, out="a.png")).code == 0
    with pytest.MonkeyPatch.context() as patch:
        raise_at(patch, 4)
        assert run(transfer(folder, out="b.png", seed=1)).code == 130
    (folder / "out.png").write_bytes(SENTINEL)
    StyleModel(transform_network(), ("ink", "oil", "chalk")).save(folder / "model.safetensors")
    make_clip(folder / "clip.mp4", [smooth(20, 18, seed) for seed in (1, 1, 2)])
    (folder / "photos").mkdir()
    shutil.copy(folder / "photo.png", folder / "photos")
    return folder


@pytest.fixture
def place(scene, tmp_path):
    """A function that lays the scene anew, for one case."""

    def lay():
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        return Path(shutil.copytree(scene, tmp_path / "here"))

    return lay


def command(folder, recipe, **options):
    """The words of a small run. An option with several words is a list; the output is always below
    the folder."""
    pictures = [
        options.pop(field, [folder / f"{field}.png"])[0] for field in known()[recipe].roles()
    ]
    options = {
        "weights": folder / "tiny.safetensors", "normalize": False, "size": 20, "steps": 5,
        "device": "cpu",
        "precision": "float32", "results": folder / "results", "out": "out.png",
    } | options  # fmt: skip
    options["out"] = folder / str(options["out"]).lstrip("/")
    return spelt([recipe, *pictures], options)


def spelt(words, options):
    """A command's words, with these options."""
    words = list(map(str, words))
    for name, value in options.items():
        words += [
            "--" + name.rstrip("_").replace("_", "-"),
            *map(str, value if isinstance(value, list) else [value]),
        ]
    return words


def transfer(folder, **options):
    """The words of a small transfer with progress pictures."""
    return command(folder, "transfer", frames=2, **options)


def run(words):
    """A command: its exit code, and what it said."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main(words)
        except SystemExit as end:  # --help
            code = end.code or 0
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def withstood(folder, words, out=None):
    """Carry out a command, which must end well: with its work done, or with one line and all as it
    was."""
    done = run(words)
    assert done.code in (0, 2), done
    assert "Traceback" not in done.err + done.out
    if done.code == 2:
        assert done.err.startswith("nstlab: error: "), done
        assert len(done.err.splitlines()) == 1, done
        assert (folder / "out.png").read_bytes() == SENTINEL
    elif out is not None and done.out and "usage" not in done.out:
        assert im.reopen(out).isfinite().all()
    return done


# --- what is typed --------------------------------------------------------------------------------

NUMBERS = [
    "-1",
    "0",
    "1",
    "2",
    "3.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "²",
    "١",
    "0x10",
    "1_0",
    "1" + "0" * 400,
]
NAMES = [
    "content",
    "style",
    "noise",
    "white",
    "rings",
    "conv1_1",
    "relu2_1",
    "pool1",
    "pixels",
    "auto",
    "paper",
    "tutorial",
]
NAMES += ["None", "false"]
PATHS = [
    "/dev/zero",
    "/dev/null",
    "/",
    ".",
    "..",
    "nowhere/a.png",
    "coffee.png",
    "é",
    "\udcff",
    "a\0b",
    "a\tb",
    "x" * 300,
]
PATHS += ["", " ", "--"]
ODD_WORDS = st.text(max_size=8) | st.sampled_from(NUMBERS + NAMES + PATHS)
CHEAP = {  # of these only values that take no time
    "size": ["16", "17", "20", "15", "-3", "1e3", "99999999"], "steps": ["0", "1", "2", "-1"],
    "frames": ["0", "1", "2", "501"], "style_scale": ["0.1", "1", "1.5", "0"],
    "device": ["cpu", "cuda:7", "tpu"],
    "weights": ["nowhere.pth", "imagenet", "caffe"], "crop": ["64", "63"],
    "batch": ["1", "2", "0"], "width": ["8", "7"],
    "passes": ["1", "2", "0"],
}  # fmt: skip


def values(name, annotation, opt):
    """Words for one option: allowed ones, and others."""
    usual = st.sampled_from([*opt.choices, "0.5", "1"])
    one = st.sampled_from(CHEAP[name]) if name in CHEAP else usual | ODD_WORDS
    return (
        st.lists(one, max_size=3) if field_type(annotation)[1] else one.map(lambda value: [value])
    )


@st.composite
def commands(draw):
    """A recipe with up to four options, on pictures that mostly are there."""
    recipe = draw(st.sampled_from(list(known())))
    fields = {
        name: (annotation, opt)
        for cls in (known()[recipe], JobSettings)
        for name, annotation, opt in cls.options()
    }
    chosen = draw(
        st.lists(st.sampled_from(sorted(fields.keys() - {"results"})), max_size=4, unique=True)
    )
    return recipe, {name: draw(values(name, *fields[name])) for name in chosen}


@attack
@given(commands())
def test_options(place, drawn):
    here, (recipe, options) = place(), drawn
    if "out" in options:
        options["out"] = options["out"][0]
    words = command(here, recipe, **{"steps": 1} | options)
    withstood(here, words, Path(words[words.index("--out") + 1]))


@attack
@given(data=st.data())
def test_models_and_films(place, monkeypatch, data):
    # of the curves of what is learnt, at which nobody looks
    monkeypatch.setattr("nstlab.figures.base.DPI", 20)
    here = place()
    model = here / "model.safetensors"
    if data.draw(st.booleans()):
        damage(data, model)
    tiny = here / "tiny.safetensors"
    learn = {"photos": here / "photos", "weights": tiny, "results": here / "results", "out": model}
    learn |= {"size": 20, "crop": 64, "width": 8, "batch": 1, "steps": 1, "device": "cpu"}
    video = {
        "out": here / "film.gif",
        "size": 20,
        "steps": 1,
        "device": "cpu",
        "results": here / "results",
    }
    apply = {"out": here / "out.png", "device": "cpu"}
    cls, words, usual = data.draw(
        st.sampled_from([
            (LearnSettings, ["learn", here / "painting.png"], learn),
            (ApplySettings, ["apply", model, here / "photo.png"], apply),
            (VideoSettings,
            ["video", here / "clip.mp4", here / "painting.png", "-p", "weights", tiny], video),
        ])
    )  # fmt: skip
    fields = {
        name: (annotation, opt)
        for name, annotation, opt in cls.options()
        if name not in ("out", "results")
    }
    chosen = (
        data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True))
        if fields
        else []
    )
    before = model.read_bytes()
    done = withstood(
        here,
        spelt(words, usual | {name: data.draw(values(name, *fields[name])) for name in chosen}),
    )
    assert done.code == 0 or model.read_bytes() == before


# --- what is stored -------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**30)
    | st.floats()
    | st.text(max_size=4)
    | st.just(10**400)
)
ODD_JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)


def mutated(data, value):
    """A JSON value of which something, at any depth, is removed, exchanged or nested deeply."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(ODD_JSON)
    value = copy.copy(value)
    key = data.draw(
        st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value)))
    )
    if data.draw(st.integers(0, 4)) == 0:
        del value[key]
    else:
        value[key] = mutated(data, value[key])
    return value


def damage(data, path):
    """Let a file's content be cut, exchanged or added to somewhere."""
    content, few = path.read_bytes(), data.draw(st.binary(min_size=1, max_size=8))
    where = data.draw(st.integers(0, len(content)))
    head, tail = content[:where], content[where:]
    path.write_bytes(
        data.draw(
            st.sampled_from(
                [b"", head, head + few + tail[len(few) :], head + few + tail, content + tail]
            )
        )
    )


CLIPS = {
    "mp4": "libx264",
    "mkv": "mpeg4",
    "webm": "libvpx",
    "avi": "mpeg4",
    "flv": "flv1",
    "ts": "mpeg2video",
}
FIELDS = [
    b"mdhd",
    b"tkhd",
    b"stts",
    b"stsz",
    b"elst",
    b"pasp",
    b"colr",
    b"avcC",
    b"strh",
    b"avih",
    b"\x44\x89",
    b"\x2a\xd7\xb1",
]
EXTREMES = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"\0\1\0\0",
    bytes(64),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of several kinds, two of them with sound."""
    folder, pictures = tmp_path_factory.mktemp("clips"), [smooth(32, 48, seed) for seed in range(5)]
    sounds = {"mp4": "aac", "webm": "libopus"}
    return [
        make_clip(
            folder / f"a.{suffix}",
            pictures,
            codec=codec,
            sound=sounds.get(suffix),
            aspect=Fraction(3, 2),
        )
        for suffix, codec in CLIPS.items()
    ]


@attack
@given(data=st.data())
def test_clips(clips, tmp_path, monkeypatch, data):
    whole = data.draw(st.sampled_from(clips))
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):  # a field of a header, or anything
        begin = (
            content.find(field) if (field := data.draw(st.sampled_from(FIELDS))) in content else 0
        )
        where = begin + data.draw(st.integers(0, 40 if begin else len(content)))
        new = data.draw(st.sampled_from(EXTREMES) | st.binary(max_size=8))
        content[where : where + data.draw(st.sampled_from([len(new), 0, 200]))] = new
    path = tmp_path / whole.name
    path.write_bytes(content[: data.draw(st.sampled_from([None, len(content) // 2]))])
    monkeypatch.setenv(ALLOWING, "100000")
    last = Fraction(-1)
    try:
        for frame in clip(path).frames((32, 64)):
            assert frame.picture.shape == (1, 3, 32, 64)
            assert 0 <= frame.picture.min() <= frame.picture.max() <= 1
            assert last < frame.time < frame.until < 2_100_000
            last = frame.time
    except nst.InputError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


def looked_at(here):
    """The lists of runs, whatever is among them."""
    for words in (["runs"], ["runs", "show", "0"], ["runs", "rm", "f"]):
        withstood(here, [*words, "--results", str(here / "results")])


@pytest.mark.parametrize("name", ["*/*/manifest.json", "index.json"])
@attack
@given(data=st.data())
def test_manifests_and_the_index(place, name, data):
    here = place()
    looked_at(here)
    (path,) = here.glob(f"results/runs/{name}")
    found = json.loads(path.read_text())
    path.write_text(json.dumps(mutated(data, mutated(data, found))))
    done = run(["runs", "--results", str(here / "results")])
    assert done.code == 0
    assert name != "index.json" or next(iter(found["runs"])).partition("/")[2] in done.out
    looked_at(here)
    assert withstood(here, transfer(here), here / "out.png").code == 0  # found, or computed again


@pytest.mark.parametrize("pattern", ["results/**/*", "tiny.safetensors"])
@attack
@given(data=st.data())
def test_files_of_runs_and_weights(place, pattern, data):
    here = place()
    there = sorted(
        path for path in here.glob(pattern) if path.is_file() and "locks" not in path.parts
    )
    damage(data, data.draw(st.sampled_from(there)))
    looked_at(here)
    for seed in (0, 1):
        withstood(here, transfer(here, seed=seed), here / "out.png")
        (here / "out.png").write_bytes(SENTINEL)


# --- what is minimised ----------------------------------------------------------------------------

WEIGHT = st.sampled_from([0, 1e-300, 1e-45, 1e-20, 1, 1e12, 1e30, 3e38, 1e300])


@attack
@given(
    st.tuples(*[WEIGHT] * 5),
    st.sampled_from(sorted(CONVENTIONS)),
    st.sampled_from([nst.LBFGS(), nst.Adam(), nst.GradientDescent()]),
    st.sampled_from(["noise", "grey", "content"]),
    st.integers(1, 2),
)
def test_absurd_weights(weights, convention, optimizer, init, levels):
    photo, painting, layers = smooth(34, 33, 1), smooth(17, 22, 2), ["conv1_1", "conv2_1"]
    net = nst.VGG19(random_weights(0, (2, 3, 3, 3, 3)), precision="float32")
    start = {"noise": nst.noise(photo), "grey": nst.grey(photo), "content": photo}[init]
    alpha, beta, tv, *each = weights
    try:
        goal = alpha * nst.content(layers, photo, each, convention) + beta * nst.style(
            layers, painting, each, convention
        )
        result = nst.solve(
            goal + tv * total_variation(convention), net, start, 4, optimizer, levels
        )
    except (
        nst.InputError,
        FloatingPointError,
    ):  # refused, or not to be evaluated at the first picture
        return
    assert all(map(math.isfinite, [result.loss, *result.terms.values()]))
    assert result.image.isfinite().all()


def test_the_scene_is_one_in_which_the_commands_do_their_work(place):
    here = place()
    for seed, how in ((0, "found in"), (1, "done in")):
        assert how in withstood(here, transfer(here, seed=seed), here / "out.png").out
    assert (here / "out.gif").is_file()
