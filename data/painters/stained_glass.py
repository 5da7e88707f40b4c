"""A leaded window: a many-ringed sun over hills, a river and two trees in streaky, hammered and
seedy glass."""

import numpy as np
from scipy import ndimage as ndi

from painters.surface import grain, grid, light, mix, noise, palette, smoothstep, unit

SHAPE = (1600, 2048)
SUN = (0.80, 0.36)
RINGS = (0.055, 0.105, 0.165, 0.235)  # outer radii of the sun's rings
PETALS = (1, 8, 16, 24)  # panes in each ring
RAYS = 32
LEAD = 5.6  # half width of the lead
GLASS = {  # the colours of each part of the window
    "ring0": palette("fff3b0", "ffe680"),
    "ring1": palette("ffb52a", "ff8a1f"),
    "ring2": palette("e8302a", "ffc43a", "b81f3a"),
    "ring3": palette("ff9a2a", "f4572a", "ffd95a"),
    "sky": palette("0f3f9f", "2f86d8", "123a8a", "58b8e0", "1f5fc4", "6a3fb0", "a8dcec", "2a6fd0"),
    "range": palette("4a2a8a", "2a4fa8", "7a3f9a", "2f3f8a"),
    "hill": palette("0f6a4a", "3fae4a", "1f8a6a", "8fd04a"),
    "river": palette("8fe8e8", "1f9fd0", "d8f8f0", "0f6fb8", "3fc8d8"),
    "meadow": palette("d8d83a", "6fb82f", "f0b82a", "2f8a3a", "c84a1f"),
    "trunk": palette("7a3a1f", "a85a2a", "5a2440"),
    "leaf": palette("0f7a3a", "6fc83a", "c8e04a", "0a5a4a", "e8902a"),
    "frame": palette("a81f2a", "1f3f9f", "e8a82a", "a81f2a", "0f6a5a"),
}
PARTS = tuple(GLASS)
# pane sizes
CELLS = {"sky": 105, "range": 90, "hill": 110, "river": 62, "meadow": 76, "trunk": 120, "leaf": 56}
# x and y of the crown, radius, trunk half width
TREES = ((0.20, 0.40, 0.19, 0.05), (1.17, 0.58, 0.115, 0.03))


def parts_of(x, y, rng):
    """Number of the window part (index into PARTS) at every pixel."""
    part = np.full(SHAPE, PARTS.index("sky"))
    far = np.hypot(x - SUN[0], y - SUN[1])
    for ring, radius in reversed(list(enumerate(RINGS))):
        part[far < radius] = PARTS.index(f"ring{ring}")
    part[y > 0.50 + 0.05 * np.sin(4 * x + 0.6) + 0.03 * np.sin(9 * x)] = PARTS.index("range")
    part[y > 0.60 + 0.05 * np.sin(3.2 * x + 3.6)] = PARTS.index("hill")
    part[y > 0.79 + 0.05 * np.sin(3.7 * x + 1.1)] = PARTS.index("meadow")
    fall = np.clip((y - 0.585) / 0.415, 0, 1)
    course = 0.72 + 0.20 * np.sin(6.8 * fall**0.8) * (0.35 + fall)
    part[(np.abs(x - course) < 0.02 + 0.13 * fall**1.3) & (y > 0.585)] = PARTS.index("river")
    lumps = noise(SHAPE, 170, rng, octaves=2)
    for cx, cy, radius, half in TREES:
        stem = cx + 0.025 * np.sin(8 * (y - cy))
        part[
            (np.abs(x - stem) < half * (0.6 + 0.9 * smoothstep(0.6, 1, y))) & (y > cy) & (y < 0.93)
        ] = PARTS.index("trunk")
        part[((x - cx) ** 2 + (y - cy) ** 2) / radius**2 + 0.30 * lumps < 1] = PARTS.index("leaf")
    return part


