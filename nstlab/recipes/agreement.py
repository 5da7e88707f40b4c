"""The plan that all ranks of a run have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nstlab.base.errors import InputError
from nstlab.method.fast.ranks import Team, said
from nstlab.recipes.plan import Plan


def agree(prepare_alone: Callable[[], Plan], team: Team) -> Plan:
    """The plan of each rank, with the memory of the rank that has least.

    Args:
        prepare_alone: makes the plan of this rank, in tiles.
        team: the processes that share the run.

    Raises:
        InputError: if a rank has another plan than the first one, or cannot make its plan. On the
            first rank it says which rank and why, or is the first rank's own error.
    """
    plan = error = None
    try:
        plan = prepare_alone()
        report = _report(plan)
    except Exception as exception:
        error = exception
        report = {"error": said(exception)}
    decision = _decision(report, team)
    if error is not None:
        raise error
    if decision["why"]:
        raise InputError(decision["why"])
    assert plan is not None
    assert plan.tiling is not None
    on_host = decision["host"]
    return replace(
        plan,
        tiling=replace(plan.tiling, budget=decision["budget"]),
        start=plan.start.cpu() if on_host else plan.start,
        on_host=on_host,
    )


def _report(plan: Plan) -> dict[str, Any]:
    """What all ranks have to agree on, and what they may have more or less of, as plain values."""
    tiling = plan.tiling
    if tiling is None:
        raise InputError("memory: is too little for the tiles that several ranks need")
    identity = plan.identity()
    fields = {role: name for name, role in plan.settings.roles().items()}
    values = dict(identity.pop("settings"))
    digests = identity.pop("inputs")
    values |= {fields.get(role, role): digest for role, digest in digests.items()}
    values |= identity | {"tile": tiling.side}
    texts = {name: str(value) for name, value in values.items()}
    return {"plan": texts, "budget": tiling.budget, "host": plan.on_host}


def _decision(report: dict[str, Any], team: Team) -> dict[str, Any]:
    """What the first rank decides for all: {"why": the refusal, or "", "budget", "host"}."""
    reports = team.gather(report)
    if not team.leads:
        return team.receive_broadcast()
    objections = [_objection(rank, report, other) for rank, other in enumerate(reports)]
    decision: dict[str, Any] = {"why": next(filter(None, objections), "")}
    if not decision["why"]:
        decision["budget"] = min(other["budget"] for other in reports)
        decision["host"] = any(other["host"] for other in reports)
    team.broadcast(**decision)
    return decision


def _objection(rank: int, first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why a rank cannot take part, or ""; `first` is the report of the first one."""
    if "error" in other:
        return f"rank {rank}: {other['error']}"
    if "error" in first:
        return ""
    names = first["plan"].keys() | other["plan"].keys()
    differing = sorted(name for name in names if first["plan"].get(name) != other["plan"].get(name))
    if not differing:
        return ""
    difference = "recipe" if "recipe" in differing else ", ".join(differing)
    return (
        f"rank {rank} was started with another {difference} than rank 0; start all with the same "
        "files and options"
    )
