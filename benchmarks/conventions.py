"""How ratios translate between conventions: `python -m benchmarks.conventions`.

A picture is made with the default settings. At this picture, the gradient of style is β |∇style| /
(α |∇content|) times as long as that of content. For every other convention, with its own layers and
α, this prints the β at which the same is true of its own losses: the median over the pairs, and the
smallest and largest. Where a convention's authors did not normalize activations, the result depends
on the weights. Where weights end early, their deepest layer takes the place of content layers
beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import tyro
from torch import Tensor

import nstlab as nst
from benchmarks.scene import PAIRS
from nstlab.method.conventions import CONVENTIONS
from nstlab.networks import weights
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare


@dataclass
class Options:
    """Translate the default β into every convention."""

    weights: str = "embedded"
    sizes: tuple[int, ...] = (256, 512)
    """long sides in pixels"""
    pairs: tuple[tuple[str, str], ...] = PAIRS


def gradient_ratio(plan: Plan, settings: nst.TransferSettings, picture: Tensor) -> float:
    """|∇style| / |∇content| at a picture, unweighted. plan: one with the same pictures, whose
    network and inputs are used."""
    lengths = []
    for alpha, beta in ((0.0, 1.0), (1.0, 0.0)):
        plan = prepare(settings.replace(alpha=alpha, beta=beta, tv=0.0), "cpu", like=plan)
        bound = plan.objective.bind(plan.net, picture.shape[-2:])
        lengths.append(float(bound.evaluate(picture)[1].norm()) * bound.scale)
    return lengths[0] / lengths[1]


def within(settings: nst.TransferSettings) -> nst.TransferSettings:
    """The settings, with only those layers that their weights reach."""
    there = weights.load(settings.weights).layers
    content, style = (
        tuple(name for name in given if name in there)
        for given in (settings.content_layers, settings.style_layers)
    )
    return settings.replace(content_layers=content or there[-1:], style_layers=style)


def translated(settings: nst.TransferSettings) -> dict[str, float]:
    """{convention: the β whose gradient ratio is that of the settings' own β}."""
    settings = within(settings)
    plan = prepare(settings, "cpu")
    picture = plan.solve().image
    own = settings.beta / settings.alpha * gradient_ratio(plan, settings, picture)
    plain = nst.TransferSettings(
        settings.photo, settings.painting, size=settings.size, weights=settings.weights
    )
    others = {name: within(plain.replace(convention=name)) for name in CONVENTIONS}
    return {
        name: own * other.alpha / gradient_ratio(plan, other, picture)
        for name, other in others.items()
    }


def main(options: Options) -> None:
    """Print a table."""
    print("| convention | its α, β | size | β equivalent to the default |\n|---|---|---|---|")
    for size in options.sizes:
        found = [
            translated(nst.TransferSettings(*pair, size=size, weights=options.weights))
            for pair in options.pairs
        ]
        for name, convention in CONVENTIONS.items():
            values = [row[name] for row in found]
            spread = f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
            print(
                f"| {name} | {convention.alpha:g}, {convention.beta:g} | {size} px | {spread} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options))
