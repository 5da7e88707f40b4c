"""The engine's guarantees, on a tiny network."""

import itertools

import pytest
import torch
from faults import change_at, raise_at

import nstlab as nst
from nstlab.method import engine
from nstlab.method.fast import memory
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.engine import minimize, solve
from nstlab.method.steps import Status, pyramid
from nstlab.method.fast import arithmetic, propagation
from nstlab.method.fast.convolutions import Convolution, OneDNN
from nstlab.method.fast.evaluation import FastBound
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Adam, GradientDescent
from nstlab.settings import InputError

OPTIMIZERS = [LBFGS(history=5), Adam(), GradientDescent()]


@pytest.fixture
def net(tiny):
    return nst.VGG19(tiny, precision="float32")


@pytest.fixture
def goal(photo, painting):
    return nst.content("conv2_2", photo) + 1e2 * nst.style(["conv1_1", "conv2_1"], painting)


@pytest.fixture
def start(photo):
    return nst.white_noise(photo, seed=1)


def drain(run):
    """(all steps, the result)."""
    steps = []
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            return steps, end.value


def test_steps_count_from_the_first_picture(goal, net, start):
    steps, result = drain(minimize(goal, net, start, steps=5))
    assert [s.index for s in steps] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(steps[0].snapshot(), start)
    assert result.steps == 5
    assert result.status == Status.FINISHED
    assert steps[-1].status == Status.FINISHED
    assert result.evaluations >= 6


def test_the_loss_is_the_weighted_sum_of_the_terms_of_the_picture(goal, net, start):
    steps, result = drain(minimize(goal, net, start, steps=5))
    for step in steps:
        assert step.loss == pytest.approx(step.terms["content"] + 1e2 * step.terms["style"], rel=1e-5)
    total, _ = goal.bind(net, start.shape[-2:])(result.image)
    assert result.loss == pytest.approx(float(total), rel=1e-4)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Adam(rate=0.5)])
def test_the_result_is_never_worse_than_the_best_step(goal, net, start, optimizer):
    steps, result = drain(minimize(goal, net, start, steps=15, optimizer=optimizer))
    assert result.loss == min(step.loss for step in steps)
    assert torch.equal(result.image, steps[-1].best())
    assert result.loss < steps[0].loss


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("levels", [1, 2])
def test_resuming_makes_the_same_pixels(goal, net, start, optimizer, levels, tmp_path):
    start = torch.nn.functional.interpolate(start, scale_factor=2)
    whole, expected = drain(minimize(goal, net, start, steps=8, optimizer=optimizer, levels=levels))
    for stop in (0, 3, 4 * levels, 4 * levels + 2):
        *_, last = itertools.islice(minimize(goal, net, start, steps=8, optimizer=optimizer, levels=levels), stop + 1)
        last.checkpoint().save(tmp_path / "c.safetensors")
        checkpoint = Checkpoint.load(tmp_path / "c.safetensors")
        rest, result = drain(minimize(goal, net, start, steps=8, optimizer=optimizer, levels=levels, checkpoint=checkpoint))
        assert torch.equal(result.image, expected.image), stop
        assert [s.loss for s in rest] == [s.loss for s in whole[stop + 1 :]]
        assert result.evaluations == expected.evaluations


def test_the_same_run_makes_the_same_pixels(goal, net, start):
    first, second = (solve(goal, net, start, steps=6) for _ in range(2))
    assert torch.equal(first.image, second.image)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 7.3, 1e6])
