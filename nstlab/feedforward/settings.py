"""Settings of `nstlab learn`, `nstlab apply` and `nstlab export`. Imports nothing heavy."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nstlab.base.names import WEIGHTS
from nstlab.base.options import results_folder
from nstlab.base.settings import (
    DEVICES,
    MAX_SIDE,
    MIN_SIDE,
    InputError,
    OutputSettings,
    Settings,
    option,
)
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION

SHIPPED = "shipped"  # the name of the model that comes with the lab
NORMALIZATIONS = ("instance", "batch")
USUAL = CONVENTIONS[DEFAULT_CONVENTION]  # whose weights a transfer has, too
WIDTH = 96
LARGEST_WIDTH = 256
MOST_PAINTINGS, LONGEST_NAME = 256, 255  # of a model; characters
ALLOWED = {*"\u200c\u200d", *map(chr, range(0xE0020, 0xE0080))}  # joiners and tags: scripts, emoji


def composed(name: str) -> str:
    """The name as a model has it: with composed characters (NFC) and one space for white space."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def painting_name(name: str) -> str:
    """What a model calls a painting of this name: `composed`.

    Raises: InputError for a name that is empty or too long, and for one with characters that
    cannot be shown: control, direction and other format characters, and bytes that are no text."""
    name = composed(name)
    if not 0 < len(name) <= LONGEST_NAME:
        raise InputError(f"paintings: {name!a:.60} must have 1 to {LONGEST_NAME} characters")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in ALLOWED:
            what = f"{name!a} holds U+{ord(character):04X}, which cannot be shown"
            raise InputError(f"paintings: {what}; rename the file")
    return name


def painting_names(names: Sequence[str]) -> tuple[str, ...]:
    """The `painting_name` of each.

    Raises: InputError, too, if two are the same, and unless they are 1 to MOST_PAINTINGS."""
    if not names:
        raise InputError("paintings: name one painting or more, files or samples")
    if len(names) > MOST_PAINTINGS:
        raise InputError(f"paintings: {len(names)} are given; a model has {MOST_PAINTINGS} at most")
    found = tuple(painting_name(name) for name in names)
    if twice := [name for name in found if found.count(name) > 1]:
        what = f"'{twice[0]}' names one twice"
        raise InputError(f"paintings: {what}; in a model each has a name of its own")
    return found


@dataclass(frozen=True)
class LearnSettings(Settings):
    """Learn to paint like PAINTING, or several, in one pass: make a MODEL for `nstlab apply`. Half
    an hour on two cores."""

    paintings: tuple[str, ...] = option(
        (), "picture files, or names of samples", positional=True, paths=True, identity=False
    )
    out: Path = option(
        Path("model.safetensors"), "where the model goes", output=True, identity=False
    )
    photos: tuple[Path, ...] = option(
        (),
        "folders of photos to learn from (default: the sample photos and procedural pictures)",
        paths=True,
        identity=False,
    )
    size: int = option(
        512,
        "long side at which photos and paintings are learnt; apply it to photos of about this",
        low=MIN_SIDE,
        high=MAX_SIDE,
        unit="px",
    )
    style_scale: float = option(
        1.0, "size of the strokes: the paintings are scaled by this", low=0.1, high=10
    )
    crop: int = option(256, "side of the parts of photos in a batch", low=64, high=2048, unit="px")
    alpha: float = option(USUAL.alpha, "content weight α", low=0, high=1e12)
    beta: float = option(USUAL.beta, "style weight β", low=1e-9, high=1e15)
    tv: float = option(0.0, "weight of total variation", low=0, high=1e15)
    width: int = option(
        WIDTH, "filters of the network's residual blocks", low=8, high=LARGEST_WIDTH
    )
    normalization: str = option(
        NORMALIZATIONS[0], "over one picture, or over a batch", choices=NORMALIZATIONS
    )
    steps: int = option(2000, "batches to learn from", low=1, high=10_000_000)
    batch: int = option(4, "pictures in a batch", low=1, high=64)
    rate: float = option(0.02, "learning rate", low=1e-6, high=1)
    seed: int = option(0, "seed of the first network and of the batches", low=0, high=2**31 - 1)
    weights: str = option(
        WEIGHTS[0],
        "where the weights of VGG19, the loss model, come from",
        choices=WEIGHTS,
        or_path=True,
        identity=False,
    )
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES, identity=False)
    results: Path = results_folder("progress is kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.names  # which are checked
        if self.out.suffix.lower() != ".safetensors":
            raise InputError(f"out: {self.out} must be a .safetensors file")

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """Those in folders of the photos' folders, too."""
        folders = tuple(folder for each in self.photos for folder, *_ in os.walk(each))
        return super().files | ({"photos": folders} if folders else {})

    @property
    def names(self) -> tuple[str, ...]:
        """What the model calls the paintings: their files' names without folder and suffix, see
        `painting_name`."""
        return painting_names([Path(source).stem for source in self.paintings])

    @property
    def painting_size(self) -> int:
        """The long side at which paintings are learnt, in pixels."""
        return round(self.size * self.style_scale)


@dataclass(frozen=True)
class ApplySettings(OutputSettings):
    """Paint PHOTO, or each photo in a folder, with a MODEL that was learnt: in a blink."""

    model: str = option(help=f"a file that `nstlab learn` made, or '{SHIPPED}'", paths=True)
    photo: str = option(
        help="a picture file, the name of a sample, or a folder of pictures", paths=True
    )
    out: Path = option(
        Path("out.png"),
        "where the picture goes, .png, .jpg or .tif; for a folder, a folder",
        output=True,
    )
    painting: tuple[str, ...] = option((), "the model's paintings to mix (default: the first)")
    mix: tuple[float, ...] = option((), "share of each painting (default: equal)", low=0, high=1e12)
    alpha: float = option(1.0, "from the photo, 0, to the painted picture, 1", low=0, high=1)
    size: int | None = option(
        None, "long side (default: the photo's own)", low=MIN_SIDE, high=MAX_SIDE, unit="px"
    )

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """The picture, or that of each file in the folder."""
        if not Path(self.photo).is_dir():  # as `applying` asks
            return super().outputs
        named = {stem for name in os.listdir(self.photo) for stem in (name, Path(name).stem)}
        return {"out": tuple(self.out / f"{stem}.png" for stem in sorted(named))}


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Write a MODEL as an ONNX file, for other programs (needs nstlab[onnx])."""

    model: str = option(help=f"a file that `nstlab learn` made, or '{SHIPPED}'", paths=True)
    out: Path = option(Path("model.onnx"), "where the file goes", output=True)
