"""Settings: what is allowed, what is refused and how, and that nothing is lost on the way to JSON
and back."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from faults import refusal

from nstlab.base import names
from nstlab.base.errors import nearest
from nstlab.base.names import LAYERS
from nstlab.base.options import field_type, option
from nstlab.base.settings import Settings
from nstlab.cli import main as cli
from nstlab.cli.main import JobSettings
from nstlab.course.settings import SweepSettings
from nstlab.feedforward.settings import ApplySettings, LearnSettings
from nstlab.method.conventions import CONVENTIONS
from nstlab.networks import sources
from nstlab.networks.architectures import architecture
from nstlab.recipes.base import known
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.video.settings import VideoSettings

CLASSES = (*known().values(), JobSettings, LearnSettings, ApplySettings, VideoSettings)


def make(cls=TransferSettings, **changes):
    """Settings of pictures that need not exist."""
    pictures = {
        f.name: f"{f.name}.png" for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING
    }
    more = {LearnSettings: {"paintings": ("painting.png",)}, SweepSettings: {"experiment": "E1"}}
    return cls(**pictures | more.get(cls, {}) | changes)


def comes_back(settings):
    """Whether settings are the same when they have been JSON."""
    return (
        type(settings).from_dict(json.loads(json.dumps(settings.to_dict(), allow_nan=False)))
        == settings
    )


layer = architecture("vgg19").layer


def test_a_layer_is_called_by_its_name_or_by_the_index_that_tutorials_use():
    assert len(LAYERS) == 16 + 16 + 5
    assert [layer(f" {name} ") for name in LAYERS] == list(LAYERS)
    indices = {1: "conv1_1", 2: "conv1_2", 4: "conv2_2", 6: "conv3_2", "16": "conv5_4"}
    assert [layer(index) for index in indices] == list(indices.values())


@pytest.mark.parametrize(
    ("wrong", "near"),
    [(wrong, "") for wrong in ("0", "17", "-1", "", "1.0", "²", "xyz")]
    + [
        ("conv3_5", "conv3_"),
        ("conv4\n2", "conv4_2"),
        ("conv4-2", "conv4_2"),
        ("Relu3_1", "relu3_1"),
        ("pool_5", "pool5"),
    ],
)
def test_a_layer_that_vgg19_does_not_have_is_refused_with_the_nearest_if_there_is_one(wrong, near):
    message = refusal(layer, wrong)
    assert f"'{' '.join(wrong.splitlines())}'" in message
    assert "conv1_1 to conv5_4" in message
    assert (f"; did you mean '{near}" in message) if near else ("did you mean" not in message)


# --- what is allowed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convention", "alpha", "beta", "tv", "normalize", "init", "levels"),
    [
        ("mean", 1.0, 20.0, 0.0, True, "content", 2),
        ("paper", 1.0, 1e3, 0.0, True, "white", 1),
        ("notebook", 1.0, 1e3, 0.0, False, "content", 1),
        ("neural-style", 5.0, 100.0, 1e-3, False, "grey", 1),
        ("tutorial", 1.0, 1e6, 0.0, False, "content", 1),
    ],
)
def test_a_convention_fills_what_was_left_open(
    convention, alpha, beta, tv, normalize, init, levels
):
    chosen, its = make(convention=convention), CONVENTIONS[convention]
    assert (chosen.alpha, chosen.beta, chosen.tv, chosen.normalize) == (alpha, beta, tv, normalize)
    assert (chosen.init, chosen.levels) == (init, levels)
    assert (
        make(
            convention=convention,
            alpha=its.alpha,
            beta=its.beta,
            tv=its.tv,
            style_layers=its.style_layers,
        )
        == chosen
    )


TUTORIAL = {
    "content_layers": ("conv2_2",),
    "style_layers": ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"),
}
GIVEN = {"alpha": 0, "beta": 7, "tv": 0, "normalize": True, "style_layers": ("conv1_1",)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"style_layers": (1, "3", "conv3_1")},
            {"style_layers": ("conv1_1", "conv2_1", "conv3_1")},
        ),
        ({"content_layers": 4}, {"content_layers": ("conv2_2",)}),
        ({"convention": "tutorial"}, TUTORIAL),
        ({"convention": "neural-style", **GIVEN}, GIVEN),
        ({"alpha": 0}, {"alpha": 0.0, "beta": 20.0}),
        ({"beta": 0}, {"alpha": 1.0, "beta": 0.0}),
        ({"style_weights": ()}, {"style_weights": ()}),
        ({"style_weights": ("1", 0, "2", "5e-1", 0)}, {"style_weights": (1.0, 0.0, 2.0, 0.5, 0.0)}),
        ({"size": "256", "beta": "1e3"}, {"size": 256, "beta": 1000.0}),
        ({"normalize": "False", "seed": " 7 "}, {"normalize": False, "seed": 7}),
        ({"weights": "Bücher/„a“ 画\n\\.pt", "seed": 2**53 + 1}, {"seed": 2**53 + 1}),
        ({"alpha": 0.1 + 0.2, "beta": 5e-324}, {"alpha": 0.1 + 0.2, "beta": 5e-324}),
    ],
    ids=str,
)
def test_what_is_given_wins_may_be_text_or_zero_and_comes_back_from_json(given, expected):
    chosen = make(**given)
    assert {name: getattr(chosen, name) for name in expected} == expected
    assert comes_back(chosen)


def test_equal_settings_are_equal_however_they_were_written():
    assert make() == make(convention="mean", alpha=1, beta="2e1", content_layers=(10,))
    assert JobSettings(resume="false", out="a.png") == JobSettings(resume=False, out=Path("a.png"))
    assert make(init="noise").replace(convention="paper").init == "noise"
    # not from the picture that is sought
    assert make(ReconstructSettings, convention="notebook").init == "noise"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"alpha": 0, "beta": 0}, ("alpha", "beta", "at least one must be more")),
        ({"style_layers": ("conv1_1", "conv2_1", "1")}, ("style_layers", "twice")),
        (
            {"style_layers": ("conv1_1", "conv2_1"), "style_weights": (1.0,)},
            ("style_weights", "1", "2"),
        ),
        (
            {"style_layers": ("conv1_1", "conv2_1"), "style_weights": (1, 2, 3)},
            ("style_weights", "3", "2"),
        ),
        ({"style_weights": (0, 0, 0, 0, 0)}, ("style_weights", "at least one must be more")),
        ({"style_weights": (1, 1, -1e-9, 1, 1)}, ("style_weights", "-1e-09")),
        ({"style_weights": (1, 1, 1, 1, math.nan)}, ("style_weights", "nan")),
        ({"style_weights": None}, ("style_weights", "is not a list")),
        ({"size": 256.5}, ("size", "256.5")),
        ({"size": "0x10"}, ("size", "0x10")),
        ({"size": "1e2"}, ("size", "1e2")),
        ({"size": 10**400}, ("size: 1000",)),
        ({"alpha": 10**400}, ("alpha:",)),
        ({"alpha": "1" + "0" * 400}, ("alpha: inf is not allowed",)),
        ({"pool": "average"}, ("pool: 'average'", "avg, max, l2")),
        ({"pool": "a\nb"}, ("pool: 'a b'",)),
        (
            {"convention": "papr"},
            ("convention: 'papr'", ", ".join(CONVENTIONS), "did you mean 'paper'?"),
        ),
        ({"cls": ReconstructSettings, "init": "style"}, ("init: 'style' is not one of noise, ",)),
        ({"cls": TextureSettings, "init": "content"}, ("rings, style or a path",)),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused_in_one_line_that_says_why(changes, says):
    message = refusal(make, **changes)
    for text in says:
        assert text in message


def test_a_field_takes_values_of_its_type_only():
    for wrong in (True, False, "True", "", "many", [], {}, object):
        for field in ("size", "alpha"):
            assert refusal(make, **{field: wrong}).startswith(f"{field}: ")
    for wrong in ("yes", 1, 0, 2.0, "none at all"):
        assert refusal(make, normalize=wrong).startswith("normalize: ")


def test_a_range_includes_its_ends_which_come_back_from_json_and_nothing_beyond():
    fields = {
        (name, opt): (cls, *field_type(kind))
        for cls in CLASSES
        for name, kind, opt in cls.options()
    }
    numbers = {
        field: cls
        for field, (cls, wanted, many, _) in fields.items()
        if wanted in (int, float) and not many
    }
    assert {name for name, _ in numbers} >= {"size", "steps", "alpha", "learning_rate", "frames"}
    for (name, opt), cls in numbers.items():
        for end in {opt.low, opt.high} - {None}:
            chosen = make(cls, **{name: end})
            assert getattr(chosen, name) == end
            assert comes_back(chosen)
        for wrong in (opt.low - 1, math.inf if opt.high is None else opt.high * 2):
            assert opt.allowed() in refusal(make, cls, **{name: wrong})
        for wrong in (math.nan, math.inf, -math.inf, "nan", "inf", "-1e400"):
            assert refusal(make, cls, **{name: wrong}).startswith(f"{name.rstrip('_')}:")


def test_a_number_without_a_range_is_any_finite_one():
    @dataclasses.dataclass(frozen=True)
    class Free(Settings):
        x: float = option(0.0, "any number")

    assert Free(x=-1e300).x == -1e300
    assert refusal(Free, x=math.inf) == "x: inf is not allowed; allowed is a finite number"


def test_a_copy_is_changed_and_validated_and_unknown_or_missing_settings_are_named():
    first = make(size=64)
    second = first.replace(size="128", style_layers=["conv1_1"])
    assert (first.size, second.size) == (64, 128)
    assert second.style_layers == ("conv1_1",)
    assert second.replace(size=64, style_layers=first.style_layers) == first
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.size = 128
    assert "alpha" in refusal(first.replace, alpha=0, beta=0)
    assert "did you mean 'steps'?" in refusal(first.replace, step=3)
    assert "'stepz'; did you mean 'steps'?" in refusal(
        TransferSettings.from_dict, make().to_dict() | {"stepz": 3}
    )
    assert "'painting' is missing" in refusal(TransferSettings.from_dict, {"photo": "x.png"})


def test_sources_of_weights_are_those_that_there_are():
    assert set(names.DOWNLOADS) == set(sources.SOURCES)
    assert set(names.WEIGHTS) == {"auto", "embedded", "random", *sources.SOURCES}
    assert nearest("xyz", names.WEIGHTS) == ""


def test_an_empty_name_of_a_file_is_refused_wherever_one_is_named():
    classes = {cls for each in cli.commands().values() for cls in each.settings}
    every = [(cls, *field) for cls in classes for field in cls.options()]
    naming = {
        (cls, name): field_type(kind)[1]
        for cls, name, kind, opt in every
        if field_type(kind)[0] is Path or opt.reads or opt.output
    }
    fields = {name for _, name in naming}
    assert fields >= {"photo", "mask", "more_paintings", "photos", "clip", "model", "out", "init"}
    for (cls, name), many in naming.items():
        for empty in (("",), ("a.png", "")) if many else ("",):
            assert refusal(make, cls, **{name: empty}).startswith(f"{name}: name "), (cls, name)
    assert refusal(make, ApplySettings, model="") == "model: name a file or a folder"
    assert refusal(make, weights="") == f"weights: name {', '.join(names.WEIGHTS)} or a path"
    assert (make().mask, make().more_paintings, make(VideoSettings).model) == (None, (), None)
