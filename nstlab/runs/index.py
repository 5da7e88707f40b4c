"""What is stored, as tables: `runs()` has a row a run, `history()` a row a step.

The index, `results/runs/index.json`, holds the manifests by folder, with the sizes and times of its files; where these have
changed it is read again. It is a cache: deleted or damaged, it is made anew from the folders.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nstlab import files
from nstlab.files import WHOLE, list_of, object_with
from nstlab.recipes.base import named
from nstlab.runs.store import MANIFEST, Store, StoredRun, claim_of
from nstlab.settings import RESULTS, InputError, nearest

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("nstlab")
ID = re.compile("[0-9a-f]{16}")
VERSION = 2  # of the index; raised whenever it holds something else than before
INDEX = object_with(version={"enum": [VERSION]}, runs={"type": "object"})
ENTRY = object_with(stamp=list_of(WHOLE), manifest=MANIFEST)
Where = Mapping[str, Any] | str | Callable[["pandas.DataFrame"], Any]


def row(run: StoredRun) -> dict[str, Any]:
    """A finished run as a row of the table; InputError if it is damaged."""
    problem = run.problem()
    if problem:
        raise InputError(f"the run {run.id} is damaged ({problem}); `nstlab runs rm {run.id}` removes it")
    return _row(run, run.manifest)


def _row(run: StoredRun, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A finished run as plain values."""
    result = manifest["result"]
    row: dict[str, Any] = {"id": run.id, "recipe": manifest["recipe"], "loss": float(result["loss"])}
    row |= {f"loss_{name}": float(value) for name, value in result["terms"].items()}
    row |= {name: result[name] for name in ("status", "evaluations", "seconds")}
    row |= {"steps_done": result["steps"], "events": len(result["events"]), "event_list": "; ".join(result["events"])}
    row |= {"weights_source": manifest["weights_source"], "changes": len(manifest["changes"])}
    row |= {name: manifest["environment"][name] for name in ("created", "device", "commit")}
    row |= {"folder": str(run.folder), "picture": str(run.picture)}
    return {**row, **manifest["settings"], **row}  # a setting never takes the place of what is known of the run


def _folders(root: Path) -> Iterator[Path]:
    """The folders of finished runs: those named by an id and nothing else."""
    return (folder for folder in sorted((root / "runs").glob("*/*")) if folder.is_dir() and ID.fullmatch(folder.name))


def unfinished(root: str | Path = RESULTS) -> list[Path]:
    """The folders of runs that are under way, were interrupted, or were not removed to the end."""
    found = sorted((Path(root) / "runs").glob("*/*"))
    return [p for p in found if p.is_dir() and ID.fullmatch(p.name.partition(".")[0]) and p.suffix in (".partial", ".removed")]


def _stamp(folder: Path) -> list[int]:
    """Changes with the folder's files."""
    stats = [(folder / name).stat() for name in ("manifest.json", "history.csv", "final.png")]
    return [number for stat in stats for number in (stat.st_mtime_ns, stat.st_size)]


def _read_index(path: Path) -> dict[str, Any]:
    """{folder: {"stamp", "manifest"}}, as far as the file holds such."""
    with contextlib.suppress(OSError, ValueError):
        found = files.read_json(path)
        files.check_json(found, INDEX)
        return {name: entry for name, entry in found["runs"].items() if _is_entry(entry)}
    return {}


def _is_entry(entry: Any) -> bool:
    try:
        files.check_json(entry, ENTRY)
    except ValueError:
        return False
    return True


def rows(root: str | Path = RESULTS) -> list[dict[str, Any]]:
    """A row for each finished run below the folder, oldest first; what is damaged is reported in the log and left out."""
    root = Path(root)
    path, new, found = root / "runs" / "index.json", {}, []
    old = _read_index(path)
    for folder in _folders(root):
        name, run = f"{folder.parent.name}/{folder.name}", StoredRun(folder)
        try:
            stamp, known = _stamp(folder), old.get(name)
            if known and known["stamp"] == stamp and known["manifest"]["id"] == run.id:
                new[name] = known
            elif run.is_whole():
                new[name] = {"stamp": stamp, "manifest": run.manifest}
        except (OSError, ValueError) as error:
            log.warning("%s: is damaged and left out (%s: %s)", folder, type(error).__name__, error)
        if name in new:
            found.append(_row(run, new[name]["manifest"]))
    if new != old and path.parent.is_dir():
        with contextlib.suppress(InputError), files.replacing(path) as temporary:  # a folder that may only be read will do
            temporary.write_text(json.dumps({"version": VERSION, "runs": new}), encoding="utf-8")
    return sorted(found, key=lambda row: row["created"])


