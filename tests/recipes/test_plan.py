"""Recipes: what they make of their settings, end to end on a tiny network."""

import pytest
import torch

import nstlab as nst
from nstlab import images as im
from nstlab.method.fast import memory
from nstlab.method.engine import solve
from nstlab.recipes import plan as recipes
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import FITS, InputError


@pytest.fixture
def pictures(photo, painting, tmp_path):
    """Paths of the photo and the painting."""
    return [str(nst.save(x, tmp_path / f"{name}.png")) for name, x in (("photo", photo), ("painting", painting))]


@pytest.fixture
def small(tiny_file):
    return {"weights": str(tiny_file), "size": 48, "steps": 4, "normalize": False}


def test_transfer_minimises_content_plus_style(pictures, small):
    plan = recipes.prepare(TransferSettings(*pictures, alpha=2, beta=30, tv=0.5, **small), "cpu")
    assert [(weight, term.name, term.layers) for weight, term in plan.objective.terms] == [
        (2.0, "content", ("conv4_2",)),
        (30.0, "style", nst.STYLE_LAYERS),
        (0.5, "tv", ("pixels",)),
    ]
    assert plan.objective.weights["style:conv1_1"] == pytest.approx(0.2)
    steps = [*plan.steps()]
    assert steps[-1].loss < steps[0].loss


def test_the_size_is_the_long_side(pictures, small):
    plan = recipes.prepare(TransferSettings(*pictures, **{**small, "size": 64}), "cpu")
    assert plan.start.shape == (1, 3, 64, 53)  # of a photo 48 high, 40 wide


@pytest.mark.parametrize("init", ["noise", "white", "content", "style", "grey"])
def test_first_pictures(pictures, small, init):
    plan = recipes.prepare(TransferSettings(*pictures, init=init, **small), "cpu")
    expected = {
        "noise": nst.noise(plan.inputs["content"], 0),
        "white": nst.white_noise(plan.inputs["content"], 0),
        "content": plan.inputs["content"],
        "style": nst.fit(plan.inputs["style"], plan.start.shape[-2:]),
        "grey": torch.full_like(plan.start, 0.5),
    }[init]
    assert torch.equal(plan.start, expected)


def test_a_picture_as_the_first_picture_is_part_of_the_identity(pictures, small):
    plan = recipes.prepare(TransferSettings(*pictures, init=pictures[1], **small), "cpu")
    assert torch.equal(plan.start, plan.inputs["init"])
    assert set(plan.identity()["inputs"]) == {"content", "style", "init"}


def test_reconstruction_finds_the_photo_from_a_low_layer(pictures, small, photo):
    settings = ReconstructSettings(pictures[0], layer="conv1_1", **{**small, "steps": 60})
    plan = recipes.prepare(settings, "cpu")
    result = solve(plan.objective, plan.net, plan.start, steps=60)
    before, after = ((x - plan.inputs["content"]).square().mean() for x in (plan.start, result.image))
    assert after < 0.3 * before  # four filters behind a ReLU keep no more


def test_texture_keeps_the_paintings_proportions_and_lowers_its_gram_error(pictures, small, painting):
    plan = recipes.prepare(TextureSettings(pictures[1], style_layers=("conv1_1", "conv2_1"), **small), "cpu")
    h, w = painting.shape[-2:]
    assert plan.start.shape[-1] / plan.start.shape[-2] == pytest.approx(w / h, rel=0.05)
    steps = [*plan.steps()]
    assert steps[-1].terms["style"] < 0.5 * steps[0].terms["style"]


def test_every_recipe_weighs_its_terms_as_the_convention_does(pictures, small):
    given = {**small, "convention": "neural-style"}
    weights = [
        recipes.prepare(settings, "cpu").objective.weights
        for settings in (
            TransferSettings(*pictures, **given),
            ReconstructSettings(pictures[0], **given),
            TextureSettings(pictures[1], **given),
        )
    ]
    assert [w.get("content") for w in weights] == [5, 5, None]
    assert [w.get("style") for w in weights] == [100, None, 100]
    assert {w["tv"] for w in weights} == {1e-3}


