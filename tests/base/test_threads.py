"""Threads that wait let go of their core, in every process that computes, unless the user has said
how they shall wait."""

import os
import subprocess
import sys

import pytest

from nstlab.base.threads import POLICY, WAITING

OPENMP = """
import ctypes, importlib.util, pathlib
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib"
for library in folder.glob("libgomp*"):  # OpenMP tells what it has read when it is loaded
    ctypes.CDLL(str(library))
"""
pytestmark = pytest.mark.usefixtures("cold_python")


def told(code, **environment):
    """What OpenMP says in a new process of the variables that it has read."""
    clean = {name: value for name, value in os.environ.items() if name not in (POLICY, *WAITING)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("PyTorch has another OpenMP than GNU's here")
    return done.stderr


COMMAND, NOTEBOOK = f"import nstlab.cli.main\n{OPENMP}", f"import nstlab as nst\n{OPENMP}"
WORKER = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.sweep import label
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(label, 1.0).result()
"""


@pytest.mark.parametrize("code", [COMMAND, NOTEBOOK, WORKER], ids=["command", "notebook", "worker"])
def test_threads_let_go_soon_wherever_a_process_begins(code):
    said = told(code)
    assert said.count("GOMP_SPINCOUNT") == said.count(
        f"GOMP_SPINCOUNT = '{WAITING['GOMP_SPINCOUNT']}'"
    )


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "77"), (POLICY, "ACTIVE")])
def test_what_the_user_has_set_stays(name, value):
    said = told(NOTEBOOK, **{name: value})
    assert f"{name} = '{value}'" in said
    assert f"GOMP_SPINCOUNT = '{WAITING['GOMP_SPINCOUNT']}'" not in said
