"""A river bend on a summer evening, built of small dots of divided and complementary colour."""

import numpy as np

from painters.brush import Brush, Canvas, scaled
from painters.surface import grid, light, mix, noise, palette, put, ramp, smoothstep, weave

SHAPE = (1560, 2048)
SKY = palette("7fa8d8", "a9c3e0", "e6d3c8", "f8c98e", "f6a45c")
WATER = palette("f2b46c", "e8c6a8", "8fb6cf", "4f86b8", "35609a")
MEADOW = palette("2f5f45", "55894a", "93ad55", "dccb6a")
FOLIAGE = palette("1c3354", "235247", "447a42", "8fa64a", "e8c258")
HILLS = palette("5a6aa8", "8a86bc", "c09ab0")
SUN = (0.93, 0.315, 0.055)
TREES = (  # x and y of the crown, radius
    (0.13, 0.20, 0.17),
    (0.02, 0.36, 0.15),
    (0.25, 0.34, 0.115),
    (0.15, 0.46, 0.12),
    (1.26, 0.27, 0.12),
    (1.19, 0.37, 0.07),
    (1.31, 0.40, 0.09),
)
# x and y of the hull, height of the sail
SAILS = ((0.62, 0.50, 0.15), (0.79, 0.455, 0.075), (0.475, 0.445, 0.05))
FLOWERS = palette("e8432e", "f28c28", "f4f0dc", "b04fa0")
DOTS = Brush(
    17,
    15,
    streak=0.05,
    dry=0.05,
    relief=1.0,
    value_jitter=0.05,
    hue_jitter=0.05,
    turn=1.5,
    spacing=0.62,
)


def scenery(x, y, rng):
    """Sky, far hills, water and the two banks."""
    cloud = 0.10 * noise(x.shape, (90, 420), rng)
    image = ramp(np.clip(y / 0.42 + cloud, 0, 1), SKY)
    far = np.hypot(x - SUN[0], y - SUN[1])
    image = mix(image, palette("ffd98a")[0], 0.75 * np.exp(-((far / 0.17) ** 2)))
    image = mix(image, palette("fff4c4")[0], 1 - smoothstep(SUN[2] * 0.9, SUN[2] * 1.1, far))
    ridge = 0.37 + 0.02 * np.sin(5 * x + 1) + 0.012 * np.sin(13 * x)
    image = put(image, y > ridge, ramp(np.clip((y - ridge) * 12 + cloud, 0, 1), HILLS))
    glitter = np.exp(-(((x - SUN[0]) / (0.03 + 0.10 * (y - 0.42))) ** 2)) * 0.7
    ripple = 0.13 * noise(x.shape, (16, 130), rng, octaves=3)
    water = mix(
        ramp(np.clip((y - 0.42) / 0.45 + ripple, 0, 1), WATER),
        palette("ffe09a")[0],
        glitter * (ripple > -0.02),
    )
    return put(image, y > 0.42, water)


def bank_edge(x):
    """Height of the edge of the near bank."""
    return (
        0.93
        - 0.36 * np.exp(-((x / 0.52) ** 2))
        - 0.16 * smoothstep(1.0, 1.4, x)
        + 0.008 * np.sin(24 * x)
    )


def add_bank(x, y, image, rng):
    """The near meadow with its path of light and flowers, and a strip of far shore."""
    shore = (y > 0.415) & (y < 0.432 + 0.012 * np.sin(6 * x + 2)) & (np.abs(x - 0.66) > 0.13)
    image = put(image, shore, ramp(np.clip(0.4 + 0.2 * noise(x.shape, 60, rng), 0, 1), MEADOW))
    depth = y - bank_edge(x)
    tone = 0.62 - 1.6 * depth + 0.16 * noise(x.shape, (60, 200), rng)
    meadow = ramp(np.clip(tone, 0, 1), MEADOW)
    shadow = smoothstep(0.1, 0.5, np.sin(9 * (y + 0.25 * x)) + 0.3 * noise(x.shape, 200, rng) - 0.2)
    meadow = mix(meadow, palette("2f4a7a")[0], 0.62 * shadow)
    return put(image, depth > 0, meadow)