def test_a_common_factor_of_the_weights_changes_nothing(goal, net, start, factor):
    plain, scaled = solve(goal, net, start, steps=25), solve(factor * goal, net, start, steps=25)
    assert float((plain.image - scaled.image).abs().mean()) < 1 / 255
    assert scaled.loss == pytest.approx(factor * plain.loss, rel=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_evaluation_is_an_event_and_never_a_picture(goal, net, start, optimizer, monkeypatch):
    change_at(monkeypatch, 5, lambda at: (at[0] * float('nan'), *at[1:]))
    steps, result = drain(minimize(goal, net, start, steps=12, optimizer=optimizer))
    assert len(result.events) == 1
    assert "not finite, rolled back" in result.events[0]
    assert all(step.snapshot().isfinite().all() and step.loss < 1e30 for step in steps)
    assert result.loss < steps[3].loss


def test_interrupted_inside_a_step_the_last_one_is_still_good(goal, net, start, monkeypatch):
    expected = solve(goal, net, start, steps=10, optimizer=LBFGS(history=3))
    raise_at(monkeypatch, 8)
    steps = []
    with pytest.raises(KeyboardInterrupt):
        steps.extend(minimize(goal, net, start, steps=10, optimizer=LBFGS(history=3)))
    last = steps[-1]
    assert last.best().isfinite().all()
    _, result = drain(minimize(goal, net, start, steps=10, optimizer=LBFGS(history=3), checkpoint=last.checkpoint()))
    assert torch.equal(result.image, expected.image)


def test_weights_change_between_steps(goal, net, start):
    run = minimize(goal, net, start, steps=20)
    for _ in range(4):
        before = next(run)
    after = run.send({"style": 0.0})
    assert after.index == before.index + 1
    assert after.weights["style"] == 0.0
    assert set(after.terms) == {"content"}
    assert after._state.numbers["order"] in ([], [0])  # curvature was forgotten
    last = [*run][-1]
    assert last.terms["content"] < before.terms["content"]


def test_a_refused_weight_names_the_allowed_ones(goal, net, start):
    run = minimize(goal, net, start, steps=20)
    next(run)
    with pytest.raises(InputError, match=r"there are: content, content:conv2_2, style"):
        run.send({"tv": 1.0})


def test_pyramid_doubles_up_to_the_full_size():
    assert [level.shape for level in pyramid((200, 300), 10, levels=3)] == [(50, 75), (100, 150), (200, 300)]
    assert [level.shape for level in pyramid((40, 300), 10, levels=3)] == [(40, 300)]
    assert pyramid((64, 64), 10) == (engine.Level((64, 64), 10),)
    assert [level.steps for level in pyramid((200, 300), 11, levels=3)] == [5, 5, 11]


def test_pyramid_ends_at_full_size_with_a_lower_loss_than_the_start(goal, net, start):
    start = torch.nn.functional.interpolate(start, scale_factor=2)
    steps, result = drain(minimize(goal, net, start, steps=5, levels=2))
    assert [s.level for s in steps] == [0] * 3 + [1] * 5
    assert steps[0].shape == (start.shape[-2] // 2, start.shape[-1] // 2)
    assert result.image.shape == start.shape
    assert result.steps == 7


def test_the_next_size_begins_with_the_better_of_two_pictures(net, photo, painting):
    """From the photo, the photo's own details are worth more than those of an enlarged picture."""
    photo = torch.nn.functional.interpolate(photo, scale_factor=2) + 0.1 * torch.rand(1, 3, 96, 80).clamp(0, 1)
    goal = nst.content("relu1_1", photo) + 0.1 * nst.style("conv1_1", painting)
    kept, _ = drain(minimize(goal, net, photo, steps=4, levels=2))
    first = next(step for step in kept if step.level == 1)
    before = next(step for step in reversed(kept) if step.level == 0)
    blurred = goal.bind(net, photo.shape[-2:]).evaluate(nst.resize(before.best(), photo.shape[-2:]))[0]
    assert first.loss < float(blurred)


def test_stops_at_a_loss_threshold(goal, net, start):
    first = next(minimize(goal, net, start)).loss
    steps, result = drain(minimize(goal, net, start, steps=100, stop_loss=first / 3))
    assert result.status == Status.REACHED
    assert result.loss <= first / 3 < steps[-2].loss


def test_stops_when_the_loss_no_longer_changes(goal, net, start):
    _, result = drain(minimize(goal, net, start, steps=500, stop_change=0.2))
    assert result.status == Status.CONVERGED
    assert 10 < result.steps < 500


def test_stalls_where_nothing_can_be_gained(net, photo):
    result = solve(nst.content("conv2_1", photo), net, photo, steps=50)
    assert result.status == Status.STALLED
    assert torch.equal(result.image, photo)


def test_a_checkpoint_of_another_size_is_refused(goal, net, start):
    checkpoint = next(minimize(goal, net, start)).checkpoint()
    with pytest.raises(InputError, match="other sizes"):
        next(minimize(goal, net, torch.nn.functional.interpolate(start, scale_factor=2), checkpoint=checkpoint))


def test_a_checkpoint_of_another_optimizer_is_refused(goal, net, start):
    checkpoint = next(minimize(goal, net, start, optimizer=Adam())).checkpoint()
    for other in (LBFGS(), GradientDescent(), Adam(rate=0.5)):
        with pytest.raises(InputError, match="another optimizer: Adam"):
            next(minimize(goal, net, start, optimizer=other, checkpoint=checkpoint))


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True)])
def test_evaluations_and_targets_use_the_same_exact_convolutions(goal, tiny, start, monkeypatch, precision, tf32):
    seen = []

    class Watched(Convolution):
        def __call__(self, *args, **kwargs):
            flags = torch.backends.cudnn
            seen.append((flags.enabled, flags.deterministic, flags.benchmark, flags.allow_tf32))
            return super().__call__(*args, **kwargs)

    monkeypatch.setattr(propagation.OneDNN, "can", lambda *_: False)
    monkeypatch.setattr(propagation, "Convolution", Watched)
    solve(goal, nst.VGG19(tiny, precision=precision), start, steps=1)
    assert set(seen) == {(True, True, False, tf32)}


