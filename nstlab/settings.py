"""Settings: each field's default, range, unit and help, written once.

Every recipe has one frozen dataclass here. Command-line options, studio controls, sweep axes, stored JSON and
validation all derive from its fields, and so do the choices: a name that users may write (a pooling, a convention,
a layer) is listed in this file and nowhere else. The module imports neither torch nor anything else heavy, so that
`nstlab --help` answers at once.

Layer names follow Simonyan and Zisserman's VGG19: `conv4_2` is the second convolution of the fourth block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

BLOCKS = (2, 2, 4, 4, 4)  # convolutions in each of VGG19's five blocks, a pooling after each
CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, n in enumerate(BLOCKS, 1) for i in range(1, n + 1))
POOLINGS = tuple(f"pool{block}" for block in range(1, len(BLOCKS) + 1))
LAYERS = CONVOLUTIONS + tuple(name.replace("conv", "relu") for name in CONVOLUTIONS) + POOLINGS
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYERS = ("conv4_2",)

POOLS = ("avg", "max", "l2")
INITS = ("noise", "white", "content", "style", "grey", "rings")
OPTIMIZERS = ("lbfgs", "adam", "gd")
PRECISIONS = ("auto", "float32", "bfloat16", "tf32", "float16")
FITS = ("stretch", "crop", "area")
DEVICES = ("auto", "cpu", "cuda", "mps")
DOWNLOADS = ("imagenet", "caffe")
SCHEDULES = ("full", "smoke")  # of training
BENCHES = ("start", "two", "evaluation", "long", "growth", "memory", "live", "first", "precision", "quality")
WEIGHTS = ("auto", *DOWNLOADS, "embedded", "random")
EXPERIMENTS = tuple(f"E{i}" for i in range(1, 13))
BUDGETS = ("quick", "paper", "smoke")
RUN_ACTIONS = ("list", "show", "rm")
LIVE, START = "live", "start"  # fields that may change while a run goes on; those that only matter as it begins
GROUPS = (LIVE, START, "pictures", "network", "optimizer")  # what a recipe's fields are about
STATIC = "NSTLAB_STATIC"  # environment variable: notebooks show pictures where a widget would be
NOTEBOOK_ACTIONS = ("run", "list")
RESULTS = "results"  # folder in which runs are kept
STEPS = 300
HISTORY = 50  # curvature pairs
RATE = 0.02  # change of a pixel in a first-order step
DEFAULT_CONVENTION = "mean"
MAX_SIDE = 16384  # px
MIN_SIDE = 16  # px; the fifth block of VGG19 sees one position for every 16 pixels


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line: the problem, and what is allowed."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


def nearest(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    """ "; did you mean 'conv4_2'?" for the allowed name that is nearest to `name`, or nothing if none is near."""
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def layer_name(name: str | int) -> str:
    """The layer's name in VGG19; tutorials' sequential index (1 = conv1_1, 4 = conv2_2) is accepted as an alias."""
    text = str(name).strip()
    if text.isdecimal() and len(text) < 3 and 1 <= int(text) <= len(CONVOLUTIONS):
        return CONVOLUTIONS[int(text) - 1]
    if text in LAYERS:
        return text
    raise InputError(
        f"VGG19 has no layer '{text}'{nearest(text, LAYERS)} "
        f"(allowed: conv1_1 to conv5_4, relu1_1 to relu5_4, pool1 to pool5, or an index from 1 to {len(CONVOLUTIONS)})"
    )


def rectified(layer: str) -> str:
    """A convolution behind its ReLU: relu4_2 for conv4_2."""
    return layer.replace("conv", "relu")


@dataclass(frozen=True)
class Convention:
    """How one published code scales its losses, and how it begins. With mean Gram matrices G = F Fᵀ / M of N channels, M
    positions:

    content = content_factor · (Σ or mean over elements of) (F - P)²
    style   = Σ_l w_l · style_factor / N_l^style_power · Σ (G_l - A_l)²,   w_l = 1/|L| or 1
    """

    source: str
    alpha: float
    beta: float
    tv: float
    content_factor: float
    content_mean: bool
    style_factor: float
    style_power: int
    average_layers: bool
    rectified: bool  # whether `conv4_2` is read behind its ReLU, as the paper's F >= 0
    normalize: bool  # whether its authors used a network with normalized activations
    tv_per_element: bool = True  # False: sum of half squared differences of 0-255 pixel values
    content_layers: tuple[str, ...] = CONTENT_LAYERS
    style_layers: tuple[str, ...] = STYLE_LAYERS
    init: str = "content"
    levels: int = 1
    steps: int = 500  # of a transfer

    def layer_weight(self, count: int) -> float:
        """w_l of each of so many layers, where none are given."""
        return 1 / count if self.average_layers else 1.0


CONVENTIONS = {
    "mean": Convention(
        "the paper's, with the content loss averaged over its elements: independent of the picture's size",
        alpha=1.0, beta=20.0, tv=0.0, content_factor=0.5, content_mean=True,
        style_factor=0.25, style_power=2, average_layers=True, rectified=True, normalize=True, levels=2, steps=40,
    ),
    "paper": Convention(
        "Gatys, Ecker, Bethge 2016, equations 1 to 5",
        alpha=1.0, beta=1e3, tv=0.0, content_factor=0.5, content_mean=False,
        style_factor=0.25, style_power=2, average_layers=True, rectified=True, normalize=True, init="white",
    ),
    "notebook": Convention(
        "the authors' PyTorch notebook: MSE of features, MSE of Gram/M weighted by 1/N²",
        alpha=1.0, beta=1e3, tv=0.0, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=True, normalize=False,
    ),
    "neural-style": Convention(
        "J. Johnson's neural-style: MSE of features, MSE of Gram/(N M), total variation",
        alpha=5.0, beta=100.0, tv=1e-3, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=True, normalize=False, tv_per_element=False,
        init="grey", steps=1000,
    ),
    "tutorial": Convention(
        "the PyTorch tutorial: MSE of features, MSE of Gram/(N M), convolutions read before their ReLU",
        alpha=1.0, beta=1e6, tv=0.0, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=False, normalize=False,
        content_layers=("conv2_2",), style_layers=CONVOLUTIONS[:5], steps=300,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """What is allowed in one settings field, and how to say it."""

    help: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    or_path: bool = False  # besides the choices, a path is allowed
    reserved: tuple[str, ...] = ()  # names that are no paths; those that are no choices here are ones elsewhere
    log: bool = False  # a slider over it is logarithmic
    parse: Callable[[Any], Any] | None = None  # from what users write to the stored value, for each element
    identity: bool = True  # part of a run's id; paths and devices are not, their contents are hashed instead
    positional: bool = False  # on the command line, though it has a default
    short: str = ""  # another name on the command line: "-p"
    pairs: bool = False  # on the command line two words at a time, as often as one likes
    group: str = ""  # one of GROUPS, for the fields of recipes

    def allowed(self) -> str:
        """What is allowed, in words: "from 16 to 8192 px"."""
        if self.choices:
            return ", ".join(self.choices) + (" or a path" if self.or_path else "")
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}{unit}"
        return f"{self.low:g} or more{unit}" if self.low is not None else "a finite number"

    def check(self, name: str, value: Any) -> Any:
        """`value` (one element of it, for tuples) if it is allowed, parsed; else InputError names field and value."""
        if self.parse is not None:
            return self.parse(value)
        if self.choices and value not in self.choices and (not self.or_path or value in self.reserved):
            raise InputError(f"{name}: '{value}' is not one of {self.allowed()}{nearest(str(value), list(self.choices))}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = self.low if self.low is not None else -math.inf, self.high if self.high is not None else math.inf
            if not low <= value <= high or value in (math.inf, -math.inf):
                raise InputError(f"{name}: {value!s:.40} is not allowed; allowed is {self.allowed()}")
        return value


def option(default: Any = dataclasses.MISSING, help: str = "", **kwargs: Any) -> Any:
    """A dataclass field with its Option."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **kwargs)})


