"""Hills, trees and a bay in broad clashing patches, brushed with a wide bristle brush over a pale
ground."""

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import find_contours

from painters.brush import Brush, Canvas, scaled
from painters.surface import contour_angle, grid, light, noise, palette, sample, weave

SHAPE = (1600, 2048)
GROUND = palette("f3e4c3")[0]
LINE = palette("1d2a6b")[0]
WIDE = Brush(
    54,
    190,
    streak=0.16,
    dry=0.55,
    relief=1.2,
    value_jitter=0.05,
    hue_jitter=0.035,
    turn=0.12,
    spacing=0.62,
)
CONTOUR = Brush(17, 260, streak=0.12, dry=0.45, relief=1.3, value_jitter=0.05, hue_jitter=0.04)
REGIONS = (  # base and swell of the upper edge, its phase, then the colours that meet below it
    (-1.00, 0.000, 0.0, palette("f59fb0", "ffd05a", "58c2c0", "f7b27a", "8fd0d8", "f08a6a")),
    (0.30, 0.055, 0.3, palette("5a4fb0", "3f7fd0", "8a4fb0", "2f9fb8")),
    (0.385, 0.045, 2.1, palette("d8382e", "f0662a", "c42a6a", "f59a2a")),
    (0.47, 0.018, 4.6, palette("1f8fc8", "35b8c0", "f0d86a", "2a62b8", "6fd0b8")),
    (0.60, 0.045, 1.2, palette("2f9a4a", "8fc43a", "137a5a", "e8c83a")),
    (0.72, 0.050, 3.4, palette("f0862a", "e8453a", "f4b83a", "d83a7a")),
    (0.85, 0.045, 5.3, palette("1f7a5a", "6a3fa8", "3fae4a", "2a4fb0")),
)
TREES = (  # x, foot, top of the trunk, half width, crown discs (x, y, radius), leaf colours
    (
        (0.17, 1.02, 0.24, 0.030),
        ((0.05, 0.22, 0.13), (0.24, 0.14, 0.15), (0.36, 0.27, 0.09)),
        palette("17805a", "7fc03a", "f0c02f", "0f5a4a", "2f9ad0"),
    ),
    (
        (1.10, 1.05, 0.36, 0.024),
        ((1.02, 0.34, 0.09), (1.17, 0.26, 0.13), (1.27, 0.40, 0.10)),
        palette("c8302a", "f0782a", "7a2f8a", "f4b03a", "a81f5a"),
    ),
)
BARK = palette("e0342e", "3a3fa8")
HOUSES = (
    (0.52, 0.605, 0.032, "fff0c8", "d8382e"),
    (0.60, 0.625, 0.040, "f7a8b8", "2a4fb0"),
    (0.93, 0.60, 0.030, "ffd05a", "8a2a6a"),
)
SUN = (0.66, 0.16, 0.085)


def patches(shape, colors, cell, rng):
    """Number of the colour at every pixel, in broad irregular patches."""
    fields = np.stack([noise(shape, cell, rng, octaves=3) for _ in colors])
    return fields.argmax(axis=0)


class Scene:
    """Local colour, brush direction and area number of every pixel."""

    def __init__(self):
        self.image = np.zeros((*SHAPE, 3), np.float32)
        self.angle = np.zeros(SHAPE, np.float32)
        self.label = np.zeros(SHAPE, int)
        self.areas = []

    def add(self, inside, colors, angle):
        """Put an area over whatever was there."""
        self.image[inside] = np.broadcast_to(colors, self.image.shape)[inside]
        self.angle[inside] = np.broadcast_to(angle, SHAPE)[inside]
        self.areas.append(inside)
        self.label[inside] = len(self.areas)


def add_hill(scene, x, y, region, rng):
    """Fill everything below one edge with patches of its colours, brushed along its slope."""
    base, swell, phase, colors = region
    edge = base + swell * (np.sin(3.3 * x + phase) + 0.5 * np.sin(7.1 * x + 1.7 * phase))
    patch = patches(SHAPE, colors, (170, 330), rng)
    slope = contour_angle((y - edge) + 0.03 * noise(SHAPE, 420, rng, octaves=1), 16)
    scene.add(y > edge, colors[patch], slope + (patch % 3 - 1) * 0.45)


