"""What all recipes have in common, and how they are found.

A recipe is a settings class with an objective, in a file of its own:

    @dataclass(frozen=True)
    class Sketch(RunSettings, recipe="sketch"):
        \"\"\"Redraw PHOTO from the features of one layer.\"\"\"

        photo: str = picture("content")
        init: str = first_picture("grey")

        def objective(self, pictures, shape):
            return nst.content("conv3_1", pictures["content"], convention=self.convention)

Defining the class registers it. Its fields give it a subcommand, controls in the studio, sweep
axes, a place in the store and copy-as-code. Recipes in this folder are found automatically; other
packages name theirs as entry points in the group `nstlab.recipes`. Imports nothing heavy.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from nstlab.base.errors import InputError, one_of
from nstlab.base.names import HISTORY, OPTIMIZERS, POOLS, PRECISIONS, RATE, STEPS, WEIGHTS
from nstlab.base.settings import FITS, MAX_SIDE, MIN_SIDE
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION
from nstlab.networks.architectures import (
    ARCHITECTURES,
    DEFAULT_NETWORK,
    known_network,
)
from nstlab.recipes.fields import (
    length,
    live_field,
    network_field,
    optimizer_field,
    picture_field,
    start_field,
)
from nstlab.recipes.open_fields import Filled, OpenSettings

if TYPE_CHECKING:
    from torch import Tensor

    from nstlab.method.objectives import Objective
    from nstlab.networks.base import Network

MAIN = "transfer"  # the recipe that is listed first
# Files of this folder that define no recipe, and may import PyTorch.
TOOLS = ("base", "plan", "agreement", "capacity", "prepare")


# --- the list of recipes --------------------------------------------------------------------------

REGISTERED: dict[str, type[RunSettings]] = {}


def known() -> dict[str, type[RunSettings]]:
    """{name: settings class} of all recipes: those in this folder, in installed packages, and
    defined anywhere so far."""
    _find()
    return dict(sorted(REGISTERED.items(), key=lambda item: item[0] != MAIN))


def named(name: str) -> type[RunSettings]:
    """The settings class of a recipe.

    Raises:
        InputError: if there is none of that name.
    """
    recipes = known()
    return recipes[one_of("recipe", name, list(recipes))]


@cache
def _find() -> None:
    """Import the files in which recipes are defined."""
    folder = importlib.import_module("nstlab.recipes")
    for module in pkgutil.iter_modules(folder.__path__, "nstlab.recipes."):
        if module.name.rpartition(".")[2] not in TOOLS:
            importlib.import_module(module.name)
    for entry in entry_points(group="nstlab.recipes"):
        entry.load()


# --- what they have in common ---------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """A picture that a recipe reads: a file or the name of a sample, and how it gets the result's
    shape (see images.fit).

    Attributes:
        labels: whether its colours are names of regions, so that it is read as it is.
    """

    source: str
    fit: str = FITS[0]
    scale: float = 1.0
    labels: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSettings(OpenSettings):
    """The settings that every recipe has: size, network, optimizer.

    A recipe adds its own, and an objective.
    """

    recipe: ClassVar[str] = ""
    # False if a recipe's weights would mean nothing with another than the default
    any_convention: ClassVar[bool] = True
    if TYPE_CHECKING:
        init: str  # each recipe defines its own, with `first_picture`

    size: int = picture_field(
        512, "long side of the picture", low=MIN_SIDE, high=MAX_SIDE, unit="px"
    )
    steps: int = length(STEPS)
    levels: Filled[int] = optimizer_field(
        None,
        "sizes from coarse to fine, with half the steps at coarser ones; beyond 1024 px fewer and "
        "fewer (default: the "
        "convention's, and one more for each doubling beyond that)",
        low=1,
        high=12,
    )
    seed: int = start_field(0, "seed of the noise and of random weights", low=0, high=2**63 - 1)
    tv: Filled[float] = live_field(
        None, "weight of total variation (default: the convention's)", low=0, high=1e15, log=True
    )
    convention: str = network_field(
        DEFAULT_CONVENTION, "whose scale of the losses", choices=tuple(CONVENTIONS)
    )
    network: str = network_field(
        DEFAULT_NETWORK,
        "the loss model; any other classifier of torchvision can be named, at your own risk",
        choices=tuple(ARCHITECTURES),
        parse=known_network,
    )
    weights: str = network_field(
        WEIGHTS[0], "where its weights come from", choices=WEIGHTS, or_path=True, identity=False
    )
    temperature: float = network_field(
        0.0,
        "smooth activations by a softmax of this temperature (after Wang et al. 2021); 0: "
        "leave them",
        low=0,
        high=1e4,
    )
    pool: str = network_field(POOLS[0], "pooling between the blocks", choices=POOLS)
    rescale_pool: bool = network_field(
        False, "make up for the smaller values of avg and l2 pooling; off is the paper's"
    )
    normalize: Filled[bool] = network_field(
        None, "scale mean activations to 1, as in the paper (default: the convention's)"
    )
    optimizer: str = optimizer_field(
        OPTIMIZERS[0], "how the pixels are changed", choices=OPTIMIZERS
    )
    learning_rate: float = optimizer_field(
        RATE, "step of adam and gd; 1 is black to white", low=1e-6, high=10, log=True
    )
    history: int = optimizer_field(
        HISTORY, "curvature pairs that lbfgs keeps, if memory allows", low=1, high=1000
    )
    precision: str = network_field(
        PRECISIONS[0],
        "numbers of the network; auto: 16 bits where faster; losses are float32",
        choices=PRECISIONS,
    )
    stop_loss: float | None = optimizer_field(None, "stop when the loss is at most this", low=0)
    stop_change: float | None = optimizer_field(
        None, "stop when ten steps lower the loss by less than this part of it", low=0, high=1
    )

    def __post_init__(self) -> None:
        """Check the convention, and fill what is left open."""
        if self.convention != DEFAULT_CONVENTION and not self.any_convention:
            raise InputError(
                f"convention: {self.recipe} has weights that go with '{DEFAULT_CONVENTION}' alone"
            )
        super().__post_init__()

    def __init_subclass__(cls, recipe: str = "", **rest: Any) -> None:
        """Register a recipe under its name.

        Defining a class again, as in a notebook's cell, replaces it.
        """
        super().__init_subclass__(**rest)
        if not recipe:
            return
        cls.recipe = recipe
        other = REGISTERED.get(recipe)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise InputError(
                f"recipe: there is already one called '{recipe}', {other.__qualname__}"
            )
        REGISTERED[recipe] = cls

    @classmethod
    def roles(cls) -> dict[str, str]:
        """{field: role} for the fields that name pictures."""
        return {name: opt.role for name, _, opt in cls.options() if opt.role}

    @classmethod
    def field_of(cls, role: str) -> str:
        """The field that names the picture of a role: "reference" for "style"."""
        return next(name for name, role_of_field in cls.roles().items() if role_of_field == role)

    @property
    def inputs(self) -> dict[str, Input]:
        """The pictures that are read, by role.

        The first one determines the proportions of the result.
        """
        return {role: Input(getattr(self, name)) for name, role in self.roles().items()}

    def objective(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> Objective:
        """What is minimised in images of shape (H, W).

        The smoothness term `tv` is added to it for every recipe.

        Args:
            pictures: the inputs by role, (1, 3, H, W) sRGB in [0, 1], each in the shape that it has
                in the run.
        """
        raise NotImplementedError

    def derive_inputs(self, pictures: Mapping[str, Tensor], net: Network) -> dict[str, Tensor]:
        """More inputs by role, which a recipe makes from those that were read, with the network:
        none, unless it says so."""
        return {}

    def prepare_inputs(self, pictures: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs by role as the objective and the first picture take them: as they are, unless
        a recipe changes them, or adds to them what is to be made only once."""
        return pictures

    @property
    def finishes(self) -> bool:
        """Whether pictures of the run are `finished` before they are shown and kept."""
        return False

    def finish(self, picture: Tensor, pictures: Mapping[str, Tensor]) -> Tensor:
        """A picture of the run as it is shown and kept, given the inputs by role in its shape."""
        return picture

    def absolute(self) -> dict[str, Any]:
        """`to_dict` with absolute paths, for those who work in another folder."""
        values = self.to_dict()
        for name in self.files:
            several = isinstance(values[name], list)
            paths = values[name] if several else [values[name]]
            paths = [os.path.abspath(path) if os.path.isfile(path) else path for path in paths]
            values[name] = paths if several else paths[0]
        return values