_live, _start, _pictures, _network, _optimizer = (partial(option, group=group) for group in GROUPS)


def _steps(default: int | None, more: str) -> Any:
    """The field for the length of a run."""
    return _optimizer(default, f"optimizer steps at the full size, about one evaluation each{more}", low=0, high=1_000_000)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def kind(annotation: Any) -> tuple[type, bool, bool]:
    """(element type, is a tuple of them, may be None) of a field's annotation."""
    optional = isinstance(annotation, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True, optional
    return annotation, False, optional


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays, of which grids are often made, as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _element(name: str, value: Any, wanted: type, opt: Option) -> Any:
    """One value of the wanted type, checked; numbers and paths may come as their text."""
    value = plain(value)
    if (wanted is float and isinstance(value, (int, str))) or (wanted is int and isinstance(value, str)):
        with contextlib.suppress(ValueError, OverflowError):
            value = value if isinstance(value, bool) else wanted(value)
    elif wanted is bool and str(value).lower() in ("true", "false"):
        value = str(value).lower() == "true"
    elif wanted is Path and isinstance(value, str):
        value = Path(value)
    elif wanted is str and isinstance(value, (int, Path)):  # a layer's index, a path given as Path
        value = str(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(f"{name}: {value!r} is not {'an' if wanted is int else 'a'} {wanted.__name__}")
    return opt.check(name, value)


@dataclass(frozen=True)
class Settings:
    """Base of all settings: validated when made, immutable, to and from plain JSON values."""

    def __post_init__(self) -> None:
        for name, annotation, opt in self.options():
            object.__setattr__(self, name, self._checked(name, annotation, opt))

    def _checked(self, name: str, annotation: Any, opt: Option) -> Any:
        value, (wanted, many, optional) = plain(getattr(self, name)), kind(annotation)
        if value is None and optional:
            return None
        if not many:
            return _element(name, value, wanted, opt)
        values = (value,) if isinstance(value, (str, int, float)) else value
        if not isinstance(values, (tuple, list)):
            raise InputError(f"{name}: {value!r} is not a list")
        return tuple(_element(name, v, wanted, opt) for v in values)

    @classmethod
    def options(cls) -> Iterator[tuple[str, Any, Option]]:
        """(name, annotation, Option) of each field, in order."""
        for f in dataclasses.fields(cls):
            yield f.name, _hints(cls)[f.name], f.metadata["option"]

    @classmethod
    def option_of(cls, field: str) -> Option:
        """The Option of one field."""
        return next(opt for name, _, opt in cls.options() if name == field)

    def to_dict(self, identity: bool = False) -> dict[str, Any]:
        """Plain JSON values; with `identity` only the fields that decide the result's pixels."""
        plain = {}
        for name, _, opt in self.options():
            if opt.identity or not identity:
                value = getattr(self, name)
                plain[name] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; an unknown field is an error that names the nearest one."""
        names = [name for name, *_ in cls.options()]
        for name in plain:
            if name not in names:
                raise InputError(f"{cls.__name__} has no setting '{name}'{nearest(name, names)}")
        for f in dataclasses.fields(cls):
            if f.default is dataclasses.MISSING and f.name not in plain:
                raise InputError(f"{cls.__name__}: '{f.name}' is missing")
        return cls(**plain)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return type(self).from_dict({**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **changes})


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """What every recipe has in common: picture, network, optimizer."""

    size: int = _pictures(512, "long side of the picture", low=MIN_SIDE, high=MAX_SIDE, unit="px")
    steps: int = _steps(STEPS, "")
    levels: int | None = _optimizer(
        None, "sizes from coarse to fine, half the steps at coarser ones (default: the convention's)", low=1, high=8
    )
    seed: int = _start(0, "seed of the noise and of random weights", low=0, high=2**63 - 1)
    tv: float | None = _live(None, "weight of total variation (default: the convention's)", low=0, high=1e15, log=True)
    convention: str = _network(DEFAULT_CONVENTION, "scale of the losses, after whose code", choices=tuple(CONVENTIONS))
    weights: str = _network(WEIGHTS[0], "where VGG19's weights come from", choices=WEIGHTS, or_path=True, identity=False)
    pool: str = _network(POOLS[0], "pooling between the blocks", choices=POOLS)
    rescale_pool: bool = _network(False, "make up for average and l2 pooling's smaller values; off is the paper's")
    normalize: bool | None = _network(None, "make mean activations 1, as in the paper (default: as the convention did)")
    optimizer: str = _optimizer(OPTIMIZERS[0], "how the pixels are changed", choices=OPTIMIZERS)
    learning_rate: float = _optimizer(RATE, "step of adam and gd; 1 is black to white", low=1e-6, high=10, log=True)
    history: int = _optimizer(HISTORY, "curvature pairs that lbfgs keeps, memory permitting", low=1, high=1000)
    precision: str = _network(
        PRECISIONS[0], "of the network; auto: 16 bits where faster; losses are float32", choices=PRECISIONS
    )
    stop_loss: float | None = _optimizer(None, "stop when the loss is at most this", low=0)
    stop_change: float | None = _optimizer(
        None, "stop when ten steps lower the loss by less than this part of it", low=0, high=1
    )

    def __post_init__(self) -> None:
        """Fields left open are filled with the convention's values, so that equal runs have equal settings."""
        super().__post_init__()
        for name in self._conventional():
            if getattr(self, name) in (None, ()):
                object.__setattr__(self, name, getattr(CONVENTIONS[self.convention], name))

    @property
    def files(self) -> dict[str, str]:
        """The fields that name a file that is there, rather than a sample or a choice."""
        values = {name: getattr(self, name) for name in ("photo", "painting", "init", "weights") if hasattr(self, name)}
        return {name: value for name, value in values.items() if os.path.isfile(value)}

    @classmethod
    def _conventional(cls) -> list[str]:
        """The fields that a convention fills where they are left open."""
        known = {f.name for f in dataclasses.fields(Convention)}
        return [f.name for f in dataclasses.fields(cls) if f.name in known and f.default in (None, ())]

    def replace(self, **changes: Any) -> Self:
        """As of all settings; and with another convention, values that were the old one's become the new one's."""
        if changes.get("convention", self.convention) != self.convention:
            old = CONVENTIONS[self.convention]
            follow = [name for name in self._conventional() if getattr(self, name) == getattr(old, name)]
            defaults = {f.name: f.default for f in dataclasses.fields(self)}
            changes = {name: defaults[name] for name in follow} | changes
        return super().replace(**changes)


@dataclass(frozen=True, kw_only=True)
class StyleSettings(RunSettings):
    """What the recipes with a painting have in common."""

    style_layers: tuple[str, ...] = _live((), "layers for style (default: the convention's)", parse=layer_name)
    style_weights: tuple[float, ...] = _live((), "weight of each style layer (default: equal)", low=0, high=1e12)
    style_fit: str = _pictures(FITS[0], "how the painting gets the photo's shape", choices=FITS)
    style_scale: float = _pictures(1.0, "size of the strokes: the painting is scaled by this", low=0.1, high=10, log=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        layers, weights = self.style_layers, self.style_weights
        if len(set(layers)) < len(layers):
            raise InputError(f"style_layers: {' '.join(layers)} names a layer twice; each may be named once")
        if weights and len(weights) != len(layers):
            raise InputError(f"style_weights: {len(weights)} given for {len(layers)} style layers; give one for each")
        if weights and not any(weights):
            raise InputError("style_weights: all are 0; at least one must be more")


def _init(default: str | None, help: str, *without: str) -> Any:
    """The field for the first picture, of recipes that may lack some of the pictures it can be."""
    choices = tuple(name for name in INITS if name not in without)
    return _start(default, help, choices=choices, or_path=True, reserved=INITS)


@dataclass(frozen=True)
class TransferSettings(StyleSettings):
    """Repaint PHOTO in the style of PAINTING (Gatys, Ecker, Bethge 2016)."""

    photo: str = _pictures(help="a picture file, or the name of a sample", identity=False)
    painting: str = _pictures(help="a picture file, or the name of a sample", identity=False)
    alpha: float | None = _live(None, "content weight α (default: the convention's)", low=0, high=1e12, log=True)
    beta: float | None = _live(None, "style weight β (default: the convention's)", low=0, high=1e15, log=True)
    content_layers: tuple[str, ...] = _live((), "layers for content (default: the convention's)", parse=layer_name)
    init: str | None = _init(None, "first picture (default: the convention's)")
    _: dataclasses.KW_ONLY
    steps: int | None = _steps(None, " (default: the convention's)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == 0 and self.beta == 0:
            raise InputError("alpha and beta are both 0; at least one must be more")


@dataclass(frozen=True)
class ReconstructSettings(RunSettings):
    """Paint PHOTO anew from the features of one layer (the paper's figure 1, content reconstruction)."""

    photo: str = _pictures(help="a picture file, or the name of a sample", identity=False)
    layer: str = _live(CONTENT_LAYERS[0], "layer to reconstruct from", parse=layer_name)
    init: str = _init(INITS[0], "first picture", "style")


@dataclass(frozen=True)
class TextureSettings(StyleSettings):
    """Paint a texture with PAINTING's style and nothing else (Gatys et al. 2015; the paper's style reconstruction)."""

    painting: str = _pictures(help="a picture file, or the name of a sample", identity=False)
    init: str = _init(INITS[0], "first picture", "content")


@dataclass(frozen=True, kw_only=True)
class JobSettings(Settings):
    """Where and how a run is carried out. None of it changes the picture."""

    out: Path = option(Path("out.png"), "where the picture goes: .png, .jpg or .tif")
    results: Path = option(Path(RESULTS), "folder in which runs are kept")
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    resume: bool = option(True, "take up the same run if it is kept there; --no-resume computes it anew")
    frames: int = option(0, "keep this many progress pictures, and an animated GIF beside the output", low=0, high=500)

    @property
    def animation(self) -> Path:
        """Where the progress pictures go as a GIF."""
        return self.out.with_suffix(".gif")


@dataclass(frozen=True, kw_only=True)
class FetchSettings(Settings):
    """Download what the lab can do without, checked by hash. Nothing else ever downloads anything."""

    weights: str = option(DOWNLOADS[0], "imagenet: torchvision's; caffe: the original ones", choices=DOWNLOADS)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Make the embedded network anew, from the original VGG19 as its teacher: some hours on two CPU cores."""

    teacher: str = option(DOWNLOADS[1], "the original weights up to conv3_4 at least", choices=DOWNLOADS, or_path=True)
    distilled: Path | None = option(None, "the distilled VGG19 that teaches what these do not reach")
    lower: str | None = option(None, "weights whose first three blocks are taken over (default: trained first)", or_path=True)
    out: Path = option(Path("embedded.safetensors"), "where the weights go")
    folder: Path = option(Path("results/training"), "folder for checkpoints; what is there is taken up")
    schedule: str = option(SCHEDULES[0], "full: what is shipped; smoke: shows that all runs", choices=SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class BenchSettings(Settings):
    """Measure speed and memory against the loop that public tools run, with nothing else running (some 40 minutes)."""

    rows: tuple[str, ...] = option(BENCHES, "what to measure", choices=BENCHES)
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES)
    weights: str = option("embedded", "for what is measured by the loss", choices=WEIGHTS, or_path=True)
    sizes: tuple[int, ...] = option((128, 256, 512, 1024), "of the evaluations that are timed", low=64, high=4096, unit="px")
    quality_size: int = option(512, "long side for the time to quality", low=64, high=2048, unit="px")
    json: Path | None = option(None, "keep the result in this file")
    against: Path | None = option(None, "print ratios to an earlier result")


@dataclass(frozen=True)
class SweepSettings(Settings):
    """Carry out one of the classic experiments: its runs, its sheet, and the table of its claims."""

    experiment: str = option(help="E1 to E12, see notebooks and gallery", choices=EXPERIMENTS)
    budget: str = option(BUDGETS[0], "quick: minutes on a laptop; paper: as published; smoke: seconds", choices=BUDGETS)
    photo: str = option("coffee", "a picture file, or the name of a sample")
    painting: str = option("swirl_strokes", "a picture file, or the name of a sample")
    size: int | None = option(None, "long side (default: the budget's)", low=MIN_SIDE, high=MAX_SIDE, unit="px")
    steps: int | None = option(None, "optimizer steps (default: the budget's)", low=1, high=1_000_000)
    seed: int = option(0, "seed of the noise, the first one where seeds are varied", low=0, high=2**63 - 5)
    weights: str = option(WEIGHTS[0], "where VGG19's weights come from", choices=WEIGHTS, or_path=True)
    results: Path = option(Path(RESULTS), "folder in which runs are kept", identity=False)
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES, identity=False)
    dask: str | None = option(None, "address of a Dask scheduler, whose workers do the runs", identity=False)
    gallery: Path | None = option(None, "folder for a small sheet, and its page with the claims", identity=False)


@dataclass(frozen=True)
class RunsSettings(Settings):
    """List the runs that are kept; show some of them; remove some."""

    action: str = option(RUN_ACTIONS[0], "what to do", choices=RUN_ACTIONS, positional=True)
    ids: tuple[str, ...] = option((), "of runs, for show and rm; as much of them as is unique", positional=True)
    results: Path = option(Path(RESULTS), "folder in which runs are kept")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action == "list" and self.ids:
            raise InputError(f"runs list: takes no ids; given: {' '.join(self.ids)}")
        if self.action != "list" and not self.ids:
            raise InputError(f"runs {self.action}: needs an id or more; `nstlab runs` lists them")


@dataclass(frozen=True)
class NotebooksSettings(Settings):
    """Run the notebooks from top to bottom, each with its results and as HTML; or list them."""

    action: str = option(NOTEBOOK_ACTIONS[0], "what to do", choices=NOTEBOOK_ACTIONS, positional=True)
    names: tuple[str, ...] = option((), "of notebooks, or their numbers: 03 (default: all)", positional=True)
    budget: str = option(BUDGETS[0], "quick: minutes on a laptop; paper: as published; smoke: seconds", choices=BUDGETS)
    parameters: tuple[str, ...] = option((), "a parameter and its value: -p seed 3; may be given again", short="-p", pairs=True)
    results: Path = option(Path(RESULTS), "folder in which runs are kept; notebooks go below it")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parameters) % 2:
            raise InputError(f"parameters: '{self.parameters[-1]}' has no value; give pairs: -p seed 3")

    @property
    def chosen(self) -> dict[str, Any]:
        """The notebooks' parameters, checked: those that a sweep has."""
        given = dict(zip(self.parameters[::2], self.parameters[1::2], strict=True))
        for name in given:
            if name not in PARAMETERS:
                raise InputError(
                    f"parameters: there is no '{name}'{nearest(name, PARAMETERS)} (allowed: {', '.join(PARAMETERS)})"
                )
        checked = SweepSettings.from_dict({"experiment": EXPERIMENTS[0], **given})
        return {"budget": self.budget} | {name: getattr(checked, name) for name in given}


PARAMETERS = ("size", "seed", "photo", "painting", "weights")  # of notebooks, besides budget and results


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """Print versions, devices, and the weights found on this machine."""


RECIPES: dict[str, type[RunSettings]] = {
    "transfer": TransferSettings,
    "reconstruct": ReconstructSettings,
    "texture": TextureSettings,
}
