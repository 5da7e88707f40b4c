"""Leaping fish in banded waves under a rayed sun, in stone and gold tesserae that follow the
contours."""

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import find_contours

from painters.surface import grain, grid, light, noise, palette, sample

SHAPE = (1600, 2048)
TILE = 19.0  # side of a tessera
GROUT = palette("6b6258")[0]
COLORS = {
    "sky": palette("ecd9b0", "f2e4c4", "e2c08e", "e8cda0", "c4cbb8", "eedfbe"),
    "sun": palette("e8a820", "f4c84a", "d88a1a", "fbe08a"),
    "core": palette("c8401f", "d8582a", "b02f1a"),
    "ray": palette("d89a20", "f0bc3a", "c8701f"),
    "gleam": palette("f0dca0", "f6e8c4", "e4c47a"),
    "deep": palette("123a5a", "1a4a70", "0f2f4f", "205a80"),
    "sea": palette("1f6a8a", "2a7f98", "185a80", "3a90a0"),
    "shoal": palette("4fa8a8", "66b8b0", "3a949c", "86c8b8"),
    "foam": palette("e8ece0", "d4e4dc", "f4f2e6"),
    "fish": palette("c84a2a", "e0683a", "d85830", "b03a24"),
    "belly": palette("f0c89a", "f4dcb8", "e8b07a"),
    "fin": palette("8a2a24", "a0342a", "702020"),
    "eye": palette("14141c", "20202a"),
    "band": palette("7a2a22", "8c3428", "6a221e"),
    "cream": palette("eadcc0", "f2e8d0", "e0ceaa"),
    "key": palette("1c3c5c", "24486c", "163050"),
}
NAMES = tuple(COLORS)
SUN = (0.64, 0.29, 0.115)
WAVES = ("shoal", "sea", "foam", "deep", "sea", "shoal", "deep", "foam", "sea", "deep")
# x, y, half length, tilt
FISH = ((0.36, 0.50, 0.25, -0.55), (0.95, 0.45, 0.22, 0.5), (0.72, 0.76, 0.27, -0.12))


class Design:
    """The cartoon of the mosaic: which part, and which numbered area of it, every pixel
    belongs to."""

    def __init__(self):
        self.part = np.full(SHAPE, NAMES.index("sky"))
        self.area = np.zeros(SHAPE, int)

    def add(self, inside, name):
        """Put a part over whatever was there."""
        self.part[inside] = NAMES.index(name)
        self.area[inside] = self.area.max() + 1


def add_sun(design, x, y):
    """A disc in two rings with alternating long and short curved rays."""
    dx, dy = x - SUN[0], y - SUN[1]
    far, turn = np.hypot(dx, dy) / SUN[2], np.arctan2(dy, dx)
    twist = turn + 0.22 * (far - 1)
    for count, shift, reach, name in ((16, 0.5, 2.05, "gleam"), (16, 0.0, 2.75, "ray")):
        blade = np.abs((twist * count / (2 * np.pi) + shift) % 1 - 0.5) * 2
        design.add((blade > 0.30 + 0.7 * (far - 1) / (reach - 1)) & (far > 1) & (far < reach), name)
    for limit, name in ((1.16, "cream"), (1.0, "sun"), (0.52, "core")):
        design.add(far < limit, name)


def add_sea(design, x, y):
    """Bands of waves, each cresting a little differently."""
    for number, name in enumerate(WAVES):
        base = 0.50 + 0.055 * number
        phase = 2.1 * number
        # the inner sine sharpens the crests
        swing = np.sin(6.2 * x + phase + 0.8 * np.sin(6.2 * x + phase))
        design.add(y > base - 0.034 * swing - 0.012 * np.sin(13 * x + phase), name)


def add_fish(design, x, y, fish):
    """One fish: fins, a lens-shaped body with a pale belly, gill, and an eye."""
    cx, cy, half, tilt = fish
    cos, sin = np.cos(tilt), np.sin(tilt)
    u, v = ((x - cx) * cos + (y - cy) * sin) / half, (-(x - cx) * sin + (y - cy) * cos) / half
    v = v - 0.12 * u**2 + 0.04  # an arched back
    depth = 0.34 * np.clip(1 - np.abs(u + 0.0) ** 2.0, 0, 1) ** 0.9 * (1 + 0.25 * u)
    tail = (
        (u < -0.78)
        & (u > -1.20)
        & (np.abs(v) < 0.07 - 0.80 * (u + 0.78))
        & (np.abs(v) > -1.1 * (u + 1.04))
    )
    back = (
        (np.abs(u + 0.02) < 0.40) & (v < 0) & (v > -depth - 0.20 * (1 - ((u + 0.02) / 0.40) ** 2))
    )
    belly = (
        (np.abs(u + 0.15) < 0.16) & (v > 0) & (v < depth + 0.18 * (0.16 - np.abs(u + 0.15)) / 0.16)
    )
    design.add(tail | back | belly, "fin")
    body = np.abs(v) < depth
    design.add(body, "fish")
    design.add(body & (v > 0.28 * depth) & (u < 0.62), "belly")
    design.add(body & (np.abs(u - 0.50 + 0.5 * v**2) < 0.035), "cream")
    eye = np.hypot(u - 0.70, v + 0.04)
    design.add(eye < 0.085, "cream")
    design.add(eye < 0.045, "eye")


