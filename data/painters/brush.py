"""A bristle brush: lays strokes of paint with streaks, ragged ends and relief on a canvas."""

from dataclasses import dataclass, replace

import numpy as np

from painters.surface import grain, sample, trace

# bristle marks across and along the brush, from which each stroke takes a random piece
BANK = (512, 4096)


@dataclass(frozen=True)
class Brush:
    """How a brush marks: sizes in pixels, all other numbers from 0 (none) to about 1 (strong)."""

    width: float
    length: float
    streak: float = 0.10  # difference of lightness from bristle to bristle
    dry: float = 0.35  # how far the paint runs out along the stroke
    relief: float = 1.0  # thickness of the paint
    value_jitter: float = 0.06  # change of lightness from stroke to stroke
    hue_jitter: float = 0.05  # change of tint from stroke to stroke
    turn: float = 0.10  # wobble of the direction, in radians
    spacing: float = 0.6  # distance of neighbouring strokes, in stroke widths (and half lengths)
    size_jitter: float = 0.25
    opacity: float = 1.0
    taper: float = 0.0  # how much narrower a stroke ends than it starts


class Canvas:
    """Colour and paint height of a picture in progress."""

    def __init__(self, ground, rng):
        """Start from an image (height, width, 3) of the ground colour."""
        self.color = np.array(ground, np.float32)
        self.shape = self.color.shape[:2]
        self.height = np.zeros(self.shape, np.float32)
        self.rng = rng
        tufts, hairs, grit = (grain(BANK, sigma, rng) for sigma in ((2.8, 80), (1.3, 35), 1.2))
        self.bank = np.clip(0.5 + 0.18 * tufts + 0.13 * hairs + 0.04 * grit, 0, 1)

    def stroke(self, path, color, brush, width=None, inside=None):
        """Drag the brush along a path of (x, y) points; `inside` is a label image and the label to
        stay on."""
        width = width or brush.width
        points, normals, length = _resample(path)
        across = np.linspace(-1, 1, int(width * 1.5) + 3, dtype=np.float32)
        bristle = self._bristles(len(points), len(across))
        cover = self._cover(
            np.linspace(0, 1, len(points)), across, bristle, brush.dry, width / max(length, 1)
        )
        reach = np.outer(1 - brush.taper * np.linspace(0, 1, len(points)), across * width / 2)
        place = points[:, None, :] + normals[:, None, :] * reach[..., None]
        x, y = np.rint(place[..., 0]).astype(int), np.rint(place[..., 1]).astype(int)
        cover = cover * brush.opacity
        keep = (cover > 0.02) & (x >= 0) & (y >= 0) & (x < self.shape[1]) & (y < self.shape[0])
        if inside is not None:
            labels, label = inside
            keep &= sample(labels, x, y) == label
        # a brush is loaded more on one side than the other
        tilt = across * self.rng.normal(0, 0.5 * brush.streak)
        shade = (2 * brush.streak * (bristle - 0.5) + tilt)[keep]
        ridge = (0.25 + bristle + 0.5 * np.abs(across) ** 4)[keep] * brush.relief
        self._lay(y[keep], x[keep], cover[keep], color + shade[:, None], ridge)

    def layer(self, brush, image, angle, chance=None, areas=None):
        """Cover the canvas with strokes that take colour from `image` and direction from `angle`.

        `chance` is the share of strokes to keep, pixel by pixel; with `areas` (a label image) each
        stroke stays on the area where it starts, as if the others were masked off.
        """
        starts = self._starts(brush)
        if chance is not None:
            starts = starts[
                self.rng.random(len(starts)) < sample(chance, starts[:, 0], starts[:, 1])
            ]
        count = len(starts)
        colors = sample(image, starts[:, 0], starts[:, 1]) + self.jitter(count, brush)
        sizes = np.exp(self.rng.normal(0, brush.size_jitter, (count, 2)))
        steps = max(4, int(brush.length / 7)) // 2 * 2
        paths = trace(angle, starts, steps, brush.length / steps)
        paths = _rotate(paths, starts, self.rng.normal(0, brush.turn, count))
        own = (
            [None] * count
            if areas is None
            else [(areas, label) for label in sample(areas, *starts.T)]
        )
        for start, path, color, size, inside in zip(starts, paths, colors, sizes, own, strict=True):
            self.stroke(
                start + (path - start) * size[1], color, brush, brush.width * size[0], inside
            )

    def jitter(self, count, brush):
        """Random shifts of colour: one of lightness and two across it."""
        axes = np.array([[1, 1, 1], [1, -0.3, -0.9], [-0.5, 0.9, -0.5]], np.float32)
        spread = np.array([brush.value_jitter, brush.hue_jitter, brush.hue_jitter])
        return (self.rng.standard_normal((count, 3)) * spread) @ axes

    def _starts(self, brush):
        """Stroke centres on a shaken grid, in random order."""
        step_x = max(brush.width, brush.length / 2) * brush.spacing
        step_y = brush.width * brush.spacing * 1.2
        y, x = np.mgrid[0 : self.shape[0] : step_y, 0 : self.shape[1] : step_x]
        starts = np.stack([x.ravel(), y.ravel()], axis=1)
        starts = starts + self.rng.uniform(-0.7, 0.7, starts.shape) * (step_x, step_y)
        return self.rng.permutation(starts)

    def _bristles(self, along, across):
        """A random piece of the bristle marks, of shape (along, across)."""
        row = self.rng.integers(0, max(1, BANK[0] - across))
        col = self.rng.integers(0, max(1, BANK[1] - along))
        piece = self.bank[row : row + across, col : col + along].T
        return np.pad(
            piece, [(0, along - piece.shape[0]), (0, across - piece.shape[1])], mode="reflect"
        )

    def _cover(self, along, across, bristle, dry, blunt):
        """Opacity of a stroke: round at its start, running dry between the bristles toward
        its end."""
        curve = np.sqrt(np.clip(1 - across**2, 0, 1)) * min(0.5, blunt / 2)
        head = along[:, None] - (min(0.5, blunt / 2) - curve)[None, :]
        tail = 1 - along[:, None] - (min(0.5, blunt / 2) - 0.7 * curve)[None, :]
        ragged = np.minimum(head, tail + dry * 0.35 * (bristle - 0.6)) * 30
        runs_out = dry * along[:, None] ** 2
        edge = (1 - np.abs(across)) * 6
        return np.clip(np.minimum(ragged, edge), 0, 1) * np.clip(
            (bristle - runs_out * 0.75) * 6 + 0.6 - dry, 0, 1
        )

    def _lay(self, y, x, cover, color, ridge):
        """Blend paint and its height into the canvas at the given pixels."""
        a = cover[:, None]
        self.color[y, x] = self.color[y, x] * (1 - a) + color * a
        self.height[y, x] = self.height[y, x] * (1 - 0.75 * cover) + ridge * cover


def scaled(brush, factor, **changes):
    """A brush of the same kind scaled by `factor`, with other changes on demand."""
    return replace(brush, width=brush.width * factor, length=brush.length * factor, **changes)


def _resample(path):
    """Points about 0.7 pixels apart along a path, their unit normals, and the path's length."""
    path = np.asarray(path, np.float32)
    gone = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    s = np.linspace(0, gone[-1], max(4, int(gone[-1] / 0.7)))
    points = np.stack([np.interp(s, gone, path[:, 0]), np.interp(s, gone, path[:, 1])], axis=1)
    knots = np.gradient(path, axis=0)
    along = np.stack([np.interp(s, gone, knots[:, 0]), np.interp(s, gone, knots[:, 1])], axis=1)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    return points, np.stack([-along[:, 1], along[:, 0]], axis=1), gone[-1]


def _rotate(paths, centers, turns):
    """Turn each path about its centre."""
    cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
    dx, dy = paths[..., 0] - centers[:, None, 0], paths[..., 1] - centers[:, None, 1]
    return np.stack(
        [centers[:, None, 0] + cos * dx - sin * dy, centers[:, None, 1] + sin * dx + cos * dy],
        axis=-1,
    )