@pytest.mark.parametrize("hole", [float("nan"), float("inf")])
def test_pictures_with_holes_are_refused_by_name_before_anything_is_computed(goal, net, start, hole, monkeypatch):
    raise_at(monkeypatch, 1)
    broken = start.clone()
    broken[0, 1, 2, 3] = hole
    for name, call in {
        "start": lambda: next(minimize(goal, net, broken)),
        "content": lambda: nst.content("conv1_1", broken),
        "style": lambda: nst.style("conv1_1", broken),
    }.items():
        with pytest.raises(InputError, match=f"{name}: holds numbers that are not finite"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda net, start: nst.content("conv1_1", start.numpy()),
        lambda net, start: nst.style("conv1_1", start[..., :0]),
        lambda net, start: nst.style("conv1_1", start, fit="foo"),
        lambda net, start: nst.style("conv1_1", start, scale=float("nan")),
        lambda net, start: nst.style("conv1_1", start, scale=-1.0),
        lambda net, start: net(start[:, :1], ["conv1_1"]),
        lambda net, start: nst.solve(nst.content("conv1_1", torch.cat([start, start], 1)), net, start, steps=1),
    ],
)
def test_what_is_no_picture_or_no_way_to_fit_one_is_refused(net, start, call):
    with pytest.raises(InputError):
        call(net, start)


def test_a_damaged_checkpoint_is_refused(goal, net, start, tmp_path):
    path = next(minimize(goal, net, start)).checkpoint().save(tmp_path / "c.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="missing or damaged"):
        Checkpoint.load(path)
    with pytest.raises(InputError, match="missing or damaged"):
        Checkpoint.load(tmp_path / "none.safetensors")


def test_snapshots_are_copies_in_range(goal, net, start):
    run = minimize(goal, net, start, steps=3)
    step = next(run)
    snapshot = step.snapshot()
    snapshot.zero_()
    assert torch.equal(step.snapshot(), start)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32"])
def test_other_types_reach_nearly_the_loss_of_float32(goal, tiny, net, start, precision):
    exact = solve(goal, net, start, steps=25)
    rough = solve(goal, nst.VGG19(tiny, precision=precision), start, steps=25)
    total, _ = goal.bind(net, start.shape[-2:])(rough.image)
    assert float(total) < 1.5 * exact.loss < 0.2 * float(goal.bind(net, start.shape[-2:])(start)[0])


@pytest.fixture
def coarse(tiny, monkeypatch):
    """A network on a machine that has bfloat16 natively, and nothing else."""
    monkeypatch.setattr(arithmetic, "native_halves", lambda device: (torch.bfloat16,))
    return nst.VGG19(tiny)


def test_auto_finishes_in_float32_what_bfloat16_began(goal, coarse, net, start):
    steps, result = drain(minimize(goal, coarse, start, steps=20))
    assert [step._fine for step in steps] == [False] * 17 + [True] * 4
    total, _ = goal.bind(net, start.shape[-2:])(result.image)
    assert result.loss == pytest.approx(float(total), rel=1e-5)
    assert result.loss < steps[16].loss
    assert len(steps[17]._state.numbers["order"]) == 17  # curvature was kept


def test_auto_stalls_in_float32_only(coarse, photo):
    steps, result = drain(minimize(nst.content("conv2_1", photo), coarse, photo, steps=50))
    assert (result.status, steps[-1]._fine, steps[-2]._fine) == (Status.STALLED, True, True)
    assert len(steps) < 40


def test_resuming_in_either_type_makes_the_same_pixels(goal, coarse, start):
    _, expected = drain(minimize(goal, coarse, start, steps=10))
    for stop in (4, 8, 9):
        *_, last = itertools.islice(minimize(goal, coarse, start, steps=10), stop + 1)
        _, result = drain(minimize(goal, coarse, start, steps=10, checkpoint=last.checkpoint()))
        assert torch.equal(result.image, expected.image), stop
        assert result.evaluations == expected.evaluations


def test_memory_needed_grows_with_the_pixels(net):

    def needed(shape):
        return memory.needed(net, ["relu4_2"], shape, LBFGS())

    small, large = (needed((s, s)) for s in (128, 256))
    assert small < large < 4.1 * small
    size = memory.largest_size(needed, (256, 128), small)
    assert needed((size, size // 2)) <= small
    assert needed((size + 16, size // 2 + 8)) > small
    assert memory.largest_size(needed, (256, 128), 1000) is None
