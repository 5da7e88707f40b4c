"""The benchmarks measure the same objective in both contestants, and keep and compare what they find. No time is asserted."""

import json
import math

import pytest
import safetensors.torch
import torch

from benchmarks import processes, report, scene, speed
from benchmarks.scene import BENCHES, BenchSettings, Row, Scene
from nstlab import commandline
from nstlab.images import resize
from nstlab.method.network import VGG19
from nstlab.method.weights import TORCHVISION
from nstlab.settings import InputError

CPU = torch.device("cpu")


def bench(words):
    """The command; its exit code."""
    command = commandline.Subcommand(report.bench_command, (BenchSettings,))
    return commandline.run_program({"bench": command}, words, "python -m benchmarks")


@pytest.fixture
def small(tiny, photo, painting):
    net = VGG19(tiny, precision="float32")
    return Scene(net, *(resize(picture, (48, 48)) for picture in (photo, painting)))


def test_the_plain_loop_has_our_loss_and_gradient(small):
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    loss, grad, _ = small.bound().evaluate(x)
    plain, scale = small.plain(), small.bound().scale
    assert torch.allclose(plain.loss(x), loss * scale, rtol=1e-4)
    assert torch.allclose(plain.evaluate(x), grad * scale, rtol=1e-3, atol=1e-4 * float(grad.abs().max()) * scale)


def test_the_plain_loop_descends_by_one_evaluation_a_loss(small):
    losses, pictures = zip(*small.plain().run(small.photo, 12), strict=True)
    assert len(losses) == 12
    assert min(losses) < losses[0] / 2
    assert torch.equal(pictures[0], small.photo)
    assert small.loss(pictures[-1]) == pytest.approx(losses[-1], rel=1e-3)


def test_weights_are_used_as_far_as_they_reach(tiny, tmp_path):
    path = tmp_path / "partial.safetensors"
    partial = {name: t for name, t in tiny.tensors.items() if name < "conv4"}
    safetensors.torch.save_file(partial, path, {"input": str(TORCHVISION)})
    found = scene.scene(str(path), 64, CPU)
    assert (found.content, found.style[-1], found.path[-1]) == (("conv3_3",), "conv3_1", "conv3_3")


def test_work_is_counted_from_the_layers(small):
    first = small.net.convolution("conv1_1")[0].numel() * 48 * 48
    assert small.flops() > 4 * first
    assert Scene(small.net, small.photo, small.painting, ("conv1_1",), ("conv1_1",)).flops() == 4 * first


@pytest.mark.parametrize(("part", "steps", "reached"), [(0.5, 30, True), (0.0, 3, False)])
def test_the_time_to_a_loss_ends_where_it_is_reached(small, part, steps, reached):
    seconds = speed.time_to(small, small.photo, part * small.loss(small.photo), "float32", 1, steps, CPU)
    assert math.isfinite(seconds) == reached


# --- the rows ---------------------------------------------------------------------------------------------------


def test_every_row_that_can_be_asked_for_exists():
    assert tuple(report.ROWS) == BENCHES


@pytest.fixture
def short(tiny, monkeypatch):
    """Benchmarks of tiny networks, small pictures and few steps."""
    for module in (speed, processes):
        monkeypatch.setattr(module, "full_width", lambda: tiny)
        monkeypatch.setattr(module, "GROWING", (48, 64))
    monkeypatch.setattr(speed, "EVALUATIONS", 3)
    monkeypatch.setattr(speed, "WAYS", {"a way": ("auto", 1, 3)})
    monkeypatch.setattr(speed, "PAIRS", speed.PAIRS[:1])
    monkeypatch.setattr(speed, "LONG", {32: 1.0, 64: 1.0})
    monkeypatch.setattr(speed, "MOVES", {field: moves[:1] for field, moves in speed.MOVES.items()})
    monkeypatch.setattr(processes, "child", lambda *_: {"bytes": 100.0})
    whole = speed.minimize
    monkeypatch.setattr(speed, "minimize", lambda *args, **options: whole(*args, **options | {"steps": 5}))


@pytest.mark.parametrize("name", ["evaluation", "long", "growth", "memory", "live", "precision", "quality"])
def test_rows_have_numbers_and_a_promise(name, short, tiny_file):
    rows = list(report.ROWS[name](BenchSettings(weights=str(tiny_file), sizes=(64,), quality_size=64), CPU))
    assert all(math.isfinite(value) or name == "quality" for row in rows for value in row.values.values())
    if name == "long":  # which promises nothing on a CPU, and is measured at one size
        assert [(row.name, row.met, row.target) for row in rows] == [("500 evaluations at 32 px", None, "")]
    else:
        assert any(row.met in (True, False) and row.target for row in rows)


@pytest.mark.parametrize(("both", "met"), [(22.0, True), (22.1, False)])
def test_two_runs_at_once_are_held_against_one(monkeypatch, both, met):
    """And their threads wait as those of all processes do, whatever this one's environment says."""
    seen = []

    def seconds(count, environment):
        seen.append(environment["GOMP_SPINCOUNT"])
        return 10.0 if count == 1 else both

    monkeypatch.setattr(processes, "seconds_together", seconds)
    (row,) = processes.two_at_once(BenchSettings(), CPU)
    assert (row.values["two over alone"], row.met) == (both / 10, met)
    assert set(seen) == {None, "300000"}


def test_a_run_in_a_process_of_its_own_is_timed(monkeypatch):
    monkeypatch.setattr(processes, "TOGETHER", ("--size", "32", "--steps", "1"))
    assert processes.seconds_together(1, {}) > 0


def test_a_process_of_its_own_measures_its_peak():
    assert processes.child("memory", "ours", "64", "cpu")["bytes"] > 0


# --- the table --------------------------------------------------------------------------------------------------

ROW = Row("a row", {"s": 2.0, "none before": 1.0}, "3 s or less", True)


def test_a_result_is_kept_and_compared(tmp_path, monkeypatch, capsys):
    path = tmp_path / "b.json"
    monkeypatch.setitem(report.ROWS, "start", lambda *_: [ROW])
    assert bench(["--rows", "start", "--json", str(path)]) == 0
    assert "| a row | s 2, none before 1 | 3 s or less | yes |" in capsys.readouterr().out
    assert json.loads(path.read_text())["machine"]["torch"] == torch.__version__
    assert report.read(path) == {"a row": ROW.values}
    monkeypatch.setitem(report.ROWS, "start", lambda *_: [Row("a row", {"s": 3.0, "new": 1.0}), Row("another", {"s": 1.0})])
    assert bench(["--rows", "start", "--against", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| a row | s 1.50 |"


@pytest.fixture
def unmeasured(monkeypatch):
    monkeypatch.setitem(report.ROWS, "start", lambda *_: pytest.fail("measured"))


@pytest.mark.parametrize("content", [None, "", "[]", '{"rows": [1]}'])
def test_what_is_not_a_result_is_refused_before_anything_is_measured(content, tmp_path, unmeasured, capsys):
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    assert bench(["--rows", "start", "--against", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"nstlab: error: against: {path}")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, unmeasured):
    with pytest.raises(InputError, match="there is no folder"):
        report.measure(BenchSettings(rows=("start",), json=tmp_path / "none" / "b.json"))
    assert bench(["--rows", "starts"]) == 2
