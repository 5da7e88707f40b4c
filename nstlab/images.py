"""Pictures in and out: load, save, resize, sample pictures, first pictures.

Contract: a picture is a float32 tensor of shape (1, 3, H, W), contiguous, sRGB with values in [0, 1]. `size` is
always the LONG side in pixels. What cannot be used raises InputError.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from torch import Tensor

from nstlab.decoding import Part, decode, interpolated, of_any_shape, opened, read, upright
from nstlab.files import check_place, parse_json, replacing
from nstlab.settings import FITS, MIN_SIDE, InputError, nearest

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "retina", "hubble_deep_field", "ihc")
_METADATA_KEY = "nstlab"


# --- sample pictures --------------------------------------------------------------------------------------------


def style_folder() -> Path:
    """The folder of the project's own paintings: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "data" / "style" if (here / "data").is_dir() else here.parent / "data" / "style"


def samples() -> dict[str, Path]:
    """Name and file of every picture that comes with the lab: scikit-image's photos, and our own paintings."""
    import skimage.data  # here, because importing scikit-image takes longer than the rest of this module

    photos = Path(skimage.data.__file__).parent
    found = {path.stem: path for name in PHOTOS for path in photos.glob(f"{name}.*")}
    return found | {path.stem: path for path in sorted(style_folder().glob("*.jpg"))}


def sample(name: str, size: int | None = None) -> Tensor:
    """A sample picture by name, (1, 3, H, W) in [0, 1]; `size` is its long side in pixels."""
    known = samples()
    if name not in known:
        raise InputError(f"no sample picture is called '{name}'{nearest(name, list(known))} (there are: {', '.join(known)})")
    return load(known[name], size)


def find(source: str | os.PathLike) -> Path:
    """The file meant by a path or by the name of a sample picture; a file wins over a sample of the same name."""
    path = Path(source)
    if os.path.exists(path) or path.suffix:
        return path
    known = samples()
    if str(source) in known:
        return known[str(source)]
    raise InputError(f"no picture '{source}'{nearest(str(source), list(known))} (a file, or one of {', '.join(known)})")


# --- reading ----------------------------------------------------------------------------------------------------


def load(source: str | os.PathLike, size: int | None = None) -> Tensor:
    """Read a picture.

    Args:
        source: a path, or the name of a sample picture.
        size: long side in pixels after resizing; None keeps the picture's own.
    Returns: (1, 3, H, W) float32, sRGB in [0, 1].
    Raises: InputError if there is no such file, or it is no picture, damaged, too small, too large or too long, or needs
    more memory than is free.
    """
    path = find(source)
    return read(path, lambda shape: ((0, 0, *shape), shape if size is None else fit_size(shape, size, path)))


def load_fit(source: str | os.PathLike, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0) -> Tensor:
    """`fit(load(source), shape, how, scale)`, without ever holding the picture larger than it is used."""
    return read(find(source), lambda own: fitting(own, shape, how, scale))


def shape_of(source: str | os.PathLike, size: int | None = None) -> tuple[int, int]:
    """(H, W) that `load` would give, from the file's header alone. Raises InputError as `load` does."""
    path = find(source)
    with opened(path) as image:
        return upright(image) if size is None else fit_size(upright(image), size, path)


def kind(path: str | os.PathLike) -> str:
    """The format, "PNG" say, of a picture that `load` can read to its end. Raises InputError as that does."""
    with opened(Path(path)) as image:
        decode(path, image)
        return image.format


def reopen(path: str | os.PathLike) -> Tensor:
    """A picture that `save` wrote, (1, 3, H, W): of any size and shape, since it was computed here. InputError if it is
    damaged."""
    with of_any_shape(path) as image:
        return _tensor(image)


def _tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1] of an 8-bit RGB picture."""
    return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)[None].contiguous()


def verify(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of a picture that can be read to its end; InputError for any other."""
    with of_any_shape(path) as image:
        image.load()
        return image.size[::-1]