def add_frame(design, x, y):
    """A border of a dark line, a row of triangles and another line."""
    wide = SHAPE[1] / SHAPE[0]
    edge = np.minimum(np.minimum(x, wide - x), np.minimum(y, 1 - y))
    sideways = np.minimum(x, wide - x) < np.minimum(y, 1 - y)
    along = np.where(sideways, y * 16, x / wide * 20) % 1
    design.add(edge < 0.085, "cream")
    design.add(edge < 0.072, "key")
    design.add(edge < 0.060, "cream")
    design.add((edge < 0.060) & (np.abs(along - 0.5) * 2 < (edge - 0.012) / 0.048), "band")
    design.add(edge < 0.0125, "key")


def contour_rows(area):
    """Yield (x, y, angle) of tesserae along the contours of every area, from its edge inward, row
    by row."""
    for number in np.unique(area):
        window = ndi.find_objects((area == number).astype(int))[0]
        inner = np.pad(area[window] == number, 1)
        depth = ndi.distance_transform_edt(inner) - 0.5
        level = TILE * 0.45
        while level < depth.max():
            for line in find_contours(depth, level):
                yield from beads(line - 1 + [window[0].start, window[1].start])
            level += TILE * 1.02


def beads(line):
    """Points one tessera apart along a contour of (y, x) rows, with its direction there."""
    gone = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    count = round(float(gone[-1]) / (TILE * 1.04))
    s = (np.arange(max(count, 1)) + 0.5) * gone[-1] / max(count, 1)
    y, x = np.interp(s, gone, line[:, 0]), np.interp(s, gone, line[:, 1])
    ahead, behind = np.minimum(s + 7, gone[-1]), np.maximum(s - 7, 0)
    dy = np.interp(ahead, gone, line[:, 0]) - np.interp(behind, gone, line[:, 0])
    dx = np.interp(ahead, gone, line[:, 1]) - np.interp(behind, gone, line[:, 1])
    return zip(x, y, np.arctan2(dy, dx), strict=True)


class Floor:
    """The bed of grout into which the tesserae are set."""

    def __init__(self, rng):
        self.rng = rng
        self.color = (
            GROUT * (1 + 0.10 * noise(SHAPE, 40, rng) + 0.08 * grain(SHAPE, 1.2, rng))[..., None]
        )
        self.height = 0.25 * grain(SHAPE, 1.5, rng)
        self.free = np.ones(SHAPE, bool)
        self.stone = grain(SHAPE, 1.6, rng) * 0.6 + grain(SHAPE, (1.2, 7), rng) * 0.5

    def lay(self, x, y, angle, color, size=TILE):
        """Set one tessera, cut back where others lie; a mere sliver is left out."""
        rng, reach = self.rng, int(size * 0.8) + 2
        rows = slice(max(0, int(y) - reach), min(SHAPE[0], int(y) + reach + 1))
        cols = slice(max(0, int(x) - reach), min(SHAPE[1], int(x) + reach + 1))
        gy, gx = np.mgrid[rows, cols]
        u, v = gx - x, gy - y
        turn = angle + rng.normal(0, 0.05)
        u, v = u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)
        skew = rng.normal(0, 0.06, 2)
        half_u, half_v = size * rng.normal([0.47, 0.45], 0.025)
        rim = np.minimum(half_u - np.abs(u + skew[0] * v), half_v - np.abs(v + skew[1] * u))
        whole = (rim > 0).sum()
        inside = (rim > 0) & self.free[rows, cols]
        if inside.sum() < 0.42 * whole or not whole:
            return
        self.free[rows, cols] &= ~(rim > -1.6)  # the joint stays clear
        tilt = rng.normal(0, 0.05, 2)
        face = (
            3.2 * np.clip(rim / 3.0, 0, 1) ** 0.6
            + tilt[0] * u
            + tilt[1] * v
            + 0.25 * self.stone[rows, cols]
        )
        self.height[rows, cols][inside] = face[inside]
        shade = (
            color * (1 + 0.05 * self.stone[rows, cols])[..., None] * (1 + 0.9 * (tilt[0] - tilt[1]))
        )
        self.color[rows, cols][inside] = shade[inside]


def fill_gaps(floor, choose):
    """Set small chips into the holes that the rows have left."""
    for size in (0.8, 0.6, 0.45):
        room = ndi.distance_transform_edt(floor.free)
        peak = (room == ndi.maximum_filter(room, 9)) & (room > 0.42 * size * TILE)
        for y, x in np.argwhere(peak):
            if floor.free[y, x]:
                floor.lay(x, y, floor.rng.uniform(0, np.pi), choose(x, y), size * TILE)


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    design = Design()
    add_sun(design, x, y)
    add_sea(design, x, y)
    for fish in FISH:
        add_fish(design, x, y, fish)
    add_frame(design, x, y)
    drift = noise(SHAPE, 260, rng, octaves=2)

    def choose(px, py):
        colors = COLORS[NAMES[sample(design.part, px, py)]]
        return colors[rng.integers(len(colors))] * (1 + 0.07 * sample(drift, px, py)) + rng.normal(
            0, 0.022, 3
        )

    floor = Floor(rng)
    for px, py, angle in contour_rows(design.area):
        floor.lay(px, py, angle, choose(px, py))
    fill_gaps(floor, choose)
    return light(floor.color, floor.height, 0.75, 0.16)
