"""Lessons: estimates, predictions, exercises with hints, demonstrations, and what is shown where nobody can use widgets."""

import math

import numpy as np
import pytest
import torch
from faults import refusal

import nstlab as nst
from nstlab.course import demonstrations, estimates
from nstlab.course.exercises import EXERCISES
from nstlab.course.measurements import psnr
from nstlab.live.studio import STATIC, Studio
from nstlab.method.names import CONVOLUTIONS
from nstlab.method.network import VGG19
from nstlab.method.weights import random_weights
from nstlab.recipes.texture import TextureSettings


@pytest.fixture
def lesson(make):
    return make("E3")


def ran(lesson):
    """The lesson, all of its experiments run."""
    for name in lesson.experiments:
        lesson.run(name)
    return lesson


def test_a_lesson_says_how_long_it_takes_by_the_layers_it_reads_and_finds_what_was_made_before(make, capsys, monkeypatch):
    monkeypatch.setattr(estimates, "seconds_per_step", lambda plan: len(plan.layers))
    runs = "E3: 4 runs of 4 steps (unless varied) at 48 px"
    for said in (f"{runs}: about {round(1.25 * 4 * 4 * 6)} s on this machine\n", f"{runs}, all of them kept from before\n"):
        lesson = make("E3")
        lesson.begin()
        assert capsys.readouterr().out == said
        lesson.run("E3")
        capsys.readouterr()
    seconds = round(1.25 * 4 * (1 + 2 + 3 + 4 + 5))  # from the first layer alone to all five
    assert f"about {seconds} s" in estimates.estimate(make("E2").experiments["E2"])
    assert estimates.estimate(make("E11").experiments["E11"]) == "E11: nothing to optimize, a few seconds"


def test_a_guess_is_held_against_the_runs(make):
    lesson = ran(make("E4"))
    assert "You predicted" not in lesson.claims("E4").data
    buttons = lesson.predict("E4").children[1]
    assert buttons.value is None
    for choice in buttons.options:
        buttons.value = choice
        text = lesson.claims("E4").data
        assert f"You predicted: *{choice}*" in text
        assert ("That is it." in text) == (choice == lesson.experiments["E4"].answer(lesson.runs["E4"]))
        assert "| claim | number | holds |" in text


def test_what_was_not_run_says_so(lesson, make):
    assert "E3 has not been run yet" in refusal(lesson.claims, "E3")
    assert "no experiment 'E4' (it has: E3)" in refusal(lesson.run, "E4")
    assert "weights" in refusal(make, "E3", weights="nowhere.pth")


def test_one_explores_in_a_studio_that_waits_to_be_started_and_without_a_browser_in_pictures_and_text(lesson, monkeypatch):
    studio = lesson.explore("transfer", ["alpha", "beta"], init="content")
    assert isinstance(studio, Studio)
    assert (studio.eager, studio.settings.init) == (False, "content")
    studio.close()
    assert isinstance(lesson.explore("texture", ["pool"]).settings, TextureSettings)
    monkeypatch.setenv(STATIC, "1")
    assert "- the style error" in lesson.predict("E3").data
    data = lesson.explore("transfer", ["beta"])._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert "first 20 steps" in data["text/plain"]


# --- exercises; the notebooks' own solutions are checked where the notebooks run --------------------------------