def add_sun(scene, x, y):
    """A red sun in two haloes, behind the hills."""
    far = np.hypot(x - SUN[0], y - SUN[1])
    for limit, color in ((2.1, "ffb84a"), (1.5, "fff0a0"), (1.0, "f4502e")):
        scene.add(far < SUN[2] * limit, palette(color)[0], np.arctan2(x - SUN[0], SUN[1] - y))


def add_house(scene, x, y, house):
    """A small house: a wall and a roof in flat colours."""
    cx, foot, half, wall, roof = house
    up = (foot - y) / half
    scene.add((np.abs(x - cx) < half) & (up > 0) & (up < 1.5), palette(wall)[0], np.pi / 2)
    scene.add(
        (np.abs(x - cx) < 1.35 * half * (2.5 - up)) & (up > 1.45) & (up < 2.5),
        palette(roof)[0],
        0.5,
    )


def add_tree(scene, x, y, tree, rng):
    """A bent trunk in two clashing colours under a crown of leaf patches."""
    (foot_x, foot, top, half), discs, colors = tree
    rise = np.clip((foot - y) / (foot - top), 0, 1)
    middle = foot_x + 0.035 * np.sin(4.2 * rise + 7 * foot_x) * rise
    trunk = (np.abs(x - middle) < half * (1.3 - 0.7 * rise)) & (y > top) & (y < foot)
    scene.add(trunk, BARK[(x > middle + 0.2 * half).astype(int)], np.pi / 2 + 0.15)
    lumps = 0.25 * noise(SHAPE, 150, rng, octaves=3)
    crown = (
        np.min(
            [((x - cx) / radius) ** 2 + ((y - cy) / radius) ** 2 for cx, cy, radius in discs],
            axis=0,
        )
        + lumps
        < 1
    )
    spread = np.arctan2(y - top - 0.1, x - foot_x) + 0.5
    scene.add(crown, colors[patches(SHAPE, colors, 140, rng)], spread)


def outline(canvas, scene, number):
    """Draw the visible border of one area with a dark line of long strokes, lifted here and
    there."""
    seen = ndi.binary_dilation(scene.label == number, iterations=5)
    for line in find_contours(
        ndi.gaussian_filter(scene.areas[number - 1].astype(np.float32), 6), 0.5
    ):
        at = 0
        while at < len(line) - 40:
            piece = line[at : at + canvas.rng.integers(160, 420) : 12, ::-1]
            at += 12 * len(piece) - 12 + canvas.rng.choice([0, 0, 45])
            if len(piece) > 3 and sample(seen, *piece.T).mean() > 0.7:
                canvas.stroke(
                    piece, LINE + canvas.jitter(1, CONTOUR)[0], CONTOUR, canvas.rng.uniform(9, 22)
                )


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    scene = Scene()
    add_hill(scene, x, y, REGIONS[0], rng)
    add_sun(scene, x, y)
    for number, region in enumerate(REGIONS[1:]):
        add_hill(scene, x, y, region, rng)
        for house in HOUSES if number == 3 else ():
            add_house(scene, x, y, house)
    for tree in TREES:
        add_tree(scene, x, y, tree, rng)
    canvas = Canvas(np.broadcast_to(GROUND, (*SHAPE, 3)), rng)
    canvas.layer(WIDE, scene.image, scene.angle, areas=scene.label)
    canvas.layer(
        scaled(WIDE, 0.62, dry=0.6),
        scene.image,
        scene.angle,
        np.full(SHAPE, 0.75),
        areas=scene.label,
    )
    for number in range(5, len(scene.areas) + 1):  # the sky and the sun stay without a line
        outline(canvas, scene, number)
    canvas.layer(
        scaled(WIDE, 0.42, dry=0.65, value_jitter=0.07),
        scene.image,
        scene.angle,
        np.full(SHAPE, 0.18),
    )
    return light(canvas.color, canvas.height + 0.25 * weave(SHAPE, rng, pitch=8), 0.9, 0.05)
