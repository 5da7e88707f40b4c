"""The weights of terms and layers, and the layers that are evaluated with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nstlab.base.errors import InputError, nearest
from nstlab.method.terms import PIXELS, Term
from nstlab.networks.base import Network

LARGEST_WEIGHT = 1e30  # its product with a loss is still a float32 number


def check_weight(value: float, name: str) -> float:
    """The weight of a term or layer as a float.

    Raises:
        InputError: if it is out of range.
    """
    value = float(value)
    if not 0 <= value <= LARGEST_WEIGHT:
        raise InputError(
            f"weight of '{name}': {value:g} is not allowed; allowed is from 0 to {LARGEST_WEIGHT:g}"
        )
    return value


def changed_weights(weights: Mapping[str, float], changes: Mapping[str, float]) -> dict[str, float]:
    """The weights, by name, with these changes.

    Raises:
        InputError: for a name that is unknown or a weight that is out of range.
    """
    changed = dict(weights)
    for name, value in changes.items():
        if name not in weights:
            raise InputError(
                f"no weight is called '{name}'{nearest(name, list(weights))} (there are: "
                f"{', '.join(weights)})"
            )
        changed[name] = check_weight(value, name)
    return changed


@dataclass(frozen=True)
class ActiveLayer:
    """A layer of a term that is evaluated.

    Attributes:
        term: the term.
        layer: its name as the user gave it.
        read: the network's layer that is read for it, or PIXELS.
        weight: of the layer within the term.
    """

    term: Term
    layer: str
    read: str
    weight: float

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the layer of the term among all."""
        return self.term.name, self.layer

    def fits(self, net: Network, shape: Sequence[int]) -> bool:
        """Whether a picture of shape (H, W) has the positions that the term needs here."""
        if self.read == PIXELS:
            return True
        if not net.reaches(self.read, shape):
            return False
        _, height, width = net.shapes([self.read], shape)[self.read]
        return min(height, width) >= self.term.least
