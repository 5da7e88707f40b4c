"""Decoded frames turned into pictures, by FFmpeg's filters.

Pictures are progressive, in BT.709, upright, on white, with square pixels. Colours are converted by
the matrix and range that the frames are tagged with; where tags lack, small pictures are in BT.601
and others in BT.709, as players take them. BT.2020, P3 and high dynamic range are mapped, see
`mapping`. The primaries of standard definition differ so little from those of BT.709 that they are
taken as these.
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

from nstlab.base.errors import InputError
from nstlab.pictures import images as im
from nstlab.video.containers import library
from nstlab.video.mapping import BT2020, HLG, P3, PQ, map_to_bt709

logger = logging.getLogger("nstlab")

HDR = {PQ: "PQ", HLG: "HLG"}
# FFmpeg's numbers of matrices: that of RGB, unspecified, reserved; YUV has none of them.
UNTAGGED = (0, 2, 3)
CONVERTIBLE = (*UNTAGGED, 1, 4, 5, 6, 7, 9)  # those by which its filters convert
UNSPECIFIED = 2  # of matrices and transfer functions
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


def apply_turn(picture: Tensor, turn: Turn) -> Tensor:
    """Turn and mirror a picture, (1, 3, h, w), as it is shown."""
    a, b, c, d = turn
    if swaps_sides(turn):
        picture = picture.transpose(-2, -1)
        signs = {-1: c, -2: b}
    else:
        signs = {-1: a, -2: d}
    mirrored_axes = [axis for axis, sign in signs.items() if sign < 0]
    return picture.flip(mirrored_axes).contiguous()


def shown_shape(frame: Any, aspect: Fraction) -> tuple[int, int]:
    """(h, w) of a frame when it is shown.

    Args:
        frame: of PyAV, before it is turned.
        aspect: width / height of its pixels.
    """
    height = frame.height
    width = max(1, round(frame.width * aspect))
    return (width, height) if swaps_sides(turn_of(frame)) else (height, width)


class Converter:
    """Turns the frames of one stream into pictures, in their order.

    Warnings tell, once, what is done to their colours and fields.

    Args:
        path: of the file, for warnings and errors.
        shape: (h, w) of the pictures.
    """

    def __init__(self, path: Path, shape: Sequence[int]):
        self.path = path
        self.shape = shape
        self.graph: Any = None
        self.graph_kind: Any = None  # of the frames for which the graph is built
        self.is_interlaced = False
        # Turn, primaries and transfer function of the frames in the graph.
        self.pending: deque[tuple[Turn, int, int]] = deque()
        self.warned: set[str] = set()

    def convert(self, frame: Any) -> Iterator[Tensor]:
        """Convert the next frame.

        Args:
            frame: of PyAV; None ends the stream.

        Returns:
            The pictures that are finished now, (1, 3, h, w) sRGB in [0, 1]; with None, all that are
            left.

        Raises:
            InputError: for pixels that FFmpeg cannot convert.
        """
        return self._finish() if frame is None else self._convert(frame)

    def _convert(self, frame: Any) -> Iterator[Tensor]:
        self._replace_tags(frame)
        turn = turn_of(frame)
        size = frame.width, frame.height
        kind = (frame.format.name, *size, *_tags(frame), swaps_sides(turn))
        if kind != self.graph_kind or frame.interlaced_frame > self.is_interlaced:
            yield from self._finish()
            self.graph_kind = kind
            self.is_interlaced = self.is_interlaced or frame.interlaced_frame
            self._warn_of_changes(frame)
            self.graph = self._build_graph(frame)
        self.pending.append((turn, frame.color_primaries, frame.color_trc))
        self.graph.vpush(frame)
        yield from self._pull_pictures()

    def _finish(self) -> Iterator[Tensor]:
        if self.graph is not None:
            self.graph.vpush(None)
            yield from self._pull_pictures()
            self.graph = self.graph_kind = None

    def _pull_pictures(self) -> Iterator[Tensor]:
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
            yield _picture(frame.to_ndarray(), self.shape, *self.pending.popleft())

    def _build_graph(self, frame: Any) -> Any:
        """A graph of filters for frames such as this one."""
        graph = library().filter.Graph()
        nodes = [graph.add("buffer", **_buffer_options(frame))]
        if self.is_interlaced:
            nodes.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
        options = _scale_options(frame, _shape_before(self.shape, turn_of(frame)))
        nodes.append(graph.add("scale", options))
        nodes.append(graph.add("format", _pixel_format(frame)))
        nodes.append(graph.add("buffersink"))
        try:
            graph.link_nodes(*nodes).configure()
        except library().FFmpegError as error:
            raise InputError(
                f"{self.path}: its pixels ({frame.format.name}) cannot be read ({error.strerror})"
            ) from None
        return graph

    def _replace_tags(self, frame: Any) -> None:
        """Replace the tags of a frame by which FFmpeg's filters cannot convert."""
        if frame.colorspace not in CONVERTIBLE:
            self._warn(
                "its colours are coded in a way that FFmpeg cannot convert; they may be wrong"
            )
            is_bt2020 = frame.color_primaries == BT2020
            frame.colorspace = BT2020 if is_bt2020 else UNSPECIFIED
        if frame.color_trc in LOGARITHMIC:
            self._warn("its light is coded logarithmically; it is taken for that of BT.709")
            frame.color_trc = UNSPECIFIED

    def _warn_of_changes(self, frame: Any) -> None:
        """Warn of what the graph changes in frames such as this one."""
        if self.is_interlaced:
            self._warn("is interlaced; it is deinterlaced")
        if frame.color_trc in HDR:
            self._warn(
                f"has a high dynamic range ({HDR[frame.color_trc]}); it is tone-mapped to BT.709"
            )

    def _warn(self, message: str) -> None:
        if message not in self.warned:
            self.warned.add(message)
            logger.warning("%s: %s", self.path, message)


