"""Lessons: estimates, predictions, exercises with hints, demonstrations, and what is shown where nobody can use widgets."""

import math

import numpy as np
import pytest
import torch
from IPython.display import Markdown

import nstlab as nst
from nstlab import images as im
from nstlab.course import Lesson, demonstrations
from nstlab.course import lesson as lesson_module
from nstlab.course.exercises import EXERCISES
from nstlab.course.predictions import PREDICTIONS
from nstlab.course.settings import EXPERIMENTS
from nstlab.live.studio import STATIC, Studio
from nstlab.method.lbfgs import LBFGS
from nstlab.method.names import CONVOLUTIONS
from nstlab.method.network import VGG19
from nstlab.recipes.transfer import TransferSettings
from nstlab.settings import InputError


@pytest.fixture
def make(photo, painting, tiny_file, tmp_path):
    """Makes a lesson of small pictures and a tiny network."""
    paths = {"photo": im.save(photo, tmp_path / "photo.png"), "painting": im.save(painting, tmp_path / "painting.png")}

    def make(*experiments, **changes):
        small = {name: str(path) for name, path in paths.items()}
        small |= {"budget": "smoke", "weights": str(tiny_file), "results": tmp_path / "results"}
        return Lesson(*experiments, **(small | changes))

    return make


@pytest.fixture
def ran(make):
    """Makes a lesson whose experiment has been run."""

    def ran(name, **changes):
        lesson = make(name, **changes)
        lesson.run(name)
        return lesson

    return ran


def test_a_lesson_says_how_long_it_takes_and_finds_what_was_made_before(make, capsys):
    lesson = make("E3")
    lesson.begin()
    assert capsys.readouterr().out == "E3: 4 runs of 4 steps (unless varied) at 48 px: about 1 s on this machine\n"
    lesson.run("E3")
    assert make("E3").estimates() == ["E3: 4 runs of 4 steps (unless varied) at 48 px, all of them kept from before"]
    assert make("E11").estimates() == ["E11: nothing to optimize, a few seconds"]


def test_estimates_follow_the_layers_that_are_read(make, monkeypatch):
    seen = []
    monkeypatch.setattr(lesson_module, "_seconds_each", lambda plan: seen.append(tuple(plan.layers)) or len(plan.layers))
    (text,) = make("E2").estimates()
    assert len(set(seen)) == 5  # of the first layer alone to all five
    assert f"about {round(1.25 * 4 * (1 + 2 + 3 + 4 + 5))} s" in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_prediction_that_its_runs_answer(ran, name, monkeypatch):
    monkeypatch.setattr(lesson_module.figures, "DPI", 20)
    lesson, prediction = ran(name), PREDICTIONS[name]
    assert prediction.answer(lesson.runs[name], lesson.base) in prediction.choices
    text = lesson.claims(name).data
    assert prediction.question in text
    assert "| claim | number | holds |" in text


def test_a_guess_is_held_against_the_runs(ran):
    lesson = ran("E4")
    truth = PREDICTIONS["E4"].answer(lesson.runs["E4"], lesson.base)
    shown = lesson.predict("E4")
    buttons = shown.children[1]
    assert buttons.value is None
    assert "You predicted" not in lesson.claims("E4").data
    for choice in buttons.options:
        buttons.value = choice
        text = lesson.claims("E4").data
        assert f"You predicted: *{choice}*" in text
        assert ("That is it." in text) == (choice == truth)


def test_what_was_not_run_says_so(make):
    lesson = make("E3")
    with pytest.raises(InputError, match="E3 has not been run yet"):
        lesson.claims("E3")
    with pytest.raises(InputError, match=r"no experiment 'E4' \(it has: E3\)"):
        lesson.run("E4")
    with pytest.raises(InputError, match="weights"):
        make("E3", weights="nowhere.pth")


def test_one_explores_in_a_studio_that_waits_to_be_started(make):
    lesson = make("E3")
    studio = lesson.explore("transfer", ["alpha", "beta"], init="content")
    assert isinstance(studio, Studio)
    assert not studio.eager
    assert studio.settings.init == "content"
    studio.close()
    assert type(lesson.explore("texture", ["pool"]).settings).__name__ == "TextureSettings"


