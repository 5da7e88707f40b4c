"""Recipes: what they make of their settings, end to end on a tiny network."""

import pytest
import torch
from faults import refusal
from safetensors.torch import save_file

import nstlab as nst
from nstlab.base.settings import FITS
from nstlab.pictures import images as im
from nstlab.pictures import starts
from nstlab.recipes.base import named
from nstlab.recipes.prepare import outline, prepare


@pytest.fixture
def settings(small_transfer):
    """Settings by recipe; options replace those of a small run on the tiny network."""
    pictures = [small_transfer.photo, small_transfer.painting]
    small = {"weights": small_transfer.weights, "size": 48, "steps": 4, "normalize": False}
    read = {"transfer": pictures, "reconstruct": pictures[:1], "texture": pictures[1:]}
    return lambda recipe="transfer", **options: named(recipe)(*read[recipe], **small | options)


@pytest.fixture
def partial(tiny, tmp_path):
    """A file of weights that end with the second block."""
    save_file(
        {name: t for name, t in tiny.tensors.items() if name < "conv3"},
        tmp_path / "partial.safetensors",
    )
    return str(tmp_path / "partial.safetensors")


def test_transfer_minimises_content_plus_style(settings):
    plan = prepare(settings(alpha=2, beta=30, tv=0.5, size=64), "cpu")
    assert plan.objective.weights == pytest.approx(
        {"content": 2, "content:conv4_2": 1, "style": 30, "tv": 0.5, "tv:pixels": 1}
        | {f"style:conv{block}_1": 0.2 for block in range(1, 6)}
    )
    # the long side is the size; the photo is 48 high, 40 wide
    assert plan.start.shape == (1, 3, 64, 53)
    weighted = prepare(
        settings(style_layers=("conv1_1", "conv2_1"), style_weights=(0.9, 0.1)), "cpu"
    ).objective.weights
    assert (weighted["style:conv1_1"], weighted["style:conv2_1"]) == (0.9, 0.1)


def test_reconstruction_finds_the_photo_from_a_low_layer(settings):
    plan = prepare(settings("reconstruct", layer="conv1_1", steps=60), "cpu")
    before, after = (
        (x - plan.inputs["content"]).square().mean() for x in (plan.start, plan.solve().image)
    )
    assert after < 0.3 * before  # four filters behind a ReLU keep no more


def test_texture_keeps_the_paintings_proportions_and_lowers_its_gram_error(settings):
    plan = prepare(settings("texture", style_layers=("conv1_1", "conv2_1")), "cpu")
    assert plan.start.shape == (1, 3, 34, 48)  # the painting is 40 high, 56 wide
    first, *_, last = plan.steps()
    assert last.terms["style"] < 0.5 * first.terms["style"]


@pytest.mark.parametrize("init", ["noise", "white", "content", "style", "grey", "rings"])
def test_first_pictures(settings, init):
    plan = prepare(settings(init=init), "cpu")
    expected = {
        "noise": nst.noise(plan.start, 0),
        "white": nst.white_noise(plan.start, 0),
        "content": plan.inputs["content"],
        "style": nst.fit(plan.inputs["style"], plan.start.shape[-2:]),
        "grey": torch.full_like(plan.start, 0.5),
        "rings": starts.rings(plan.start),
    }
    assert torch.equal(plan.start, expected[init])


def test_a_plan_begun_with_a_picture_is_that_of_its_file(settings, tmp_path):
    plan = prepare(settings(), "cpu")
    begun = plan.starting_from(torch.rand(1, 3, 50, 60, generator=torch.Generator().manual_seed(0)))
    loaded = prepare(settings(init=str(im.save(begun.start, tmp_path / "start.png"))), "cpu")
    assert torch.equal(loaded.start, begun.start)
    assert loaded.identity() == begun.identity() != plan.identity()
    assert set(loaded.identity()["inputs"]) == {"content", "style", "init"}


