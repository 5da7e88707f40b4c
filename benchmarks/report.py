"""The benchmark's table, its file, and the comparison with an earlier one."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import feedforward, film, large, live, processes, speed
from benchmarks.scene import BenchSettings, Row
from nstlab.base import files, jsonfiles
from nstlab.base.devices import device as named_device
from nstlab.base.errors import InputError

ROWS = {  # by what can be asked for, in the order of the table
    "start": processes.start_up,
    "two": processes.two_at_once,
    "evaluation": speed.evaluation,
    "long": speed.long,
    "growth": speed.growth,
    "memory": processes.memory,
    "parts": processes.parts,
    "large": large.large,
    "feedforward": feedforward.feedforward,
    "film": film.film,
    "live": live.live,
    "first": processes.first_picture,
    "precision": speed.precision,
    "quality": speed.quality,
}


def measure(options: BenchSettings) -> list[Row]:
    """Measure the rows that are asked for; print, keep and compare them.

    Each row is printed, and written, as soon as it is known.
    """
    before = None if options.against is None else read(options.against)
    if options.json is not None:
        files.check_writable(options.json)
    device = named_device(options.device)
    environment = machine(device)
    print(" - ".join(f"{name} {value}" for name, value in environment.items()), flush=True)
    rows = []
    for name in options.rows:
        for row in ROWS[name](options, device):
            rows.append(row)
            print(row, flush=True)
            if options.json is not None:  # at once, so that it is kept whatever happens later
                write(options.json, environment, rows)
    if before is not None:
        print(*ratios(before, rows), sep="\n")
    return rows


def table_command(options: BenchSettings) -> int:
    """Print the table of measurements."""
    measure(options)
    return 0


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that the numbers hold for."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.cpu.get_capabilities().get("cpu_name")
    return {
        "device": name or platform.processor() or device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "nstlab": version("nstlab"),
        "python": platform.python_version(),
    }


def write(path: Path, environment: dict[str, Any], rows: list[Row]) -> None:
    """Write the rows as JSON, completely or not at all."""
    result = {"machine": environment, "rows": [dataclasses.asdict(row) for row in rows]}
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1))


def read(path: Path) -> dict[str, dict[str, float]]:
    """{row: {name: number}} of an earlier result. Raises InputError for a file that is none."""
    try:
        return {row["name"]: row["values"] for row in jsonfiles.read(path)["rows"]}
    except OSError as error:
        raise InputError(f"against: {path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"against: {path} is not a result of these benchmarks") from None


def ratios(before: dict[str, dict[str, float]], rows: list[Row]) -> list[str]:
    """Each number divided by that of the earlier result, where both have it."""
    lines = ["now over then:"]
    for row in rows:
        old = before.get(row.name, {})
        values = [
            f"{name} {value / old[name]:.2f}" for name, value in row.values.items() if old.get(name)
        ]
        if values:
            lines.append(f"| {row.name} | {', '.join(values)} |")
    return lines
