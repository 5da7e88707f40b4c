"""A small network of three paintings, whose scales, shifts and averages are all different."""

import pytest
from helpers import transform_network

from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import LearnSettings
from nstlab.pictures import images as im


@pytest.fixture
def model():
    return StyleModel(transform_network(), ("ink", "oil", "chalk"), {"size": 64})


@pytest.fixture
def lesson(photo, painting, tiny_file, tmp_path, monkeypatch):
    """Settings with which two paintings are learnt in a second; what is drawn of it is small."""
    monkeypatch.setattr("nstlab.figures.base.DPI", 20)
    files = [
        im.save(painting, tmp_path / "hills.png"),
        im.save(photo.flip(1), tmp_path / "waves.png"),
    ]
    (tmp_path / "photos").mkdir()
    im.save(photo, tmp_path / "photos" / "a.png"), im.save(painting, tmp_path / "photos" / "b.png")
    return LearnSettings(
        tuple(map(str, files)), out=tmp_path / "m.safetensors", photos=(tmp_path / "photos",),
        size=64, crop=64, width=8,
        steps=4, batch=2, weights=str(tiny_file), device="cpu", results=tmp_path / "results",
    )  # fmt: skip
