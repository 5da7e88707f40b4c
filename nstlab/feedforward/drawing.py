"""Procedural pictures to train on: noise, leaves, strokes, dots, cells and waves, from a seed.

They show a network what photos lack: paint strokes of every width along a flow, flat saturated
areas, outlines, stripes, and noise of every spectrum. Each function takes a NumPy generator and a
side n in pixels and returns (n, n, 3) sRGB, nominally in [0, 1]; `draw` clips.

Dead leaves (overlapping shapes of power-law sizes): Lee, Mumford and Huang 2001. Procedural
pictures teach early layers nearly as well as photos: Baradad et al. 2021, "Learning to see by
looking at noise".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

FIELD = 64  # side of the smooth fields that steer strokes and dots


def coloured_noise(
    rng: np.random.Generator, n: int, exponent: float, channels: int = 3
) -> np.ndarray:
    """Periodic Gaussian noise, of mean 0 and standard deviation 1 in each channel.

    Args:
        rng: generates the numbers.
        n: side in pixels.
        exponent: of the amplitude spectrum 1/f^exponent; 0 is white.
        channels: how many there are.

    Returns:
        (n, n, channels).
    """
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)[None])
    amplitude = 1 / np.maximum(frequency, 1 / n) ** exponent
    z = np.fft.ifft2(np.fft.fft2(rng.normal(size=(channels, n, n))) * amplitude).real
    z = (z - z.mean((1, 2), keepdims=True)) / z.std((1, 2), keepdims=True)
    return z.transpose(1, 2, 0)


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours around a random line: most pictures have few hues."""
    a = rng.random(3)
    b = rng.random(3)
    spread = rng.choice([0.05, 0.15, 0.35])
    return (a + rng.random((count, 1)) * (b - a) + rng.normal(0, spread, (count, 3))).clip(0, 1)


def _paint(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(255 * value) for value in colour)


def _canvas(n: int, colour: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A canvas of twice the side, for smooth edges after `_reduced`."""
    image = Image.new("RGB", (2 * n, 2 * n), _paint(colour))
    return image, ImageDraw.Draw(image)


def _reduced(image: Image.Image, n: int) -> np.ndarray:
    return np.asarray(image.resize((n, n), Image.Resampling.BOX)) / 255


class _Field:
    """A smooth random field, looked up by canvas position."""

    def __init__(self, rng: np.random.Generator, n: int, exponent: float):
        self.values = coloured_noise(rng, FIELD, exponent, 1)[..., 0]
        self.step = FIELD / (2 * n)

    def __call__(self, x: float, y: float) -> float:
        return self.values[int(y * self.step) % FIELD, int(x * self.step) % FIELD]


def clouds(rng: np.random.Generator, n: int) -> np.ndarray:
    """Noise between white and very smooth, its colours correlated."""
    mix = rng.normal(size=(3, 3)) * rng.choice([0.05, 0.15, 0.25])
    return 0.2 + 0.6 * rng.random(3) + coloured_noise(rng, n, rng.uniform(0.4, 2.0)) @ mix


def leaves(rng: np.random.Generator, n: int) -> np.ndarray:
    """Overlapping discs, rectangles and triangles of power-law sizes: the edges of photos."""
    image, pen = _canvas(n, rng.random(3))
    colours = palette(rng, 60)
    kind = rng.integers(4)
    least = rng.choice([3, 8, 20])
    for _ in range(int(rng.choice([150, 500, 1500]))):
        radius = min(least / max(rng.random(), 1e-3) ** 0.6, n)
        x, y = rng.uniform(0, 2 * n, 2)
        fill = _paint(colours[rng.integers(60)])
        outline = _paint(colours[0]) if kind == 3 else None
        corners = (0, 4, 3)[rng.integers(3) if kind == 2 else min(kind, 2)]
        if corners == 0:
            pen.ellipse((x - radius, y - radius * 0.8, x + radius, y + radius * 0.8), fill, outline)
            continue
        turns = rng.uniform(0, 2 * math.pi) + np.arange(corners) * 2 * math.pi / corners
        pen.polygon(
            [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns], fill, outline
        )
    return _reduced(image, n)


def strokes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Curved brush strokes along a smooth flow, coloured by a smooth picture."""
    flow = _Field(rng, n, rng.uniform(1.2, 2.2))
    ground = _Field(rng, n, 1.6)
    colours = palette(rng, 24)
    bend = rng.uniform(0.5, 3)
    jitter = rng.choice([1, 4, 24])
    width = rng.choice([2, 4, 7, 12])
    length = rng.choice([4, 10, 20])
    image, pen = _canvas(n, colours[0])
    for _ in range(int(min(9000, 2.2 * (2 * n) ** 2 / (width * width * length)))):
        x, y = rng.uniform(0, 2 * n, 2)
        shade = int((ground(x, y) + 2) * 6 + rng.integers(jitter)) % 24
        points = [(x, y)]
        for _ in range(int(length)):
            angle = bend * flow(x, y)
            x = x + 0.7 * width * math.cos(angle)
            y = y + 0.7 * width * math.sin(angle)
            points.append((x, y))
        pen.line(
            points, _paint(colours[shade]), int(width * rng.uniform(0.6, 1.4)) + 1, joint="curve"
        )
    return _reduced(image, n)


def dots(rng: np.random.Generator, n: int) -> np.ndarray:
    """Dabs of one size whose hue follows a smooth field."""
    ground = _Field(rng, n, 1.6)
    colours = palette(rng, 24)
    image, pen = _canvas(n, rng.random(3))
    radius = rng.choice([2, 4, 7, 12])
    for _ in range(int(min(12000, rng.uniform(0.3, 1.5) * (2 * n) ** 2 / radius**2))):
        x, y = rng.uniform(0, 2 * n, 2)
        shade = int((ground(x, y) + 2) * 6 + rng.integers(6)) % 24
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), _paint(colours[shade]))
    return _reduced(image, n)


