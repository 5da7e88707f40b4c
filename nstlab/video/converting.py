"""Decoded frames turned into pictures, by FFmpeg's filters: progressive, in BT.709, upright, on
white, with square pixels.

Colours are converted by the matrix and range that the frames are tagged with; where tags lack,
small pictures are in BT.601 and others in BT.709, as players take them. BT.2020, P3 and high
dynamic range are mapped, see `mapping`. The primaries of standard definition differ so little from
those of BT.709 that they are taken as these.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstlab.base.settings import InputError
from nstlab.pictures import images as im
from nstlab.video.containers import library
from nstlab.video.mapping import BT2020, HLG, P3, PQ, mapped

logger = logging.getLogger("nstlab")

HDR = {PQ: "PQ", HLG: "HLG"}
# FFmpeg's numbers of matrices: that of RGB, unspecified, reserved; what YUV cannot have is not
# said
UNTAGGED = (0, 2, 3)
KNOWN = (*UNTAGGED, 1, 4, 5, 6, 7, 9)  # those by which its filters convert
SD_SHAPE = (576, 1279)  # the largest height and width of standard definition
UPRIGHT = (1, 0, 0, 1)
LOGARITHMIC = (9, 10)  # transfer functions that its filters refuse

# a, b, c, d of a display matrix: (x, y) is shown at (ax + cy, bx + dy)
Turn = tuple[int, int, int, int]


def turn_of(frame: Any) -> Turn:
    """How a frame is turned and mirrored when it is shown."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return a, b, c, d


def swaps_sides(turn: Turn) -> bool:
    """Whether columns become rows; other angles than multiples of 90° are rounded to these."""
    a, b, c, d = turn
    return abs(b) + abs(c) > abs(a) + abs(d)


def turned(picture: Tensor, turn: Turn) -> Tensor:
    """A picture, (1, 3, h, w), as it is shown."""
    a, b, c, d = turn
    if swaps_sides(turn):
        picture = picture.transpose(-2, -1)
        a = c
        d = b
    mirrored = [axis for axis, sign in ((-1, a), (-2, d)) if sign < 0]
    return picture.flip(mirrored).contiguous()


def shown_shape(frame: Any, aspect: Fraction) -> tuple[int, int]:
    """(h, w) of a frame when it is shown.

    Args:
        aspect: width / height of its pixels.
    """
    height = frame.height
    width = max(1, round(frame.width * aspect))
    return (width, height) if swaps_sides(turn_of(frame)) else (height, width)


