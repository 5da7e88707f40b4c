"""How ratios translate between conventions: `python -m benchmarks.conventions`.

A picture is made with the default settings. There, style pulls β |∇style| / (α |∇content|) times as strongly as content. For
every other convention, with its own layers and α, this prints the β at which its style pulls as strongly on the same picture:
the median over pairs, and the smallest and largest. Conventions whose authors did not normalize activations depend on how large
these are in the weights, and so on the weights. Of weights that end early the deepest layer stands for content layers beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import tyro
from torch import Tensor

import nstlab as nst
from nstlab.method import weights
from nstlab.method.conventions import CONVENTIONS
from nstlab.recipes import plan as recipes

PAIRS = (("coffee", "swirl_strokes"), ("astronaut", "mosaic"), ("chelsea", "wave_engraving"))


@dataclass
class Options:
    """Translate the default β into every convention."""

    weights: str = "embedded"
    sizes: tuple[int, ...] = (256, 512)
    """long sides in pixels"""
    pairs: tuple[tuple[str, str], ...] = PAIRS


def pull(plan: recipes.Plan, settings: nst.TransferSettings, picture: Tensor) -> float:
    """|∇style| / |∇content| at a picture, unweighted. `plan`: of the same pictures, for its network and inputs."""
    lengths = []
    for alpha, beta in ((0.0, 1.0), (1.0, 0.0)):
        plan = recipes.prepare(settings.replace(alpha=alpha, beta=beta, tv=0.0), "cpu", plan)
        bound = plan.objective.bind(plan.net, picture.shape[-2:])
        lengths.append(float(bound.evaluate(picture)[1].norm()) * bound.scale)
    return lengths[0] / lengths[1]


def within(settings: nst.TransferSettings) -> nst.TransferSettings:
    """The settings with the layers that their weights reach."""
    there = weights.load(settings.weights).layers
    content, style = (
        tuple(name for name in given if name in there) for given in (settings.content_layers, settings.style_layers)
    )
    return settings.replace(content_layers=content or there[-1:], style_layers=style)


def translated(settings: nst.TransferSettings) -> dict[str, float]:
    """{convention: β that pulls as strongly as the settings' own}."""
    settings = within(settings)
    plan = recipes.prepare(settings, "cpu")
    picture = plan.solve().image
    own = settings.beta / settings.alpha * pull(plan, settings, picture)
    plain = nst.TransferSettings(settings.photo, settings.painting, size=settings.size, weights=settings.weights)
    others = {name: within(plain.replace(convention=name)) for name in CONVENTIONS}
    return {name: own * other.alpha / pull(plan, other, picture) for name, other in others.items()}


def main(options: Options) -> None:
    """Print a table."""
    print("| convention | its α, β | size | β that pulls as strongly as the default |\n|---|---|---|---|")
    for size in options.sizes:
        found = [translated(nst.TransferSettings(*pair, size=size, weights=options.weights)) for pair in options.pairs]
        for name, convention in CONVENTIONS.items():
            values = [row[name] for row in found]
            spread = f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
            print(f"| {name} | {convention.alpha:g}, {convention.beta:g} | {size} px | {spread} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