def _picture(
    values: np.ndarray, shape: Sequence[int], turn: Turn, primaries: int, transfer: int
) -> Tensor:
    """A picture, (1, 3, h, w), of (h, w, 3 or 4) whole numbers."""
    levels = torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max)
    picture = levels.permute(2, 0, 1)[None]
    colours = picture[:, :3]
    alpha = picture[:, 3:]
    if is_wide(primaries, transfer):
        colours = map_to_bt709(colours, primaries, transfer)
    if alpha.numel():  # on white before it is resized: what is transparent has any colour
        colours = im.resize(1 + alpha * (colours - 1), _shape_before(shape, turn))
    return apply_turn(colours, turn)


def _shape_before(shape: Sequence[int], turn: Turn) -> Sequence[int]:
    """(h, w), before it is turned, of a picture that is then of this shape."""
    return shape[::-1] if swaps_sides(turn) else shape


# --- options of FFmpeg's filters ------------------------------------------------------------------


def _buffer_options(frame: Any) -> dict[str, str]:
    """Options of the filter `buffer`, which takes frames such as this one."""
    return {
        "video_size": f"{frame.width}x{frame.height}",
        "pix_fmt": frame.format.name,
        "time_base": "1/1000",
        "colorspace": str(frame.colorspace),
        "range": str(frame.color_range),
    }


def _scale_options(frame: Any, shape: Sequence[int]) -> str:
    """Options of the filter `scale`: the size, unless there is alpha; the matrix, if untagged."""
    options: dict[str, Any] = {"flags": "bicubic+accurate_rnd+full_chroma_int"}
    if not has_alpha(frame.format):
        options["h"], options["w"] = shape
    if frame.colorspace in UNTAGGED and not frame.format.is_rgb:
        is_small = frame.height <= SD_SHAPE[0] and frame.width <= SD_SHAPE[1]
        options["in_color_matrix"] = "bt601" if is_small else "bt709"
        if frame.color_trc in HDR or frame.color_primaries == BT2020:
            options["in_color_matrix"] = "bt2020"
    return ":".join(f"{name}={value}" for name, value in options.items())


def _pixel_format(frame: Any) -> str:
    """The format in which pixels leave the graph."""
    if has_alpha(frame.format):
        return "rgba"
    return "rgb48" if is_wide(frame.color_primaries, frame.color_trc) else "rgb24"


def _tags(frame: Any) -> tuple[int, int, int, int]:
    """FFmpeg's numbers of a frame's range, matrix, primaries and transfer function."""
    return frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc


def is_wide(primaries: int, transfer: int) -> bool:
    """Whether colours or luminances go beyond those of BT.709.

    Args:
        primaries: FFmpeg's number.
        transfer: FFmpeg's number of the transfer function.
    """
    return transfer in HDR or primaries in (BT2020, *P3)


def has_alpha(pixel_format: Any) -> bool:
    """Whether a pixel format has alpha, or a palette, whose colours may be transparent."""
    components = pixel_format.components
    return pixel_format.has_palette or any(component.is_alpha for component in components)
