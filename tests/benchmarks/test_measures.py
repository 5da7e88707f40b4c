"""The benchmark measures the same objective in both contestants, and keeps and compares what it finds. No time is
asserted here."""

import json
import math

import pytest
import torch

from benchmarks import measures, report
from benchmarks.measures import BENCHES, BenchSettings, Row
from nstlab import commandline
from nstlab.method.network import VGG19
from nstlab.settings import InputError

CPU = torch.device("cpu")


def bench(words):
    """The command; its exit code."""
    return commandline.run_program(
        {"bench": commandline.Subcommand(report.command, (BenchSettings,))}, words, "python -m benchmarks"
    )


@pytest.fixture
def scene(tiny, photo, painting):
    pictures = [torch.nn.functional.interpolate(p, (48, 48), mode="bilinear") for p in (photo, painting)]
    return measures.Scene(VGG19(tiny, normalize=False, precision="float32"), *pictures)


def test_the_plain_loop_has_our_loss_and_gradient(scene):
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    loss, grad, _ = scene.bound().evaluate(x)
    plain, scale = scene.plain(), scene.bound().scale
    assert torch.allclose(plain.loss(x), loss * scale, rtol=1e-4)
    assert torch.allclose(plain.evaluate(x), grad * scale, rtol=1e-3, atol=1e-4 * float(grad.abs().max()) * scale)


def test_the_plain_loop_descends_by_one_evaluation_a_loss(scene):
    found = list(scene.plain().run(scene.photo, 12))
    assert len(found) == 12
    losses = [loss for loss, _ in found]
    assert min(losses) < losses[0] / 2
    assert torch.equal(found[0][1], scene.photo)
    assert scene.loss(found[-1][1]) == pytest.approx(losses[-1], rel=1e-3)


def test_partial_weights_are_read_as_far_as_they_reach(tiny, tmp_path):
    import safetensors.torch

    from nstlab.method.weights import TORCHVISION

    path = tmp_path / "partial.safetensors"
    partial = {name: t for name, t in tiny.tensors.items() if name < "conv4"}
    safetensors.torch.save_file(partial, path, {"input": str(TORCHVISION)})
    scene = measures.scene(str(path), 64, CPU)
    assert (scene.content, scene.style[-1]) == (("conv3_3",), "conv3_1")
    assert scene.path[-1] == "conv3_3"


def test_work_is_counted_from_the_layers(scene):
    first = scene.net.convolution("conv1_1")[0].numel() * 48 * 48
    assert scene.flops() > 4 * first
    assert measures.Scene(scene.net, scene.photo, scene.painting, ("conv1_1",), ("conv1_1",)).flops() == 4 * first


def test_the_time_to_a_loss_ends_where_it_is_reached(scene):
    start = scene.photo
    whole = float(scene.bound().evaluate(start)[0]) * scene.bound().scale
    assert measures.time_to(scene, start, 0.5 * whole, "float32", 1, 30, CPU) < math.inf
    assert measures.time_to(scene, start, 0.0, "float32", 1, 3, CPU) == math.inf


def test_every_row_that_can_be_asked_for_is_there():
    assert set(measures.ROWS) == set(BENCHES)


@pytest.mark.parametrize("name", ["evaluation", "growth", "memory", "live", "precision", "quality"])
def test_rows_have_numbers_and_a_promise(name, tiny, tiny_file, monkeypatch):
    monkeypatch.setattr(measures, "full_width", lambda: tiny)
    monkeypatch.setattr(measures, "EVALUATIONS", 3)
    monkeypatch.setattr(measures, "WAYS", {"a way": ("auto", 1, 3)})
    monkeypatch.setattr(measures, "GROWING", (48, 64))
    monkeypatch.setattr(measures, "PAIRS", measures.PAIRS[:1])
    monkeypatch.setattr(measures, "child", lambda *_: {"bytes": 100.0})
    short = measures.minimize
    monkeypatch.setattr(measures, "minimize", lambda *args, **options: short(*args, **options | {"steps": 5}))
    monkeypatch.setattr(measures, "MOVES", {field: moves[:1] for field, moves in measures.MOVES.items()})
    options = BenchSettings(weights=str(tiny_file), sizes=(64,), quality_size=64)
    rows = list(measures.ROWS[name](options, CPU))
    assert rows
    assert all(math.isfinite(v) or name == "quality" for row in rows for v in row.values.values())
    assert any(row.met in (True, False) and row.target for row in rows)


@pytest.mark.parametrize(("both", "met"), [(22.0, True), (22.1, False)])
def test_two_runs_at_once_are_held_against_one(monkeypatch, both, met):
    """And their threads wait as those of all processes do, whatever this one's environment says."""
    seen = []

    def seconds(count, environment):
        seen.append(environment["GOMP_SPINCOUNT"])
        return 10.0 if count == 1 else both

    monkeypatch.setattr(measures, "_together", seconds)
    (row,) = measures.two(BenchSettings(), CPU)
    assert row.values["two over alone"] == both / 10
    assert row.met is met
    assert set(seen) == {None, "300000"}


def test_a_run_in_a_process_of_its_own_is_timed(monkeypatch):
    monkeypatch.setattr(measures, "TOGETHER", ("--size", "32", "--steps", "1"))
    assert measures._together(1, {}) > 0


def test_a_long_run_is_timed_and_nothing_promised_on_a_cpu(tiny, monkeypatch):
    monkeypatch.setattr(measures, "full_width", lambda: tiny)
    monkeypatch.setattr(measures, "LONG", {32: 1.0, 64: 1.0})
    (row,) = measures.long(BenchSettings(), CPU)
    assert row.name == "500 evaluations at 32 px"
    assert row.values["s"] > 0
    assert (row.met, row.target) == (None, "")


def test_a_process_of_its_own_measures_its_peak():
    found = measures.child("memory", "ours", "64", "cpu")
    assert found["bytes"] > 0


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


@pytest.mark.parametrize("content", [None, "", "[]", '{"rows": [1]}'])
def test_what_is_no_result_is_refused_before_anything_is_measured(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(report.ROWS, "start", lambda *_: pytest.fail("measured"))
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    assert bench(["--rows", "start", "--against", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"nstlab: error: against: {path}")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(report.ROWS, "start", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match="there is no folder"):
        report.run(BenchSettings(rows=("start",), json=tmp_path / "none" / "b.json"))
    assert bench(["--rows", "starts"]) == 2
