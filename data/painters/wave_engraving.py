"""Curling waves under a red sun, cut in lines of varying weight: indigo ink and flat washes on
cream paper."""

import numpy as np
from scipy import ndimage as ndi
from skimage.draw import polygon2mask

from painters.surface import grain, grid, noise, palette, paper, smoothstep

SHAPE = (1560, 2048)
PITCH = 11.5  # pixels from line to line
INK, CREAM, MID, PALE, RED, OCHRE = palette(
    "16264f", "f3e7cb", "2f5f94", "a9c3cc", "c8402a", "dba75a"
)
SUN = (0.86, 0.235, 0.125)
# outline of a breaking wave, clockwise from its foot: back, lip, then the hollow face
CURL = np.array(
    [
        (-1.60, 1.30), (-1.35, 0.62), (-1.05, 0.20), (-0.72, -0.16), (-0.36, -0.42),
        (0.02, -0.52), (0.36, -0.46),
        (0.60, -0.28), (0.70, -0.06), (0.66, 0.08), (0.52, -0.06), (0.36, -0.14), (0.18, -0.12),
        (0.04, 0.02),
        (-0.02, 0.22), (0.06, 0.44), (0.28, 0.64), (0.66, 0.78), (1.20, 0.90), (1.90, 1.30),
    ]
)  # fmt: skip
LIP = (0.27, 0.52)  # the stretch of the outline that breaks into foam
WAVES = (  # x, y, scale, and whether the wave breaks to the left
    (1.22, 0.56, 0.16, True),
    (0.20, 0.58, 0.14, False),
    (0.44, 0.40, 0.44, False),
    (1.06, 0.76, 0.24, True),
    (0.16, 0.92, 0.22, False),
)
# base, height, phase
SWELLS = ((0.60, 0.020, 0.5), (0.70, 0.025, 2.2), (0.84, 0.030, 4.0), (0.93, 0.025, 5.5))


def rounded(points, rounds=4):
    """Smooth an open line by cutting its corners repeatedly."""
    for _ in range(rounds):
        early, late = 0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]
        points = np.concatenate(
            [points[:1], np.stack([early, late], axis=1).reshape(-1, 2), points[-1:]]
        )
    return points


class Print:
    """A sheet of paper that takes flat washes and engraved lines."""

    def __init__(self, rng):
        self.rng = rng
        self.color = paper(SHAPE, rng, CREAM)
        self.wood = 0.7 * noise(SHAPE, (7, 500), rng) + 0.5 * noise(SHAPE, (60, 700), rng)
        self.speck = grain(SHAPE, 1.3, rng)
        self.wobble = noise(SHAPE, 130, rng, octaves=2)

    def wash(self, inside, tint, strength):
        """Print a flat colour that shows the grain of the block; `strength` may vary over the
        sheet."""
        cover = np.clip(strength * (0.90 + 0.10 * self.wood + 0.05 * self.speck), 0, 1) * inside
        self.color += (tint - self.color) * cover[..., None]

    def lines(self, inside, distance, weight, tint=INK):
        """Engrave lines along the levels of `distance`; `weight` (0..1) is the share of the paper
        they cover."""
        phase = distance / PITCH + 0.10 * self.wobble
        off_center = np.abs(phase % 1 - 0.5) * 2
        weight = weight + 0.07 * self.wood + 0.05 * self.wobble
        ink = np.clip((weight - off_center) * PITCH / 3 + 0.5, 0, 1) * (weight > 0.06)
        worn = np.clip(0.95 + 0.07 * self.speck + 0.05 * self.wood, 0, 1)
        self.color += (tint - self.color) * (ink * worn * inside)[..., None]

    def outline(self, area, width, tint=INK):
        """Draw the border of an area, swelling and thinning as a knife does."""
        soft = np.minimum(ndi.distance_transform_edt(area), 60) - np.minimum(
            ndi.distance_transform_edt(~area), 60
        )
        line = np.clip(width * (0.5 + 0.18 * self.wobble) - np.abs(soft) + 0.5, 0, 1)
        self.color += (tint - self.color) * line[..., None]


def add_sky(sheet, x, y):
    """A graded sky ruled with lines that part into clouds, and the sun."""
    bands = sheet.wobble * 0.05 + 0.5 * noise(SHAPE, (110, 700), sheet.rng, octaves=3)
    whole = np.ones(SHAPE)
    sheet.wash(whole, PALE, 0.75 * np.exp(-y / 0.22))
    sheet.wash(whole, OCHRE, 0.5 * smoothstep(0.30, 0.62, y))
    far = np.hypot(x - SUN[0], y - SUN[1])
    drift = y * SHAPE[0] + 16 * noise(SHAPE, (160, 500), sheet.rng, octaves=1)
    sheet.lines(
        far > SUN[2] + 0.008, drift, np.clip(0.36 + 0.30 * bands - 0.25 * y, 0.0, 0.75), MID
    )
    sheet.wash(far < SUN[2], RED, 0.92 + 0 * y)
    sheet.lines(
        far < SUN[2], drift, smoothstep(-0.06, 0.12, y - SUN[1]) * 0.55, palette("8a1f1c")[0]
    )
    sheet.outline(far < SUN[2], 5, palette("7a1a1a")[0])


def add_mountain(sheet, x, y):
    """A far snow-topped mountain."""
    side = np.abs(x - 1.13) ** 0.8
    top = 0.40 + 0.62 * side + 0.008 * np.sin(40 * x)
    inside = (y > top) & (y < 0.64)
    snow = y < 0.475 + 0.028 * np.sin(55 * x) + 0.012 * np.sin(131 * x)
    sheet.wash(inside, CREAM, 1.0)
    sheet.wash(inside & ~snow, MID, 0.65)
    slope = ((x - 1.13) * 1.6 + 0.25 * (y - top)) * SHAPE[0]
    sheet.lines(inside & ~snow, slope, 0.30 + 0.35 * (x > 1.13))
    sheet.lines(inside & snow, slope, 0.28 * (x > 1.15))
    sheet.outline(inside, 5)


