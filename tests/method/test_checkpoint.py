"""Checkpoints: what is saved comes back, and any damage is found."""

import pytest
import safetensors.torch
import torch
from faults import refusal

import nstlab as nst
from nstlab.method.checkpoint import Checkpoint
from nstlab.method.engine import minimize
from nstlab.method.network import VGG19
from nstlab.method.optimizers import Adam, GradientDescent


@pytest.fixture
def begin(net, photo):
    """Begin a run; options replace those of the run that the checkpoint belongs to."""

    goal = nst.content("conv1_1", photo) + nst.total_variation()

    def begin(net=net, goal=goal, start=photo[..., :16, :16], **options):
        return next(minimize(goal, net, start, **{"optimizer": Adam(), **options}))

    return begin


@pytest.fixture
def checkpoint(begin):
    return begin().checkpoint()


def test_what_is_saved_comes_back(checkpoint, tmp_path):
    found = Checkpoint.load(checkpoint.save(tmp_path / "c.safetensors"))
    assert found.data == checkpoint.data
    assert found.tensors.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_a_file_with_one_wrong_bit_or_cut_anywhere_is_refused(checkpoint, tmp_path):
    path = checkpoint.save(tmp_path / "c.safetensors")
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 101)]
    for place in (*range(0, 1500, 3), *range(1500, len(whole), 101)):  # the names and numbers at its head, then the pixels
        damaged.append(bytearray(whole))
        damaged[-1][place] ^= 1 << place % 8
    for content in damaged:
        path.write_bytes(content)
        assert str(path) in refusal(Checkpoint.load, path)


def test_a_file_of_something_else_is_refused(tmp_path):
    safetensors.torch.save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "is not a checkpoint of this version" in refusal(Checkpoint.load, tmp_path / "other.safetensors")
    for path in (tmp_path, tmp_path / "none.safetensors"):
        assert str(path) in refusal(Checkpoint.load, path)


def test_a_checkpoint_of_another_run_is_refused(begin, checkpoint, tiny, photo):
    for options, message in (
        ({"start": photo}, "with other sizes"),
        ({"optimizer": GradientDescent()}, "another optimizer: Adam"),
        ({"optimizer": Adam(rate=0.5)}, "another optimizer: Adam"),
        ({"goal": nst.content("conv1_1", photo)}, "of another objective"),
        ({"net": VGG19(tiny).double()}, "another type of numbers"),
    ):
        assert message in refusal(begin, checkpoint=checkpoint, **options)
