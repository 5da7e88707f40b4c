"""What recipes with a painting have in common: its style, or a mixture of the styles of several
paintings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from nstlab import method
from nstlab.base.errors import InputError
from nstlab.base.settings import FITS
from nstlab.method.conventions import CONVENTIONS
from nstlab.networks.architectures import architecture, known_network
from nstlab.recipes.base import Input, RunSettings
from nstlab.recipes.fields import live_field, network_field, picture_field
from nstlab.terms import statistics

if TYPE_CHECKING:
    from torch import Tensor

SEVERAL = "+"  # between the layers of one painting in `mix_layers`


@dataclass(frozen=True, kw_only=True)
class PaintedSettings(RunSettings):
    """The settings of recipes with one painting or more."""

    style_layers: tuple[str, ...] = live_field(
        (), "layers for style (default: the convention's, or the network's)", layers=True
    )
    style_weights: tuple[float, ...] = live_field(
        (), "weight of each style layer (default: equal)", low=0, high=1e12
    )
    style_fit: str = picture_field(FITS[0], "how the painting gets the photo's shape", choices=FITS)
    style_scale: float = picture_field(
        1.0, "size of the strokes: the painting is scaled by this", low=0.1, high=10, log=True
    )
    statistic: tuple[str, ...] = network_field(
        (statistics.GRAM,),
        "what of the features is the style, for all style layers or for each",
        choices=statistics.names(),
    )
    more_paintings: tuple[str, ...] = picture_field(
        (), "paintings to mix with the first", paths=True, identity=False
    )
    mix: tuple[float, ...] = live_field(
        (),
        "share of each painting, the first one's first (default: equal)",
        low=0,
        high=1e12,
    )
    mix_layers: tuple[str, ...] = live_field(
        (), "style layers of each painting, as conv1_1+conv2_1 (default: style_layers)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        groups = [
            SEVERAL.join(map(self.architecture.layer, text.split(SEVERAL)))
            for text in self.mix_layers
        ]
        object.__setattr__(self, "mix_layers", tuple(groups))
        layers = self.style_layers
        weights = self.style_weights
        count = 1 + len(self.more_paintings)
        if len(set(layers)) < len(layers):
            raise InputError(
                f"style_layers: {' '.join(layers)} names a layer twice; each may be named once"
            )
        if weights and len(weights) != len(layers):
            raise InputError(
                f"style_weights: {len(weights)} given for {len(layers)} style layers; give one "
                "for each"
            )
        if weights and not any(weights):
            raise InputError("style_weights: all are 0; at least one must be more")
        for name, values in (("mix", self.mix), ("mix_layers", self.mix_layers)):
            if values and len(values) != count:
                raise InputError(
                    f"{name}: {len(values)} given for {count} "
                    f"{'painting' if count == 1 else 'paintings'}"
                )
        if len(self.statistic) not in (1, len(layers)):
            raise InputError(
                f"statistic: {len(self.statistic)} given for {len(layers)} style layers; give "
                "one, or one for each"
            )
        if self.mix_layers and len(self.statistic) > 1:
            raise InputError(
                "statistic: give one for all layers, if paintings have layers of their own"
            )
        if self.mix and not any(self.mix):
            raise InputError("mix: all shares are 0; at least one must be more")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        What belongs to single layers goes with layers that another network lacks.
        """
        new = architecture(known_network(changes.get("network", self.network)))
        if not new.has(self.style_layers):
            changes = {"style_weights": (), "statistic": self.statistic[:1]} | changes
        if not new.has(layer for group in self.mix_layers for layer in group.split(SEVERAL)):
            changes = {"mix_layers": ()} | changes
        return super().replace(**changes)

    @property
    def inputs(self) -> dict[str, Input]:
        sources = super().inputs
        painting = dataclasses.replace(sources["style"], fit=self.style_fit, scale=self.style_scale)
        more = zip(self.paintings[1:], self.more_paintings, strict=True)
        return (
            sources
            | {"style": painting}
            | {role: dataclasses.replace(painting, source=name) for role, name in more}
        )

    @property
    def paintings(self) -> list[str]:
        """The roles of the paintings among the inputs: "style", "style_2", …"""
        return ["style", *(f"style_{i}" for i in range(2, len(self.more_paintings) + 2))]

    def style(self, pictures: Mapping[str, Tensor], shape: Sequence[int]) -> method.Objective:
        """Σ_i m_i style_i, the style term of each painting with its share m_i of the mixture."""
        roles = self.paintings
        shares = self.mix or (1.0,) * len(roles)
        groups = [tuple(text.split(SEVERAL)) for text in self.mix_layers] or [
            self.style_layers
        ] * len(roles)
        terms = [
            self._style_of(
                layers,
                self.style_weights if layers == self.style_layers else (),
                pictures[role],
                shape,
            )
            for role, layers in zip(roles, groups, strict=True)
        ]
        total = sum(shares)
        return sum(
            (share / total * term for share, term in zip(shares, terms, strict=True)),
            method.Objective(()),
        )

    def _style_of(
        self,
        layers: Sequence[str],
        weights: Sequence[float],
        painting: Tensor,
        shape: Sequence[int],
    ) -> method.Objective:
        """The style term of a painting.

        If layers have different statistics, a term for each of these.
        """
        kinds = self.statistic * (len(layers) if len(self.statistic) == 1 else 1)
        weights = tuple(weights) or (CONVENTIONS[self.convention].layer_weight(len(layers)),) * len(
            layers
        )
        objectives = []
        for name in dict.fromkeys(kinds):
            pairs = [
                (layer, weight)
                for layer, weight, kind in zip(layers, weights, kinds, strict=True)
                if kind == name
            ]
            chosen, chosen_weights = zip(*pairs, strict=True)
            term = statistics.kind(name)
            objectives.append(
                method.term(
                    term,
                    "style",
                    chosen,
                    chosen_weights,
                    self.convention,
                    image=painting,
                    fitted=tuple(shape),
                )
            )
        return sum(objectives, method.Objective(()))
