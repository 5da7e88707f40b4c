"""Settings: what is allowed, what is refused and how, and that nothing is lost on the way to JSON and back."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstlab import settings
from nstlab.cli import JobSettings
from nstlab.method import names, weights
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.names import LAYERS, layer_name
from nstlab.recipes import plan as recipes
from nstlab.recipes.base import known
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import InputError, field_type, nearest


def make(**changes):
    """Transfer settings of two pictures that need not exist."""
    return TransferSettings("photo.png", "painting.png", **changes)


def refusal(call, *args, **kwargs) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def ranged_fields():
    """(settings class, field, its Option) of every number that a user may set."""
    return [
        pytest.param(cls, name, opt, id=f"{cls.__name__}.{name}")
        for cls in (*known().values(), JobSettings)
        for name, annotation, opt in cls.options()
        if field_type(annotation)[0] in (int, float) and not field_type(annotation)[1]
    ]


def made(cls, **changes):
    pictures = {f.name: "x.png" for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    return cls(**pictures | changes)


# --- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "name"), [(1, "conv1_1"), (2, "conv1_2"), (4, "conv2_2"), (6, "conv3_2"), (16, "conv5_4")])
def test_a_tutorials_index_is_the_convolution_of_that_number(index, name):
    assert layer_name(index) == layer_name(str(index)) == name


def test_every_layer_is_its_own_name():
    assert len(LAYERS) == 16 + 16 + 5
    assert [layer_name(f" {name} ") for name in LAYERS] == list(LAYERS)


@pytest.mark.parametrize(
    ("wrong", "near"), [("conv42", "conv4_2"), ("conv4-2", "conv4_2"), ("Relu3_1", "relu3_1"), ("pool_5", "pool5")]
)
def test_an_unknown_layer_suggests_the_nearest(wrong, near):
    message = refusal(layer_name, wrong)
    assert wrong in message
    assert f"did you mean '{near}'?" in message
    assert "conv1_1 to conv5_4" in message


@pytest.mark.parametrize("wrong", ["0", "17", "-1", "conv3_5", "conv6_1", "pool6", "", "1.0"])
def test_a_layer_that_vgg19_has_not_is_refused(wrong):
    assert f"'{wrong}'" in refusal(layer_name, wrong)


def test_layers_of_settings_may_be_indices_and_are_stored_by_name():
    chosen = make(style_layers=(1, "3", "conv3_1"), content_layers=4)
    assert chosen.style_layers == ("conv1_1", "conv2_1", "conv3_1")
    assert chosen.content_layers == ("conv2_2",)


def test_a_layer_named_twice_is_refused_even_under_an_alias():
    assert "style_layers" in refusal(make, style_layers=("conv1_1", "conv2_1", "1"))


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("xyz", ("imagenet", "caffe")) == ""
    assert nearest("imagnet", ("imagenet", "caffe")) == "; did you mean 'imagenet'?"


# --- conventions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convention", "alpha", "beta", "tv", "normalize"),
    [
        ("mean", 1.0, 20.0, 0.0, True),
        ("paper", 1.0, 1e3, 0.0, True),
        ("notebook", 1.0, 1e3, 0.0, False),
        ("neural-style", 5.0, 100.0, 1e-3, False),
        ("tutorial", 1.0, 1e6, 0.0, False),
    ],
)
def test_a_convention_fills_what_was_left_open(convention, alpha, beta, tv, normalize):
    chosen = make(convention=convention)
    assert (chosen.alpha, chosen.beta, chosen.tv, chosen.normalize) == (alpha, beta, tv, normalize)


def test_a_convention_begins_as_its_authors_did():
    assert {name: (make(convention=name).init, make(convention=name).levels) for name in CONVENTIONS} == {
        "mean": ("content", 2),
        "paper": ("white", 1),
        "notebook": ("content", 1),
        "neural-style": ("grey", 1),
        "tutorial": ("content", 1),
    }
    assert make(init="noise").replace(convention="paper").init == "noise"
    assert ReconstructSettings("a.png", convention="notebook").init == "noise"  # not from the picture that is sought


def test_the_tutorial_brings_its_own_layers():
    chosen = make(convention="tutorial")
    assert chosen.content_layers == ("conv2_2",)
    assert chosen.style_layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")


def test_what_was_given_wins_over_the_convention_even_when_it_is_zero_or_false():
    chosen = make(convention="neural-style", alpha=0, beta=7, tv=0, normalize=True, style_layers="conv1_1")
    assert (chosen.alpha, chosen.beta, chosen.tv, chosen.normalize) == (0.0, 7.0, 0.0, True)
    assert chosen.style_layers == ("conv1_1",)


def test_equal_runs_have_equal_settings_however_they_were_written():
    assert make() == make(convention="mean", alpha=1, beta="2e1", content_layers=(10,))


# --- combinations -----------------------------------------------------------------------------------------------


def test_both_weights_zero_is_refused_and_one_is_not():
    message = refusal(make, alpha=0, beta=0)
    assert "alpha" in message
    assert "beta" in message
    assert make(alpha=0).beta == 20
    assert make(beta=0).alpha == 1.0


@pytest.mark.parametrize("given_weights", [(1.0,), (1.0, 2.0, 3.0)])
def test_style_weights_must_be_one_for_each_layer(given_weights):
    message = refusal(make, style_layers=("conv1_1", "conv2_1"), style_weights=given_weights)
    assert "style_weights" in message
    assert str(len(given_weights)) in message
    assert "2" in message


def test_style_weights_for_the_conventions_layers_are_five():
    assert make(style_weights=(1, 0, 0, 0, 0)).style_weights == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert "style_weights" in refusal(make, style_weights=(0, 0, 0, 0, 0))


# --- text and types ---------------------------------------------------------------------------------------------


def test_text_from_the_command_line_becomes_numbers_and_truth_values():
    chosen = make(size="256", beta="1e3", normalize="False", style_weights=("1", "2", "3", "4", "5e-1"), seed=" 7 ")
    assert (chosen.size, chosen.beta, chosen.normalize, chosen.seed) == (256, 1000.0, False, 7)
    assert chosen.style_weights == (1.0, 2.0, 3.0, 4.0, 0.5)
    assert JobSettings(resume="false", out="a.png").resume is False


@pytest.mark.parametrize("field", ["size", "steps", "alpha", "learning_rate", "seed"])
def test_a_number_field_takes_numbers_only(field):
    for wrong in (True, False, "True", "", "many", [], {}, object):
        assert field in refusal(make, **{field: wrong})


@pytest.mark.parametrize("wrong", [256.5, "256.5", "0x10", "1e2"])
def test_a_whole_number_is_needed_for_the_size(wrong):
    message = refusal(make, size=wrong)
    assert "size" in message
    assert str(wrong) in message


@pytest.mark.parametrize("wrong", ["yes", 1, 0, 2.0, "none at all"])
def test_a_truth_value_is_true_or_false_only(wrong):
    assert "normalize" in refusal(make, normalize=wrong)


@pytest.mark.parametrize(
    ("field", "wrong", "near"),
    [
        ("convention", "papr", "paper"),
        ("pool", "average", None),
        ("optimizer", "l-bfgs", "lbfgs"),
        ("precision", "float61", "float16"),
        ("style_fit", "crops", "crop"),
    ],
)
def test_a_choice_that_is_not_there_is_refused_with_all_that_are(field, wrong, near):
    message = refusal(make, **{field: wrong})
    assert message.startswith(f"{field}: '{wrong}'")
    choices = next(opt.choices for name, _, opt in TransferSettings.options() if name == field)
    assert all(choice in message for choice in choices)
    assert near is None or f"did you mean '{near}'?" in message


def test_an_empty_list_of_weights_means_equal_weights_and_none_is_refused():
    assert make(style_weights=()).style_weights == ()
    assert "style_weights" in refusal(make, style_weights=None)


def test_a_name_with_a_line_break_is_still_refused_in_one_line():
    refusal(layer_name, "conv4\n2")
    refusal(make, pool="a\nb")


# --- ranges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "name", "opt"), ranged_fields())
def test_what_is_not_finite_is_refused_everywhere(cls, name, opt):
    for wrong in (math.nan, math.inf, -math.inf, "nan", "inf", "-1e400"):
        assert refusal(made, cls, **{name: wrong}).startswith(f"{name}:")


@pytest.mark.parametrize(("cls", "name", "opt"), ranged_fields())
def test_the_ends_of_a_range_are_allowed_and_one_beyond_is_not(cls, name, opt):
    assert getattr(made(cls, **{name: opt.low}), name) == opt.low
    assert opt.allowed() in refusal(made, cls, **{name: opt.low - 1})
    if opt.high is not None:
        assert getattr(made(cls, **{name: opt.high}), name) == opt.high
        assert opt.allowed() in refusal(made, cls, **{name: opt.high * 2})


def float_fields():
    return [p for p in ranged_fields() if isinstance(getattr(make(tv=0, stop_loss=0, stop_change=0), p.values[1], None), float)]


@pytest.mark.parametrize(("cls", "name", "opt"), float_fields())
@given(data=st.data())
def test_any_float_out_of_range_is_refused(cls, name, opt, data):
    below = st.floats(max_value=opt.low, exclude_max=True)
    beyond = st.floats(min_value=opt.high, exclude_min=True) if opt.high is not None else st.just(math.inf)
    value = data.draw(below | beyond | st.just(math.nan))
    assert name in refusal(made, cls, **{name: value})


def test_a_number_too_large_by_one_is_shown_in_full():
    assert "1000001" in refusal(make, steps=1_000_001)


@pytest.mark.parametrize("field", ["size", "alpha"])
@pytest.mark.parametrize("huge", [10**400, "1" + "0" * 400], ids=["number", "text"])
def test_a_number_beyond_all_floats_is_refused_like_any_other(field, huge):
    assert refusal(make, **{field: huge}).startswith(f"{field}:")


def test_any_of_the_style_weights_may_be_the_wrong_one():
    assert "style_weights" in refusal(make, style_weights=(1, 1, -1e-9, 1, 1))
    assert "style_weights" in refusal(make, style_weights=(1, 1, 1, 1, math.nan))


# --- to JSON and back -------------------------------------------------------------------------------------------


def values(annotation, opt):
    """Any value that a field allows."""
    wanted, many, optional = field_type(annotation)
    high = 1e300 if opt.high is None else opt.high
    if opt.parse is layer_name:
        one = st.sampled_from(LAYERS)
    elif opt.choices:
        one = st.sampled_from(opt.choices) | (st.text(min_size=1).filter(str.isprintable) if opt.or_path else st.nothing())
    else:
        one = {
            int: st.integers(int(opt.low or 0), int(high)),
            float: st.floats(opt.low or 0, high),
            bool: st.booleans(),
            str: st.text(min_size=1),
            settings.Path: st.text("abc/.", min_size=1),
        }[wanted]
    if many:
        return st.lists(one, min_size=1, max_size=4, unique=True)
    return one | st.none() if optional else one


@pytest.mark.parametrize("cls", [*known().values(), JobSettings])
@given(data=st.data())
def test_settings_come_back_from_json_as_they_were(cls, data):
    drawn = {name: data.draw(values(a, opt), label=name) for name, a, opt in cls.options() if name != "style_weights"}
    if drawn.get("alpha", 1) == drawn.get("beta", 1) == 0:
        drawn["beta"] = 1.0
    if "style_layers" in drawn:
        count = len(drawn["style_layers"])
        drawn["style_weights"] = data.draw(st.lists(st.floats(1e-3, 1e9), min_size=count, max_size=count))
    chosen = cls(**drawn)
    assert cls.from_dict(json.loads(json.dumps(chosen.to_dict(), allow_nan=False))) == chosen
    assert {name: getattr(chosen, name) for name in ("seed", "size") if name in drawn} == {
        name: drawn[name] for name in ("seed", "size") if name in drawn
    }


def test_an_unknown_setting_is_refused_and_the_nearest_named():
    message = refusal(TransferSettings.from_dict, make().to_dict() | {"stepz": 3})
    assert "'stepz'" in message
    assert "did you mean 'steps'?" in message


def test_a_missing_picture_is_refused_by_name():
    assert "painting" in refusal(TransferSettings.from_dict, {"photo": "x.png"})


def test_replace_changes_a_copy_and_validates_it():
    first = make(size=64)
    second = first.replace(size="128", style_layers=["conv1_1"])
    assert (first.size, second.size) == (64, 128)
    assert second.style_layers == ("conv1_1",)
    assert second.replace(size=64, style_layers=first.style_layers) == first
    assert "size" in refusal(first.replace, size=3)
    assert "alpha" in refusal(first.replace, alpha=0, beta=0)
    assert "did you mean 'steps'?" in refusal(first.replace, step=3)


@given(st.floats())
def test_replace_allows_just_what_is_allowed(value):
    allowed = math.isfinite(value) and 0 <= value <= 1e12
    if allowed:
        assert make().replace(alpha=value).alpha == value
    else:
        refusal(make().replace, alpha=value)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().size = 128


def test_identity_leaves_out_paths_and_nothing_else():
    chosen = make()
    assert chosen.to_dict().keys() - chosen.to_dict(identity=True).keys() == {"photo", "painting", "weights"}
    texture = TextureSettings("x.png")
    assert texture.to_dict().keys() - texture.to_dict(identity=True).keys() == {"painting", "weights"}


# --- written once -----------------------------------------------------------------------------------------------


def test_names_in_settings_are_those_of_the_registries():
    assert set(names.DOWNLOADS) == set(weights.DOWNLOADS)
    assert set(names.WEIGHTS) == {"auto", "embedded", "random", *weights.DOWNLOADS}
    assert set(names.OPTIMIZERS) == set(recipes._OPTIMIZERS)


@pytest.mark.parametrize("cls", list(known().values()))
def test_every_default_is_allowed_and_every_field_has_help(cls):
    chosen = made(cls)
    for name, _, opt in cls.options():
        assert opt.help, name
        if opt.choices:
            assert getattr(chosen, name) in (*opt.choices, None)


@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_every_conventions_values_are_allowed_settings(convention):
    chosen, its = make(convention=convention), CONVENTIONS[convention]
    assert make(convention=convention, alpha=its.alpha, beta=its.beta, tv=its.tv, style_layers=its.style_layers) == chosen


def test_a_reconstruction_cannot_begin_with_a_style_nor_a_texture_with_a_content():
    assert "style" not in next(opt.choices for name, _, opt in ReconstructSettings.options() if name == "init")
    assert "content" not in next(opt.choices for name, _, opt in TextureSettings.options() if name == "init")


def test_the_settings_import_neither_torch_nor_numpy():
    code = "import sys, nstlab.settings; print([m for m in ('torch', 'numpy', 'PIL', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
