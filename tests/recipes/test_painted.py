"""Paintings: their colours, and mixtures of several."""

import pytest
import torch
from faults import refusal

import nstlab as nst
from nstlab.pictures import images as im
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.stored import run_id


@pytest.fixture
def make(tmp_path, photo, painting, tiny_file):
    """Makes settings of a small transfer; "other" is a third picture."""
    pictures = {"photo": photo, "painting": painting, "other": painting.flip(1, 3)}
    paths = {
        name: str(im.save(picture, tmp_path / f"{name}.png")) for name, picture in pictures.items()
    }

    def make(*more, **changes):
        given = {
            "size": 48,
            "steps": 3,
            "levels": 1,
            "weights": str(tiny_file),
            "precision": "float32",
        }
        several = {"more_paintings": tuple(paths[name] for name in more)}
        return TransferSettings(paths["photo"], paths["painting"], **given | several | changes)

    return make


def test_luminance_keeps_the_photos_colours_in_the_result_and_in_every_step(make):
    plan = nst.prepare(make(colour="luminance", init="content", beta=1e4), "cpu")
    assert torch.allclose(plan.start[:, 0], plan.start[:, 1])  # it begins in grey
    *_, step = plan.steps()
    for picture in (plan.solve().image, step.snapshot(), step.best()):
        inside = ((picture > 0) & (picture < 1)).all(1)[0]
        change = (picture - plan.inputs["content"])[0]
        assert inside.any()
        assert (change - change[:1])[:, inside].abs().max() < 1e-5  # the same in all channels
        assert change.abs().max() > 0.005


def test_matched_gives_the_painting_the_photos_colours_before_its_style_is_taken(make):
    plan, plain = (nst.prepare(make(colour=kind), "cpu") for kind in ("matched", "painting"))
    target = plan.objective.terms[1][1].image
    photo = plan.inputs["content"]
    assert torch.allclose(target.mean((2, 3)), photo.mean((2, 3)), atol=0.02)
    assert torch.equal(plain.objective.terms[1][1].image, plan.inputs["style"])
    assert plan.objective.terms[1][1].image is not plan.inputs["style"]


def test_histograms_are_matched_after_the_run(make):
    plan = nst.prepare(make(match_histogram=True), "cpu")
    result, photo = plan.solve().image, plan.inputs["content"]
    for mine, wanted in zip(result[0], photo[0], strict=True):
        assert torch.allclose(
            mine.flatten().sort().values, wanted.flatten().sort().values, atol=0.02
        )


def test_colours_are_part_of_a_runs_id(make):
    ids = {
        run_id(nst.prepare(each, "cpu"))
        for each in (make(), make(colour="matched"), make(match_histogram=True))
    }
    assert len(ids) == 3


def test_a_mixture_is_the_weighted_sum_of_its_styles(make):
    pictures = {role: torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(i)) for i,
    role in
                enumerate(("content", "style", "style_2"))}  # fmt: skip
    net, shape = nst.VGG19(make().weights, precision="float32"), (48, 40)

    def style_loss(settings):
        total, terms = settings.style(pictures, shape).bind(net, shape)(pictures["content"])
        return float(total), {name: float(value) for name, value in terms.items()}

    total, terms = style_loss(make("other", mix=(3.0, 1.0)))
    assert total == pytest.approx(0.75 * terms["style"] + 0.25 * terms["style_2"])
    alone = style_loss(make())[0]
    assert style_loss(make("other", mix=(1.0, 0.0)))[0] == alone == terms["style"]
    halves = style_loss(make("other"))[0]
    assert halves == pytest.approx((terms["style"] + terms["style_2"]) / 2)


def test_each_painting_may_have_layers_of_its_own(make):
    settings = make("other", mix_layers=("conv1_1+2", "relu3_1"))
    assert settings.mix_layers == ("conv1_1+conv1_2", "relu3_1")
    goal = nst.prepare(settings, "cpu").objective
    assert [term.layers for _, term in goal.terms[1:3]] == [("conv1_1", "conv1_2"), ("relu3_1",)]


def test_the_mix_is_steered_during_a_run_and_more_paintings_begin_another(make):
    plan = nst.prepare(make("other", mix=(1.0, 1.0)), "cpu").with_all_layers()
    wanted = plan.steering(make("other", mix=(1.0, 3.0)))
    assert wanted["style_2"] == pytest.approx(3 * wanted["style"])
    assert plan.steering(make()) is None


@pytest.mark.parametrize(
    ("more", "changes", "says"),
    [
        (["other"], {"mix": (0.0, 0.0)}, "mix: all shares are 0"),
        (["other"], {"mix": (1.0,)}, "mix: 1 given for 2 paintings"),
        ([], {"mix": (1.0, 2.0)}, "mix: 2 given for 1 painting"),
        (["other"], {"mix_layers": ("conv1_1",)}, "mix_layers: 1 given for 2 paintings"),
        (["other"], {"mix_layers": ("conv1_1", "conv9_1")}, "conv9_1"),
        ([], {"colour": "sepia"}, "colour: 'sepia'"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make, more, changes, says):
    assert says in refusal(make, *more, **changes)


def test_a_painting_that_is_not_there_is_named_and_files_are_known_by_field(
    make, tmp_path, monkeypatch
):
    settings = make("other")
    assert set(settings.files) == {"photo", "painting", "more_paintings", "weights"}
    assert "nowhere" in refusal(nst.prepare, make(more_paintings=("nowhere",)), "cpu")
    monkeypatch.chdir(tmp_path)
    near = settings.replace(photo="photo.png", more_paintings=("other.png", "mosaic")).absolute()
    assert (near["photo"], near["more_paintings"]) == (
        str(tmp_path / "photo.png"),
        [str(tmp_path / "other.png"), "mosaic"],
    )
