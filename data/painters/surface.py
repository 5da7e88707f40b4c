"""Shared groundwork of the pictures: coordinates, palettes, noise, flow fields, relief light and
supports."""

import numpy as np
from PIL import Image
from scipy import ndimage as ndi

LONG_SIDE = 2048  # every picture is painted at this size and then reduced, which smooths all edges


def grid(shape):
    """Return x and y of every pixel in units of the picture's height (y runs from 0 at the top to
    1)."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x / height, y / height


def palette(*codes):
    """Turn hex codes such as "f2c14e" into an array of RGB rows in 0..1."""
    return (
        np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in codes], np.float32)
        / 255
    )


def ramp(t, colors):
    """Look up t (0..1, any shape) on the gradient through the given colours."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(t, stops, colors[:, c]) for c in range(3)], axis=-1).astype(
        np.float32
    )


def unit(field):
    """Stretch a field to fill 0..1."""
    low, high = field.min(), field.max()
    return (field - low) / (high - low)


def smoothstep(low, high, value):
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(base, top, amount):
    """Lay colour `top` over the image `base` with an opacity per pixel (or one for all)."""
    amount = np.asarray(amount, np.float32)
    return base + (top - base) * (amount[..., None] if amount.ndim == 2 else amount)


def put(image, inside, color):
    """Replace the pixels of `image` where `inside` holds by a colour or another image."""
    return np.where(inside[..., None], color, image)


def noise(shape, cell, rng, octaves=4):
    """Fractal noise of zero mean and unit deviation whose largest lumps measure `cell` (a number or
    (y, x)) pixels."""
    cell = np.broadcast_to(np.asarray(cell, float), 2)
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows, cols = (
            int(np.ceil(n / max(c / 2**octave, 1))) + 3 for n, c in zip(shape, cell, strict=True)
        )
        lattice = Image.fromarray(rng.standard_normal((rows, cols)).astype(np.float32))
        # bicubic edges are flat, so the outermost lattice points are left out
        box = (1, 1, cols - 1, rows - 1)
        total += (
            np.asarray(lattice.resize(shape[::-1], Image.Resampling.BICUBIC, box=box)) / 2**octave
        )
    return (total - total.mean()) / total.std()


def grain(shape, sigma, rng):
    """White noise blurred by `sigma` (a number or (y, x)), brought back to unit deviation."""
    field = ndi.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return field / field.std()


def sample(field, x, y):
    """Read a field at the pixels nearest to the given positions, holding at the border."""
    height, width = field.shape[:2]
    return field[
        np.clip(np.rint(y).astype(int), 0, height - 1),
        np.clip(np.rint(x).astype(int), 0, width - 1),
    ]


def trace(angle, starts, steps, stride):
    """Follow an angle field from each (x, y) start; returns paths of shape (starts, steps, 2),
    start in the middle."""
    ahead, back = [starts], []
    for side, sign in ((ahead, 1), (back, -1)):
        point = starts
        for _ in range(steps // 2):
            heading = sample(angle, point[:, 0], point[:, 1])
            point = point + sign * stride * np.stack([np.cos(heading), np.sin(heading)], axis=1)
            side.append(point)
    return np.stack(back[::-1] + ahead, axis=1)


def streaks(angle, rng, cell, steps=24, reduce=4):
    """Noise of lumps `cell` pixels wide smeared along an angle field, of zero mean and unit
    deviation.

    The smear is 3 * steps * reduce pixels long; it is worked out on a grid `reduce` times coarser.
    """
    small = angle[::reduce, ::reduce]
    lumps = noise(small.shape, cell / reduce, rng, octaves=2)
    y, x = np.mgrid[0 : small.shape[0], 0 : small.shape[1]]
    paths = trace(small, np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32), steps, 3)
    bands = sample(lumps, paths[..., 0], paths[..., 1]).mean(axis=1).reshape(small.shape)
    wide = Image.fromarray(bands.astype(np.float32)).resize(
        angle.shape[::-1], Image.Resampling.BICUBIC
    )
    bands = np.asarray(wide)
    return (bands - bands.mean()) / bands.std()


def contour_angle(field, blur):
    """Angle of the level lines of a field, after smoothing it by `blur` pixels."""
    smooth = ndi.gaussian_filter(field.astype(np.float32), blur)
    dy, dx = np.gradient(smooth)
    return np.arctan2(dx, -dy)


def light(color, height, relief, gloss, toward=(-0.6, -0.8)):
    """Light a painted relief from the direction `toward` (x, y): facing slopes brighten and glint,
    others darken."""
    dy, dx = np.gradient(height)
    slope = -(dx * toward[0] + dy * toward[1]) * -relief
    facing = slope / np.sqrt(1 + slope * slope)
    lit = color * (1 + 0.42 * facing)[..., None]
    return lit + gloss * (np.clip(facing, 0, 1) ** 3)[..., None]


def weave(shape, rng, pitch=7.0):
    """Height of a plain-weave canvas in -1..1, its threads `pitch` pixels apart and slightly
    uneven."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x = x + 1.6 * noise(shape, 90, rng, octaves=2)
    y = y + 1.6 * noise(shape, 90, rng, octaves=2)
    warp, weft = np.sin(np.pi * x / pitch), np.sin(np.pi * y / pitch)
    return np.abs(warp) * (warp * weft > 0) + np.abs(weft) * (warp * weft <= 0) - 0.6


def paper(shape, rng, tint):
    """A sheet of fibrous handmade paper in the given colour."""
    curls = 2.2 * noise(shape, 220, rng, octaves=3)
    fibres = streaks(curls, rng, 3, steps=10, reduce=2) + 0.7 * grain(shape, 1.4, rng)
    clouds = noise(shape, 300, rng)
    return np.asarray(tint, np.float32) * (1 + 0.02 * fibres + 0.02 * clouds)[..., None]
