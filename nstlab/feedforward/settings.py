"""Settings of `nstlab learn`, `nstlab apply` and `nstlab export`. Imports nothing heavy."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nstlab.base.errors import InputError
from nstlab.base.names import WEIGHTS
from nstlab.base.options import option, results_folder
from nstlab.base.settings import DEVICES, MAX_SIDE, MIN_SIDE, OutputSettings, Settings
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION

SHIPPED = "shipped"  # the name of the model that comes with the lab
NORMALIZATIONS = ("instance", "batch")
USUAL = CONVENTIONS[DEFAULT_CONVENTION]  # whose weights a transfer has, too
WIDTH = 96
LARGEST_WIDTH = 256
MOST_PAINTINGS, LONGEST_NAME = 256, 255  # of a model; characters
ALLOWED = {*"\u200c\u200d", *map(chr, range(0xE0020, 0xE0080))}  # joiners and tags: scripts, emoji


def compose_name(name: str) -> str:
    """The name in Unicode's normal form NFC, with one space for any white space."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def painting_name(name: str) -> str:
    """The name of a painting in a model, see `compose_name`.

    Args:
        name: what a user calls it, such as the name of its file without suffix.

    Raises:
        InputError: for a name of 0 or more than LONGEST_NAME characters, and for one with
            characters that cannot be shown: control, direction and other format characters, and
            bytes that are no text.
    """
    name = compose_name(name)
    if not 0 < len(name) <= LONGEST_NAME:
        raise InputError(f"paintings: {name!a:.60} must have 1 to {LONGEST_NAME} characters")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in ALLOWED:
            problem = f"{name!a} holds U+{ord(character):04X}, which cannot be shown"
            raise InputError(f"paintings: {problem}; rename the file")
    return name


def painting_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of all paintings of a model, each a `painting_name`, in their order.

    Raises:
        InputError: as `painting_name`, if two names are the same, and unless there are from 1 to
            MOST_PAINTINGS of them.
    """
    if not names:
        raise InputError("paintings: name one painting or more, files or samples")
    if len(names) > MOST_PAINTINGS:
        raise InputError(f"paintings: {len(names)} are given; a model has {MOST_PAINTINGS} at most")
    composed = tuple(painting_name(name) for name in names)
    repeated = [name for name, count in Counter(composed).items() if count > 1]
    if repeated:
        problem = f"'{repeated[0]}' names one twice"
        raise InputError(f"paintings: {problem}; in a model each has a name of its own")
    return composed


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
        """{field: paths} of what is read; "photos" has the folders in the photos' folders, too."""
        folders = tuple(folder for path in self.photos for folder, *_ in os.walk(path))
        if not folders:
            return super().files
        return super().files | {"photos": folders}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the paintings in the model, see `painting_name`."""
        return painting_names([Path(source).stem for source in self.paintings])

    @property
    def painting_size(self) -> int:
        """The long side at which paintings are learnt, in pixels."""
        return round(self.size * self.style_scale)


@dataclass(frozen=True)
class ApplySettings(OutputSettings):
    """Paint PHOTO, or each photo in a folder, with a MODEL that was learnt, in one pass."""

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
    def folder(self) -> Path | None:
        """The folder whose photos are painted; None for a single photo."""
        path = Path(self.photo)
        return path if path.is_dir() else None

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """{"out": paths}: the picture, or that of each photo in the folder."""
        if self.folder is None:
            return super().outputs
        return {"out": tuple(self.folder_outputs().values())}

    def folder_outputs(self) -> dict[Path, Path]:
        """{photo: file of its picture} of the photos in the folder.

        Photos that differ in their suffix alone keep it, so that no two share a file.

        Raises:
            InputError: if there is no photo, or two would become the same file, whatever the case
                of their names.
        """
        from nstlab.pictures import samples

        photos = samples.pictures_in(Path(self.photo))
        if not photos:
            raise InputError(f"photo: there is no picture in {self.photo}")
        stems = Counter(photo.stem.casefold() for photo in photos)
        outputs: dict[Path, Path] = {}
        for photo in photos:
            stem = photo.stem if stems[photo.stem.casefold()] == 1 else photo.name
            outputs[photo] = self.out / f"{stem}.png"
        _check_distinct(outputs)
        return outputs


def _check_distinct(outputs: Mapping[Path, Path]) -> None:
    """InputError if two photos would become the same file, whatever the case of their names."""
    names = Counter(path.name.casefold() for path in outputs.values())
    for out in outputs.values():
        if names[out.name.casefold()] > 1:
            same = [
                photo.name
                for photo, path in outputs.items()
                if path.name.casefold() == out.name.casefold()
            ]
            raise InputError(f"out: {' and '.join(same)} would become {out}; rename one of them")


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Write a MODEL as an ONNX file, for other programs (needs nstlab[onnx])."""

    model: str = option(help=f"a file that `nstlab learn` made, or '{SHIPPED}'", paths=True)
    out: Path = option(Path("model.onnx"), "where the file goes", output=True)
