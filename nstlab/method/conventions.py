"""How published codes scale their losses, since α/β means nothing without it; and how each begins a
run.

Each is tested against its formula on random features. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

from nstlab.base.errors import one_of
from nstlab.base.names import CONTENT_LAYERS, CONVOLUTIONS, STYLE_LAYERS

DEFAULT_CONVENTION = "mean"


@dataclass(frozen=True)
class Convention:
    """How one published code scales its losses, and how it begins.

    With mean Gram matrices G = F Fᵀ / M of N channels, M positions:

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
        "the paper's, with the content loss averaged over its elements: independent of the "
        "picture's size",
        alpha=1.0, beta=20.0, tv=0.0, content_factor=0.5, content_mean=True,
        style_factor=0.25, style_power=2, average_layers=True, rectified=True, normalize=True,
        levels=2, steps=40,
    ),
    "paper": Convention(
        "Gatys, Ecker, Bethge 2016, equations 1 to 5",
        alpha=1.0, beta=1e3, tv=0.0, content_factor=0.5, content_mean=False,
        style_factor=0.25, style_power=2, average_layers=True, rectified=True, normalize=True,
        init="white",
    ),
    "notebook": Convention(
        "the authors' PyTorch notebook: MSE of features, MSE of Gram/M weighted by 1/N²",
        alpha=1.0, beta=1e3, tv=0.0, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=True, normalize=False,
    ),
    "neural-style": Convention(
        "J. Johnson's neural-style: MSE of features, MSE of Gram/(N M), total variation",
        alpha=5.0, beta=100.0, tv=1e-3, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=True, normalize=False,
        tv_per_element=False, init="grey", steps=1000,
    ),
    "tutorial": Convention(
        "the PyTorch tutorial: MSE of features, MSE of Gram/(N M), convolutions read before "
        "their ReLU",
        alpha=1.0, beta=1e6, tv=0.0, content_factor=1.0, content_mean=True,
        style_factor=1.0, style_power=4, average_layers=False, rectified=False, normalize=False,
        content_layers=("conv2_2",), style_layers=CONVOLUTIONS[:5], steps=300,
    ),
}  # fmt: skip


def convention_named(name: str) -> Convention:
    """The convention of that name.

    Raises:
        InputError: if there is none.
    """
    return CONVENTIONS[one_of("convention", name, list(CONVENTIONS))]
