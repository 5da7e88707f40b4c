"""Ink mountains in mist over a river, with pines, boats, a red sun and a seal, on fibrous paper."""

import numpy as np
from scipy import ndimage as ndi

from painters.brush import Brush, Canvas, scaled
from painters.surface import contour_angle, grain, grid, noise, palette, paper, smoothstep, streaks

SHAPE = (1640, 2048)
SHEET, INK, WARM, BLUE, RED = palette("efe4cc", "1c1d22", "4a3f38", "3d4a58", "b8321f")
# height of the foot, darkness, depth of the mist below the crest, peaks (x, height, breadth)
RANGES = (
    (
        0.42,
        0.30,
        0.13,
        (
            (0.12, 0.15, 0.11),
            (0.50, 0.19, 0.10),
            (0.60, 0.12, 0.09),
            (0.98, 0.13, 0.12),
            (1.20, 0.08, 0.1),
        ),
    ),
    (
        0.53,
        0.50,
        0.18,
        (
            (0.02, 0.18, 0.10),
            (0.33, 0.31, 0.085),
            (0.24, 0.20, 0.07),
            (1.12, 0.27, 0.09),
            (0.8, 0.09, 0.1),
        ),
    ),
    (
        0.67,
        0.75,
        0.23,
        (
            (0.60, 0.37, 0.065),
            (0.70, 0.27, 0.055),
            (0.50, 0.20, 0.07),
            (0.82, 0.12, 0.06),
            (0.0, 0.2, 0.15),
        ),
    ),
    (
        0.90,
        0.95,
        0.36,
        (
            (1.26, 0.46, 0.10),
            (1.10, 0.27, 0.08),
            (0.97, 0.10, 0.07),
            (-0.05, 0.22, 0.16),
            (0.55, -0.2, 0.3),
        ),
    ),
    (
        1.03,
        1.00,
        0.40,
        (
            (0.10, 0.21, 0.15),
            (0.32, 0.11, 0.10),
            (0.95, 0.07, 0.15),
            (1.3, 0.16, 0.12),
            (0.65, 0.03, 0.1),
        ),
    ),
)
WATER = 2  # the river lies in front of this range
SUN = (0.86, 0.155, 0.052)
SEAL = (0.075, 0.085, 0.032)  # x and y of the middle, half side
TEXTURE = Brush(
    13,
    62,
    streak=0.05,
    dry=0.95,
    value_jitter=0.05,
    hue_jitter=0.008,
    turn=0.28,
    spacing=0.7,
    opacity=0.62,
)
DOT = Brush(
    11,
    15,
    streak=0.05,
    dry=0.5,
    value_jitter=0.06,
    hue_jitter=0.01,
    turn=0.9,
    spacing=0.8,
    opacity=0.75,
)
NEEDLE = Brush(4.5, 30, streak=0.05, dry=0.3, opacity=0.85, taper=0.7)


def crest(number, rng):
    """Height of the crest line of a mountain range along the picture's width."""
    foot, _, _, peaks = RANGES[number]
    along = np.arange(SHAPE[1]) / SHAPE[0] + 0.012 * noise((8, SHAPE[1]), 160, rng, octaves=3)[4]
    tops = sum(
        tall * np.exp(-((np.abs(along - middle) / breadth) ** 1.5))
        for middle, tall, breadth in peaks
    )
    return foot - tops - 0.011 * noise((8, SHAPE[1]), 120, rng, octaves=6)[4]


def relief(rng):
    """Folded rock: how steeply it leans to the right at every pixel, about -1..1."""
    folds = noise(SHAPE, (420, 150), rng, octaves=5)
    return np.tanh(0.55 * ndi.gaussian_filter1d(np.gradient(folds, axis=1) * 60, 3, axis=1))


def fibres_of(lean, rng):
    """Ink fibres that part at the ridges of the folds and run down to both sides."""
    downhill = np.pi / 2 - 0.95 * lean
    fine = streaks(downhill, rng, 5, steps=12, reduce=2)
    broad = streaks(downhill, rng, 14, steps=16, reduce=2)
    return 0.7 * fine + 0.5 * broad, downhill