PIXELS = 3 * 48 * 40
WRONG = {  # by exercise: answers, and words of their hints
    "01.1": [(lambda f: f @ f.T, "divided by M"), (lambda f: f.T @ f, "channels with channels"), (lambda f: 0, "mean over")],
    "01.2": [("content", "order"), ("both", "answer")],
    "01.3": [(4, "squares"), (2, "doubled")],
    "02.1": [(lambda *ab: -psnr(*ab), "sign"), (lambda *ab: 2.3026 * psnr(*ab), "base 10"), (lambda *ab: 0, "mean square")],
    "02.2": [(3, "one convolution"), (100, "walk")],
    "02.3": [("conv1_1", "run E1 first")],
    "03.1": [("another", "minimum"), ("yes", "answer")],
    "03.2": [(300, "run E3 first")],
    "04.1": [("conv3_1", "count"), (11, "count")],
    "04.2": [(5, "N × N"), (sum(n * (n + 1) // 2 for n in (4, 6, 8, 8, 8)), "symmetric")],
    "05.1": [("noise", "gradient"), ("?", "answer")],
    "05.2": [(lambda a, b: (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()), "means"), (lambda a, b: 5, "product")],
    "06.1": [("higher", "run E8 first")],
    "06.2": [(lambda x: 100 * (max(x) / min(x) - 1), "percent"), (lambda x: x[1] / x[0] - 1, "divide")],
    "07.1": [(lambda v, how: v, "shape"), (lambda v, how: v[::2, ::2], "values")],
    "07.2": [((4, 1), "grew"), ((1.9, 4.2), "grew"), (4, "two numbers"), ("14", "two numbers")],
    "08.1": [(lambda g, h: np.linalg.solve(h, g), "sign"), (lambda g, h: -g, "zero")],
    "08.2": [(50, "its pairs"), (50 * PIXELS, "a pair"), (PIXELS**2, "whole inverse")],
    "09.1": [("other", "multiplies it back"), ("?", "answer")],
    "09.2": [([1, 2], "five"), ([16, 8, 4, 2, 2], "half"), ([16, 8, 4, 2, 1], "add up to 31")],
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_wrong_answer_gets_a_hint_and_no_answer_is_not_a_wrong_one(lesson, name):
    for answer, words in WRONG[name]:
        text = lesson.check(name, answer).data
        assert text.startswith("✗"), answer
        assert words.lower() in text.lower()
    nothing = [None, ...] + [lambda *_: None] * callable(WRONG[name][0][0])
    assert all("put your answer" in lesson.check(name, answer).data for answer in nothing)


def test_right_answers_may_be_written_in_more_than_one_way_and_a_solutions_mark_is_not_a_readers(lesson):
    right = [("01.2", " Style"), ("02.2", demonstrations.receptive_field("conv4_4")), ("03.1", "The same"), ("04.1", "relu4_3"),
             ("04.1", "Conv 4_3"), ("07.2", np.array([1, 4])), ("08.2", 100 * PIXELS + 50)]  # fmt: skip
    for name, answer in right:
        assert lesson.check(name, answer).data == f"✓ **Exercise {name}: right.**"
    assert lesson.check("07.2", (1, 4), solution=True).data == "The solution of exercise 07.2: ✓"


def test_what_goes_wrong_in_a_readers_function_is_told(lesson):
    assert "ends in ZeroDivisionError" in lesson.check("01.1", lambda f: 1 / 0).data
    assert "returns nothing" in lesson.check("06.2", lambda losses: None).data
    assert "no exercise '01.9'; did you mean" in refusal(lesson.check, "01.9", 1)


def test_exercises_on_runs_are_right_for_what_the_runs_say(make):
    lesson = ran(make("E1", "E3", "E8"))
    ratios = {run.settings.layer: psnr(run.picture, run.photo) for run in lesson.runs["E1"]}
    marks = {layer: lesson.check("02.3", layer).data[0] for layer in ratios}
    assert marks == dict.fromkeys(ratios, "✗") | {min(ratios, key=ratios.get): "✓"}
    assert "Choose one of" in lesson.check("02.3", "conv5_4").data
    assert "try a smaller β" in lesson.check("03.2", 1e6).data  # by a run of its own
    assert "try a larger β" in lesson.check("03.2", 0).data
    assert sorted(lesson.check("06.1", answer).data[0] for answer in ("lower", "higher")) == ["✓", "✗"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_painting_stays_with_style_terms_alone(make, small, precision):
    """As exercise 05.1 takes for granted: loss and gradient are 0, in 16 bits too."""
    settings = make("E3", photo=small["painting"]).base.transfer(alpha=0, init="style", precision=precision)
    plan = nst.prepare(settings, "cpu")
    result = plan.solve()
    assert result.loss == pytest.approx(0, abs=1e-6)
    assert torch.allclose(result.image, plan.start, atol=1e-3)


# --- demonstrations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", CONVOLUTIONS[:12])  # the deeper ones take long, and have the same rule
def test_a_receptive_field_is_what_moves_a_position(layer):
    """Known from the gradient: through a network of ones, of one channel, every pixel that is seen counts."""
    weights = random_weights(0, widths=(1, 1, 1, 1, 1))
    for tensor in weights.tensors.values():
        tensor.fill_(1.0 if tensor.ndim > 1 else 0.0)
    net = VGG19(weights, precision="float32").double()
    image = torch.rand(1, 3, 320, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    middle = 160 >> int(layer[4]) - 1
    (slope,) = torch.autograd.grad(net(image, [layer])[layer][..., middle, middle].sum(), image)
    seen = slope[0, 0].abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == demonstrations.receptive_field(layer)


def test_layers_are_what_they_say_and_the_closed_gradients_are_autograds(lesson):
    table = demonstrations.layers(lesson.net, lesson.base.style, lesson.photo)
    assert list(table["channels N"]) == list(lesson.widths().values()) == [4, 6, 8, 8, 8]
    assert table.loc["conv2_1", "positions"] == "24×20"
    start = nst.noise(lesson.photo, 0)
    table = demonstrations.gradients(lesson.net, lesson.photo, lesson.painting, start, lesson.base.style)
    assert table.shape == (5, 2)
    assert table.to_numpy().max() < 1e-12


def test_the_labs_optimizers_go_down_the_valley():
    start = float(demonstrations.rosenbrock(torch.tensor(demonstrations.ROSENBROCK_START)))
    paths = demonstrations.paths(60)
    ends = {name: float(demonstrations.rosenbrock(torch.from_numpy(path[-1]))) for name, path in paths.items()}
    assert ends["L-BFGS"] < 1e-8
    assert max(ends.values()) < start
