"""Tables of stored runs: `runs()` has a row for each run, `history()` a row for each step of one
run.

The manifests of all runs are cached in `results/runs/index.json`, with the sizes and times of the
runs' files; only runs whose files have changed are read again. If the index is deleted or damaged,
it is rebuilt from the folders.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nstlab.base import files, jsonfiles
from nstlab.base.errors import InputError, nearest
from nstlab.base.jsonfiles import WHOLE, dict_of, list_of, object_with
from nstlab.base.options import RESULTS
from nstlab.base.settings import user_path
from nstlab.recipes import base
from nstlab.runs.stored import MANIFEST, StoredRun

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("nstlab")
FINISHED = re.compile(r"[0-9a-f]{16}")  # names of folders
RUNS, OTHERS = ("runs/*/*",), ("films/*", "learned/*")  # where they are
KINDS = {"films": "film", "learned": "learning"}
UNFINISHED = re.compile(r"[0-9a-f]{16}\.(.*\.)?(partial|removed)")
LATEST = 253402300799  # seconds: the last that a date can name; some file systems know later ones
INDEX_VERSION = 2  # raised whenever the contents of the index change
INDEX = object_with(
    version={"enum": [INDEX_VERSION]},
    runs=dict_of(object_with(stamp=list_of(WHOLE), manifest=MANIFEST)),
)
Where = Mapping[str, Any] | str | Callable[["pandas.DataFrame"], Any]


# --- tables ---------------------------------------------------------------------------------------


def runs(
    recipe: str | None = None, where: Where | None = None, root: str | Path = RESULTS
) -> pandas.DataFrame:
    """One row for each finished run: its settings by name, `loss`, each term's unweighted loss
    (`loss_style` and so on), `seconds`, `evaluations`, `steps_done`, `status`, `events` (a
    count; `event_list` has the texts), `folder`, `picture`.

    Args:
        recipe: only runs of this recipe.
        where: {"beta": 1000.0, "seed": range(4)}, one value or several allowed ones for each
            column; or an expression for DataFrame.query; or a function from the frame to a mask.
        root: the folder of results.

    Raises:
        InputError: for an unknown recipe or column, and for a condition that cannot be used.
    """
    import pandas

    if recipe is not None:
        base.named(recipe)
    matching = [row for row in rows(root) if recipe in (None, row["recipe"])]
    if isinstance(where, Mapping):
        return pandas.DataFrame(_matching(matching, where))
    frame = pandas.DataFrame(matching)
    if where is None or frame.empty:
        return frame
    try:
        mask = where(frame) if callable(where) else frame.eval(where)
        if not pandas.api.types.is_bool_dtype(mask):
            raise TypeError("is no condition")
        return frame[mask].reset_index(drop=True)
    except Exception as error:  # whatever an expression can raise
        raise InputError(
            f"where: '{where}' cannot be used ({type(error).__name__}: {error})"
        ) from None


def _matching(candidates: list[dict[str, Any]], where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with these values; compared here, since pandas would turn None into NaN."""
    columns = {name for row in candidates for name in row}
    for name in where:
        if candidates and name not in columns:
            raise InputError(f"where: runs have no column '{name}'{nearest(name, sorted(columns))}")
    return [
        row
        for row in candidates
        if all(_matches(row.get(name), wanted) for name, wanted in where.items())
    ]


