"""What is stored, as tables: `runs()` has a row a run, `history()` a row a step.

The index, `results/runs/index.json`, holds the rows by folder, with the time at which each manifest was written; a row
whose manifest has changed is read again. It is a cache: deleted or damaged, it is made anew from the folders.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nstlab import images as im
from nstlab.settings import RECIPES, RESULTS, InputError
from nstlab.store import FORMAT, Store, StoredRun

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("nstlab")
Where = Mapping[str, Any] | str | Callable[["pandas.DataFrame"], Any]


def _row(run: StoredRun) -> dict[str, Any]:
    """A finished run as plain values; raises for whatever is missing or of another kind."""
    manifest = run.manifest
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']}")
    if not run.picture.is_file():
        raise ValueError(f"{run.picture.name} is missing")
    result = manifest["result"]
    row = {"id": run.id, "recipe": manifest["recipe"], "loss": float(result["loss"])}
    row |= {f"loss_{name}": float(value) for name, value in result["terms"].items()}
    row |= {name: result[name] for name in ("status", "evaluations", "seconds")}
    row |= {"steps_done": result["steps"], "events": len(result["events"]), "event_list": "; ".join(result["events"])}
    row |= manifest["settings"]
    row |= {"weights_source": manifest["weights_source"], "changes": len(manifest["changes"])}
    row |= {name: manifest["environment"][name] for name in ("created", "device", "commit")}
    return row | {"folder": str(run.folder), "picture": str(run.picture)}


def _folders(root: Path) -> Iterator[Path]:
    """The folders of finished runs: those whose name has no ending."""
    for recipe in RECIPES:
        yield from sorted(p for p in (root / "runs" / recipe).glob("*") if p.is_dir() and not p.suffix)


def _read_index(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text())
        if found["format"] == FORMAT and isinstance(found["runs"], dict):
            return found["runs"]
    return {}


def rows(root: str | Path = RESULTS) -> list[dict[str, Any]]:
    """A row for each finished run below the folder, oldest first; what is damaged is reported in the log and left out."""
    root = Path(root)
    path, new = root / "runs" / "index.json", {}
    old = _read_index(path)
    for folder in _folders(root):
        name = f"{folder.parent.name}/{folder.name}"
        try:
            stamp = (folder / "manifest.json").stat().st_mtime_ns
            known = old.get(name)
            valid = isinstance(known, dict) and known.get("stamp") == stamp and known["row"].get("folder") == str(folder)
            new[name] = known if valid else {"stamp": stamp, "row": _row(StoredRun(folder))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: is damaged and left out (%s: %s)", folder, type(error).__name__, error)
    if new != old and path.parent.is_dir():
        with contextlib.suppress(InputError), im.replacing(path) as temporary:  # a folder that may only be read will do
            temporary.write_text(json.dumps({"format": FORMAT, "runs": new}))
    return sorted((entry["row"] for entry in new.values()), key=lambda row: row["created"])


def runs(recipe: str | None = None, where: Where | None = None, root: str | Path = RESULTS) -> pandas.DataFrame:
    """One row a finished run: its settings by name, losses (`loss`, and `loss_style` and so on for each term, unweighted),
    `seconds`, `evaluations`, `steps_done`, `status`, `events` (how many; `event_list` what), `folder`, `picture`.

    recipe: only runs of it. where: {"beta": 1000.0, "pool": ["avg", "max"]}, or an expression for DataFrame.query, or a
    function from the frame to a mask. root: the folder of results. Raises InputError for an unknown recipe or column."""
    import pandas

    if recipe is not None and recipe not in RECIPES:
        raise InputError(f"recipe: '{recipe}' is not one of {', '.join(RECIPES)}")
    found = [row for row in rows(root) if recipe in (None, row["recipe"])]
    frame = pandas.DataFrame(found)
    if where is None or frame.empty:
        return frame
    if callable(where):
        return frame[where(frame)].reset_index(drop=True)
    if isinstance(where, str):
        try:
            return frame.query(where).reset_index(drop=True)
        except Exception as error:  # whatever an expression can raise
            raise InputError(f"where: '{where}' cannot be used ({type(error).__name__}: {error})") from None
    return frame[_matches(frame, where)].reset_index(drop=True)


def _matches(frame: pandas.DataFrame, where: Mapping[str, Any]) -> list[bool]:
    unknown = [name for name in where if name not in frame]
    if unknown:
        raise InputError(f"where: runs have no column '{unknown[0]}' (there are: {', '.join(frame)})")

    def fits(value: Any, wanted: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return list(value) == list(wanted)
        return value in wanted if isinstance(wanted, (list, tuple, set)) else value == wanted

    return [all(fits(row[name], wanted) for name, wanted in where.items()) for _, row in frame.iterrows()]


def find(run_id: str, root: str | Path = RESULTS) -> StoredRun:
    """The finished run whose id begins so; InputError if there is none, or more than one."""
    found = [folder for folder in _folders(Path(root)) if folder.name.startswith(run_id)] if run_id else []
    if len(found) != 1:
        what = f"{len(found)} runs have ids that begin" if found else "no run has an id that begins"
        raise InputError(f"{what} with '{run_id}' in {root}; `nstlab runs` lists them")
    return StoredRun(found[0])


def history(run_id: str, root: str | Path = RESULTS) -> pandas.DataFrame:
    """Every step of a run: step, level, loss, each term, evaluations, seconds, event. The id may be shortened."""
    return read_history(find(run_id, root))


def read_history(run: StoredRun) -> pandas.DataFrame:
    """The history of a run that was found."""
    import pandas

    path = run.folder / "history.csv"
    try:
        return pandas.read_csv(path, dtype={"event": str}).fillna({"event": ""})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is missing or damaged ({error})") from None


def remove(run_id: str, root: str | Path = RESULTS) -> Path:
    """Delete a finished run's folder. One that is being computed is not finished, and not found."""
    run = find(run_id, root)
    gone = run.folder.with_suffix(".removed")  # at once, so that no half of it is ever found
    with Store(Path(root)).claimed(run.folder):
        run.folder.rename(gone)
    shutil.rmtree(gone)
    return run.folder