def test_without_a_browser_there_are_pictures_and_text(make, monkeypatch):
    monkeypatch.setenv(STATIC, "1")
    lesson = make("E3")
    assert isinstance(lesson.predict("E3"), Markdown)
    assert "- the style error" in lesson.predict("E3").data
    data = lesson.explore("transfer", ["beta"])._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert "first 20 steps" in data["text/plain"]


# --- exercises --------------------------------------------------------------------------------------------------


@pytest.fixture
def lesson(make):
    return make("E3")


def verdict(lesson, name, answer):
    return lesson.check(name, answer).data


WRONG = {  # by exercise: answers, and words of their hints
    "01.1": [(lambda f: f @ f.T, "divided by M"), (lambda f: f.T @ f, "channels with channels"), (lambda f: 0, "mean over")],
    "01.2": [("content", "order"), ("both", "answer")],
    "01.3": [(4, "squares"), (2, "doubled")],
    "02.1": [
        (lambda a, b: 10 * math.log10(float(((a - b) ** 2).mean())), "sign"),
        (lambda a, b: 10 * math.log(1 / float(((a - b) ** 2).mean())), "base 10"),
        (lambda a, b: 0, "mean square"),
    ],
    "02.2": [(3, "one convolution"), (100, "walk")],
    "02.3": [("conv1_1", "run E1 first")],
    "03.1": [("another", "minimum"), ("yes", "answer")],
    "03.2": [(300, "run E3 first")],
    "04.1": [("conv3_1", "count"), (11, "count")],
    "04.2": [(5, "N × N"), (sum(n * (n + 1) // 2 for n in (4, 6, 8, 8, 8)), "symmetric")],
    "05.1": [("noise", "gradient"), ("?", "answer")],
    "05.2": [(lambda a, b: (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()), "means off"), (lambda a, b: 5, "product")],
    "06.1": [("higher", "run E8 first")],
    "06.2": [(lambda x: 100 * (max(x) / min(x) - 1), "percent"), (lambda x: x[1] / x[0] - 1, "divide")],
    "07.1": [(lambda v, how: v, "shape"), (lambda v, how: v[::2, ::2], "values")],
    "07.2": [((4, 1), "grew"), ((1.9, 4.2), "grew"), (4, "two numbers"), ("14", "two numbers")],
    "08.1": [(lambda g, h: np.linalg.solve(h, g), "sign"), (lambda g, h: -g, "zero")],
    "08.2": [(50, "its pairs"), (50 * 3 * 48 * 40, "a pair"), ((3 * 48 * 40) ** 2, "whole inverse")],
    "09.1": [("other", "multiplies it back"), ("?", "answer")],
    "09.2": [([1, 2], "five"), ([16, 8, 4, 2, 2], "half"), ([16, 8, 4, 2, 1], "add up to 31")],
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_wrong_answer_gets_a_hint(lesson, name):
    for answer, words in WRONG[name]:
        text = verdict(lesson, name, answer)
        assert text.startswith("✗"), answer
        assert words.lower() in text.lower()


@pytest.mark.parametrize("name", EXERCISES)
def test_no_answer_is_not_a_wrong_one(lesson, name):
    for nothing in (None, ..., lambda *_: None):
        if not (callable(nothing) and not callable(WRONG[name][0][0])):
            assert "put your answer" in verdict(lesson, name, nothing)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("01.2", " Style"), ("03.1", "The same"), ("04.1", "relu4_3"), ("04.1", "Conv 4_3"), ("07.2", np.array([1, 4])),
     ("08.2", 2 * 50 * 3 * 48 * 40 + 50)],
)  # fmt: skip
def test_right_answers_may_be_written_in_more_than_one_way(lesson, name, answer):
    assert verdict(lesson, name, answer) == f"✓ **Exercise {name}: right.**"


def test_a_solutions_mark_is_not_a_readers(lesson):
    assert lesson.check("07.2", (1, 4), solution=True).data == "The solution of exercise 07.2: ✓"
    assert lesson.check("07.2", (4, 1), solution=True).data.startswith("✗")
    assert "returns nothing" in verdict(lesson, "06.2", lambda losses: None)


def test_what_goes_wrong_in_a_readers_function_is_told(lesson):
    assert "ends in ZeroDivisionError" in verdict(lesson, "01.1", lambda f: 1 / 0)
    with pytest.raises(InputError, match=r"no exercise '01.9'; did you mean"):
        lesson.check("01.9", 1)


def test_exercises_on_runs_are_right_for_what_the_runs_say(ran):
    from nstlab.course.measurements import psnr

    lesson = ran("E1")
    ratios = {run.settings.layer: psnr(run.picture, run.photo) for run in lesson.runs["E1"]}
    for layer in ratios:
        assert verdict(lesson, "02.3", layer).startswith("✓" if layer == min(ratios, key=ratios.get) else "✗")
    assert "Choose one of" in verdict(lesson, "02.3", "conv5_4")
    lesson = ran("E8")
    answers = [verdict(lesson, "06.1", answer)[0] for answer in ("lower", "higher")]
    assert sorted(answers) == ["✓", "✗"]


# --- demonstrations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_a_receptive_field_is_what_moves_a_position(layer):
    """Known from the gradient: through a network of ones, of one channel, every pixel that is seen counts."""
    side = demonstrations.receptive_field(layer)
    if side > 160:
        return  # the deepest ones take long; those before them have the same rule
    from nstlab.method.weights import random_weights

    weights = random_weights(0, widths=(1, 1, 1, 1, 1))
    for tensor in weights.tensors.values():
        tensor.fill_(1.0 if tensor.ndim > 1 else 0.0)
    net = VGG19(weights, normalize=False, precision="float32").double()
    image = torch.rand(1, 3, 320, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    features = net(image, [layer])[layer]
    middle = features[..., features.shape[-2] // 2, features.shape[-1] // 2].sum()
    (slope,) = torch.autograd.grad(middle, image)
    seen = slope[0, 0].abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == side


def test_the_closed_gradients_are_autograds(make, photo, painting):
    lesson = make("E3")
    table = demonstrations.gradients(lesson.net, lesson.photo, lesson.painting, nst.noise(lesson.photo, 0), lesson.base.style)
    assert table.shape == (5, 2)
    assert table.to_numpy().max() < 1e-12


def test_layers_and_losses_are_what_they_say(make):
    lesson = make("E3")
    table = demonstrations.layers(lesson.net, lesson.base.style, lesson.photo)
    assert list(table["channels N"]) == list(lesson.widths().values()) == [4, 6, 8, 8, 8]
    assert table.loc["conv2_1", "positions"] == "24×20"
    pictures = {"photo": lesson.photo, "painting": lesson.painting}
    found = demonstrations.losses(lesson.net, lesson.photo, lesson.painting, pictures, "conv4_2", lesson.base.style)
    assert max(found.loc["photo", "content"], found.loc["painting", "style"]) < 1e-9  # targets are computed another way
    assert found.loc["photo", "style"] > 0 < found.loc["painting", "content"]
    matrices = demonstrations.grams(lesson.net, pictures, "conv2_1")
    assert matrices["photo"].shape == (6, 6)


def test_normalization_only_scales(tiny_file, photo):
    assert demonstrations.normalization(str(tiny_file), "conv4_1", photo) < 1e-5


def test_the_labs_optimizers_go_down_the_valley():
    ways = demonstrations.paths(60)
    ends = {name: float(demonstrations.rosenbrock(torch.from_numpy(way[-1]))) for name, way in ways.items()}
    assert ends["L-BFGS"] < 1e-8
    assert all(way.shape == (61, 2) for way in ways.values())
    assert all(end < float(demonstrations.rosenbrock(torch.tensor(demonstrations.START))) for end in ends.values())


def test_a_perfect_match_is_no_error(tmp_path, painting, tiny_file):
    """The painting itself, with style alone: loss and gradient are 0, and stay so in 16 bits as well."""
    path = im.save(painting, tmp_path / "painting.png")
    settings = TransferSettings(str(path), str(path), alpha=0, init="style", size=48, steps=3, weights=str(tiny_file))
    for precision in ("float32", "float16"):
        plan = nst.prepare(settings.replace(precision=precision), "cpu")
        result = nst.solve(plan.objective, plan.net, plan.start, 3, LBFGS())
        assert result.loss == pytest.approx(0, abs=1e-6)
        assert torch.allclose(result.image, plan.start, atol=1e-3)
