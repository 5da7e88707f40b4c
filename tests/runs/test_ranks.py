"""One run on several processes, started as users start them: the same picture, one writer, and what
is left of a lost rank."""

import json
import os
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from faults import refusal
from helpers import until

from nstlab.cli.main import main
from nstlab.method.fast.ranks import Team, span_of
from nstlab.pictures import images as im
from nstlab.recipes.capacity import MemoryBudget
from nstlab.recipes.prepare import prepare_here
from nstlab.runs.index import rows
from nstlab.runs.store import Store

LAUNCHER = """
import importlib, json, os, signal, socket, sys
from nstlab.cli.main import main
heartbeats = importlib.import_module("nstlab.method.fast.heartbeats")
store = importlib.import_module("nstlab.runs.store")
importlib.import_module("nstlab.recipes.capacity")  # once, for all that are forked
heartbeats.BEAT, heartbeats.MISSED = 0.1, 20
store.CHECKPOINT_EVERY, store.CHECKPOINT_SHARE = 0.0, 1e9

def fail(*_):
    raise MemoryError("none left")

signal.signal(signal.SIGUSR1, fail)
for line in sys.stdin:
    words, children = json.loads(line), []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    for rank, own in enumerate(words):
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(len(words))}
        if not (child := os.fork()):
            os._exit(main(own))
        children.append(child)
    print("ranks", *children, flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print("codes", *codes, flush=True)
"""


@pytest.fixture
def words(small_transfer, tmp_path):
    """The words of a transfer in tiles; 57 × 48 pixels, so that its tiles are not those of its
    content layer alone."""

    def of(**changes):
        settings = small_transfer.replace(**{"size": 57, "steps": 4} | changes)
        said = [
            "transfer",
            settings.photo,
            settings.painting,
            "--out",
            tmp_path / "out.png",
            "--device",
            "cpu",
        ]
        said += ["--results", tmp_path / "results", "--tile", "16", "--normalize", "False"]
        for name in ("size", "steps", "levels", "weights", "precision", "seed"):
            said += [f"--{name}", getattr(settings, name)]
        return list(map(str, said))

    return of


@pytest.fixture(scope="module")
def launcher(tmp_path_factory, cache_folder):
    """A process that starts ranks without loading PyTorch anew. They write a checkpoint after each
    step; hearts beat fast."""
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked here")
    script = tmp_path_factory.mktemp("launcher") / "launcher.py"
    script.write_text(LAUNCHER)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(cache_folder),
        "PYTHONUNBUFFERED": "1",
    }
    streams = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    with subprocess.Popen([sys.executable, script], env=environment, **streams) as process:
        yield process
        process.stdin.close()


def begin(launcher, *words):
    """Start ranks, each with its words; their process ids."""
    print(json.dumps(words), file=launcher.stdin, flush=True)
    return list(map(int, after(launcher, "ranks")[1].split()))


def after(launcher, word):
    """(what was said before a line that begins with a word, the rest of that line)."""
    said = []
    while not (line := launcher.stdout.readline()).startswith(word):
        assert line, said
        said.append(line)
    return "".join(said), line.removeprefix(word)


