"""Decoded frames turned into pictures, by FFmpeg's filters: progressive, in BT.709, upright, on white, with square pixels.

Colours are converted by the matrix and range that the frames are tagged with; where tags lack, small pictures are in BT.601
and others in BT.709, as players take them. BT.2020 and P3 are mapped to the primaries of BT.709, and high dynamic range
(PQ, HLG; ITU-R BT.2100) is tone-mapped perceptually by swscale. The primaries of standard definition differ so little from
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

import torch
from torch import Tensor

from nstlab import images as im
from nstlab.settings import InputError
from nstlab.video.containers import library

logger = logging.getLogger("nstlab")

HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's numbers of transfer functions
BT2020, P3 = 9, (11, 12)  # of primaries
UNTAGGED = (0, 2, 3)  # of matrices: that of RGB, unspecified, reserved; what YUV cannot have counts as not said
SD_SHAPE = (576, 1279)  # the largest height and width of standard definition
UPRIGHT = (1, 0, 0, 1)

Turn = tuple[int, int, int, int]  # a, b, c, d of a display matrix: (x, y) is shown at (ax + cy, bx + dy)


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
        picture, a, d = picture.transpose(-2, -1), c, b
    mirrored = [axis for axis, sign in ((-1, a), (-2, d)) if sign < 0]
    return picture.flip(mirrored).contiguous()


def shown_shape(frame: Any, aspect: Fraction) -> tuple[int, int]:
    """(h, w) of a frame when it is shown. aspect: width / height of its pixels."""
    height, width = frame.height, max(1, round(frame.width * aspect))
    return (width, height) if swaps_sides(turn_of(frame)) else (height, width)


class Converter:
    """Turns the frames of one stream into pictures, (1, 3, h, w) sRGB in [0, 1], in their order.

    shape: (h, w) of the pictures. What is done to their colours and fields is said once."""

    def __init__(self, path: Path, shape: Sequence[int]):
        self.path, self.shape = path, shape
        self.graph: Any = None
        self.kind: Any = None  # of the frames for which the graph is built
        self.interlaced = False
        self.turns: deque[Turn] = deque()  # of the frames that are in the graph
        self.said: set[str] = set()

    def convert(self, frame: Any) -> Iterator[Tensor]:
        """The pictures that are finished with the next frame, or, with None, all that are left."""
        if frame is None:
            return self._finish()
        return self._convert(frame)

    def _convert(self, frame: Any) -> Iterator[Tensor]:
        kind = (frame.format.name, frame.width, frame.height, *_tags(frame), swaps_sides(turn_of(frame)))
        if kind != self.kind or frame.interlaced_frame > self.interlaced:
            yield from self._finish()
            self.kind, self.interlaced = kind, self.interlaced or frame.interlaced_frame
            self.graph = self._built(frame)
        self.turns.append(turn_of(frame))
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
            yield self._picture(frame.to_ndarray(), self.turns.popleft())

    def _picture(self, values: Any, turn: Turn) -> Tensor:
        picture = torch.from_numpy(values).permute(2, 0, 1)[None].float() / 255  # (1, 3 or 4, h, w)
        if picture.shape[1] == 4:  # on white before it is resized: what is transparent has any colour
            picture = im.resize(1 + picture[:, 3:] * (picture[:, :3] - 1), self._unturned(swaps_sides(turn)))
        return turned(picture, turn)

    def _unturned(self, swapped: bool) -> Sequence[int]:
        return self.shape[::-1] if swapped else self.shape

    def _built(self, frame: Any) -> Any:
        """A graph of filters for frames such as this one; without what this FFmpeg cannot do."""
        options = self._scaling(frame)
        try:
            return self._graph(frame, options)
        except library().FFmpegError:
            self._say("its colours are coded in a way that this FFmpeg cannot convert; they may be wrong")
        plain = {name: value for name, value in options.items() if not name.startswith(("in_", "out_", "intent"))}
        try:
            return self._graph(frame, plain | {"in_color_matrix": "bt709"})
        except library().FFmpegError as error:
            raise InputError(f"{self.path}: its pixels ({frame.format.name}) cannot be read ({error.strerror})") from None

    def _graph(self, frame: Any, options: dict[str, Any]) -> Any:
        graph, clear = library().filter.Graph(), has_alpha(frame.format)
        range_, *_ = _tags(frame)
        nodes = [
            graph.add(
                "buffer", video_size=f"{frame.width}x{frame.height}", pix_fmt=frame.format.name, time_base="1/1000",
                colorspace=str(frame.colorspace), range=str(range_),
            )
        ]  # fmt: skip
        if self.interlaced:
            nodes.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
            self._say("is interlaced; it is deinterlaced")
        if not clear:
            height, width = self._unturned(swaps_sides(turn_of(frame)))
            options = options | {"w": width, "h": height}
        nodes.append(graph.add("scale", ":".join(f"{name}={value}" for name, value in options.items())))
        nodes += [graph.add("format", "rgba" if clear else "rgb24"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph

    def _scaling(self, frame: Any) -> dict[str, Any]:
        """Options of FFmpeg's filter `scale` for the colours of a frame."""
        options: dict[str, Any] = {"flags": "bicubic+accurate_rnd+full_chroma_int"}
        _, matrix, primaries, transfer = _tags(frame)
        wide = primaries == BT2020 or transfer in HDR
        if matrix in UNTAGGED and not frame.format.is_rgb:
            small = frame.height <= SD_SHAPE[0] and frame.width <= SD_SHAPE[1]
            options["in_color_matrix"] = "bt2020" if wide else "bt601" if small else "bt709"
        if wide or primaries in P3:
            options |= {"out_primaries": "bt709", "out_transfer": "bt709", "intent": "relative_colorimetric"}
        if transfer in HDR:
            options |= {"intent": "perceptual"} | ({} if primaries in (BT2020, *P3) else {"in_primaries": "bt2020"})
            self._say(f"has a high dynamic range ({HDR[transfer]}); it is tone-mapped to BT.709")
        return options

    def _say(self, what: str) -> None:
        if what not in self.said:
            self.said.add(what)
            logger.warning("%s: %s", self.path, what)


def _tags(frame: Any) -> tuple[int, int, int, int]:
    """FFmpeg's numbers of a frame's range, matrix, primaries and transfer function."""
    return frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc


def has_alpha(form: Any) -> bool:
    """Whether a pixel format has alpha, or colours from a palette, which may be transparent."""
    return form.has_palette or any(component.is_alpha for component in form.components)
