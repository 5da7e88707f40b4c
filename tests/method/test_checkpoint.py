"""Checkpoints: any damage is found, and they fit one run. (What resumes from them is in
runs/test_store.)"""

import pytest
import safetensors.torch
import torch
from faults import refusal

import nstlab as nst
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.engine import minimize
from nstlab.method.optimizers import Adam, GradientDescent
from nstlab.networks.vgg import VGG19


@pytest.fixture
def run(net, photo):
    """The arguments of a run."""
    goal = nst.content("conv1_1", photo) + nst.total_variation()
    return {"objective": goal, "net": net, "start": photo[..., :16, :16], "optimizer": Adam()}


@pytest.fixture
def checkpoint(run):
    return next(minimize(**run)).checkpoint()


def test_a_file_with_one_wrong_bit_or_cut_anywhere_or_of_something_else_is_refused(
    checkpoint, tmp_path
):
    path = checkpoint.save(tmp_path / "c.safetensors")
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 101)]
    # names and numbers first, then pixels
    for place in (*range(0, 1500, 3), *range(1500, len(whole), 101)):
        damaged.append(bytearray(whole))
        damaged[-1][place] ^= 1 << place % 8
    for content in (*damaged, safetensors.torch.save({"x": torch.zeros(3)})):
        path.write_bytes(content)
        assert str(path) in refusal(Checkpoint.load, path)
    for path in (tmp_path, tmp_path / "none.safetensors"):
        assert str(path) in refusal(Checkpoint.load, path)


def test_a_checkpoint_of_another_run_is_refused(run, checkpoint, tiny, photo):
    for other, message in (
        ({"start": photo}, "with other sizes"),
        ({"optimizer": GradientDescent()}, "another optimizer: Adam"),
        ({"optimizer": Adam(rate=0.5)}, "another optimizer: Adam"),
        ({"objective": nst.content("conv1_1", photo)}, "of another objective"),
        ({"net": VGG19(tiny).double()}, "another type of numbers"),
    ):
        assert message in refusal(next, minimize(**run | other, checkpoint=checkpoint))
