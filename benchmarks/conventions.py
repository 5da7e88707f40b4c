"""How ratios translate between conventions: `python -m benchmarks conventions`.

A picture is made with the default settings. At this picture, the gradient of style is β |∇style| /
(α |∇content|) times as long as that of content. For every other convention, with its own layers and
α, this prints the β at which the same is true of its own losses: the median over the pairs, and the
smallest and largest. Where a convention's authors did not normalize activations, the result depends
on the weights. Where weights end early, their deepest layer replaces content layers beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from torch import Tensor

import nstlab as nst
from benchmarks.scene import PAIRS, pairs_of, pairs_option, weights_option
from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.method.conventions import CONVENTIONS
from nstlab.networks import weights
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare


@dataclass(frozen=True, kw_only=True)
class ConventionsSettings(Settings):
    """Translate the default β into every convention."""

    weights: str = weights_option()
    sizes: tuple[int, ...] = option((256, 512), "long sides", low=64, high=4096, unit="px")
    pairs: tuple[str, ...] = pairs_option(PAIRS)


def gradient_ratio(plan: Plan, settings: nst.TransferSettings, picture: Tensor) -> float:
    """|∇style| / |∇content| at a picture, unweighted.

    Args:
        plan: one with the same pictures, whose network and inputs are used.
        settings: whose layers and losses are compared.
        picture: (1, 3, H, W) in [0, 1].
    """
    lengths = []
    for alpha, beta in ((0.0, 1.0), (1.0, 0.0)):
        plan = prepare(settings.replace(alpha=alpha, beta=beta, tv=0.0), "cpu", like=plan)
        bound = plan.objective.bind(plan.net, picture.shape[-2:])
        lengths.append(float(bound.evaluate(picture)[1].norm()) * bound.scale)
    return lengths[0] / lengths[1]


def within_reach(settings: nst.TransferSettings) -> nst.TransferSettings:
    """The settings, with only those layers that their weights reach."""
    reached = weights.load(settings.weights).layers
    content = tuple(layer for layer in settings.content_layers if layer in reached)
    style = tuple(layer for layer in settings.style_layers if layer in reached)
    return settings.replace(content_layers=content or reached[-1:], style_layers=style)


def translate(settings: nst.TransferSettings) -> dict[str, float]:
    """{convention: the β whose gradient ratio is that of the settings' β}."""
    settings = within_reach(settings)
    plan = prepare(settings, "cpu")
    picture = plan.solve().image
    ratio = settings.beta / settings.alpha * gradient_ratio(plan, settings, picture)
    bare = nst.TransferSettings(
        settings.photo, settings.painting, size=settings.size, weights=settings.weights
    )
    betas = {}
    for name in CONVENTIONS:
        other = within_reach(bare.replace(convention=name))
        betas[name] = ratio * other.alpha / gradient_ratio(plan, other, picture)
    return betas


def conventions_command(settings: ConventionsSettings) -> int:
    """Print a table."""
    print("| convention | its α, β | size | β equivalent to the default |\n|---|---|---|---|")
    for size in settings.sizes:
        translations = [
            translate(nst.TransferSettings(*pair, size=size, weights=settings.weights))
            for pair in pairs_of(settings.pairs)
        ]
        for name, convention in CONVENTIONS.items():
            betas = [translation[name] for translation in translations]
            spread = f"{median(betas):.3g} ({min(betas):.3g} to {max(betas):.3g})"
            print(
                f"| {name} | {convention.alpha:g}, {convention.beta:g} | {size} px | {spread} |",
                flush=True,
            )
    return 0