class Converter:
    """Turns the frames of one stream into pictures, (1, 3, h, w) sRGB in [0, 1], in their order.

    What is done to their colours and fields is said once.

    Args:
        shape: (h, w) of the pictures.
    """

    def __init__(self, path: Path, shape: Sequence[int]):
        self.path, self.shape = path, shape
        self.graph: Any = None
        self.kind: Any = None  # of the frames for which the graph is built
        self.interlaced = False
        # Turn and tags of those that are in the graph.
        self.frames: deque[tuple[Turn, int, int]] = deque()
        self.said: set[str] = set()

    def convert(self, frame: Any) -> Iterator[Tensor]:
        """The pictures that are finished with the next frame, or, with None, all that are left."""
        if frame is None:
            return self._finish()
        return self._convert(frame)

    def _convert(self, frame: Any) -> Iterator[Tensor]:
        if frame.colorspace not in KNOWN:
            self._say(
                "its colours are coded in a way that FFmpeg cannot convert; they may be wrong"
            )
            frame.colorspace = BT2020 if frame.color_primaries == BT2020 else 2
        if frame.color_trc in LOGARITHMIC:
            self._say("its light is coded logarithmically; it is taken for that of BT.709")
            frame.color_trc = 2
        kind = (
            frame.format.name,
            frame.width,
            frame.height,
            *_tags(frame),
            swaps_sides(turn_of(frame)),
        )
        if kind != self.kind or frame.interlaced_frame > self.interlaced:
            yield from self._finish()
            self.kind = kind
            self.interlaced = self.interlaced or frame.interlaced_frame
            self.graph = self._graph(frame)
        self.frames.append((turn_of(frame), frame.color_primaries, frame.color_trc))
        self.graph.vpush(frame)
        yield from self._pulled()

    def _finish(self) -> Iterator[Tensor]:
        if self.graph is not None:
            self.graph.vpush(None)
            yield from self._pulled()
            self.graph = self.kind = None

    def _pulled(self) -> Iterator[Tensor]:
        av = library()
        while True:
            try:
                frame = self.graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            except av.FFmpegError as error:
                raise InputError(
                    f"{self.path}: its colours cannot be converted ({error.strerror})"
                ) from None
            yield self._picture(frame.to_ndarray(), *self.frames.popleft())

    def _picture(self, values: np.ndarray, turn: Turn, primaries: int, transfer: int) -> Tensor:
        """A picture of (h, w, 3 or 4) levels."""
        levels = torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max)
        picture = levels.permute(2, 0, 1)[None]
        colours = picture[:, :3]
        alpha = picture[:, 3:]
        if is_wide(primaries, transfer):
            colours = mapped(colours, primaries, transfer)
        if alpha.numel():  # on white before it is resized: what is transparent has any colour
            colours = im.resize(1 + alpha * (colours - 1), self._unturned(turn))
        return turned(colours, turn)

    def _unturned(self, turn: Turn) -> Sequence[int]:
        return self.shape[::-1] if swaps_sides(turn) else self.shape

    def _graph(self, frame: Any) -> Any:
        """A graph of filters for frames such as this one."""
        graph = library().filter.Graph()
        nodes = [
            graph.add(
                "buffer",
                video_size=f"{frame.width}x{frame.height}",
                pix_fmt=frame.format.name,
                time_base="1/1000",
                colorspace=str(frame.colorspace),
                range=str(frame.color_range),
            )
        ]
        if self.interlaced:
            nodes.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
            self._say("is interlaced; it is deinterlaced")
        if frame.color_trc in HDR:
            self._say(
                f"has a high dynamic range ({HDR[frame.color_trc]}); it is tone-mapped to BT.709"
            )
        wide = is_wide(frame.color_primaries, frame.color_trc)
        form = "rgb48" if wide else "rgb24"
        if has_alpha(frame.format):
            form = "rgba"
        nodes += [
            graph.add("scale", self._scaling(frame)),
            graph.add("format", form),
            graph.add("buffersink"),
        ]
        try:
            graph.link_nodes(*nodes).configure()
        except library().FFmpegError as error:
            raise InputError(
                f"{self.path}: its pixels ({frame.format.name}) cannot be read ({error.strerror})"
            ) from None
        return graph

    def _scaling(self, frame: Any) -> str:
        """Options of FFmpeg's filter `scale`: the size of what has no alpha, and the matrix of what
        does not say it."""
        options: dict[str, Any] = {"flags": "bicubic+accurate_rnd+full_chroma_int"}
        if not has_alpha(frame.format):
            options["h"], options["w"] = self._unturned(turn_of(frame))
        if frame.colorspace in UNTAGGED and not frame.format.is_rgb:
            wide = frame.color_trc in HDR or frame.color_primaries == BT2020
            small = frame.height <= SD_SHAPE[0] and frame.width <= SD_SHAPE[1]
            options["in_color_matrix"] = "bt601" if small else "bt709"
            if wide:
                options["in_color_matrix"] = "bt2020"
        return ":".join(f"{name}={value}" for name, value in options.items())

    def _say(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            logger.warning("%s: %s", self.path, message)


def _tags(frame: Any) -> tuple[int, int, int, int]:
    """FFmpeg's numbers of a frame's range, matrix, primaries and transfer function."""
    return frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc


def is_wide(primaries: int, transfer: int) -> bool:
    """Whether colours or luminances go beyond those of BT.709."""
    return transfer in HDR or primaries in (BT2020, *P3)


def has_alpha(form: Any) -> bool:
    """Whether a pixel format has alpha, or colours from a palette, which may be transparent."""
    return form.has_palette or any(component.is_alpha for component in form.components)