@pytest.mark.parametrize(
    ("recipe", "content", "style"),
    [("transfer", 5, 100), ("reconstruct", 5, None), ("texture", None, 100)],
)
def test_every_recipe_weighs_its_terms_as_the_convention_does(settings, recipe, content, style):
    weights = prepare(settings(recipe, convention="neural-style"), "cpu").objective.weights
    assert (weights.get("content"), weights.get("style"), weights["tv"]) == (content, style, 1e-3)


def test_a_weight_of_zero_needs_no_deep_layer(settings, partial):
    shallow = settings(alpha=0, style_layers=("conv2_1",), weights=partial)
    assert prepare(shallow, "cpu").layers == ["relu2_1"]
    assert "lack conv3_1, conv3_2, conv3_3, conv3_4, conv4_1, conv4_2" in refusal(
        prepare, shallow.replace(alpha=1), "cpu"
    )
    assert "alpha and beta are both 0" in refusal(settings, alpha=0, beta=0)


# "own" is a size in pixels, which becomes smaller with the picture only in a run
@pytest.mark.parametrize("fit", FITS[:3])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_a_painting_is_fitted_once(settings, fit, scale):
    fitting = settings(style_fit=fit, style_scale=scale, size=47)
    plan, painting = prepare(fitting, "cpu"), im.load(fitting.painting)
    (term,) = [term for _, term in plan.objective.terms if term.name == "style"]
    shape = plan.start.shape[-2:]
    half = [side // 2 for side in shape]
    assert torch.equal(term.target_image(shape), im.fit(painting, shape, fit, scale))
    shapes = term.target_image(half).shape[-2:], im.fit(painting, half, fit, scale).shape[-2:]
    assert all(abs(one - other) <= 1 for one, other in zip(*shapes, strict=True))  # by rounding
    assert outline(fitting, "cpu").memory_needed() == plan.memory_needed()


@pytest.mark.parametrize(
    "options",
    [{"style_layers": ("conv2_1", "conv1_1")}, {"recipe": "reconstruct"}, {"recipe": "texture"}],
)
def test_a_widened_plan_is_the_same_run(settings, options):
    plan = prepare(settings(**options), "cpu")
    wide = plan.with_all_layers()
    assert (wide.identity(), wide.layers, wide.memory_needed()) == (
        plan.identity(),
        plan.layers,
        plan.memory_needed(),
    )
    for ours, plain in zip(wide.steps(), plan.steps(), strict=True):
        assert torch.equal(ours.snapshot(), plain.snapshot())
        assert ours.terms == plain.terms


def test_a_widened_plan_reaches_only_what_weights_and_picture_allow(settings, partial):
    weights = (
        prepare(settings("reconstruct", layer="conv1_1", weights=partial), "cpu")
        .with_all_layers()
        .objective.weights
    )
    assert [name for name in weights if ":conv" in name] == [
        f"content:conv{place}" for place in ("1_1", "1_2", "2_1", "2_2")
    ]


def test_steering_is_the_weights_of_other_settings_or_none(settings):
    plan, own = prepare(settings(), "cpu").with_all_layers(), settings()
    assert plan.steering(own) == plan.objective.weights
    wanted = plan.steering(
        own.replace(beta=7.0, style_layers=("conv1_2",), tv=0.5, init="grey", seed=9)
    )
    assert {name: value for name, value in wanted.items() if value} == {
        "content": 1, "content:conv4_2": 1, "style": 7.0, "style:conv1_2": 1.0, "tv": 0.5,
        "tv:pixels": 1.0,
    }  # fmt: skip
    for other in (
        own.replace(pool="max"),
        own.replace(style_layers=("relu1_2",)),
        settings("texture"),
    ):
        assert plan.steering(other) is None


@pytest.mark.parametrize("beta", [20.0, 21.0])
def test_a_weight_that_was_given_stays_when_the_convention_changes(settings, beta):
    """Even if it happens to be the default of the convention before."""
    assert settings(beta=beta).replace(convention="paper").beta == beta
