"""A night sky of turning currents and glowing discs above hills, in thick curved strokes."""

import numpy as np

from painters.brush import Brush, Canvas, scaled
from painters.surface import (
    contour_angle,
    grid,
    light,
    mix,
    noise,
    palette,
    put,
    ramp,
    smoothstep,
    streaks,
    unit,
    weave,
)

SHAPE = (1600, 2048)
SKY = palette("0b1437", "16307a", "1f4fa3", "3b7fc4", "7fb6d6", "cfe3cf")
GLOW = palette("fff6c9", "ffe27a", "f6b73c", "d9c46a", "7fb39a", "3f7fae")
HILLS = palette("0a1a3a", "14365e", "1e5a74", "3f7f7a", "7fa06a")
FIELD = palette("5a3d1e", "a8702a", "d99a34", "efc85a", "8f9a4a")
BUSH = palette("0a2030", "14443f", "2f7050", "8fb060")
TREE = palette("07120f", "12291d", "26462a", "5a5a2a")
DISCS = (  # x, y, radius, turning sense
    (0.21, 0.16, 0.085, 1),
    (1.16, 0.11, 0.05, 1),
    (0.89, 0.10, 0.042, -1),
    (0.55, 0.09, 0.038, 1),
    (0.07, 0.43, 0.045, -1),
    (0.36, 0.47, 0.028, 1),
    (1.235, 0.36, 0.036, -1),
    (0.86, 0.43, 0.03, 1),
)
SWIRLS = ((0.645, 0.27, 0.17, 1), (0.42, 0.30, 0.085, 1))  # as above


def horizon(x, base, swell, phase):
    """Height of a rolling hill line at x."""
    return base + swell * (np.sin(4.1 * x + phase) + 0.45 * np.sin(9.7 * x + 2.3 * phase))


def sky_angle(x, y, rng):
    """Direction of the sky: a wavy wind, bent round each disc and drawn into each swirl."""
    wind = 0.35 * np.sin(5 * x + 1.0) + 0.3 * noise(x.shape, 700, rng, octaves=1)
    u, v = np.cos(wind), np.sin(wind)
    for cx, cy, radius, sense, inward in [(*swirl, 0.22) for swirl in SWIRLS] + [
        (*disc, 0.0) for disc in DISCS
    ]:
        dx, dy = x - cx, y - cy
        distance = np.hypot(dx, dy) + 1e-6
        pull = 9 * np.exp(-((distance / (1.45 * radius)) ** 2))
        u += pull * sense * (-dy * 1.0 - sense * inward * dx) / distance
        v += pull * sense * (dx * 1.0 - sense * inward * dy) / distance
    return np.arctan2(v, u)


def sky_color(x, y, angle, rng):
    """Blue bands along the currents, pale in the swirls, with haloed discs."""
    bands = 0.40 + 0.20 * streaks(angle, rng, 60) + 0.22 * smoothstep(0.2, 0.72, y)
    for cx, cy, radius, _ in SWIRLS:
        distance = np.hypot(x - cx, y - cy) / radius
        turn = np.arctan2(y - cy, x - cx)
        # one pale spiral arm
        bands += np.exp(-(distance**2)) * (0.14 + 0.30 * np.sin(turn - 6.5 * distance))
    image = ramp(np.clip(bands, 0, 1), SKY)
    for cx, cy, radius, _ in DISCS:
        distance = np.hypot(x - cx, y - cy) / radius
        rings = distance / 2.1 + 0.05 * np.sin(distance * 9)
        image = mix(image, ramp(np.clip(rings, 0, 1), GLOW), 1 - smoothstep(1.1, 2.2, distance))
    return image


def add_land(x, y, image, angle, rng):
    """Paint three hill ranges and a field of corn over the sky; returns image and angle."""
    for base, swell, phase, colors in (
        (0.66, 0.035, 0.4, HILLS),
        (0.73, 0.03, 2.6, HILLS),
        (0.81, 0.025, 4.4, FIELD),
    ):
        top = horizon(x, base, swell, phase)
        inside = y > top
        depth = (y - top) * (1 if colors is HILLS else 0.8)
        slope = contour_angle(depth + 0.012 * noise(x.shape, 260, rng, octaves=1), 12)
        angle = np.where(inside, slope, angle)
        tone = unit(streaks(slope, rng, 50)) + 0.5 * np.exp(-depth / 0.02) - 0.1
        image = put(image, inside, ramp(np.clip(tone, 0, 1), colors))
    return image, angle


def add_bushes(x, y, image, angle, rng):
    """Dot the hills with round bushes, each lit from above and brushed in a circle."""
    for cx in np.sort(rng.uniform(0, 1.0, 34)):
        near = rng.random()
        cy, radius = horizon(cx, 0.675 + 0.125 * near, 0.03, 0.4 + 2.2 * near), 0.013 + 0.016 * near
        dx, dy = x - cx, (y - cy) * 1.15
        inside = np.hypot(dx, dy) < radius * (1 + 0.15 * np.sin(5 * np.arctan2(dy, dx) + 40 * cx))
        tone = 0.45 - 0.38 * dy / radius - 0.2 * dx / radius
        image = put(image, inside, ramp(np.clip(tone, 0, 1), BUSH))
        angle = np.where(inside, np.arctan2(dx, -dy), angle)
    return image, angle


def add_tree(x, y, image, angle, foot, tip, girth, rng):
    """Paint one flame-shaped tree standing at x = `foot` and reaching up to y = `tip`."""
    rise = np.clip((1.12 - y) / (1.12 - tip), 0, 1)
    sway = foot + 0.016 * np.sin(11 * rise + foot)
    breadth = (
        girth
        * (1 - rise) ** 0.75
        * (1 + 0.25 * np.sin(27 * rise + 9 * foot + 3 * np.sign(x - sway)))
    )
    inside = (np.abs(x - sway) < breadth) & (y > tip)
    flame = -np.pi / 2 + 0.45 * np.sin(22 * y + 30 * (x - sway)) + 4.5 * (sway - x)
    angle = np.where(inside, flame, angle)
    tone = 0.36 + 0.22 * streaks(flame, rng, 40)
    return put(image, inside, ramp(np.clip(tone, 0, 1), TREE)), angle


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    angle = sky_angle(x, y, rng)
    image = sky_color(x, y, angle, rng)
    image, angle = add_land(x, y, image, angle, rng)
    image, angle = add_bushes(x, y, image, angle, rng)
    for foot, tip, girth in ((1.055, 0.20, 0.115), (1.175, 0.52, 0.09)):
        image, angle = add_tree(x, y, image, angle, foot, tip, girth, rng)
    # a dark first state, so that gaps between strokes deepen the colour
    canvas = Canvas(0.7 * image, rng)
    loaded = Brush(
        width=26, length=150, dry=0.3, value_jitter=0.05, hue_jitter=0.032, relief=1.2, streak=0.15
    )
    canvas.layer(loaded, image, angle)
    canvas.layer(scaled(loaded, 0.62, value_jitter=0.09), image, angle)
    canvas.layer(scaled(loaded, 0.45, value_jitter=0.11, relief=1.6, spacing=1.0), image, angle)
    height = canvas.height + 0.12 * weave(SHAPE, rng)
    return light(canvas.color, height, 1.25, 0.10)
