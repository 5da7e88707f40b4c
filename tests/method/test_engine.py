"""The engine's guarantees, on a tiny network. (Interruptions are in runs/test_store.)"""

import itertools

import pytest
import torch
from faults import change_at, raise_at, refusal

import nstlab as nst
from nstlab.method.engine import minimize, solve
from nstlab.method.fast import arithmetic
from nstlab.method.fast.convolutions import OneDNN
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Adam, GradientDescent
from nstlab.method.steps import Level, Status, pyramid
from nstlab.networks.vgg import VGG19

OPTIMIZERS = [LBFGS(history=3), Adam(), GradientDescent()]


@pytest.fixture
def goal(photo, painting):
    return nst.content("conv2_2", photo) + 1e2 * nst.style(["conv1_1", "conv2_1"], painting)


@pytest.fixture
def start(photo):
    return nst.white_noise(photo, seed=1)


def twice(picture):
    return torch.nn.functional.interpolate(picture, scale_factor=2)


def total(goal, net, picture) -> float:
    """The loss of a picture, by definition."""
    return float(goal.bind(net, picture.shape[-2:])(picture)[0])


def test_steps_report_pictures_losses_and_terms_from_the_first_picture_on(goal, net, start):
    steps = [*minimize(goal, net, start, steps=5)]
    result = steps[-1].result()
    assert [s.index for s in steps] == [0, 1, 2, 3, 4, 5]
    assert (result.steps, result.status, steps[-1].status) == (5, Status.FINISHED, Status.FINISHED)
    assert result.evaluations >= 6
    for step in steps:
        assert step.loss == pytest.approx(
            step.terms["content"] + 1e2 * step.terms["style"], rel=1e-5
        )
    assert result.loss == pytest.approx(total(goal, net, result.image), rel=1e-4)
    steps[0].snapshot().zero_()  # a copy
    assert torch.equal(steps[0].snapshot(), start)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Adam(rate=0.5)])
def test_the_result_is_never_worse_than_the_best_step(goal, net, start, optimizer):
    steps = [*minimize(goal, net, start, steps=15, optimizer=optimizer)]
    result = solve(goal, net, start, steps=15, optimizer=optimizer)  # makes the same pixels
    assert result.loss == min(step.loss for step in steps) < steps[0].loss
    assert torch.equal(result.image, steps[-1].best())


