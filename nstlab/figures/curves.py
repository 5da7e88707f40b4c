"""Curves: losses, and paths over the contours of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nstlab.figures.base import (
    COLOURS,
    STYLES,
    Shown,
    escape,
    legend,
    new_figure,
    styled_axes,
)

if TYPE_CHECKING:
    import pandas


def loss_curves(
    histories: Mapping[str, pandas.DataFrame],
    terms: Sequence[str] = ("loss",),
    against: str = "evaluations",
    title: str = "",
) -> Shown:
    """Losses on log axes, a panel for each term, a curve for each history.

    Only steps at the full size are drawn, since losses at different sizes cannot be compared.

    Args:
        against: "evaluations", "seconds" or "step".
    """
    figure = new_figure(1.2 + 4.2 * len(terms), 3.6, title)
    curves = {}
    for panel, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        styled_axes(
            panel,
            "seconds (s)" if against == "seconds" else against,
            "total loss" if term == "loss" else f"{term} loss",
        )
        for i, (name, history) in enumerate(histories.items()):
            full = history[history["level"] == history["level"].max()]
            if term not in full or full.empty:
                continue
            colour = COLOURS[i % len(COLOURS)]
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            marker = "o" if len(full) == 1 else ""
            (curve,) = panel.plot(
                full[against],
                full[term],
                marker=marker,
                color=colour,
                linestyle=style,
                linewidth=1.6,
            )
            curves.setdefault(escape(name), curve)
        panel.set_yscale("log")
        if against == "evaluations":
            panel.set_xscale("log")
    if curves:
        legend(figure, list(curves.values()), list(curves))
    return figure


def valley(
    height: Callable[[Tensor], Tensor],
    paths: Mapping[str, np.ndarray],
    x: Sequence[float],
    y: Sequence[float],
    title: str = "",
) -> Shown:
    """Paths (steps, 2) over the contours of a function of two numbers, and the function along each
    path, on a log axis.

    Args:
        height: (..., 2) -> (...), positive.
        x, y: the ranges that are shown.
    """
    figure = new_figure(9.5, 3.8, title)
    plane, curve = figure.subplots(1, 2)
    across = torch.linspace(*x, 200)
    up = torch.linspace(*y, 200)
    ground = height(torch.stack(torch.meshgrid(across, up, indexing="xy"), -1))
    levels = np.geomspace(max(float(ground.min()), 1e-3), float(ground.max()), 16)
    styled_axes(plane, "x", "y").contour(
        across, up, ground, levels=levels, colors="#bbbbbb", linewidths=0.7
    )
    styled_axes(curve, "step", "value").set_yscale("log")
    for (name, path), colour in zip(paths.items(), COLOURS, strict=False):
        plane.plot(*path.T, color=colour, marker=".", markersize=3, linewidth=1.2, label=name)
        curve.plot(height(torch.from_numpy(path)).clamp_min(1e-12), color=colour, linewidth=1.6)
    plane.set(xlim=x, ylim=y)
    plane.grid(False)
    legend(figure, *plane.get_legend_handles_labels())
    return figure