def test_several_processes_make_the_same_picture_and_one_of_them_writes(
    words, small_transfer, tmp_path
):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "nstlab",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        [*torchrun, *words()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("done in") == said.count("in tiles") == 1
    alone = prepare_here(
        small_transfer.replace(size=57, steps=4), "cpu", MemoryBudget(tile="16")
    ).solve()
    (row,) = rows(tmp_path / "results")
    assert row["loss"] == pytest.approx(alone.loss, rel=1e-3)
    assert float((im.reopen(tmp_path / "out.png") - alone.image).abs().mean()) < 1 / 255


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("SIGKILL", "another rank is lost"),
        ("SIGSTOP", "rank 1 is stopped or cut off: no heartbeat for 2 s"),
        ("SIGUSR1", "rank 1: MemoryError: none left"),
    ],
)
def test_a_lost_rank_ends_in_words_with_a_checkpoint_that_fewer_go_on_from(
    launcher, words, small_transfer, tmp_path, number, why
):
    pids = begin(launcher, words(steps=100_000), words(steps=100_000))
    store, plan = (
        Store(tmp_path / "results"),
        prepare_here(small_transfer.replace(size=57), "cpu", MemoryBudget(tile="16")),
    )
    kept = store.partial(plan) / "checkpoint.safetensors"
    until(kept.is_file)
    os.kill(pids[1], getattr(signal, number))
    _, line = after(launcher, "nstlab: error: ")
    assert line.startswith(why)
    assert line.endswith("the same command, also with fewer ranks, goes on\n")
    os.kill(pids[1], signal.SIGKILL)  # if it is stopped
    said, codes = after(launcher, "codes")
    assert "another rank" not in said
    assert codes.split()[0] == "2"
    checkpoint = store.checkpoint(plan)
    run = plan.steps(checkpoint)
    first, second = next(run), next(run)
    assert (first.index, second.index) == (
        checkpoint.data["index"] + 1,
        checkpoint.data["index"] + 2,
    )


def test_ranks_that_were_started_with_something_else_are_refused_by_the_first_one(
    launcher, words, tmp_path
):
    begin(launcher, words(), words(steps=5, seed=3))
    said, codes = after(launcher, "codes")
    assert said.count("\n") == 1
    assert (
        "error: rank 1 was started with another seed, steps than rank 0; start all with the "
        "same files" in said
    )
    assert set(codes.split()) == {"2"}
    begin(launcher, words(), [word.replace("photo.png", "none.png") for word in words()])
    said, codes = after(launcher, "codes")
    assert said.count("\n") == 1
    assert "error: rank 1: " in said
    assert "none.png" in said
    assert not (tmp_path / "out.png").exists()


def test_tiles_are_shared_out_evenly_and_rows_are_those_that_they_span():
    shares = [Team(rank, 3).share(8) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert span_of([slice(5, 9), slice(2, 6)]) == slice(2, 9)
    assert span_of([]) == slice(0, 0)
    alone = Team(0, 1)
    alone.broadcast(do="nothing")
    total = torch.ones(2)
    alone.sum([total])
    assert total.tolist() == [1, 1]


def test_a_gpu_is_one_ranks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert Team(5, 8).device("auto") == torch.device("cuda", 1)
    assert Team(5, 8).device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert "4 ranks share 2 GPU here" in refusal(Team(5, 8).device, "cuda")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"WORLD_SIZE": "two"},
            "WORLD_SIZE: 'two' is not allowed; allowed are whole numbers from 1",
        ),
        ({"WORLD_SIZE": "9" * 5000}, "is not allowed; allowed are whole numbers from 1"),
        ({"RANK": ""}, "RANK: is not set, though WORLD_SIZE is"),
        ({"RANK": "2"}, "RANK: '2' is not allowed; allowed are whole numbers from 0 to 1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK: '-1' is not allowed"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE: '0' is not allowed"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: is not set, though WORLD_SIZE is"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT: 'http' is not allowed"),
    ],
)
def test_an_environment_that_does_not_say_how_ranks_meet_is_refused(
    words, monkeypatch, capsys, changes, said
):
    whole = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in (whole | changes).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(
            name, value
        )
    (
        monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "set, so that it is undone"),
        monkeypatch.delenv("TORCH_CPP_LOG_LEVEL"),
    )
    assert main(words()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    # else PyTorch prints forty lines of its own where ranks do not meet
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "FATAL"


@pytest.mark.parametrize(("rank", "said"), [("0", "nstlab: interrupted\n"), ("1", "")])
def test_of_an_interrupt_the_first_rank_tells_alone(words, monkeypatch, capsys, rank, said):
    for name, value in {"WORLD_SIZE": "2", "RANK": rank, "TORCH_CPP_LOG_LEVEL": "FATAL"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Team, "join", Mock(side_effect=KeyboardInterrupt))
    assert main(words()) == 130
    assert capsys.readouterr().err == said


def test_an_empty_number_of_ranks_is_one(words, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "")
    assert main([*words(steps=0), "--tile", "off"]) == 0
    assert "done in" in capsys.readouterr().out
