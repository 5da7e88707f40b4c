"""Lessons: estimates, predictions, and exercises with hints."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults import refusal

import nstlab as nst
from nstlab.course import estimates
from nstlab.course.exercises import EXERCISES
from nstlab.live.static import STATIC


@pytest.fixture
def sweep_of(lesson, small):
    """Makes a sweep of transfers."""
    base = nst.TransferSettings(
        small["photo"], small["painting"], init="noise", **lesson.layers, **lesson.common
    )
    return lambda **vary: nst.Sweep(base, vary)


def test_a_lesson_says_how_long_a_sweep_takes_by_the_layers_it_reads_and_what_it_has(
    lesson, sweep_of, capsys, monkeypatch
):
    monkeypatch.setattr(estimates, "seconds_per_step", lambda plan: len(plan.layers))
    sweep = sweep_of(beta=[1.0, 2.0, 3.0])
    lesson.estimate(sweep)
    assert (
        capsys.readouterr().out
        == f"3 runs at 48 px, 12 steps in all: about {round(estimates.OVERHEAD * 12 * 6)} s on "
        "this machine\n"
    )
    lesson.run(sweep_of(beta=[1.0, 2.0]))
    capsys.readouterr()
    lesson.estimate(sweep)
    assert capsys.readouterr().out.endswith(
        f"about {round(estimates.OVERHEAD * 4 * 6)} s on this machine (2 runs are kept from "
        "before)\n"
    )
    lesson.run(sweep)
    capsys.readouterr()
    lesson.estimate(sweep)
    assert capsys.readouterr().out == "3 runs at 48 px, 12 steps in all: kept from before\n"
    few = sweep_of(style_layers=[("conv1_1",), ("conv1_1", "conv2_1")])
    assert f"about {round(estimates.OVERHEAD * 4 * (2 + 3))} s" in estimates.estimate(
        few, lesson.options.results
    )


def test_the_time_of_a_step_is_that_at_the_full_size(sweep_of, monkeypatch):
    plan, seen, steps = (
        nst.prepare(sweep_of(levels=[1, 2]).cases[1].settings.replace(size=128), "cpu"),
        [],
        nst.Plan.steps,
    )
    monkeypatch.setattr(
        nst.Plan, "steps", lambda self: (seen.append(step.shape) or step for step in steps(self))
    )
    assert estimates.seconds_per_step(plan) > 0
    assert len(plan.schedule) == 2
    assert set(seen) == {plan.start.shape[-2:]}


def test_a_lessons_runs_are_those_of_the_sweep_with_its_pictures(lesson, sweep_of):
    runs = lesson.run(sweep_of(init=["grey", "content"]))
    assert [run.label for run in runs] == ["grey", "content"]
    assert float(runs[0].start.std()) == 0
    assert runs[1].start.sub(runs[1].photo).abs().max() < 1e-6
    assert torch.equal(runs[0].photo, lesson.photo)
    assert torch.equal(runs[0].painting, lesson.painting)
    assert runs[0].picture.shape == lesson.photo.shape
    assert (
        runs[0].remaining("content")
        == runs[0].terms["content"] / runs[0].history["content"].iloc[0]
    )


def test_what_is_not_allowed_is_refused(make, lesson, sweep_of):
    assert "weights" in refusal(make, weights="nowhere.pth")
    assert "budget: 'long'" in refusal(make, budget="long")
    assert "too early for what is compared" in refusal(
        lesson.run, sweep_of(style_layers={"all": ("conv1_1",), "few": ("conv1_1",)})
    )


def test_a_guess_is_held_against_the_answer(monkeypatch):
    guess = nst.predict("More or less?", ["more", "less"])
    claims = [nst.claim("It is less", 0.5, True), nst.claim("It is none", 0.5, False)]
    text = nst.verdict(guess, "less", claims).data
    assert text == (
        "**More or less?** The runs say: **less**.\n\n| claim | number | holds |\n|---|---|---|\n"
        "| It is less | 0.5 | yes |\n| It is none | 0.5 | **no** |"
    )
    for choice, said in (
        ("more", "You predicted: *more*. The runs"),
        ("less", "You predicted: *less*. That is it. The runs"),
    ):
        guess.buttons.value = choice
        assert said in nst.verdict(guess, "less", claims).data
    assert "answer: 'none'" in refusal(nst.verdict, guess, "none", claims)
    assert "application/vnd.jupyter.widget-view+json" in guess._repr_mimebundle_()
    monkeypatch.setenv(STATIC, "1")
    assert guess._repr_mimebundle_() == {"text/markdown": "**More or less?**\n\n- more\n- less"}


# --- exercises; the notebooks' own solutions are checked where the notebooks run ------------------

PIXELS = 3 * 48 * 40


def gram_of(features):
    rows = features.flatten(1)
    return rows @ rows.T / rows.shape[1]


def loss_of(features, target):
    return (gram_of(features) - target).square().sum() / 100


def slope(image, loss):
    image = image.clone().requires_grad_(True)
    return torch.autograd.grad(loss(image), image)[0]


def unit(gradient):
    return gradient / gradient.square().mean().sqrt()


def affine(features, scale, shift):
    return scale[..., None, None] * features + shift[..., None, None]


def with_ones(colours):
    return torch.cat([colours, torch.ones(9, 1)], 1)


def squares_left(known, values):
    return (
        (known @ torch.linalg.lstsq(known, values[:, None]).solution - values[:, None])
        .square()
        .sum()
    )


WRONG = {  # by exercise: answers, and words of their hints
    "01.1": [
        (lambda f: f @ f.T, "divided by M"),
        (lambda f: f.T @ f, "filters with filters"),
        (lambda f: 0, "mean over"),
    ],
    "01.2": [
        (lambda f, a: 100 * loss_of(f, a), "4 N²"),
        (lambda f, a: 4 * loss_of(f, a), "quarter"),
        (lambda f, a: (gram_of(f) - a).sum() / 100, "square the"),
        (lambda f, a: loss_of(f, a) / 144, "a mean already"),
        (lambda f, a: 0.0, "first"),
    ],
    "01.3": [
        (lambda a, b: (gram_of(a) - gram_of(b)).norm(), "divide"),
        (lambda a, b: (a - b).norm() / a.norm(), "not the features"),
        (lambda a, b: 1.0, "flatten"),
    ],
    "01.4": [(4, "squares"), (2, "doubled")],
    "01.5": [
        (lambda x, loss, length: x + length * unit(slope(x, loss)), "goes up"),
        (lambda x, loss, length: x - length * slope(x, loss), "own length"),
        (lambda x, loss, length: x - length * slope(x, loss) / slope(x, loss).norm(), "norm"),
        (lambda x, loss, length: length * unit(slope(x, loss)), "subtract"),
        (lambda x, loss, length: x, "take the gradient"),
    ],
    "02.2": [
        (lambda *ab: -nst.psnr(*ab), "sign"),
        (lambda *ab: 2.3026 * nst.psnr(*ab), "base 10"),
        (lambda *ab: 0, "mean square"),
    ],
    "02.3": [(3, "one convolution"), (100, "walk")],
    "03.1": [("another", "minimum"), ("yes", "answer")],
    "04.1": [("conv3_1", "count"), (11, "count")],
    "04.2": [(5, "N × N"), (sum(n * (n + 1) // 2 for n in (4, 6, 8, 8, 8)), "symmetric")],
    "05.1": [("noise", "gradient"), ("?", "answer")],
    "05.2": [
        (lambda a, b: (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()), "means"),
        (lambda a, b: 5, "product"),
    ],
    "06.2": [
        (lambda x: 100 * (max(x) / min(x) - 1), "percent"),
        (lambda x: x[1] / x[0] - 1, "divide"),
    ],
    "07.1": [(lambda v, how: v, "shape"), (lambda v, how: v[::2, ::2], "values")],
    "07.2": [((4, 1), "grew"), ((1.9, 4.2), "grew"), (4, "two numbers"), ("14", "two numbers")],
    "08.1": [(lambda g, h: np.linalg.solve(h, g), "sign"), (lambda g, h: -g, "zero")],
    "08.2": [(50, "its pairs"), (50 * PIXELS, "a pair"), (PIXELS**2, "whole inverse")],
    "09.1": [("other", "multiplies it back"), ("?", "answer")],
    "10.1": [
        (lambda a, b: nst.luminance(b), "colours are gone"),
        (lambda a, b: a + nst.luminance(b), "take the first"),
        (lambda a, b: b, "that is the other one, with"),
        (lambda a, b: a, "difference"),
    ],
    "10.2": [("coloured", "covariance"), ("red", "answer")],
    "11.1": [
        (lambda f, m: (f * m) @ f.T / 10, "not by M"),
        (lambda f, m: (f * m) @ (f * m).T / m.sum(), "squared"),
        (lambda f, m: f @ f.T / 10, "missing"),
        (lambda f, m: f, "weighted mean"),
    ],
    "11.2": [(22, "dropped"), (171, "halve")],
    "12.1": [
        (lambda c, v: squares_left(c, v), "b is missing"),
        (lambda c, v: squares_left(with_ones(c), v) / 9, "sum is asked"),
        (lambda c, v: squares_left(with_ones(c), v) ** 0.5, "root"),
        (lambda c, v: v, "least squares"),
    ],
    "13.1": [
        (lambda x, y, k: k(x, x).mean() + k(y, y).mean() - k(x, y).mean(), "counts twice"),
        (lambda x, y, k: k(x, x).mean() + k(y, y).mean() + 2 * k(x, y).mean(), "taken away"),
        (lambda x, y, k: k(x, x).sum() + k(y, y).sum() - 2 * k(x, y).sum(), "not sums"),
        (lambda x, y, k: k(x, y).mean(), "write |mean"),
    ],
    "13.2": [
        ((512 * 512, 1024), "symmetric"),
        ((512 * 511 // 2, 1024), "diagonal"),
        ((512 * 513 // 2, 512), "deviations"),
        (1, "rows"),
    ],
    "14.1": [(7, "fire2's own"), (9, "next window's steps"), (3, "begin with 1 pixel")],
    "14.2": [
        (lambda f, t: (f / t).softmax(1), "positions of each filter"),
        (lambda f, t: (f / t).softmax(0), "filters at each position"),
        (lambda f, t: f.flatten().softmax(0).view_as(f), "temperature is missing"),
        (lambda f, t: (f / t).exp(), "add up to 1"),
        (lambda f, t: f, "exponentials of"),
    ],
    "15.1": [(5, "twice as wide"), (13, "that position's own"), (70, "count the convolutions")],
    "15.2": [
        (lambda count, mean, square: square.mean() - mean.mean() ** 2, "weigh each by its count"),
        (
            lambda count, mean, square: (count / count.sum() * (square - mean**2)).sum(),
            "between the tiles' means",
        ),
        (lambda count, mean, square: square.sum(), "less the square of the mean"),
    ],
    "16.1": [
        (
            lambda f, a, b: affine(F.batch_norm(f, None, None, training=True), a, b),
            "each picture by itself",
        ),
        (lambda f, a, b: affine(F.layer_norm(f, f.shape[1:]), a, b), "each channel by itself"),
        (
            lambda f, a, b: affine(
                (f - f.mean((2, 3), True)) / (f.var((2, 3), keepdim=True) + 1e-5).sqrt(), a, b
            ),
            "correction",
        ),
        (lambda f, a, b: affine(f, a, b), "over a picture's positions"),
    ],
    "16.2": [(1152, "a scale and a shift"), (288, "of two widths"), (96, "twice the channels")],
    "17.1": [
        (lambda a, b, c: (a - b).square().mean(), "weigh them"),
        (lambda a, b, c: (c * (a - b).square()).mean(), "not by all"),
        (lambda a, b, c: (c * (a - b).square()).sum() / c.sum(), "three channels"),
        (lambda a, b, c: (c * (a - b).abs()).mean(), "weigh, sum up"),
    ],
    "17.2": [(128, "frames a second"), (72 / 25, "the width"), (1, "how many frames")],
    "12.2": [(9, "one window"), (24, "itself"), (81, "how far")],
    "09.2": [([1, 2], "five"), ([16, 8, 4, 2, 2], "half"), ([16, 8, 4, 2, 1], "add up to 31")],
}

MATERIAL = {
    "04.2": lambda lesson: (lesson.net, lesson.style_layers),
    "08.2": lambda lesson: (lesson.photo,),
}
ON_RUNS = {"02.1", "03.2", "06.1"}


@pytest.mark.parametrize("name", sorted(set(EXERCISES) - ON_RUNS))
def test_a_wrong_answer_gets_a_hint_and_no_answer_is_not_a_wrong_one(lesson, name):
    material = MATERIAL.get(name, lambda lesson: ())(lesson)
    for answer, words in WRONG[name]:
        text = nst.check(name, answer, *material).data
        assert text.startswith("✗"), answer
        assert words.lower() in text.lower()
    nothing = [None, ...] + [lambda *_: None] * callable(WRONG[name][0][0])
    assert all("put your answer" in nst.check(name, answer, *material).data for answer in nothing)


def test_right_answers_may_be_written_in_more_than_one_way_and_a_solutions_mark_is_not_a_readers(
    lesson,
):
    fields = nst.fields("vgg19")
    right = [("02.3", fields["conv4_4"].across), ("03.1", " The same"), ("04.1", "relu4_3"),
    ("04.1", "Conv 4_3"),
             ("07.2", np.array([1, 4])), ("08.2", 100 * PIXELS + 50, lesson.photo)]  # fmt: skip
    for name, answer, *material in right:
        assert nst.check(name, answer, *material).data == f"✓ **Exercise {name}: right.**"
    assert nst.check("07.2", (1, 4), solution=True).data == "The solution of exercise 07.2: ✓"


def test_what_goes_wrong_in_a_readers_function_is_told():
    assert "ends in ZeroDivisionError" in nst.check("01.1", lambda f: 1 / 0).data
    assert "returns nothing" in nst.check("06.2", lambda losses: None).data
    assert re.search(r"exercise: '01\.9'.* did you mean", refusal(nst.check, "01.9", 1))


def test_exercises_on_runs_are_right_for_what_the_runs_say(lesson, sweep_of, photo):
    layers = {"conv1_1": 0.1, "conv2_1": 0.3}
    runs = [
        SimpleNamespace(settings=SimpleNamespace(layer=layer), photo=photo, picture=photo + off)
        for layer, off in layers.items()
    ]
    assert [nst.check("02.1", answer, runs).data[0] for answer in ("conv1_1", "3")] == ["✗", "✓"]
    assert "Choose one of" in nst.check("02.1", "conv5_4", runs).data
    runs = lesson.run(sweep_of(seed=[0, 1]))
    assert sorted(nst.check("06.1", answer, runs).data[0] for answer in ("lower", "higher")) == [
        "✓",
        "✗",
    ]


def test_the_runs_of_an_exercise_are_made_by_its_check(sweep_of):
    def made(beta):
        return SimpleNamespace(
            settings=sweep_of(seed=[0, 1]).base.replace(beta=beta),
            terms={"content": math.log10(beta)},
        )

    lesson = SimpleNamespace(run=lambda sweep: [made(sweep.cases[0].settings.beta)])
    for beta, says in ((300, "right"), (1e6, "try a smaller β"), (10.0, "try a larger β")):
        assert says in nst.check("03.2", beta, lesson, [made(1e2), made(1e3)]).data


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_painting_stays_with_style_terms_alone(sweep_of, small, precision):
    """As exercise 05.1 takes for granted: loss and gradient are 0, in 16 bits too."""
    changes = {"photo": small["painting"], "alpha": 0, "init": "style", "precision": precision}
    plan = nst.prepare(sweep_of(seed=[0, 1]).base.replace(**changes), "cpu")
    result = plan.solve()
    assert result.loss == pytest.approx(0, abs=1e-6)
    assert torch.allclose(result.image, plan.start, atol=1e-3)
