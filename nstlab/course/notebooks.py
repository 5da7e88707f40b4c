"""Run notebooks from top to bottom, with parameters, by papermill; keep what they show, as notebooks and as HTML."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nstlab import files
from nstlab import images as im
from nstlab.course.settings import NotebooksSettings
from nstlab.live.studio import STATIC
from nstlab.method.names import WEIGHTS
from nstlab.settings import InputError, nearest

FOLDER = Path(__file__).parents[2] / "notebooks"


def known(folder: Path = FOLDER) -> dict[str, Path]:
    """The numbered notebooks by name, in order. Raises InputError where there are none, as in an installed package."""
    found = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise InputError(f"notebooks: there are none in {folder}; they come with the project's source, not with the package")
    return found


def chosen(names: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these names or numbers; all, if none are named."""
    there = known(folder)
    found = []
    for name in names:
        stem = Path(name).stem
        match = [path for known_name, path in there.items() if stem in (known_name, known_name[:2])]
        if not match:
            raise InputError(f"there is no notebook '{name}'{nearest(stem, list(there))} (there are: {', '.join(there)})")
        found += match
    return found or list(there.values())


def run(settings: NotebooksSettings) -> Iterator[tuple[Path, Path, float]]:
    """Run each notebook in turn, with a progress bar; yields (the executed notebook, its HTML, seconds). Raises InputError,
    with the reason, for one that ends in an error; what it showed until then is kept."""
    paths, parameters = chosen(settings.names), settings.chosen
    parameters |= {"results": str(settings.results.absolute())} | _from_here(parameters)
    out = files.folder(settings.results / "notebooks")
    for path in paths:
        began = time.perf_counter()
        executed = _execute(path, out / path.name, parameters)
        yield executed, _html(executed), time.perf_counter() - began


def _from_here(parameters: dict[str, Any]) -> dict[str, str]:
    """Files among the parameters by their absolute paths, since notebooks run in their own folder; InputError for pictures
    that are not there."""
    for name in ("photo", "painting"):
        if name in parameters:
            im.load(parameters[name])
    files = {name: Path(parameters[name]) for name in ("photo", "painting", "weights") if name in parameters}
    weights = parameters.get("weights", WEIGHTS[0])
    if weights not in WEIGHTS and not os.path.isfile(files["weights"]):
        raise InputError(
            f"weights: {weights}: no such file{nearest(weights, WEIGHTS)} (allowed: {', '.join(WEIGHTS)} or a file)"
        )
    return {name: str(path.absolute()) for name, path in files.items() if os.path.isfile(path)}


def _execute(path: Path, out: Path, parameters: dict[str, Any]) -> Path:
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    except ImportError:
        raise InputError("notebooks: papermill is not installed; pip install 'nstlab[notebooks]'") from None

    bar = {"desc": path.stem, "dynamic_ncols": True, "disable": None}
    with _static(), _quietly():
        try:
            papermill.execute_notebook(path, out, parameters, kernel_name="python3", cwd=str(path.parent), progress_bar=bar)
        except PapermillExecutionError as error:
            raise InputError(f"{path.name}: cell {error.exec_count} ends in {error.ename}: {error.evalue}; see {out}") from None
        except DeadKernelError:
            raise InputError(f"{path.name}: its kernel died, for want of memory perhaps; see {out}") from None
    return out


def _html(executed: Path) -> Path:
    """The executed notebook as one page."""
    from nbconvert import HTMLExporter

    with _quietly():
        text, _ = HTMLExporter().from_filename(str(executed))
    page = executed.with_suffix(".html")
    page.write_text(text, encoding="utf-8")
    return page


@contextmanager
def _static() -> Iterator[None]:
    """Kernels that are started here know that nobody is there to use widgets."""
    before = os.environ.get(STATIC)
    os.environ[STATIC] = "1"
    try:
        yield
    finally:
        os.environ.pop(STATIC)
        if before is not None:
            os.environ[STATIC] = before


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Jupyter's own remarks on its inner life."""
    names = ("papermill", "traitlets", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