def test_a_weight_of_zero_needs_no_deep_layer(pictures, small, tiny, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "partial.safetensors"
    save_file({name: t for name, t in tiny.tensors.items() if name < "conv3"}, path)
    settings = TransferSettings(*pictures, alpha=0, style_layers=("conv2_1",), **{**small, "weights": str(path)})
    assert recipes.prepare(settings, "cpu").layers == ["relu2_1"]
    with pytest.raises(InputError, match="lack conv3_1, conv3_2, conv3_3, conv3_4, conv4_1, conv4_2"):
        recipes.prepare(settings.replace(alpha=1), "cpu")


def test_style_layers_can_be_weighted(pictures, small):
    settings = TransferSettings(*pictures, style_layers=("conv1_1", "conv2_1"), style_weights=(0.9, 0.1), **small)
    weights = recipes.prepare(settings, "cpu").objective.weights
    assert (weights["style:conv1_1"], weights["style:conv2_1"]) == (0.9, 0.1)


def test_devices():
    assert recipes.device("cpu").type == "cpu"
    assert recipes.device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match=r"there is no 'tpu' .*cpu"):
        recipes.device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is no 'cuda' on this machine"):
            recipes.device("cuda")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_a_painting_is_fitted_once(pictures, small, fit, scale):
    settings = TransferSettings(*pictures, style_fit=fit, style_scale=scale, **{**small, "size": 47})
    plan = recipes.prepare(settings, "cpu")
    (term,) = [term for _, term in plan.objective.terms if term.name == "style"]
    shape = plan.start.shape[-2:]
    assert torch.equal(term.target_image(shape), im.fit(im.load(pictures[1]), shape, fit, scale))
    half = [side // 2 for side in shape]
    shapes = term.target_image(half).shape[-2:], im.fit(im.load(pictures[1]), half, fit, scale).shape[-2:]
    assert all(abs(one - other) <= 1 for one, other in zip(*shapes, strict=True))  # by rounding
    assert recipes.outline(settings, "cpu").memory_needed() == plan.memory_needed()


def test_too_large_a_run_is_refused_with_a_size_that_fits(pictures, small, monkeypatch):
    plan = recipes.prepare(TransferSettings(*pictures, **{**small, "size": 256}), "cpu")
    plan.check_memory()
    monkeypatch.setattr(memory, "available", lambda device: plan.memory_needed() // 2)
    with pytest.raises(InputError, match=r"size 256 needs about .* GB of memory, .* GB can be had; --size (\d+) would fit"):
        plan.check_memory()


@pytest.mark.parametrize("recipe", ["transfer", "reconstruct", "texture"])
def test_a_widened_plan_is_the_same_run(pictures, small, recipe):
    settings = {
        "transfer": lambda: TransferSettings(*pictures, style_layers=("conv2_1", "conv1_1"), **small),
        "reconstruct": lambda: ReconstructSettings(pictures[0], layer="conv3_1", **small),
        "texture": lambda: TextureSettings(pictures[1], **small),
    }[recipe]()
    plan = recipes.prepare(settings, "cpu")
    wide = plan.widened()
    assert wide.identity() == plan.identity()
    assert wide.layers == plan.layers
    assert wide.memory_needed() == plan.memory_needed()
    for ours, plain in zip(wide.steps(), plan.steps(), strict=True):
        assert torch.equal(ours.snapshot(), plain.snapshot())
        assert ours.terms == plain.terms


def test_a_widened_plan_reaches_only_what_weights_and_picture_allow(pictures, small, tiny, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "partial.safetensors"
    save_file({name: t for name, t in tiny.tensors.items() if name < "conv3"}, path)
    settings = ReconstructSettings(pictures[0], layer="conv1_1", **{**small, "weights": str(path)})
    weights = recipes.prepare(settings, "cpu").widened().objective.weights
    assert [name for name in weights if name.startswith("content:")] == [
        f"content:conv{name}" for name in ("1_1", "1_2", "2_1", "2_2")
    ]


def test_steering_is_the_weights_of_other_settings_or_none(pictures, small):
    settings = TransferSettings(*pictures, **small)
    plan = recipes.prepare(settings, "cpu").widened()
    assert plan.steering(settings) == plan.objective.weights
    wanted = plan.steering(settings.replace(beta=7.0, style_layers=("conv1_2",), tv=0.5, init="grey", seed=9))
    assert {name: value for name, value in wanted.items() if name.startswith(("style", "tv")) and value} == {
        "style": 7.0, "style:conv1_2": 1.0, "tv": 0.5, "tv:pixels": 1.0,
    }  # fmt: skip
    assert wanted["content:conv4_2"] == 1
    assert plan.steering(settings.replace(pool="max")) is None
    assert plan.steering(settings.replace(style_layers=("relu1_2",))) is None
    assert plan.steering(TextureSettings(pictures[1], **small)) is None


def test_a_plan_begun_with_a_picture_is_that_of_its_file(pictures, small, tmp_path):
    settings = TransferSettings(*pictures, **small)
    plan = recipes.prepare(settings, "cpu")
    begun = plan.begun_with(torch.rand(1, 3, 50, 60, generator=torch.Generator().manual_seed(0)))
    im.save(begun.start, tmp_path / "start.png")
    loaded = recipes.prepare(settings.replace(init=str(tmp_path / "start.png")), "cpu")
    assert torch.equal(loaded.start, begun.start)
    assert loaded.identity() == begun.identity() != plan.identity()