def add_swell(sheet, x, y, base, swell, phase):
    """An open stretch of sea with rocking lines."""
    top = base + swell * (np.sin(5.5 * x + phase) + 0.4 * np.sin(12 * x + 2 * phase))
    inside = y > top
    depth = (y - top) * SHAPE[0]
    sheet.wash(inside, CREAM, 1.0)
    sheet.wash(inside, MID, 0.25 + 0.55 * np.exp(-depth / 60))
    ripple = depth + 26 * np.sin(9 * x + phase + 8 * y) + 14 * sheet.wobble
    sheet.lines(inside, ripple, 0.40 + 0.28 * np.sin(depth / 34 + 6 * x + phase))
    sheet.outline(inside, 6)


def foam_discs(line, normals, scale, rng):
    """Discs (x, y, radius) of foam along the lip: a scalloped hem with hooked fingers reaching out
    of it."""
    discs = []
    for at in np.linspace(0, len(line) - 1, 90).astype(int):
        size = scale * rng.uniform(0.045, 0.085) * (0.5 + 0.9 * at / len(line))
        discs.append((*(line[at] - normals[at] * size * rng.uniform(-0.2, 0.7)), size))
    for at in np.linspace(0.1, 0.99, 26) * (len(line) - 1):
        place, size = line[int(at)].copy(), scale * rng.uniform(0.030, 0.05)
        heading = np.arctan2(normals[int(at), 1], normals[int(at), 0]) - 0.2
        for _ in range(rng.integers(7, 12)):
            place = place + 0.85 * size * np.array([np.cos(heading), np.sin(heading)])
            heading += rng.uniform(0.05, 0.32)
            discs.append((*place, size))
            size *= 0.88
    return discs


def disc_mask(x, y, discs):
    """Union of discs."""
    mask = np.zeros(SHAPE, bool)
    for cx, cy, radius in discs:
        rows = slice(
            max(0, int((cy - radius) * SHAPE[0])), max(0, int((cy + radius) * SHAPE[0]) + 2)
        )
        cols = slice(
            max(0, int((cx - radius) * SHAPE[0])), max(0, int((cx + radius) * SHAPE[0]) + 2)
        )
        mask[rows, cols] |= np.hypot(x[rows, cols] - cx, y[rows, cols] - cy) < radius
    return mask


def add_wave(sheet, x, y, wave):
    """A breaking wave: striped body, foam along the lip and spray before it."""
    cx, cy, scale, mirrored = wave
    side = np.array([-1.0 if mirrored else 1.0, 1.0])
    line = rounded(CURL) * side * scale + (cx, cy)
    body = polygon2mask(SHAPE, line[:, ::-1] * SHAPE[0])
    depth = ndi.distance_transform_edt(body)
    # rounds the folds where lines from both sides meet
    depth = ndi.gaussian_filter(depth, 0.05 * scale * SHAPE[0])
    sheet.wash(body, CREAM, 1.0)
    stripe = np.sin(depth / (0.052 * scale * SHAPE[0]) + 0.5 * sheet.wobble + 2.5)
    sheet.wash(body, MID, 0.85 * smoothstep(-0.35, -0.15, stripe))
    sheet.wash(body, INK, 0.9 * smoothstep(0.45, 0.6, stripe))
    sheet.lines(body, depth, 0.34 + 0.20 * stripe)
    sheet.lines(body & (stripe > 0.6), depth, 0.28 + 0 * depth, PALE)
    sheet.outline(body, 9)
    add_foam(sheet, x, y, line, scale, mirrored)


def add_foam(sheet, x, y, line, scale, mirrored):
    """Foam with stippled shade along the lip of a wave, and spray flying off."""
    lip = line[int(LIP[0] * len(line)) : int(LIP[1] * len(line))]
    along = np.gradient(lip, axis=0)
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1) * (-1 if mirrored else 1)
    normals /= np.hypot(normals[:, 0], normals[:, 1])[:, None]
    foam = disc_mask(x, y, foam_discs(lip, normals, scale, sheet.rng))
    deep = ndi.distance_transform_edt(foam)
    sheet.wash(foam, CREAM, 1.0)
    sheet.lines(foam, deep + 4, 0.30 * np.exp(-deep / 30) + 0.05 * sheet.wobble, MID)
    sheet.outline(foam, 6)
    count = int(500 * scale)
    start = lip[sheet.rng.integers(0, len(lip), count)]
    flight = np.abs(sheet.rng.normal(0, 0.30 * scale, (count, 1))) * [(-1 if mirrored else 1), 0.3]
    spray = start + flight + sheet.rng.normal(0, 0.10 * scale, (count, 2))
    drops = disc_mask(x, y, [(*spot, sheet.rng.uniform(0.002, 0.0055)) for spot in spray]) & ~foam
    sheet.wash(drops, CREAM, 1.0)
    sheet.outline(drops, 3)


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    sheet = Print(rng)
    add_sky(sheet, x, y)
    add_mountain(sheet, x, y)
    add_swell(sheet, x, y, *SWELLS[0])
    for wave in WAVES[:2]:
        add_wave(sheet, x, y, wave)
    add_swell(sheet, x, y, *SWELLS[1])
    add_wave(sheet, x, y, WAVES[2])
    add_swell(sheet, x, y, *SWELLS[2])
    add_wave(sheet, x, y, WAVES[3])
    add_swell(sheet, x, y, *SWELLS[3])
    return sheet.color * (1 + 0.012 * sheet.speck)[..., None]
