"""How a picture came to be, as an animation in a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor

from nstlab.figures.base import COLOURS, new_figure, styled_axes
from nstlab.pictures import images as im

FRAMES, LAST_FRAME = 40, 2000  # of a film, at most; how long its last frame is shown, in ms


class Animation:
    """Frames that notebooks show one after another."""

    def __init__(self, frames: Sequence[Image.Image], milliseconds: int):
        buffer = io.BytesIO()
        times = [milliseconds] * (len(frames) - 1) + [LAST_FRAME]
        frames[0].save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=times,
            loop=0,
            quality=80,
        )
        self.data = buffer.getvalue()

    def _repr_html_(self) -> str:
        return (
            '<img alt="a film" '
            f'src="data:image/webp;base64,{base64.b64encode(self.data).decode()}">'
        )


def film(
    pictures: Sequence[Tensor], losses: Sequence[float], title: str = "", milliseconds: int = 200
) -> Animation:
    """How a picture was made: a film of the pictures beside the curve of their losses, on a log
    axis.

    At most FRAMES of the pictures are shown, each for so many milliseconds."""
    height, width = pictures[0].shape[-2:]
    figure = new_figure(8.2, 3.6, title)
    left, right = figure.subplots(1, 2, width_ratios=[min(1.6, width / height), 1])
    left.axis("off")
    drawn = left.imshow(np.asarray(im.to_pil(pictures[0])), animated=True)
    styled_axes(right, "step", "loss").set_yscale("log")
    right.plot(losses, color=COLOURS[0], linewidth=1.6)
    (mark,) = right.plot([0], [losses[0]], "o", color=COLOURS[1], markersize=8, animated=True)
    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()  # once: all but the picture and the mark, which take a hundredth of the time
    still = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for i in sorted(
        {round(j) for j in np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures)))}
    ):
        drawn.set_data(np.asarray(im.to_pil(pictures[i])))
        mark.set_data([i], [losses[i]])
        canvas.restore_region(still)
        left.draw_artist(drawn)
        right.draw_artist(mark)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return Animation(frames, milliseconds)
