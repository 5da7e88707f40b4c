"""One run on several processes, started as users start them: the same picture, one writer, and what is left of a lost rank."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from faults import refusal

from nstlab import images as im
from nstlab.method.fast.ranks import Team, spanned
from nstlab.recipes.room import Room, prepare_here
from nstlab.runs.index import rows
from nstlab.runs.store import Store

OFTEN = """
import importlib, sys
from nstlab.cli import main
store = importlib.import_module("nstlab.runs.store")
store.CHECKPOINT_EVERY, store.CHECKPOINT_SHARE = 0.0, 1e9
sys.exit(main())
"""


@pytest.fixture
def start(small_transfer, tmp_path):
    """Starts a transfer on some processes; checkpoints are written after every step."""
    script = tmp_path / "often.py"
    script.write_text(OFTEN)

    def begin(count, out, results, **changes):
        settings = small_transfer.replace(**{"size": 96, "steps": 4} | changes)
        words = [settings.photo, settings.painting, "--out", out, "--results", results, "--tile", "32", "--device", "cpu"]
        for name in ("size", "steps", "levels", "weights", "precision"):
            words += [f"--{name}", getattr(settings, name)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count] if count > 1 else []
        command = [sys.executable, *launcher, script, "transfer", *words, "--normalize", "False"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        return subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return begin


def ended(process, code=0):
    """What a process said, which ended with this exit code (torchrun's is 1 if any other than 0 is a rank's)."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    return said


def test_several_processes_make_the_same_picture_and_one_of_them_writes(start, small_transfer, tmp_path):
    said = ended(start(2, tmp_path / "out.png", tmp_path / "results"))
    assert said.count("done in") == said.count("in tiles") == 1
    alone = prepare_here(small_transfer.replace(size=96, steps=4), "cpu", Room(tile="32")).solve()
    (row,) = rows(tmp_path / "results")
    assert row["loss"] == pytest.approx(alone.loss, rel=1e-3)
    assert float((im.reopen(tmp_path / "out.png") - alone.image).abs().mean()) < 1 / 255


def test_a_lost_rank_ends_in_words_with_a_checkpoint_that_fewer_go_on_from(start, small_transfer, tmp_path):
    out, store = tmp_path / "out.png", Store(tmp_path / "results")
    process = start(2, out, store.root, steps=100_000)
    plan = prepare_here(small_transfer.replace(size=96), "cpu", Room(tile="32"))
    kept, deadline = store.partial(plan) / "checkpoint.safetensors", time.monotonic() + 60
    while not kept.is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ranks = [each.pid for each in psutil.Process(process.pid).children() if "often.py" in " ".join(each.cmdline())]
    os.kill(max(ranks), signal.SIGKILL)
    said = ended(process, 1)  # torchrun's code, whatever that of its ranks
    assert "another rank is lost" in said or "interrupted" in said
    checkpoint = store.checkpoint(plan)
    run = plan.steps(checkpoint)
    first, second = next(run), next(run)
    assert (first.index, second.index) == (checkpoint.data["index"] + 1, checkpoint.data["index"] + 2)


def test_tiles_are_shared_out_evenly_and_rows_are_those_that_they_span():
    shares = [Team(rank, 3).share(8) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert spanned([slice(5, 9), slice(2, 6)]) == slice(2, 9)
    assert spanned([]) == slice(0, 0)
    alone = Team(0, 1)
    alone.order(do="nothing")
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