def _matches(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one, or one of several; a list is one value of lists."""
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    wanted = list(wanted) if several else [wanted]
    if isinstance(value, list):
        lists = [list(choice) for choice in wanted if isinstance(choice, (list, tuple))]
        return value in (lists or [wanted])
    return value in wanted


def history(run_id: str, root: str | Path = RESULTS) -> pandas.DataFrame:
    """One row for each step of a run: step, level, loss, each term, evaluations, seconds, event.

    The id may be shortened.
    """
    return find_run(run_id, root).history()


def row(run: StoredRun) -> dict[str, Any]:
    """A finished run as a row of the table.

    Raises:
        InputError: if it is damaged.
    """
    problem = run.problem()
    if problem:
        raise InputError(
            f"the run {run.id} is damaged ({problem}); `nstlab runs rm {run.id}` removes it"
        )
    return _row(run, run.manifest)


def _row(run: StoredRun, manifest: Mapping[str, Any]) -> dict[str, Any]:
    result = manifest["result"]
    row = {"id": run.id, "recipe": manifest["recipe"], "loss": float(result["loss"])}
    row |= {f"loss_{name}": float(value) for name, value in result["terms"].items()}
    row |= {name: result[name] for name in ("status", "evaluations", "seconds")}
    row |= {
        "steps_done": result["steps"],
        "events": len(result["events"]),
        "event_list": "; ".join(result["events"]),
    }
    row |= {"weights_source": manifest["weights_source"], "changes": len(manifest["changes"])}
    row |= {name: manifest["environment"][name] for name in ("created", "device", "commit")}
    row |= {"folder": str(run.folder), "picture": str(run.picture)}
    return row | {name: value for name, value in manifest["settings"].items() if name not in row}


# --- the index ------------------------------------------------------------------------------------


def rows(root: str | Path = RESULTS) -> list[dict[str, Any]]:
    """A row for each finished run below the folder, oldest first.

    Damaged runs are reported in the log and left out.
    """
    path = user_path(root) / "runs" / "index.json"
    cached = _read_index(path)
    entries = {}
    finished = []
    for folder in _folders(root, FINISHED):
        run = StoredRun(folder)
        name = f"{folder.parent.name}/{folder.name}"
        entry = _entry(run, cached.get(name))
        if entry is not None:
            entries[name] = entry
            finished.append(_row(run, entry["manifest"]))
    if entries != cached and path.parent.is_dir():
        # Results may be read-only.
        with contextlib.suppress(InputError), files.replacing(path) as temporary:
            temporary.write_text(
                json.dumps({"version": INDEX_VERSION, "runs": entries}), encoding="utf-8"
            )
    return sorted(finished, key=lambda row: row["created"])


def _read_index(path: Path) -> dict[str, Any]:
    """{recipe/id: {"stamp", "manifest"}}, empty if there is no undamaged index."""
    try:
        content = jsonfiles.read(path)
        jsonfiles.check(content, INDEX)
    except (OSError, ValueError):
        return {}
    return content["runs"]


def _entry(run: StoredRun, cached: dict[str, Any] | None) -> dict[str, Any] | None:
    """A run's entry in the index, cached if its files are the same; None if damaged."""
    try:
        stats = [
            (run.folder / name).stat() for name in ("manifest.json", "history.csv", "final.png")
        ]
        stamp = [number for stat in stats for number in (stat.st_mtime_ns, stat.st_size)]
        if cached is not None and cached["stamp"] == stamp:
            return cached
        return {"stamp": stamp, "manifest": run.manifest} if run.is_whole() else None
    except (
        OSError,
        ValueError,
    ) as error:  # a file is missing, perhaps since the run is being removed
        logger.warning(
            "%s: is damaged and left out (%s: %s)", run.folder, type(error).__name__, error
        )
        return None


def other_rows(root: str | Path = RESULTS) -> list[dict[str, Any]]:
    """A row for each film and learning that is kept, finished or not, oldest first."""
    return sorted(
        map(other_row, _folders(root, FINISHED, places=OTHERS)), key=itemgetter("changed")
    )


def other_row(folder: Path) -> dict[str, Any]:
    """The number of files, size and newest time of a film's or a learning's folder."""
    stats = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it is being replaced
            stats.append(path.stat())
    regular = [status for status in stats if stat.S_ISREG(status.st_mode)]
    newest = min(max((0.0, *(status.st_mtime for status in regular))), LATEST)
    return {
        "id": folder.name,
        "kind": KINDS[folder.parent.name],
        "files": len(regular),
        "MB": sum(status.st_size for status in regular) / 1e6,
        "changed": datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
        "folder": str(folder),
    }


# --- folders by id --------------------------------------------------------------------------------


def details(beginning: str, root: str | Path = RESULTS) -> dict[str, Any]:
    """The row of the run, film or learning whose id begins like this.

    Raises:
        InputError: if it is not one.
    """
    runs, others = (_folders(root, FINISHED, beginning, places) for places in (RUNS, OTHERS))
    folder = _only(runs + others, beginning, root)
    return other_row(folder) if folder in others else row(StoredRun(folder))


def find_run(run_id: str, root: str | Path = RESULTS) -> StoredRun:
    """The finished run whose id begins like this.

    Raises:
        InputError: if there is none, or more than one.
    """
    return StoredRun(_only(_folders(root, FINISHED, run_id), run_id, root))


def unfinished(root: str | Path = RESULTS) -> list[Path]:
    """The folders of runs under way or interrupted, and of a stopped removal."""
    return _folders(root, UNFINISHED, places=RUNS + OTHERS)


def remove_runs(run_ids: Sequence[str], root: str | Path = RESULTS) -> list[Path]:
    """Delete the runs, films and learnings whose ids begin like these; return their folders.

    A run that is unfinished is meant if no other id begins like that.

    Raises:
        InputError: for an id that is unknown or ambiguous, and nothing is deleted; and for what is
            being computed.
    """
    folders = []
    for run_id in run_ids:
        kinds = (_folders(root, names, run_id, RUNS + OTHERS) for names in (FINISHED, UNFINISHED))
        matches = next(filter(None, kinds), [])
        folders.append(_only(matches, run_id, root))
    folders = list(dict.fromkeys(folders))  # two ids may begin the same one
    for folder in folders:
        with files.locked_results(root, folder), files.writing(folder):
            files.delete(files.set_aside(folder))
    return folders


def _folders(
    root: str | Path, names: re.Pattern, beginning: str = "", places: Sequence[str] = RUNS
) -> list[Path]:
    paths = [path for pattern in places for path in sorted(user_path(root).glob(pattern))]
    return [
        p for p in paths if p.is_dir() and names.fullmatch(p.name) and p.name.startswith(beginning)
    ]


def _only(folders: Sequence[Path], run_id: str, root: str | Path) -> Path:
    """The one folder that was found for an id."""
    left = _folders(root, UNFINISHED, run_id, RUNS + OTHERS) if run_id and not folders else []
    if left:
        problem = f"no finished run has an id that begins with '{run_id}'"
        raise InputError(f"{problem}; {left[0]} is under way or interrupted")
    if len(folders) != 1 or not run_id:
        problem = (
            f"{len(folders)} runs have ids that begin"
            if folders and run_id
            else "no run has an id that begins"
        )
        raise InputError(f"{problem} with '{run_id}' in {root}; `nstlab runs` lists them")
    return folders[0]