def add_range(canvas, number, y, fibre, rng):
    """Brush one range: a wash that sinks into mist, hemp-fibre strokes on the shaded folds, dots of
    trees."""
    _, dark, mist, _ = RANGES[number]
    depth = y - crest(number, rng)[None, :]
    below = smoothstep(-0.0005, 0.002, depth)
    drift = np.clip(depth, 0, 2) / mist + 0.16 * noise(SHAPE, (90, 420), rng, octaves=3)
    fade = 1 - smoothstep(0.35, 1.25, drift)
    veil = below * (1 - smoothstep(1.1, 2.0, drift))  # the paper of a range hides those behind it
    canvas.color += (SHEET * (0.99 + 0.012 * fibre[..., None]) - canvas.color) * veil[..., None]
    lean = relief(rng)
    strands, downhill = fibres_of(lean, rng)
    pool = noise(SHAPE, (260, 160), rng, octaves=5)
    shade = 0.42 + 0.36 * lean + 0.10 * pool + 0.35 * np.exp(-np.clip(depth, 0, 1) / 0.04)
    tint = faded_ink(dark)
    glaze(canvas, tint, 0.95 * dark * fade * below * np.clip(shade, 0.06, 1) * (1 + 0.06 * fibre))
    dry = smoothstep(0.5, 1.7, strands + 1.5 * shade * (0.55 + 0.5 * dark) + 0.25 * fibre)
    glaze(canvas, tint, 0.8 * dark * dry * fade**0.7 * below)
    add_growth(canvas, number, depth, downhill, lean, fade, rng)


def faded_ink(dark):
    """Ink as the air lets it through: blue-grey far away (dark near 0), black at hand (1)."""
    return INK + (0.6 * BLUE + 0.4 * SHEET - INK) * (1 - dark)


def glaze(canvas, tint, cover):
    """Tint the canvas with transparent ink."""
    canvas.color += (tint - canvas.color) * np.clip(cover, 0, 0.97)[..., None]


def add_growth(canvas, number, depth, downhill, lean, fade, rng):
    """Dry strokes in the clefts, a broken line on the crest, and dots for trees."""
    dark = RANGES[number][1]
    tints = np.broadcast_to(faded_ink(dark), (*SHAPE, 3))
    scale = 0.55 + 0.5 * dark
    clefts = smoothstep(0.1, 0.9, lean) * (depth > 0.012) * fade * dark
    canvas.layer(scaled(TEXTURE, scale, opacity=0.2 + 0.35 * dark), tints, downhill, 0.5 * clefts)
    canvas.layer(
        scaled(TEXTURE, 0.5 * scale, opacity=0.25 + 0.4 * dark), tints, downhill, 0.6 * clefts
    )
    crest_angle = contour_angle(np.clip(depth, -0.03, 0.03), 5)
    on_crest = (
        (np.abs(depth - 0.003) < 0.003)
        * 0.45
        * smoothstep(-0.6, 0.6, noise(SHAPE, 160, rng, octaves=2))
    )
    liner = scaled(TEXTURE, 0.62 * scale, turn=0.06, spacing=0.4, opacity=0.25 + 0.4 * dark)
    canvas.layer(liner, tints, crest_angle, on_crest)
    clumps = smoothstep(0.3, 1.2, noise(SHAPE, 120, rng, octaves=3))
    wooded = np.exp(-(((depth - 0.004) / 0.012) ** 2)) + 0.5 * np.exp(
        -(((depth - 0.06) / 0.06) ** 2)
    )
    level = np.zeros(SHAPE, np.float32)
    canvas.layer(scaled(DOT, scale), tints, level, wooded * clumps * dark * (depth > -0.008))
    canvas.layer(scaled(DOT, 0.6 * scale), tints, level, wooded * clumps * dark * (depth > -0.012))


def add_flow(canvas, y, top, bottom, share, opacity, rng):
    """Horizontal dry strokes between two heights: drifting mist or the river."""
    flow = 0.05 * noise(SHAPE, 400, rng, octaves=1)
    band = smoothstep(-0.6, 0.9, noise(SHAPE, (38, 600), rng, octaves=2))
    brush = Brush(
        11,
        190,
        streak=0.05,
        dry=1.0,
        value_jitter=0.05,
        hue_jitter=0.01,
        turn=0.02,
        spacing=0.7,
        opacity=opacity,
    )
    tints = np.broadcast_to(0.7 * BLUE + 0.3 * SHEET, (*SHAPE, 3))
    within = smoothstep(top, top + 0.06, y) * (1 - smoothstep(bottom - 0.06, bottom, y))
    canvas.layer(brush, tints, flow, share * band * within)


def add_pine(canvas, foot, tall, lean, rng):
    """A pine with a knotty trunk, drooping boughs and tufts of needles."""
    t = np.linspace(0, 1, 14)[:, None]
    bend = np.concatenate([lean * t**1.4 + 0.05 * np.sin(7 * t), -t], axis=1)
    trunk = np.array(foot) * SHAPE[0] + bend * tall * SHAPE[0]
    canvas.stroke(
        trunk, INK, Brush(10, 10, dry=0.35, streak=0.1, opacity=0.95, taper=0.8), 38 * tall / 0.3
    )
    for at in np.sort(rng.uniform(0.35, 1.0, 10)):
        start = trunk[int(at * 13)]
        side = rng.choice([-1, 1])
        reach = tall * SHAPE[0] * (0.62 - 0.42 * at) * rng.uniform(0.6, 1.1)
        s = np.linspace(0, 1, 8)[:, None]
        bough = start + np.concatenate(
            [side * reach * s, reach * (0.10 * s - 0.25 * s * (1 - s))], axis=1
        )
        canvas.stroke(bough, INK, Brush(8, 10, dry=0.35, opacity=0.9, taper=0.75), 12 * tall / 0.3)
        for spot in bough[3:]:
            add_tuft(canvas, spot, tall, rng)