def cells(rng: np.random.Generator, n: int) -> np.ndarray:
    """Flat Voronoi cells, often with joints of another colour."""
    count = int(rng.choice([12, 50, 200]))
    seeds = rng.random((count, 2)) * n
    positions = np.moveaxis(np.mgrid[:n, :n], 0, -1)[..., None, :]
    distance = np.sqrt(((positions - seeds) ** 2).sum(-1))  # (n, n, count)
    image = palette(rng, count)[distance.argmin(-1)]
    if rng.random() < 0.6:
        nearest, second = np.moveaxis(np.partition(distance, 1, -1)[..., :2], -1, 0)
        inside = np.clip((second - nearest) / rng.uniform(1, 5), 0, 1)[..., None]
        image = image * inside + rng.random(3) * (1 - inside)
    return image


def waves(rng: np.random.Generator, n: int) -> np.ndarray:
    """Stripes and swirls: a wave of a warped coordinate, in two colours or a palette."""
    warp = coloured_noise(rng, n, rng.uniform(1.3, 2.5), 1)[..., 0] * rng.uniform(0, 0.25)
    y, x = np.mgrid[:n, :n] / n
    turn = rng.uniform(0, 2 * math.pi)
    phase = (x * math.cos(turn) + y * math.sin(turn) + warp) * rng.choice([3, 8, 20, 40])
    if rng.random() < 0.5:
        height = (0.5 + 0.5 * np.sin(2 * math.pi * phase)) ** rng.uniform(0.3, 3)
        a = rng.random(3)
        b = rng.random(3)
        return a + height[..., None] * (b - a)
    return palette(rng, 12)[(np.floor(phase * 3) % 12).astype(int)]


KINDS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    clouds,
    leaves,
    leaves,
    strokes,
    strokes,
    strokes,
    dots,
    cells,
    waves,
)


def draw(seed: int, n: int = 256) -> np.ndarray:
    """Draw a procedural picture; some are blends of two, some lie on a rough canvas.

    Args:
        seed: determines the picture.
        n: side in pixels.

    Returns:
        (n, n, 3) uint8 sRGB.
    """
    rng = np.random.default_rng([20161, seed])
    image = KINDS[seed % len(KINDS)](rng, n)
    if rng.random() < 0.3:
        second = KINDS[rng.integers(len(KINDS))](rng, n)
        mask = (coloured_noise(rng, n, 1.8, 1) > 0) if rng.random() < 0.5 else rng.random()
        image = image * mask + second * (1 - mask)
    if rng.random() < 0.3:
        image = image + coloured_noise(rng, n, rng.uniform(0, 1), 1) * rng.uniform(0.01, 0.08)
    return (255 * image.clip(0, 1)).round().astype(np.uint8)