def runs(recipe: str | None = None, where: Where | None = None, root: str | Path = RESULTS) -> pandas.DataFrame:
    """One row a finished run: its settings by name, losses (`loss`, and `loss_style` and so on for each term, unweighted),
    `seconds`, `evaluations`, `steps_done`, `status`, `events` (how many; `event_list` what), `folder`, `picture`.

    recipe: only runs of it. where: {"beta": 1000.0, "seed": range(4)}, a value or several to choose from for each column; or
    an expression for DataFrame.query; or a function from the frame to a mask. root: the folder of results. Raises InputError
    for an unknown recipe or column, and for a condition that cannot be used."""
    import pandas

    if recipe is not None:
        named(recipe)
    found = [row for row in rows(root) if recipe in (None, row["recipe"])]
    if isinstance(where, Mapping):
        return pandas.DataFrame(_chosen(found, where))
    frame = pandas.DataFrame(found)
    if where is None or frame.empty:
        return frame
    try:
        mask = where(frame) if callable(where) else frame.eval(where)
        if not pandas.api.types.is_bool_dtype(mask):
            raise TypeError("is no condition")
        return frame[mask].reset_index(drop=True)
    except Exception as error:  # whatever an expression can raise
        raise InputError(f"where: '{where}' cannot be used ({type(error).__name__}: {error})") from None


def _chosen(found: list[dict[str, Any]], where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have the values, compared as plain values, in which nothing is None and not NaN."""
    columns = {name for row in found for name in row}
    for name in where:
        if found and name not in columns:
            raise InputError(f"where: runs have no column '{name}'{nearest(name, sorted(columns))}")
    return [row for row in found if all(_fits(row.get(name), wanted) for name, wanted in where.items())]


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a row's value is the one, or one of those, that are wanted. Of columns with lists a list is one value."""
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    wanted = list(wanted) if several else [wanted]
    if isinstance(value, list):
        lists = [list(w) for w in wanted if isinstance(w, (list, tuple))]
        return value in (lists or [wanted])
    return value in wanted


def find(run_id: str, root: str | Path = RESULTS) -> StoredRun:
    """The finished run whose id begins so; InputError if there is none, or more than one."""
    found = _begin(root, run_id)
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
        return pandas.read_csv(files.regular(path), dtype={"event": str}).fillna({"event": ""})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is missing or damaged ({error})") from None


def remove(run_ids: Sequence[str], root: str | Path = RESULTS) -> list[Path]:
    """Delete runs' folders, finished ones or what interrupted ones left; all ids are looked up before anything is deleted.

    Raises InputError for ids that are unknown or not unique, and for a run that is being computed."""
    store, folders = Store(Path(root)), []
    for name in run_ids:
        left = [folder for folder in unfinished(root) if name and folder.name.startswith(name)]
        folders.append(left[0] if len(left) == 1 and not _begin(root, name) else find(name, root).folder)
    for folder in dict.fromkeys(folders):
        claim = claim_of(folder)
        gone = folder.with_name(f"{claim.name}.{uuid.uuid4().hex[:8]}.removed")
        with store.claimed(claim):
            try:
                folder.rename(gone)  # at once, so that no half of it is ever found
                files.delete(gone)
            except OSError as error:
                raise InputError(f"{folder}: cannot be removed ({error.strerror or error})") from None
    return list(dict.fromkeys(folders))


def _begin(root: str | Path, name: str) -> list[Path]:
    """The finished runs whose ids begin so."""
    return [folder for folder in _folders(Path(root)) if name and folder.name.startswith(name)]
