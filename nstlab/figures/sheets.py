"""Pictures side by side: contact sheets; before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nstlab.figures.base import (
    INK,
    LABEL,
    NARROW,
    PICTURE,
    Shown,
    new_figure,
    picture_cells,
    show,
    show_input,
    wrap,
)


def contact_sheet(
    pictures: Sequence[Sequence[Tensor | None]],
    rows: Sequence[str],
    columns: Sequence[str] | Sequence[Sequence[str]],
    title: str = "",
    inputs: Mapping[str, Tensor] | None = None,
) -> Shown:
    """Pictures in rows and columns, with labels.

    Args:
        pictures: one sequence for each row. None leaves a cell empty.
        columns: labels above the first row; or, if the rows differ, one sequence for each row.
        inputs: {name: picture} shown at the left of the first rows.
    """
    if columns and isinstance(columns[0], str):
        columns = [columns] * len(pictures)
    inputs = inputs or {}
    lead = -(-len(inputs) // max(1, len(pictures)))  # columns that the inputs need
    shapes = [
        [picture.shape[-2:] for picture in row if picture is not None] or [(1, 1)]
        for row in pictures
    ]
    heights = [max(NARROW, max(h / max(h, w) for h, w in row) * PICTURE) for row in shapes]
    width = max(NARROW, max((w / max(h, w) for row in shapes for h, w in row), default=1) * PICTURE)
    across = lead + max(map(len, columns), default=0)
    figure = new_figure(
        (width + 0.12) * across + 0.5, sum(heights) + 0.3 * len(pictures) + 0.75, title
    )
    figure.about = title or ", ".join(label for row in columns for label in row)
    cells = picture_cells(figure, len(pictures), across, height_ratios=heights or None)
    for cell, (name, picture) in zip(cells[:, :lead].flat, inputs.items(), strict=False):
        show_input(cell, picture, name)
    for i, (row, name) in enumerate(zip(pictures, rows, strict=True)):
        for j, (cell, picture, label) in enumerate(
            zip(cells[i, lead:], row, columns[i], strict=False)
        ):
            if picture is not None:
                show(cell, picture)
            if i == 0 or columns[i] != columns[i - 1]:
                cell.set_title(wrap(label, width), fontsize=LABEL, color=INK)
            if j == 0 and name:
                cell.set_ylabel(wrap(name, heights[i]), fontsize=LABEL, color=INK)
    return figure


def before_after(photo: Tensor, painting: Tensor, result: Tensor, title: str = "") -> Shown:
    """Photo, painting and result side by side, at the same height."""
    pictures = {"photo": photo, "painting": painting, "result": result}
    ratios = [picture.shape[-1] / picture.shape[-2] for picture in pictures.values()]
    figure = new_figure(0.3 + 3 * sum(ratios), 3.5, title)
    for cell, (name, picture) in zip(
        picture_cells(figure, 1, 3, width_ratios=ratios)[0], pictures.items(), strict=True
    ):
        show(cell, picture)
        cell.set_title(name, fontsize=LABEL, color=INK)
    return figure
