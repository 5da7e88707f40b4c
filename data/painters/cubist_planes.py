"""A still life with guitar and bottle, broken into overlapping shaded planes of ochre, grey and
umber."""

import numpy as np
from skimage.draw import polygon as polygon_pixels

from painters.brush import Brush, Canvas, scaled
from painters.surface import grid, light, mix, noise, palette, put, ramp, smoothstep, weave

SHAPE = (1640, 2048)
WALL = palette("45423a", "756d58", "9c9076", "cabf9c", "5f6a5c")
WOOD = palette("4f2f16", "8a5524", "b9803a", "d9a852", "efcf8a")
DARK, BONE, GREEN, CLAY = palette("1d1814", "f0e2bd", "46604c", "a5502c")
TABLE = palette("3a2718", "5f3f22", "80582e", "a37a45")
AXES = np.deg2rad([12, 48, 78, 104, 136, 168])  # the directions that the planes and lines keep to
DAB = Brush(
    15,
    34,
    streak=0.09,
    dry=0.2,
    relief=1.2,
    value_jitter=0.032,
    hue_jitter=0.009,
    turn=0.12,
    spacing=0.68,
)
PEN = Brush(7, 100, dry=0.22, streak=0.10, relief=0.8, taper=0.55)
PLANES = 190
# tints of plane edges
SIDES = np.array([DARK, BONE, WALL[4], WOOD[4], WALL[0], TABLE[0], WOOD[2], WALL[3], DARK, BONE])
ARCS = (  # x, y, radius, first and last angle
    (0.66, 0.72, 0.215, 0.3, 2.4),
    (0.76, 0.50, 0.155, -2.9, -1.3),
    (0.78, 0.50, 0.150, -0.9, 0.5),
    (0.645, 0.74, 0.19, 2.9, 4.2),
    (0.715, 0.585, 0.064, -1.2, 3.4),
    (0.45, 0.47, 0.10, 1.8, 3.3),
    (0.27, 0.56, 0.09, 0.2, 2.6),
)


def ellipse(x, y, cx, cy, rx, ry):
    """Level of an ellipse: below 1 inside."""
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2


def subject(x, y, rng):
    """The still life before it is broken up: table, bottle, guitar, sheet of music, glass."""
    cloud = noise(x.shape, 240, rng)
    image = ramp(np.clip(0.45 + 0.22 * cloud, 0, 1), WALL)
    table = ramp(
        np.clip(0.4 + 0.4 * (y - 0.7) + 0.18 * noise(x.shape, (30, 500), rng), 0, 1), TABLE
    )
    image = put(image, y > 0.68 + 0.10 * (x - 0.6), table)
    sheet = (np.abs(x - 0.93 + 0.3 * (y - 0.7)) < 0.15) & (np.abs(y - 0.70) < 0.14)
    staves = (np.sin(y * 330) > 0.72) & (np.sin(y * 47 + 2) > -0.2)
    image = put(put(image, sheet, BONE), sheet & staves, DARK)
    return add_guitar(x, y, add_vessels(x, y, image))


def add_vessels(x, y, image):
    """A bottle with a label and a glass."""
    neck = smoothstep(0.30, 0.42, y)
    bottle = (np.abs(x - 0.45) < 0.034 + 0.062 * neck) & (y > 0.12) & (y < 0.74)
    shine = smoothstep(-0.10, 0.10, x - 0.45)[..., None]
    image = put(image, bottle, GREEN * 0.55 + 0.75 * shine * GREEN + 0.06)
    image = put(image, bottle & (np.abs(y - 0.54) < 0.07), BONE * 0.95)
    image = put(image, bottle & (y < 0.17), CLAY)
    bowl = (ellipse(x, y, 0.26, 0.56, 0.085, 0.13) < 1) & (y > 0.50)
    stem = (np.abs(x - 0.26) < 0.012) & (y > 0.68) & (y < 0.80) | (
        ellipse(x, y, 0.26, 0.80, 0.075, 0.016) < 1
    )
    return put(image, bowl | stem, mix(image, BONE, 0.55))


def add_guitar(x, y, image):
    """A guitar leaning to the right."""
    lean = 0.42
    u = (x - 0.70) * np.cos(lean) + (y - 0.62) * np.sin(lean)
    v = -(x - 0.70) * np.sin(lean) + (y - 0.62) * np.cos(lean)
    lower, upper = ellipse(u, v, 0, 0.11, 0.205, 0.175), ellipse(u, v, 0, -0.13, 0.150, 0.135)
    body = (lower < 1) | (upper < 1) | ((np.abs(u) < 0.125) & (np.abs(v) < 0.1))
    tone = np.clip(0.62 - 1.6 * u - 0.5 * v, 0, 1)
    image = put(image, body, ramp(tone, WOOD))
    rim = (
        body & ((lower > 0.86) | (lower > 1)) & ((upper > 0.82) | (upper > 1)) & (np.abs(u) > 0.11)
    )
    image = put(image, rim, WOOD[0])
    hole = ellipse(u, v, 0, -0.03, 0.062, 0.062)
    image = put(image, hole < 1.35, BONE)
    image = put(image, hole < 1, DARK)
    neck = (np.abs(u) < 0.028) & (v > -0.62) & (v < -0.08)
    frets = np.sin(v * 120) > 0.8
    image = put(put(image, neck, TABLE[0]), neck & frets, BONE)
    head = (np.abs(u) < 0.045) & (v > -0.70) & (v < -0.60)
    image = put(image, head | ((np.abs(v - 0.17) < 0.014) & (np.abs(u) < 0.07)), TABLE[1])
    strings = (
        (np.abs((u + 0.024) % 0.0095 - 0.0048) < 0.0014)
        & (np.abs(u) < 0.026)
        & (v > -0.66)
        & (v < 0.17)
    )
    return put(image, strings, BONE)


