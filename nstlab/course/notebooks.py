"""Run notebooks with parameters, by papermill, and keep what they show, also as HTML."""

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
from nstlab.base.errors import InputError, nearest
from nstlab.base.names import DOWNLOADS, WEIGHTS
from nstlab.course.experiment import available, read
from nstlab.course.lesson import BUDGETS
from nstlab.course.settings import NotebooksSettings
from nstlab.live.static import STATIC, STATIC_STEPS
from nstlab.networks.weights import load
from nstlab.pictures import images as im


def select(names: Sequence[str]) -> list[Path]:
    """The notebooks of these names or numbers; all of them if none are named.

    Raises:
        InputError: for a name that no notebook has.
    """
    notebooks = available()
    if not names:
        return list(notebooks.values())
    selected = []
    for name in names:
        stem = Path(name).stem
        paths = [path for title, path in notebooks.items() if stem in (title, title[:2])]
        if not paths:
            raise InputError(
                f"there is no notebook '{name}'{nearest(stem, list(notebooks))} (there are: "
                f"{', '.join(notebooks)})"
            )
        selected += paths
    return selected


def execute(settings: NotebooksSettings) -> Iterator[tuple[Path, Path, float]]:
    """Run each notebook in turn, with a progress bar.

    Yields:
        (the executed notebook, its HTML, seconds).

    Raises:
        InputError: with the reason, for a notebook that ends in an error; what it showed until then
            is kept.
    """
    paths = select(settings.names)
    parameters = settings.chosen
    parameters |= {"results": str(settings.results.absolute())} | absolute_paths(parameters)
    for path in paths:
        read(path)  # refused before any is run; papermill reads a path of its own
    folder = files.make_folder(settings.folder)
    for path in paths:
        began = time.perf_counter()
        executed = folder / path.name
        with _for_nobody(min(STATIC_STEPS, BUDGETS[settings.budget].steps)), _quietly():
            _execute(path, executed, parameters)
            page = _write_html(executed)
        yield executed, page, time.perf_counter() - began


def absolute_paths(parameters: dict[str, Any]) -> dict[str, str]:
    """The absolute paths of the files among the parameters, since notebooks run in their folder.

    Raises:
        InputError: for pictures and weights that cannot be used.
    """
    for name in ("photo", "painting"):
        if name in parameters:
            im.load(parameters[name])
    weights = parameters.get("weights", WEIGHTS[0])
    if weights not in WEIGHTS and not os.path.isfile(weights):
        allowed = f"(allowed: {', '.join(WEIGHTS)} or a file)"
        raise InputError(f"weights: {weights}: no such file{nearest(weights, WEIGHTS)} {allowed}")
    if weights in DOWNLOADS or weights not in WEIGHTS:
        load(weights)  # which may be missing or damaged; the others are always there
    paths = [
        (name, Path(parameters[name]))
        for name in ("photo", "painting", "weights")
        if name in parameters
    ]
    return {name: str(path.absolute()) for name, path in paths if path.is_file()}


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

    try:
        papermill.execute_notebook(
            path,
            executed,
            parameters,
            progress_bar={"desc": path.stem, "dynamic_ncols": True, "disable": None},
            kernel_name="python3",
            kernel_manager_class=ThisInterpreter,
            cwd=str(path.parent),
            language="python",
            # `_quietly` is for this process; the kernel has a log of its own.
            extra_arguments=["--log-level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        raise InputError(
            f"{path.name}: cell {error.exec_count} ends in {error.ename}: {error.evalue}; see "
            f"{executed}"
        ) from None
    except DeadKernelError:
        raise InputError(
            f"{path.name}: its kernel died, perhaps for want of memory; see {executed}"
        ) from None


def _write_html(executed: Path) -> Path:
    """Write the executed notebook as one page, which needs no network."""
    from nstlab.course.pages import PageExporter

    text, _ = PageExporter().from_filename(str(executed))
    page = executed.with_suffix(".html")
    page.write_text(text, encoding="utf-8")
    return page


@contextmanager
def _for_nobody(steps: int) -> Iterator[None]:
    """Let kernels that are started meanwhile show pictures, of so many steps, not widgets."""
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
