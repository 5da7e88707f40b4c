"""Small things that most tests need: a tiny network's weights, two smooth pictures, and caches that
are thrown away."""

import nstlab  # noqa: F401, I001  before PyTorch, whose threads then wait as they do everywhere
import multiprocessing.spawn
import os
import sys

import platformdirs
import pytest
import torch
import warm
from helpers import local_cluster, smooth, weights_file
from hypothesis import settings

from nstlab.pictures import images as im
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights, random_weights
from nstlab.recipes.transfer import TransferSettings

# Jupyter's grammars of addresses take seconds to build, and nothing here uses them.
sys.modules["rfc3987_syntax"] = sys.modules["rfc3986_validator"] = None  # type: ignore[assignment]
# no clock and no luck in the tests
settings.register_profile("nstlab", deadline=None, derandomize=True)
settings.load_profile("nstlab")


def pytest_collection_modifyitems(items):
    """Begin with the longest tests, so that none is left over at the end."""
    longest = "test_browser", "test_notebooks", "test_attacks", "test_embedded", "test_experiments"

    def place(item):
        return next((i for i, name in enumerate(longest) if name in item.nodeid), len(longest))

    items.sort(key=place)


def pytest_configure(config):
    """Start a warm Python for the processes of all tests, also for those that run tests."""
    if sys.platform == "linux" and not hasattr(config, "workerinput"):
        program, end = warm.start()
        config.add_cleanup(end)
        os.environ |= {warm.NAME: program, warm.COLD: warm.REAL}
        workers = getattr(config.option, "tx", None) or []
        config.option.tx = [
            f"popen//python={program}" if kind == "popen" else kind for kind in workers
        ]


@pytest.fixture(scope="session", autouse=True)
def warm_python():
    """Processes that tests start are forked from a Python that has PyTorch loaded already."""
    with pytest.MonkeyPatch.context() as patch:
        if warm.NAME in os.environ:
            patch.setattr(sys, "executable", os.environ[warm.NAME])
            patch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(sys.executable))
        yield


@pytest.fixture
def cold_python(monkeypatch):
    """Processes are started by the interpreter itself, for tests of how that begins."""
    monkeypatch.setattr(sys, "executable", warm.REAL)


@pytest.fixture
def photo() -> torch.Tensor:
    """48 px high, 40 px wide."""
    return smooth(48, 40, seed=1)


@pytest.fixture
def painting() -> torch.Tensor:
    """40 px high, 56 px wide."""
    return smooth(40, 56, seed=2)


@pytest.fixture(scope="session")
def tiny() -> Weights:
    """VGG19 with 4 to 8 channels a layer and random weights."""
    return random_weights(seed=0, widths=(4, 6, 8, 8, 8))


@pytest.fixture
def net(tiny) -> VGG19:
    """A network of the tiny weights, evaluated in float32 on any machine."""
    return VGG19(tiny, precision="float32")


@pytest.fixture
def tiny_file(tiny, tmp_path):
    """The tiny weights in a safetensors file that names its preprocessing."""
    return weights_file(tiny, tmp_path)


@pytest.fixture
def small_transfer(photo, painting, tiny_file, tmp_path):
    """Settings of a transfer whose pictures are small files, and whose end nobody waits for."""
    paths = [im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png")]
    small = {
        "size": 48,
        "steps": 100_000,
        "levels": 1,
        "weights": str(tiny_file),
        "normalize": False,
        "precision": "float32",
    }
    return TransferSettings(*map(str, paths), **small)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """One cache for the whole session, whatever the number of its workers: a network's mean
    activations are computed once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def own_machine(monkeypatch, cache_folder, tmp_path_factory):
    """No test reads or writes the user's caches, nor do its random numbers depend on the tests
    before. Tests and the processes that they start compute in one thread: their networks are tiny,
    and other tests run at the same time."""
    torch.default_generator.manual_seed(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_folder))
    monkeypatch.setattr(
        platformdirs, "user_cache_dir", lambda *names, **_: str(cache_folder.joinpath(*names))
    )
    torch_home, before = tmp_path_factory.mktemp("torch"), torch.hub.get_dir()
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    torch.hub.set_dir(str(torch_home / "hub"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.hub.set_dir(before)
    torch.set_num_threads(threads)


@pytest.fixture
def cluster():
    with local_cluster(2) as made:
        yield made
