"""Pictures in and out: load, save, resize, sample pictures, first pictures.

Contract: a picture is a float32 tensor of shape (1, 3, H, W), contiguous, sRGB with values in [0, 1]. `size` is
always the LONG side in pixels. Anything Pillow reads can be loaded: EXIF orientation is applied, embedded ICC
profiles are converted to sRGB, transparency is laid over white. What cannot be used raises InputError.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from nstlab.settings import FITS, MIN_SIDE, InputError, nearest

MAX_PIXELS = 175_000_000  # more is taken for a decompression bomb; Pillow itself refuses a little more than this
MAX_ASPECT = 8.0  # long side / short side
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


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a picture is read into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and large pictures; we check ourselves
            yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; a picture file is needed") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not a picture (or damaged); PNG, JPEG, TIFF, WebP and the like are") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: has more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is read") from None
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, RuntimeError) as error:  # by Pillow's decoders
        raise InputError(f"{path}: is damaged or cut short ({str(error) or type(error).__name__})") from None


def _check_shape(path: Any, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width}×{height} is more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is read")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path}: {width}×{height} is too small; both sides must have {MIN_SIDE} px or more")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{path}: {width}×{height} is too long; the sides' ratio may be at most {MAX_ASPECT:g}")


def _to_srgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB by its own ICC profile; one without, or with one that cannot be read, is returned as is."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return converted if converted is not None else image
    return image


def _over_white(image: Image.Image) -> Image.Image:
    """Transparency laid over white."""
    rgba = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    flat.info["icc_profile"] = profile
    return flat


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 sRGB in [0, 1] of a picture of any mode."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits of grey
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
        top = 1.0 if image.mode == "F" and grey.max() <= 1 else 65535.0 if grey.max() > 255 or image.mode != "F" else 255.0
        return np.repeat((grey / top).clip(0, 1)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _over_white(image)
    if image.mode == "P":
        image = image.convert("RGB")
    image = _to_srgb(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0


def load(source: str | os.PathLike, size: int | None = None) -> Tensor:
    """Read a picture.

    Args:
        source: a path, or the name of a sample picture.
        size: long side in pixels after resizing; None keeps the picture's own.
    Returns: (1, 3, H, W) float32, sRGB in [0, 1].
    Raises: InputError if there is no such file, or it is no picture, damaged, too small, too large or too long.
    """
    path = find(source)
    # Opened as a file: given a path, Pillow maps uncompressed TIFFs into memory, and then transposes them wrongly.
    with _reading(path), path.open("rb") as file, Image.open(file) as image:
        _check_shape(path, *image.size)
        image.load()
        pixels = _pixels(ImageOps.exif_transpose(image))
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].contiguous()
    return tensor if size is None else resize(tensor, fit_size(tensor.shape[-2:], size, path))


def reopen(path: str | os.PathLike) -> Tensor:
    """A picture that `save` wrote, (1, 3, H, W): of any size and shape, since it was computed here."""
    with Image.open(path) as image:
        return _tensor(image)


def _tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1] of an 8-bit RGB picture."""
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None].contiguous()


def verify(path: str | os.PathLike) -> None:
    """Raise InputError unless a picture can be read to its end."""
    with _reading(Path(path)), Image.open(path) as image:
        image.load()


def shaded(image: Tensor) -> Tensor:
    """The picture in 256 shades a channel, which are all that a PNG keeps; (1, 3, H, W) in [0, 1]."""
    return _tensor(to_pil(image))


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


def interpolated(values: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, C, h, w) -> (1, C, H, W), of any range, by antialiased bicubic interpolation, which may overshoot."""
    return F.interpolate(values, tuple(shape), mode="bicubic", antialias=True, align_corners=False)


def fit(image: Tensor, shape: Sequence[int], how: str = FITS[0], scale: float = 1.0) -> Tensor:
    """A painting in the photo's shape (H, W), one of settings.FITS; `scale` enlarges it, and so its strokes.

    stretch: resized to exactly H × W, as the paper does; its proportions change.
    crop:    the largest middle part of the photo's proportions, resized to H × W.
    area:    its own proportions, as many pixels as the photo.
    """
    height, width = shape
    h, w = image.shape[-2:]
    if how == "crop":
        part = min(h / height, w / width)
        new_h, new_w = max(1, round(part * height)), max(1, round(part * width))
        top, left = (h - new_h) // 2, (w - new_w) // 2
        image = image[..., top : top + new_h, left : left + new_w]
    elif how == "area":
        factor = (height * width / (h * w)) ** 0.5
        height, width = h * factor, w * factor
    return resize(image, (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))))


# --- first pictures ---------------------------------------------------------------------------------------------


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """White noise in the shape, dtype and device of `like`: independent uniform values in [0, 1], drawn on the CPU
    so that a seed gives the same picture on every device."""
    drawn = torch.rand(like.shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(like)


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


def check_place(path: Path) -> Path:
    """The path, if a file can be written there; else InputError."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir():
        raise InputError(f"{path}: is a folder" if path.is_dir() else f"{path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        raise InputError(f"{path}: may not be written")
    return path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    So a file is whole or not there, whenever the process is killed. An OSError becomes an InputError."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


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
    with _reading(path), Image.open(path) as image:
        tags = getattr(image, "tag_v2", {})
        text = image.info.get(_METADATA_KEY) or image.info.get("comment") or tags.get(ExifTags.Base.ImageDescription, "")
    with contextlib.suppress(ValueError):
        found = json.loads(text)
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