def shaded(image: Tensor) -> Tensor:
    """The picture in 256 shades a channel, which are all that a PNG keeps; (1, 3, H, W) in [0, 1]."""
    return _tensor(to_pil(image))


def check(image: Tensor, what: str) -> Tensor:
    """The picture, if it is one: (1, 3, H, W), floating-point numbers, all finite. Else InputError, which names `what` it was
    to be."""
    if not isinstance(image, Tensor):
        raise InputError(f"{what}: a {type(image).__name__} is no picture; expected is a tensor (1, 3, H, W)")
    if image.ndim != 4 or len(image) != 1 or not image.numel() or not image.is_floating_point():
        raise InputError(f"{what}: {tuple(image.shape)} {image.dtype} is no picture; expected is (1, 3, H, W), floating-point")
    if not (image.is_meta or image.isfinite().all()):
        raise InputError(f"{what}: holds numbers that are not finite")
    return image


# --- sizes ------------------------------------------------------------------------------------------------------


def fit_size(shape: Sequence[int], size: int, what: Any = "picture") -> tuple[int, int]:
    """(H, W) of the same proportions with long side `size`; InputError if the short side gets too short."""
    height, width = shape
    scale = size / max(height, width)
    fitted = max(1, round(height * scale)), max(1, round(width * scale))
    if min(fitted) < MIN_SIDE:
        raise InputError(
            f"{what}: {width}×{height} at size {size} has a side of {min(fitted)} px; "
            f"size must be {-(-MIN_SIDE * max(height, width) // min(height, width))} or more"
        )
    return fitted


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The picture at (H, W), by antialiased bicubic interpolation of its sRGB values; (1, 3, H, W) in [0, 1]."""
    if tuple(image.shape[-2:]) == tuple(shape):
        return image
    return interpolated(image, shape).clamp(0, 1)


def fit(image: Tensor, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0) -> Tensor:
    """A painting in the photo's shape (H, W), one of settings.FITS; `scale` enlarges it, and so its strokes.

    stretch: resized to exactly H × W, as the paper does; its proportions change.
    crop:    the largest middle part of the photo's proportions, resized to H × W.
    area:    its own proportions, as many pixels as the photo.
    """
    (top, left, height, width), shape = fitting(image.shape[-2:], shape, how, scale)
    return resize(image[..., top : top + height, left : left + width], shape)


def fitting(own: Sequence[int], shape: Sequence[int], how: str, scale: float) -> tuple[Part, tuple[int, int]]:
    """What `fit` does to a picture of shape `own`: (the part that it uses, the (H, W) that it gives it). InputError for a way
    that there is not, and for a scale that is no positive number."""
    if how not in FITS:
        raise InputError(f"fit: '{how}' is not one of {', '.join(FITS)}{nearest(str(how), FITS)}")
    if not 0 < scale < inf:
        raise InputError(f"scale: {scale} is not allowed; allowed is a number more than 0")
    (h, w), (height, width), part = own, shape, (0, 0, *own)
    if how == "crop":
        shrink = min(h / height, w / width)
        new_h, new_w = max(1, round(shrink * height)), max(1, round(shrink * width))
        part = ((h - new_h) // 2, (w - new_w) // 2, new_h, new_w)
    elif how == "area":
        factor = (height * width / (h * w)) ** 0.5
        height, width = h * factor, w * factor
    return part, (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))


# --- first pictures ---------------------------------------------------------------------------------------------


SMOOTH = 0.15  # cycles per pixel, at which noise has 0.6 of its amplitude
DEVIATION = 0.2  # of noise, on the scale from black 0 to white 1


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """Smooth noise in the shape, dtype and device of `like`: normally distributed about middle grey, DEVIATION wide, clipped to
    [0, 1], its amplitudes falling as exp(-½ (f / SMOOTH)²) with the spatial frequency f.

    A network with poolings hardly looks at what is finer than two or three pixels, so that an optimizer leaves of white noise a
    mesh over the whole picture. Here nothing so fine is there to begin with. Drawn on the CPU, so that a seed gives the same
    picture on every device."""
    height, width = like.shape[-2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    drawn = torch.fft.rfft2(torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)))
    drawn = torch.fft.irfft2(drawn * torch.exp(-((frequency / SMOOTH) ** 2) / 2), s=(height, width))
    return (0.5 + DEVIATION * drawn / drawn.std()).clamp(0, 1).to(like)


def white_noise(like: Tensor, seed: int = 0) -> Tensor:
    """White noise, the paper's first picture, in the shape, dtype and device of `like`: independent uniform values in [0, 1],
    drawn on the CPU as well."""
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def grey(like: Tensor) -> Tensor:
    """A blank canvas of middle grey, 0.5, in the shape, dtype and device of `like`."""
    return torch.full_like(like, 0.5)


def rings(like: Tensor) -> Tensor:
    """Black and white rings, eight to the short side, in the shape, dtype and device of `like`: a first picture with a
    strong structure of its own."""
    height, width = like.shape[-2:]
    down = torch.arange(height, dtype=like.dtype, device=like.device)[:, None] - (height - 1) / 2
    across = torch.arange(width, dtype=like.dtype, device=like.device)[None] - (width - 1) / 2
    waves = 0.5 + 0.5 * torch.cos(2 * torch.pi * torch.hypot(down, across) * 8 / min(height, width))  # (H, W)
    return waves.expand_as(like).contiguous()


# --- writing ----------------------------------------------------------------------------------------------------


def to_pil(image: Tensor) -> Image.Image:
    """An 8-bit RGB Pillow image; values beyond [0, 1] are clipped, the rest rounded to the nearest level."""
    levels = image.detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels[0].permute(1, 2, 0).cpu().numpy())


def check_writable(path: str | os.PathLike) -> Path:
    """The path, if a picture can be written there; else InputError, before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: pictures are written as {', '.join(FORMATS)}, not as '{path.suffix}'")
    return check_place(path)