def voronoi(cell, rng):
    """Panes around scattered seeds about `cell` pixels apart."""
    rows, cols = np.mgrid[cell // 2 : SHAPE[0] : cell, cell // 2 : SHAPE[1] : cell]
    shake = rng.uniform(-0.42, 0.42, (2, *rows.shape)) * cell
    empty = np.ones(SHAPE, bool)
    empty[
        np.clip(rows + shake[0], 0, SHAPE[0] - 1).astype(int),
        np.clip(cols + shake[1], 0, SHAPE[1] - 1).astype(int),
    ] = False
    near = ndi.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return near[0] * SHAPE[1] + near[1]


def rays(x, y):
    """Panes of the sky: rays from the sun, broken at staggered distances."""
    turn = np.arctan2(y - SUN[1], x - SUN[0]) + 0.05 * np.sin(14 * np.hypot(x - SUN[0], y - SUN[1]))
    ray = np.floor((turn / (2 * np.pi) + 0.5) * RAYS) % RAYS
    step = np.floor((np.hypot(x - SUN[0], y - SUN[1]) + 0.045 * np.sin(3.7 * ray)) / 0.095)
    return (ray * 40 + step).astype(int)


def frame_panes(x, y):
    """Number of the pane in the window's frame, or -1 inside it."""
    wide = SHAPE[1] / SHAPE[0]
    edge = np.minimum(np.minimum(x, wide - x), np.minimum(y, 1 - y))
    sideways = np.minimum(x, wide - x) < np.minimum(y, 1 - y)
    along = np.where(sideways, y * 14.0, x / wide * 18.0).astype(int)
    return np.where(
        edge < 0.036,
        along + 100 * sideways + 1000 * ((x > wide / 2) & sideways) + 3000 * (y > 0.5),
        -1,
    )


def panes_of(x, y, part, rng):
    """Give every pane of the window a number; `part` gets the frame added."""
    pane = np.zeros(SHAPE, np.int64)
    for name, cell in CELLS.items():
        here = part == PARTS.index(name)
        pane[here] = (rays(x, y) if name == "sky" else voronoi(cell, rng))[here]
    turn = np.arctan2(y - SUN[1], x - SUN[0]) / (2 * np.pi) + 0.5
    for ring, petals in enumerate(PETALS):
        here = part == PARTS.index(f"ring{ring}")
        pane[here] = ((turn * petals + 0.5 * ring) % petals).astype(int)[here]
    frame = frame_panes(x, y)
    part[frame >= 0] = PARTS.index("frame")
    pane[frame >= 0] = frame[frame >= 0]
    return np.unique(part * 10_000_000 + pane, return_inverse=True)[1].reshape(SHAPE)


def glass_colors(pane, part, rng):
    """Colour of every pane: one of its part's glasses, each sheet a little different."""
    count = pane.max() + 1
    first = np.unique(pane, return_index=True)[1]
    part_of_pane = part.ravel()[first]
    table = np.zeros((count, 3), np.float32)
    for number, name in enumerate(PARTS):
        mine = np.flatnonzero(part_of_pane == number)
        table[mine] = GLASS[name][rng.integers(0, len(GLASS[name]), len(mine))]
    return np.clip(
        table * np.exp(rng.normal(0, 0.16, (count, 1))) + rng.normal(0, 0.025, (count, 3)), 0.02, 1
    )


def sheets(rng):
    """Textures of the glass: streaky, wispy, hammered, rippled and seedy, all of about the same
    strength."""
    streaky = 0.8 * noise(SHAPE, (24, 340), rng) + 0.5 * grain(SHAPE, (2, 26), rng)
    wispy = 0.8 * noise(SHAPE, (300, 40), rng) + 0.5 * grain(SHAPE, (24, 2.5), rng)
    hammered = 0.7 * grain(SHAPE, 5, rng) + 0.6 * noise(SHAPE, 150, rng)
    wobble = noise(SHAPE, 160, rng, octaves=2)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    rippled = np.sin((y + 0.6 * x) / 6.5 + 2.2 * wobble) + 0.6 * wobble
    seeds = rng.random(SHAPE) < 0.0011
    bubble = ndi.distance_transform_edt(~seeds)
    seedy = (
        2.2 * np.exp(-(((bubble - 5) / 1.6) ** 2))
        - 1.2 * (bubble < 4)
        + 0.6 * noise(SHAPE, 120, rng)
    )
    fine = 0.36 * grain(SHAPE, 2.2, rng)
    return [sheet / sheet.std() + fine for sheet in (streaky, wispy, hammered, rippled, seedy)]


def textured(pane, rng):
    """Pick a sheet for every pane and cut it from a place of its own."""
    choice = rng.integers(0, 5, pane.max() + 1)[pane]
    shift = rng.integers(0, 900, (pane.max() + 1, 2))[pane]
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    # mirrored, so no seam shows
    y, x = (SHAPE[0] - 1 - np.abs(y - shift[..., 0])), np.abs(x - shift[..., 1])
    result = np.zeros(SHAPE, np.float32)
    for number, sheet in enumerate(sheets(rng)):
        result = np.where(choice == number, sheet[y, x], result)
    return result


def brushwork(x, y, pane, part, away, rng):
    """Opacity of the glass paint: veins on leaves and fields, ripples on water, a rim on sun and
    frame panes."""
    count = pane.max() + 1
    turn = rng.uniform(0, np.pi, count)[pane]
    wobble = 0.9 * noise(SHAPE, 110, rng, octaves=2)
    vein = np.sin((x * np.cos(turn) + y * np.sin(turn)) * SHAPE[0] / 3.6 + wobble)
    ripple = np.sin((y + 0.012 * np.sin(30 * x)) * SHAPE[0] / 4.2 + 2 * wobble)
    painted = (rng.random(count) < 0.45)[pane]
    patchy = smoothstep(-0.4, 0.8, noise(SHAPE, 60, rng, octaves=2)) * smoothstep(
        LEAD + 3, LEAD + 9, away
    )
    leafy = np.isin(
        part, [PARTS.index(name) for name in ("leaf", "hill", "meadow", "trunk", "range")]
    )
    lines = smoothstep(0.62, 0.85, np.where(part == PARTS.index("river"), ripple, vein))
    rimmed = np.isin(part, [PARTS.index(name) for name in ("ring1", "ring2", "ring3", "frame")])
    rim = np.exp(-(((away - LEAD - 9) / 1.7) ** 2)) + lines * (away > LEAD + 16) * painted
    opacity = lines * patchy * painted * (leafy | (part == PARTS.index("river"))) + rim * rimmed
    return np.clip(opacity * (1 + 0.15 * grain(SHAPE, 1, rng)), 0, 1)


def leading(pane):
    """Distance from the nearest border of two panes."""
    border = np.zeros(SHAPE, bool)
    border[:, 1:] |= pane[:, 1:] != pane[:, :-1]
    border[1:] |= pane[1:] != pane[:-1]
    return ndi.distance_transform_edt(~border)


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    part = parts_of(x, y, rng)
    pane = panes_of(x, y, part, rng)
    away = leading(pane)
    color = glass_colors(pane, part, rng)[pane]
    texture = textured(pane, rng)
    daylight = 0.80 + 0.35 * np.exp(-((np.hypot(x - SUN[0], y - SUN[1]) / 0.5) ** 2))
    tone = daylight * (1 + 0.24 * texture) * (0.62 + 0.38 * smoothstep(LEAD, LEAD + 26, away))
    glass = (
        color ** (1 / np.clip(1.25 * tone, 0.4, 2.4))[..., None]
        * np.clip(1.1 * tone, 0, 1.2)[..., None]
    )
    glass = light(glass, texture, 0.35, 0.10)
    glass = mix(
        glass, palette("2a140a")[0] * (0.4 + color), 0.75 * brushwork(x, y, pane, part, away, rng)
    )
    width = LEAD * (1 + 0.12 * noise(SHAPE, 120, rng))
    inside = np.clip(away / width, 0, 1)
    came = np.sqrt(1 - inside**2) * 9 + 0.5 * grain(SHAPE, 1.5, rng)
    metal = light(np.broadcast_to(palette("25242b")[0], (*SHAPE, 3)), came, 0.9, 0.30)
    window = np.where((away < width)[..., None], metal, glass)
    halo = ndi.gaussian_filter(np.where((away < width)[..., None], 0, glass), (14, 14, 0))
    return window + 0.16 * halo * unit(daylight)[..., None]