@pytest.mark.parametrize("factor", [1e-6, 7.3, 1e6])
def test_a_common_factor_of_the_weights_changes_nothing(goal, net, start, factor):
    plain, scaled = (solve(scaled * goal, net, start, steps=25) for scaled in (1, factor))
    assert float((plain.image - scaled.image).abs().mean()) < 1 / 255
    assert scaled.loss == pytest.approx(factor * plain.loss, rel=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_evaluation_is_an_event_and_never_a_picture(goal, net, start, optimizer, monkeypatch):
    change_at(monkeypatch, 5, lambda result: (result[0] * float("nan"), *result[1:]))
    steps = [*minimize(goal, net, start, steps=12, optimizer=optimizer)]
    (bad,) = (step for step in steps if step.event)
    assert steps[-1].result().events == (f"step {bad.index}: loss not finite, rolled back",)
    assert all(step.snapshot().isfinite().all() and step.loss < 1e30 for step in steps)
    assert steps[-1].result().loss < steps[3].loss
    resumed = solve(
        goal, net, start, steps=14, optimizer=optimizer, checkpoint=steps[-1].checkpoint()
    )
    assert resumed.events == steps[-1].events


def test_weights_change_between_steps_and_curvature_is_forgotten(goal, net, start):
    run = minimize(goal, net, start, steps=20)
    *_, before = itertools.islice(run, 4)
    assert len(before.checkpoint().data["numbers"]["order"]) == 3
    after = run.send({"style": 0.0})
    assert (after.index, after.weights["style"], set(after.terms)) == (
        before.index + 1,
        0.0,
        {"content"},
    )
    assert len(after.checkpoint().data["numbers"]["order"]) <= 1
    assert "there are: content, content:conv2_2, style" in refusal(run.send, {"tv": 1.0})


def test_coarser_sizes_come_first(goal, net, start):
    assert pyramid((64, 64), 10) == (Level((64, 64), 10),)
    assert pyramid((200, 300), 11, levels=3) == (
        Level((50, 75), 5),
        Level((100, 150), 5),
        Level((200, 300), 11),
    )
    # half of it would be too small
    assert pyramid((40, 300), 10, levels=3) == (Level((40, 300), 10),)
    steps = [*minimize(goal, net, twice(start), steps=5, levels=2)]
    assert [(s.level, s.shape) for s in steps] == [(0, (48, 40))] * 3 + [(1, (96, 80))] * 5
    assert (steps[-1].result().image.shape, steps[-1].index) == ((1, 3, 96, 80), 7)


def test_the_next_size_begins_with_the_better_of_two_pictures(net, photo, painting):
    """From the photo, the photo's own details are worth more than those of an enlarged picture."""
    photo = twice(photo) + 0.1 * torch.rand(
        1, 3, 96, 80, generator=torch.Generator().manual_seed(0)
    )
    goal = nst.content("relu1_1", photo) + 0.1 * nst.style("conv1_1", painting)
    steps = minimize(goal, net, photo, steps=4, levels=2)
    before, first = next(pair for pair in itertools.pairwise(steps) if pair[1].level == 1)
    assert first.loss < solve(goal, net, nst.resize(before.best(), photo.shape[-2:]), steps=1).loss


def test_a_run_stops_at_a_loss_or_when_it_no_longer_changes_or_where_nothing_can_be_gained(
    goal, net, start, photo
):
    first = next(minimize(goal, net, start)).loss
    *_, before, reached = minimize(goal, net, start, steps=100, stop_loss=first / 3)
    assert reached.status == Status.REACHED
    assert reached.loss <= first / 3 < before.loss
    converged = solve(goal, net, start, steps=500, stop_change=0.2)
    assert converged.status == Status.CONVERGED
    assert 10 < converged.steps < 500
    *_, step = itertools.islice(
        minimize(goal, net, start, steps=500, stop_change=0.2), converged.steps - 1
    )
    assert (
        solve(goal, net, start, steps=500, stop_change=0.2, checkpoint=step.checkpoint()).steps
        == converged.steps
    )
    stalled = solve(nst.content("conv2_1", photo), net, photo, steps=50)
    assert stalled.status == Status.STALLED
    assert torch.equal(stalled.image, photo)


def test_a_start_with_holes_is_refused_before_anything_is_computed(goal, net, start, monkeypatch):
    raise_at(monkeypatch, 1)
    start[0, 1, 2, 3] = float("nan")
    assert "start: has values that are not finite" in refusal(next, minimize(goal, net, start))


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True)])
def test_evaluations_and_targets_use_the_same_exact_convolutions(
    goal, tiny, start, monkeypatch, precision, tf32
):
    seen, convolution = set(), torch.ops.aten._convolution

    def watched(*args):
        seen.add(args[-4:])  # benchmark, deterministic, cuDNN, TF32
        return convolution(*args)

    monkeypatch.setattr(OneDNN, "supports", lambda *_: False)
    monkeypatch.setattr(torch.ops.aten, "_convolution", watched)
    solve(goal, VGG19(tiny, precision=precision), start, steps=1)
    assert seen == {(False, True, True, tf32)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32"])
def test_other_types_reach_nearly_the_loss_of_float32(goal, tiny, net, start, precision):
    exact, rough = (
        solve(goal, each, start, steps=25) for each in (net, VGG19(tiny, precision=precision))
    )
    assert total(goal, net, rough.image) < 1.5 * exact.loss < 0.2 * total(goal, net, start)


@pytest.fixture
def coarse(tiny, monkeypatch):
    """A network on a machine that has bfloat16 natively, and nothing else."""
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    return VGG19(tiny)


def test_auto_finishes_in_float32_what_bfloat16_began_and_can_resume_in_either(
    goal, coarse, net, start
):
    steps, checkpoints = zip(
        *((s, s.checkpoint()) for s in minimize(goal, coarse, start, steps=20)), strict=True
    )
    result = steps[-1].result()
    assert [checkpoint.data["fine"] for checkpoint in checkpoints] == [False] * 17 + [True] * 4
    assert len(checkpoints[17].data["numbers"]["order"]) == 17  # curvature was kept
    assert result.loss == pytest.approx(total(goal, net, result.image), rel=1e-5)
    assert result.loss < steps[16].loss
    for stop in (8, 16, 18):
        resumed = solve(goal, coarse, start, steps=20, checkpoint=checkpoints[stop])
        assert torch.equal(resumed.image, result.image), stop
        assert resumed.evaluations == result.evaluations


def test_auto_stalls_in_float32_only(coarse, photo):
    *_, before, last = minimize(nst.content("conv2_1", photo), coarse, photo, steps=50)
    assert [step.checkpoint().data["fine"] for step in (before, last)] == [True, True]
    assert last.status == Status.STALLED
    assert last.index < 40
