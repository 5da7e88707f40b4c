"""A small network of three paintings, whose scales, shifts and averages are all different."""

import pytest
import torch

from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.network import TransformNetwork
from nstlab.feedforward.settings import LearnSettings


def network(kind="instance", width=16):
    """A random network, in evaluation, of three paintings."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = TransformNetwork(3, width, kind).eval().requires_grad_(False)
        for name, t in made.state_dict().items():
            if name.endswith(("scale", "shift", "mean")):
                t.add_(0.3 * torch.randn(t.shape))
        made.train()
        if kind == "batch":
            for _ in range(40):
                made(torch.rand(2, 3, 32, 32), torch.eye(3)[:2])
    return made.eval()


@pytest.fixture
def model():
    return StyleModel(network(), ("ink", "oil", "chalk"), {"size": 64})


@pytest.fixture
def lesson(photo, painting, tiny_file, tmp_path):
    """Settings with which two paintings are learnt in a second."""
    from nstlab import images as im

    files = [im.save(painting, tmp_path / "hills.png"), im.save(photo.flip(1), tmp_path / "waves.png")]
    (tmp_path / "photos").mkdir()
    im.save(photo, tmp_path / "photos" / "a.png"), im.save(painting, tmp_path / "photos" / "b.png")
    return LearnSettings(
        tuple(map(str, files)), out=tmp_path / "m.safetensors", photos=(tmp_path / "photos",), size=64, crop=64, width=8,
        steps=4, batch=2, weights=str(tiny_file), device="cpu", results=tmp_path / "results",
    )  # fmt: skip
