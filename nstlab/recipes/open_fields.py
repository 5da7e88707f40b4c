"""Settings that may be left open: the convention fills them, or the network.

Equal runs have equal settings so, whether a value was given or left open.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from nstlab.base.errors import InputError
from nstlab.base.names import FULL
from nstlab.base.settings import Settings
from nstlab.method.conventions import CONVENTIONS, Convention
from nstlab.networks.architectures import Architecture, architecture, known_network

T = TypeVar("T")
if TYPE_CHECKING:
    Filled = Annotated[T, "by the convention, if it is left open"]
else:
    # None on input; never None in settings, which fill it with the convention's value
    Filled = T | None


@dataclass(frozen=True, kw_only=True)
class OpenSettings(Settings):
    """Settings of which some are filled by the convention or the network if they are left open.

    Those are the fields whose default is None or () and that a `Convention` has or that name
    layers. Which ones were left open is remembered, so that they follow the convention, the network
    and the size when these change; a value that was given stays.
    """

    if TYPE_CHECKING:
        convention: str
        network: str
        size: int

    def __post_init__(self) -> None:
        """Fill the fields that are left open, and give layers their names.

        Raises:
            InputError: for values that are not allowed, and for layers that the network lacks.
        """
        super().__post_init__()
        left_open = tuple(
            name for name in self._conventional() if getattr(self, name) in (None, ())
        )
        object.__setattr__(self, "_open", left_open)
        for name in left_open:
            object.__setattr__(self, name, self._filling(name))
        for name in self._naming_layers():
            object.__setattr__(self, name, self._named_layers(name))

    @property
    def left_open(self) -> tuple[str, ...]:
        """The fields that were not given, whose values are the convention's or the network's."""
        return vars(self)["_open"]

    @property
    def architecture(self) -> Architecture:
        """The network's layers."""
        return architecture(self.network)

    def _named_layers(self, field: str) -> str | tuple[str, ...]:
        """The value of a field that names layers, by their names."""
        value = getattr(self, field)
        if value in (None, ()):
            lists = f"`nstlab info --network {self.network}` lists them"
            raise InputError(f"{field}: choose layers of {self.network}; {lists}")
        if isinstance(value, tuple):
            return tuple(map(self.architecture.layer, value))
        return self.architecture.layer(value)

    @classmethod
    def _conventional(cls) -> list[str]:
        """The names of the fields that the convention fills if they are left open, or where they
        name layers, the network."""
        by_convention = {f.name for f in dataclasses.fields(Convention)}.union(cls._naming_layers())
        return [
            f.name
            for f in dataclasses.fields(cls)
            if f.name in by_convention and f.default in (None, ())
        ]

    @classmethod
    def _naming_layers(cls) -> list[str]:
        """The names of the fields that name layers."""
        return [name for name, _, opt in cls.options() if opt.layers]

    def _filling(self, name: str) -> Any:
        """What a field becomes that is left open, empty if nothing is known.

        A VGG's layers are the convention's.
        """
        default = getattr(self.architecture, name, None)
        if name == "levels" and (several := CONVENTIONS[self.convention].levels) > 1:
            return several + max(0, math.ceil(math.log2(self.size / FULL)))
        return (
            getattr(CONVENTIONS[self.convention], name)
            if default is None or self.architecture.blocks
            else default
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        A value that was given stays; what was left open follows the convention, the network and the
        size; layers that another network lacks become its own.
        """
        new = architecture(known_network(changes.get("network", self.network)))
        lacking = []
        for name in self._naming_layers():
            value = getattr(self, name)
            if not new.has(value if isinstance(value, tuple) else (value,)):
                lacking.append(name)
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        changes = {name: defaults[name] for name in (*self.left_open, *lacking)} | changes
        return super().replace(**changes)
