"""Options of experiments, and lessons, with small pictures and a tiny network."""

import os

import pytest
from helpers import weights_file

import nstlab as nst
from nstlab.course.settings import SweepSettings
from nstlab.pictures import images as im


@pytest.fixture
def small(tmp_path, photo, painting, tiny_file, monkeypatch):
    """What options and lessons have in common; and figures have few pixels, since nobody looks at
    them."""
    monkeypatch.setattr("nstlab.figures.base.DPI", 20)
    paths = {
        name: im.save(picture, tmp_path / f"{name}.png")
        for name, picture in (("photo", photo), ("painting", painting))
    }
    common = {"budget": "smoke", "weights": str(tiny_file), "results": tmp_path / "results"}
    return common | {name: str(path) for name, path in paths.items()}


@pytest.fixture
def options(small):
    """Makes an experiment's options."""
    return lambda experiment, **changes: SweepSettings(
        experiment, **small | {"device": "cpu"} | changes
    )


@pytest.fixture
def make(small):
    """Makes a lesson."""
    return lambda **changes: nst.Lesson(**small | {"device": "cpu"} | changes)


@pytest.fixture
def lesson(make):
    return make()


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """One store for all notebooks and experiments, as a class would have it, and for all processes
    that run tests."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "course"


@pytest.fixture(scope="session")
def course_weights(tiny, tmp_path_factory):
    """The weights that notebooks and experiments run with, in a file that has the same name for all
    of them."""
    return weights_file(tiny, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def course_pictures(tmp_path_factory):
    """What they are painted from: two of the lab's pictures, small, which are read in no time."""
    folder = tmp_path_factory.mktemp("pictures")
    names = {"photo": "coffee", "painting": "swirl_strokes"}
    return {
        role: str(im.save(im.load(name, size=96), folder / f"{name}.png"))
        for role, name in names.items()
    }
