"""The benchmarks measure the same objective in both contestants, and keep and compare what they
find. No time is asserted."""

import json
import math

import pytest
import torch

import nstlab as nst
from benchmarks import feedforward, film, live, optimizers, processes, report, speed
from benchmarks.__main__ import commands
from benchmarks.scene import BenchSettings, Row, Scene
from nstlab.cli import program
from nstlab.live import studio
from nstlab.networks.vgg import VGG19
from nstlab.pictures.images import resize
from nstlab.recipes.transfer import TransferSettings

CPU = torch.device("cpu")


def bench(words):
    """The command; its exit code."""
    command = program.Subcommand(report.table_command, (BenchSettings,))
    return program.run_program(lambda: {"bench": command}, words, "bench")


@pytest.fixture
def small(tiny, photo, painting):
    return Scene(
        VGG19(tiny, precision="float32"),
        *(resize(picture, (48, 48)) for picture in (photo, painting)),
    )


def test_the_plain_loop_has_our_loss_and_gradient_and_descends(small):
    x = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    loss, grad, _ = small.bound().evaluate(x)
    plain, scale = small.plain(), small.bound().scale
    assert torch.allclose(plain.loss(x), loss * scale, rtol=1e-4)
    assert torch.allclose(
        plain.evaluate(x), grad * scale, rtol=1e-3, atol=1e-4 * float(grad.abs().max()) * scale
    )
    losses, pictures = zip(*plain.run(small.photo, 12), strict=True)
    assert len(losses) == 12
    assert min(losses) < losses[0] / 2
    assert small.loss(pictures[-1]) == pytest.approx(losses[-1], rel=1e-3)


@pytest.mark.parametrize(("part", "steps", "reached"), [(0.5, 30, True), (0.0, 3, False)])
def test_the_time_to_a_loss_ends_where_it_is_reached(small, part, steps, reached):
    seconds = speed.time_to(
        small, small.photo, part * small.loss(small.photo), "float32", 1, steps, CPU
    )
    assert math.isfinite(seconds) == reached


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
    monkeypatch.setattr(live, "MOVES", {field: moves[:1] for field, moves in live.MOVES.items()})
    monkeypatch.setattr(
        studio, "first_settings", lambda: TransferSettings("coffee", "mosaic", size=64, levels=1)
    )
    monkeypatch.setattr(feedforward, "SPEEDS", {32: 1})
    monkeypatch.setattr(feedforward, "cold_start", lambda: Row("first picture", {"s": 1.0}))
    monkeypatch.setattr(film, "SIZE", 64)
    monkeypatch.setattr(film, "FRAMES", 3)
    monkeypatch.setattr(processes, "child", lambda *_: {"bytes": 100.0})
    whole = speed.minimize
    monkeypatch.setattr(
        speed, "minimize", lambda *args, **options: whole(*args, **options | {"steps": 5})
    )


@pytest.mark.parametrize(
    "name",
    [
        "evaluation",
        "long",
        "growth",
        "memory",
        "feedforward",
        "film",
        "live",
        "precision",
        "quality",
    ],
)
def test_rows_have_numbers_and_a_promise(name, short, tiny_file):
    rows = list(
        report.ROWS[name](BenchSettings(weights=str(tiny_file), sizes=(64,), quality_size=64), CPU)
    )
    assert all(
        math.isfinite(value) or name == "quality" for row in rows for value in row.values.values()
    )
    if name == "long":  # which promises nothing on a CPU, and is measured at one size
        assert [(row.name, row.met, row.target) for row in rows] == [
            ("500 evaluations at 32 px", None, "")
        ]
    else:
        assert any(row.met in (True, False) and row.target for row in rows)


@pytest.mark.parametrize(("both", "met"), [(22.0, True), (22.1, False)])
def test_two_runs_at_once_are_held_against_one_and_their_threads_against_spinning_ones(
    monkeypatch, both, met
):
    alone = {None: 10.0, "300000": 20.0}  # whatever this process's own environment says

    def seconds(count, environment):
        return alone[environment["GOMP_SPINCOUNT"]] if count == 1 else both

    monkeypatch.setattr(processes, "seconds_together", seconds)
    (row,) = processes.two_at_once(BenchSettings(), CPU)
    assert (row.values["two over alone"], row.values["alone over spinning"], row.met) == (
        both / 10,
        0.5,
        met,
    )


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_the_peak_of_memory_is_above_what_was_held_before(kind, short, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_resident", lambda: 100)
    monkeypatch.setattr(processes, "_peak", lambda: 350)
    processes.peak_memory(kind, "64", "cpu")
    assert json.loads(capsys.readouterr().out) == {"bytes": 250}


def test_a_process_of_its_own_measures_its_peak(tiny_file):
    settings = TransferSettings(
        "coffee", "mosaic", size=64, steps=20, weights=str(tiny_file), normalize=False
    )
    numbers = processes.child("part", json.dumps(settings.to_dict()), "cpu")
    assert min(numbers.values()) > 0


def test_a_result_is_kept_and_compared(tmp_path, monkeypatch, capsys):
    path, row = (
        tmp_path / "b.json",
        Row("a row", {"s": 2.0, "none before": 1.0}, "3 s or less", True),
    )
    monkeypatch.setitem(report.ROWS, "start", lambda *_: [row])
    assert bench(["--rows", "start", "--json", str(path)]) == 0
    assert "| a row | s 2, none before 1 | 3 s or less | yes |" in capsys.readouterr().out
    assert json.loads(path.read_text())["machine"]["torch"] == torch.__version__
    assert report.read(path) == {"a row": row.values}
    monkeypatch.setitem(
        report.ROWS,
        "start",
        lambda *_: [Row("a row", {"s": 3.0, "new": 1.0}), Row("another", {"s": 1.0})],
    )
    assert bench(["--rows", "start", "--against", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| a row | s 1.50 |"


@pytest.mark.parametrize(
    "words",
    ["start --against b.json", "start --against list", "start --json none/b.json", "starts"],
)
def test_what_cannot_be_is_refused_by_name_before_anything_is_measured(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(report.ROWS, "start", lambda *_: pytest.fail("measured"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text('{"rows": [1]}')
    *_, option, value = ["--rows", *words.split()]
    assert bench(["--rows", *words.split()]) == 2
    said = capsys.readouterr().err
    assert option.strip("-") in said
    assert value in said


def test_each_table_has_a_command_with_help_for_every_option(capsys):
    for name in commands():
        assert program.run_program(commands, [name, "--help"], "bench") == 0
        assert "usage: bench " + name in capsys.readouterr().out


def test_both_optimizers_are_recorded_at_equal_numbers_of_evaluations(
    tiny, photo, painting, monkeypatch
):
    monkeypatch.setattr(optimizers, "CHECKPOINTS", (2, 5))
    net = VGG19(tiny, precision="float32")
    objective = nst.content("conv1_2", photo) + 1e3 * nst.style(["conv1_1"], painting)
    rows = optimizers.compare(objective.bind(net, photo.shape[-2:]), nst.grey(photo))
    assert list(rows) == [optimizers.TORCH, "ours", "ours, unbounded"]
    for losses in rows.values():
        assert list(losses) == [2, 5]
        assert losses[5][0] <= losses[2][0]
    assert "never higher: True" in optimizers.summary("ours", [[0.5, 1.0]])