def plane(rng, size):
    """Corners (x, y) of a plane whose sides keep to the picture's axes, and the direction of its
    first side."""
    wide = SHAPE[1] / SHAPE[0]
    center = np.array([wide / 2, 0.52]) + rng.normal(0, 1, 2) * (0.42, 0.33)
    first, second = rng.choice(AXES, 2, replace=False)
    a = np.array([np.cos(first), np.sin(first)]) * size * rng.uniform(0.5, 1.2)
    b = np.array([np.cos(second), np.sin(second)]) * size * rng.uniform(0.4, 0.9)
    corners = np.array([-a - b, a - b, a + b, -a + b])
    if rng.random() < 0.35:
        corners[rng.integers(4)] *= 0.1  # folds the plane to a triangle
    return corners + center, first


def across(corners, rows, cols):
    """How far each pixel of a plane lies from its first side: 0 there, 1 at the farthest point."""
    edge = corners[1] - corners[0]
    away = np.abs(
        (cols / SHAPE[0] - corners[0, 0]) * edge[1] - (rows / SHAPE[0] - corners[0, 1]) * edge[0]
    )
    return away / (away.max() + 1e-6)


def add_plane(image, angle, label, source, rng, size):
    """Lay one plane: a displaced piece of the subject, lit or dark along one side and melting away
    at the other."""
    corners, axis = plane(rng, size)
    rows, cols = polygon_pixels(corners[:, 1] * SHAPE[0], corners[:, 0] * SHAPE[0], SHAPE)
    if len(rows) < 400:
        return None
    shift = (rng.normal(0, 0.018, 2) * SHAPE[0]).astype(int)
    piece = source[
        np.clip(rows + shift[0], 0, SHAPE[0] - 1), np.clip(cols + shift[1], 0, SHAPE[1] - 1)
    ]
    t = across(corners, rows, cols)[:, None]
    tint = SIDES[rng.integers(len(SIDES))]
    piece = piece + (tint - piece) * 0.9 * (1 - t) ** 1.3
    image[rows, cols] += (piece - image[rows, cols]) * np.clip(1.25 - 1.1 * t, 0, 1)
    solid = t[:, 0] < 0.72
    angle[rows[solid], cols[solid]] = axis + rng.choice([0, np.pi / 2])
    label[rows[solid], cols[solid]] = label.max() + 1
    return corners


def scaffold(canvas, planes, rng):
    """Draw a side or two of about half the planes as dark lines, some of them with a pale
    companion."""
    for corners in planes:
        for side in range(rng.choice(3, p=[0.45, 0.4, 0.15])):
            start, end = corners[side] * SHAPE[0], corners[(side + 1) % 4] * SHAPE[0]
            t = np.linspace(-0.08, rng.uniform(0.7, 1.12), 12)[:, None]
            path = start + (end - start) * t + rng.normal(0, 0.8, (12, 2))
            if rng.random() < 0.25:
                canvas.stroke(path + 5, BONE * 0.95, PEN, 6)
            canvas.stroke(path, DARK, PEN, rng.uniform(5, 10))


def arcs(canvas):
    """Repeat the curves of the guitar, its strings and its sound hole as drawn fragments."""
    for cx, cy, radius, start, stop in ARCS:
        turn = np.linspace(start, stop, 40)
        path = np.stack([cx + radius * np.cos(turn), cy + radius * np.sin(turn)], axis=1) * SHAPE[0]
        canvas.stroke(path + 6, BONE * 0.95, PEN, 6)
        canvas.stroke(path, DARK, PEN, 11)
    for number in range(6):
        start = np.array([0.725 + 0.011 * number, 0.30 + 0.005 * number]) * SHAPE[0]
        end = np.array([0.60 + 0.011 * number, 0.80 + 0.005 * number]) * SHAPE[0]
        gap = 18 * (number >= 3)  # the strings jump where a plane cuts them
        canvas.stroke(np.linspace(start, (start + end) / 2, 8), BONE, PEN, 4.5)
        canvas.stroke(np.linspace((start + end) / 2, end, 8) + np.array([gap, 0]), DARK, PEN, 4.5)


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    source = subject(x, y, rng)
    image, angle, label = source.copy(), np.full(SHAPE, 0.15, np.float32), np.zeros(SHAPE, int)
    sizes = 0.30 * np.linspace(1, 0.27, PLANES)
    planes = [add_plane(image, angle, label, source, rng, size) for size in sizes]
    canvas = Canvas(image, rng)
    canvas.layer(scaled(DAB, 1.7), image, angle, areas=label)
    canvas.layer(DAB, image, angle, areas=label)
    canvas.layer(
        scaled(DAB, 0.75, value_jitter=0.055), image, angle, np.full(SHAPE, 0.35), areas=label
    )
    scaffold(canvas, [corners for corners in planes[20:] if corners is not None], rng)
    arcs(canvas)
    return light(canvas.color, canvas.height + 0.2 * weave(SHAPE, rng), 0.8, 0.05)
