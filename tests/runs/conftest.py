"""What the tests of stored runs share: a small transfer, a store, and how a run is interrupted."""

import itertools

import pytest
from helpers import weights_file

from nstlab.recipes.prepare import prepare
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.store import Store


@pytest.fixture
def settings(small_transfer):
    """A transfer of 12 steps at 32 px, from pictures and weights in files."""
    return small_transfer.replace(size=32, steps=12, init="white", precision="auto")


@pytest.fixture
def plan(settings):
    """Makes the plan of the transfer; its arguments change the settings."""
    return lambda **changes: prepare(settings.replace(**changes), "cpu")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def store(root):
    return Store(root)


@pytest.fixture
def interrupt(store):
    """Obtains a run, but interrupts it after so many steps, the first picture included; returns its
    partial folder."""

    def interrupted(plan, steps=5, **options):
        count = itertools.count(1)

        def watch(step):
            if next(count) == steps:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.obtain(plan, watch, **options)
        return store.partial(plan)

    return interrupted


@pytest.fixture(scope="session")
def stored_runs(tmp_path_factory, tiny):
    """A folder of results with three transfers that differ in β, and a texture; to be copied, not
    changed."""
    folder = tmp_path_factory.mktemp("stored")
    common = {"weights": weights_file(tiny, folder), "size": 32, "steps": 3, "normalize": False}
    store = Store(folder / "results")
    for beta in (1.0, 10.0, 100.0):
        store.obtain(prepare(TransferSettings("coffee", "mosaic", beta=beta, **common), "cpu"))
    store.obtain(prepare(TextureSettings("mosaic", **common), "cpu"))
    return store.root