def add_trees(x, y, image, rng):
    """Round crowns lit from the sun's side, on violet trunks."""
    for cx, cy, radius in TREES:
        foot = bank_edge(cx) + 0.03 + 0.3 * radius
        trunk = (np.abs(x - cx - 0.012 * np.sin(9 * y)) < 0.11 * radius) & (y > cy) & (y < foot)
        image = put(image, trunk, palette("46325e")[0])
    leaves = noise(x.shape, 90, rng)
    for cx, cy, radius in TREES:
        dx, dy = (x - cx) / radius, (y - cy) / radius
        crown = dx**2 + dy**2 + 0.22 * leaves < 1
        tone = 0.42 + 0.26 * dx - 0.22 * dy + 0.15 * leaves
        image = put(image, crown, ramp(np.clip(tone, 0, 1), FOLIAGE))
    return image


def add_boats(x, y, image):
    """Sailing boats with their reflections."""
    for cx, cy, tall in SAILS:
        for sign, strength in ((1, 1.0), (-0.8, 0.55)):
            up = (cy - y) / tall * sign
            sail = (up > 0.08) & (up < 1) & (np.abs(x - cx - 0.10 * tall) < 0.34 * tall * (1 - up))
            hue = mix(
                palette("fff2dc")[0],
                palette("e87f5a")[0],
                smoothstep(0, 0.06, (x - cx) / tall - 0.1),
            )
            image = mix(image, hue, sail * strength)
            hull = (up < 0.09) & (up > -0.04) & (np.abs(x - cx) < 0.42 * tall)
            image = mix(image, palette("6a2a3a")[0], hull * strength)
    return image


def add_stroller(x, y, image):
    """A woman in a long dress under a red parasol, with her shadow on the grass."""
    # from the hem of the dress, in units of about half her height
    u, v = (x - 0.47) / 0.1, (y - 0.80) / 0.1
    shadow = ((u + 1.3) / 1.4) ** 2 + ((v + 0.02) / 0.13) ** 2 < 1
    image = put(image, shadow, palette("2a3f70")[0])
    flare = 0.17 + 0.30 * smoothstep(-1.2, 0.1, v)
    dress = (np.abs(u) < flare) & (v > -1.25) & (v < 0)
    image = put(
        image, dress, mix(palette("4a2f7a")[0], palette("c05a8a")[0], smoothstep(-0.2, 0.35, u))
    )
    bodice = (np.abs(u) < 0.20) & (v > -1.75) & (v <= -1.2)
    image = put(image, bodice, palette("2f2358")[0])
    image = put(image, np.hypot(u, v + 1.92) < 0.21, palette("3a1f30")[0])
    image = put(image, (np.abs(u - 0.30) < 0.035) & (v > -2.6) & (v < -1.5), palette("4a2a2a")[0])
    shade = (((u - 0.25) / 0.85) ** 2 + ((v + 2.15) / 0.62) ** 2 < 1) & (v < -2.15)
    return put(
        image, shade, mix(palette("a82030")[0], palette("ff9a5a")[0], smoothstep(-0.4, 1.0, u))
    )


def divided(image, rng):
    """Shift each spot of an image to one of its partial colours: warm light, cool shade, complement
    or itself."""
    choice = rng.random(image.shape[:2])
    gray = image.mean(axis=-1, keepdims=True)
    vivid = gray + 1.3 * (image - gray)
    complement = np.clip(gray - 1.1 * (image - gray), 0, 1) * 0.75 + 0.2
    warm, cool = palette("ffc84a", "3a56b0")
    parts = ((0.14, mix(image, warm, 0.5)), (0.27, mix(image, cool, 0.38)), (0.35, complement))
    result = vivid
    for limit, part in reversed(parts):
        result = np.where((choice < limit)[..., None], part, result)
    return result


def paint(rng):
    """Paint the picture; returns RGB in 0..1."""
    x, y = grid(SHAPE)
    image = add_boats(x, y, add_trees(x, y, add_bank(x, y, scenery(x, y, rng), rng), rng))
    image = add_stroller(x, y, image)
    flowers = 0.10 * (y > np.maximum(0.8, bank_edge(x) + 0.02))
    canvas = Canvas(np.broadcast_to(palette("efe2c6")[0], (*SHAPE, 3)), rng)
    level = np.zeros(SHAPE, np.float32)
    for factor, chance in ((1.25, 1.0), (1.0, 0.9), (0.72, 0.85)):
        canvas.layer(scaled(DOTS, factor), divided(image, rng), level, np.full(SHAPE, chance))
    blossom = FLOWERS[rng.integers(0, len(FLOWERS), SHAPE)]
    canvas.layer(DOTS, blossom, level, flowers)
    return light(canvas.color, canvas.height + 0.2 * weave(SHAPE, rng), 0.5, 0.05)