def add_tuft(canvas, spot, tall, rng):
    """A fan of needles."""
    for _ in range(16):
        root = spot + rng.normal(0, 10 * tall / 0.3, 2)
        heading = -np.pi / 2 + rng.normal(0, 0.8)
        tip = root + np.array([np.cos(heading), np.sin(heading)]) * 34 * tall / 0.3 * rng.uniform(
            0.6, 1.2
        )
        tint = INK + rng.uniform(0, 0.14)
        canvas.stroke(np.linspace(root, tip, 4), tint, NEEDLE, rng.uniform(3, 6))


def add_boat(canvas, x, y, size):
    """A small boat with a boatman."""
    s = np.linspace(-1, 1, 9)[:, None]
    hull = np.array([x, y]) * SHAPE[0] + np.concatenate([s * size, -0.16 * size * s**2], axis=1)
    canvas.stroke(hull, INK, Brush(8, 10, dry=0.3, opacity=0.95), 0.20 * size)
    canvas.stroke(
        hull[2:6] - (0, 0.16 * size), WARM, Brush(8, 10, dry=0.3, opacity=0.9), 0.22 * size
    )
    man = hull[7] - np.array([[0, 0.45], [0, 0.25], [0, 0.05]]) * size
    canvas.stroke(man, INK, Brush(8, 10, dry=0.2, opacity=0.95), 0.12 * size)
    canvas.stroke(
        np.linspace(hull[7] + (0.25 * size, -0.75 * size), hull[7] + (0.1 * size, 0.35 * size), 4),
        INK,
        NEEDLE,
        3.5,
    )


def add_seal(canvas, x, y, fibre, rng):
    """A red seal whose lines are left in the colour of the paper."""
    cx, cy, half = SEAL
    u, v = (x - cx) / half, (y - cy) / half
    worn = noise(SHAPE, 14, rng) > -1.6
    cells = np.abs(u) < 0.78
    strokes = cells & (np.abs(v) < 0.78) & (
        (np.abs((v + 0.78) % 0.39 - 0.2) < 0.055) & (np.abs(u + 0.38) < 0.32)
        | (np.abs(u + 0.38) < 0.05)
        | (np.abs((v + 0.6) % 0.52 - 0.26) < 0.055) & (np.abs(u - 0.40) < 0.30)
        | (np.abs(np.abs(u - 0.40) - 0.27) < 0.05) & (np.abs(v) < 0.6)
    )  # fmt: skip
    square = (np.maximum(np.abs(u), np.abs(v)) < 1 + 0.03 * fibre) & worn & ~strokes
    canvas.color += (RED - canvas.color) * (
        0.9 * ndi.gaussian_filter(square.astype(np.float32), 0.8)
    )[..., None]


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    fibre = streaks(
        2.2 * noise(SHAPE, 220, rng, octaves=3), rng, 3, steps=10, reduce=2
    ) + 0.6 * grain(SHAPE, 1.5, rng)
    canvas = Canvas(paper(SHAPE, rng, SHEET), rng)
    clouds = smoothstep(0.2, 2.0, noise(SHAPE, (150, 620), rng, octaves=5) + 0.8 - 1.6 * y)
    glaze(canvas, 0.6 * BLUE + 0.4 * SHEET, 0.34 * clouds * (1 + 0.1 * fibre))
    add_flow(canvas, y, -0.1, 0.5, 0.45, 0.16, rng)
    far = np.hypot(x - SUN[0], y - SUN[1]) / SUN[2]
    disc = smoothstep(1.03, 0.97, far + 0.012 * fibre) * (
        0.84 + 0.05 * fibre + 0.08 * noise(SHAPE, 80, rng)
    )
    canvas.color += (RED - canvas.color) * np.clip(disc, 0, 1)[..., None]
    for number in range(len(RANGES)):
        add_range(canvas, number, y, fibre, rng)
        if number == WATER:
            add_flow(canvas, y, 0.64, 1.06, 0.8, 0.34, rng)
            add_boat(canvas, 0.64, 0.79, 66)
            add_boat(canvas, 0.80, 0.735, 40)
    for foot, tall, lean in (
        ((0.13, 0.93), 0.42, 0.20),
        ((0.27, 0.99), 0.26, -0.12),
        ((1.02, 0.98), 0.17, 0.2),
    ):
        add_pine(canvas, foot, tall, lean, rng)
    add_seal(canvas, x, y, fibre, rng)
    return canvas.color * (1 + 0.02 * fibre)[..., None]