def save(image: Tensor, path: str | os.PathLike, settings: dict[str, Any] | None = None) -> Path:
    """Write a picture as PNG, JPEG or TIFF, by its ending; `settings` go into its metadata (see `read_settings`).

    The file is written beside its place first and then renamed. Raises InputError if it cannot be written."""
    path, text = check_writable(path), json.dumps(settings or {})
    kind = FORMATS[path.suffix.lower()]
    extra: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "PNG":
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt(_METADATA_KEY, text)
    elif kind == "TIFF":
        extra["compression"] = "tiff_lzw"
        extra["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        extra["tiffinfo"][ExifTags.Base.ImageDescription] = text
    else:
        extra["comment"] = text.encode()
    with replacing(path) as temporary:
        to_pil(image).save(temporary, kind, **extra)
    return path


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """The settings that `save` put into a picture; empty if there are none."""
    path = Path(path)
    with of_any_shape(path) as image:
        tags = getattr(image, "tag_v2", {})
        text = image.info.get(_METADATA_KEY) or image.info.get("comment") or tags.get(ExifTags.Base.ImageDescription, "")
    with contextlib.suppress(ValueError):
        found = parse_json(text)
        return found if isinstance(found, dict) else {}
    return {}


def save_gif(
    frames: Iterable[Tensor], shape: Sequence[int], path: str | os.PathLike, size: int = 384, seconds: float = 4.0
) -> Path:
    """An animated GIF of the frames, that stays on the last one for a while; frames are taken one at a time.

    shape: (H, W) of the whole animation, scaled down to a long side of at most `size` px."""
    path, shape = Path(path), fit_size(shape, min(size, max(shape)))
    pictures = [to_pil(resize(frame.float(), shape)).quantize(dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    each = max(20, round(1000 * seconds / len(pictures)))
    with replacing(path) as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:],
            duration=[each] * (len(pictures) - 1) + [1500], loop=0,
        )  # fmt: skip
    return path
