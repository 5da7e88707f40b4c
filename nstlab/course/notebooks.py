"""Run notebooks from top to bottom, with parameters, by papermill; keep what they show, as
notebooks and as HTML."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nstlab.base import files
from nstlab.base.names import WEIGHTS
from nstlab.base.settings import InputError, nearest
from nstlab.course.experiment import available, read
from nstlab.course.lesson import BUDGETS
from nstlab.course.settings import NotebooksSettings
from nstlab.live.static import STATIC, STATIC_STEPS
from nstlab.networks.weights import load
from nstlab.pictures import images as im


def select(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names or numbers; all of them if none are named."""
    there = available()
    found = []
    for name in names:
        stem = Path(name).stem
        match = [path for known, path in there.items() if stem in (known, known[:2])]
        if not match:
            raise InputError(
                f"there is no notebook '{name}'{nearest(stem, list(there))} (there are: "
                f"{', '.join(there)})"
            )
        found += match
    return found or list(there.values())


def execute(settings: NotebooksSettings) -> Iterator[tuple[Path, Path, float]]:
    """Run each notebook in turn, with a progress bar; yields (the executed notebook, its HTML,
    seconds).

    Raises InputError, with the reason, for a notebook that ends in an error; what it showed until
    then is kept."""
    paths = select(settings.names)
    parameters = settings.chosen
    parameters |= {"results": str(settings.results.absolute())} | absolute_paths(parameters)
    for path in paths:
        read(path)  # refused before any is run
    folder = files.make_folder(settings.folder)
    for path in paths:
        began = time.perf_counter()
        executed = folder / path.name
        with _for_nobody(min(STATIC_STEPS, BUDGETS[settings.budget].steps)), _quietly():
            _execute(path, executed, parameters)
            page = _html(executed)
        yield executed, page, time.perf_counter() - began


def absolute_paths(parameters: dict[str, Any]) -> dict[str, str]:
    """The absolute paths of the files among the parameters, since notebooks run in their own
    folder.

    Raises InputError for pictures and weights that cannot be used."""
    for name in ("photo", "painting"):
        if name in parameters:
            im.load(parameters[name])
    weights = parameters.get("weights", WEIGHTS[0])
    if weights not in WEIGHTS and not os.path.isfile(weights):
        allowed = f"(allowed: {', '.join(WEIGHTS)} or a file)"
        raise InputError(f"weights: {weights}: no such file{nearest(weights, WEIGHTS)} {allowed}")
    if "weights" in parameters:
        load(weights)
    given = {
        name: Path(parameters[name])
        for name in ("photo", "painting", "weights")
        if name in parameters
    }
    return {name: str(path.absolute()) for name, path in given.items() if path.is_file()}


def _execute(path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    try:
        import papermill
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    except ImportError:
        raise InputError(
            "notebooks: papermill is not installed; pip install 'nstlab[notebooks]'"
        ) from None

    class ThisInterpreter(AsyncKernelManager):
        """For a kernel of this Python, whatever is installed anywhere under the name of python3."""

        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    bar = {"desc": path.stem, "dynamic_ncols": True, "disable": None}
    how = {
        "kernel_name": "python3",
        "kernel_manager_class": ThisInterpreter,
        "cwd": str(path.parent),
        "language": "python",
    }
    # `_quietly` is for this process; the kernel has a log of its own.
    how |= {"extra_arguments": ["--log-level=ERROR"]}
    try:
        papermill.execute_notebook(path, executed, parameters, progress_bar=bar, **how)
    except PapermillExecutionError as error:
        raise InputError(
            f"{path.name}: cell {error.exec_count} ends in {error.ename}: {error.evalue}; see "
            f"{executed}"
        ) from None
    except DeadKernelError:
        raise InputError(
            f"{path.name}: its kernel died, perhaps for want of memory; see {executed}"
        ) from None


def _html(executed: Path) -> Path:
    """The executed notebook as one page, which needs no network."""
    from nstlab.course.pages import PageExporter

    text, _ = PageExporter().from_filename(str(executed))
    page = executed.with_suffix(".html")
    page.write_text(text, encoding="utf-8")
    return page


@contextmanager
def _for_nobody(steps: int) -> Iterator[None]:
    """Tell the kernels that are started meanwhile that nobody is there to use widgets, whose
    pictures take so many steps."""
    before = os.environ.get(STATIC)
    os.environ[STATIC] = str(steps)
    try:
        yield
    finally:
        os.environ.pop(STATIC)
        if before is not None:
            os.environ[STATIC] = before


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide Jupyter's warnings about its own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
