"""E1 to E12: what is varied, and which numbers confirm or refute what the sources say.

Sources: Gatys, Ecker, Bethge 2016 (E1 to E4, E7), Gatys et al. 2015 (E2), and reports that varied the method's knobs. A
threshold that a source does not give is ours, and stands in the claim's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean

from torch import Tensor

from nstlab import images as im
from nstlab.course import measurements as measure
from nstlab.course.base import Base, Claim, Experiment, Seen, claim, label_of, rises
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION
from nstlab.method.names import STYLE_LAYERS, rectified
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.recipes import plan as recipes
from nstlab.runs.sweep import Sweep

Runs = Sequence[Seen]


# --- E1, E2: reconstructions ------------------------------------------------------------------------------------


def _e1(base: Base) -> Sweep:
    return Sweep(base.reconstruct(), {"layer": base.reached(*STYLE_LAYERS)})


def _e1_claims(runs: Runs, base: Base) -> list[Claim]:
    psnr = [measure.psnr(run.picture, run.photo) for run in runs]
    error = [measure.pixel_error(run.picture, run.photo) for run in runs]
    fallen = [run.fallen("content") for run in runs]
    return [
        claim("From the lowest layer the photo comes back almost perfectly (25 dB or more)", psnr[:1], psnr[0] >= 25, "dB"),
        claim("The pixels' error grows with depth", error, rises(error)),
        claim("Yet the matched layer's own error falls to 5 % of the noise's or less", fallen, max(fallen) <= 0.05),
    ]


def _e2(base: Base) -> Sweep:
    prefixes = {f"to {base.style[i]}": base.style[: i + 1] for i in range(len(base.style))}
    return Sweep(base.texture(), {"style_layers": prefixes})


def _e2_claims(runs: Runs, base: Base) -> list[Claim]:
    fallen = [1 / max(run.fallen("style"), 1e-12) for run in runs]
    coherence = [measure.coherence(run.picture) for run in runs]
    length = [measure.autocorrelation_length(run.picture) for run in runs]
    own = measure.autocorrelation_length(runs[0].painting)
    alike = [measure.ssim(run.picture, run.painting) for run in runs]
    return [
        claim("The Gram matrices' error falls a hundredfold or more", fallen, min(fallen) >= 100, "times"),
        claim("Strokes get longer with every layer (coherence of edges' directions over 10 px)", coherence, rises(coherence)),
        claim(
            "From two layers on, the autocorrelation length is the painting's own within 15 %, and tells no more",
            {"painting": own} | {label_of(run): value for run, value in zip(runs, length, strict=True)},
            all(abs(value / own - 1) <= 0.15 for value in length[1:]),
            "px",
        ),
        claim("The painting's arrangement is not copied (SSIM to it below 0.3)", alike, max(alike) < 0.3),
    ]


# --- E3 to E6: weights and layers -------------------------------------------------------------------------------


def _e3(base: Base) -> Sweep:
    ratios = {"1e-1": 1e1, "1e-2": 1e2, "1e-3": 1e3, "1e-4": 1e4}
    return Sweep(base.transfer(alpha=1.0), {"beta": {f"α/β = {text}": beta for text, beta in ratios.items()}})


def _e3_claims(runs: Runs, base: Base) -> list[Claim]:
    like_photo, like_painting = ([run.term(name) for run in runs] for name in ("content", "style"))
    return [
        claim("As α/β falls, the content error rises", like_photo, rises(like_photo)),
        claim("As α/β falls, the style error falls", like_painting, rises(like_painting[::-1])),
    ]


def _e4(base: Base) -> Sweep:
    return Sweep(base.transfer(), {"content_layers": [("conv2_2",), base.content]})


def _e4_claims(runs: Runs, base: Base) -> list[Claim]:
    alike, errors = [measure.ssim(run.picture, run.photo) for run in runs], [run.term("style") for run in runs]
    return [
        claim("The lower content layer keeps more of the photo's pixels (SSIM to it)", alike, alike[0] > alike[1]),
        claim("The higher one lets more style in (style error)", errors, errors[1] < errors[0]),
    ]


def _e5(base: Base) -> Sweep:
    upper = base.style[:4]
    return Sweep(base.transfer(), {"style_layers": {"to conv2_1": base.style[:2], f"to {upper[-1]}": upper}})


def _e5_claims(runs: Runs, base: Base) -> list[Claim]:
    length = [measure.mean_wavelength(run.picture) for run in runs]
    fine = [measure.fine_energy(run.picture) for run in runs]
    return [
        claim("With higher style layers structure is larger (mean wavelength)", length, rises(length), "px"),
        claim("and less of it is finer than eight pixels (part of the power)", fine, rises(fine[::-1])),
    ]


def _e6(base: Base) -> Sweep:
    examples = {
        "base: content 4, style 1–5": (("4",), ("1", "2", "3", "4", "5")),
        "[1] content 2, style 1–5": (("2",), ("1", "2", "3", "4", "5")),
        "[2] content 6, style 1–5": (("6",), ("1", "2", "3", "4", "5")),
        "[3] content 6, style 1–3": (("6",), ("1", "2", "3")),
    }
    return Sweep(base.transfer(init="content"), {("content_layers", "style_layers"): examples})


def _e6_claims(runs: Runs, base: Base) -> list[Claim]:
    third = runs[3]
    away = measure.colour_distance(third.photo, third.painting)
    left = measure.colour_distance(third.picture, third.painting) / max(away, 1e-9)
    alike = {name: measure.ssim(run.picture, run.photo) for name, run in zip(("base", "[1]", "[2]", "[3]"), runs, strict=True)}
    return [
        claim("[3] takes the painting's colours: half the photo's distance to them, or less, is left", [left], left <= 0.5),
        claim(
            "It keeps more of the photo's structure than [2], with more style layers (SSIM)", alike, alike["[3]"] > alike["[2]"]
        ),
        claim(
            "and nine tenths of what the base case keeps, or more, whose content layer is lower",
            [alike["[3]"] / alike["base"]],
            alike["[3]"] >= 0.9 * alike["base"],
        ),
    ]


# --- E7, E8: the first picture ----------------------------------------------------------------------------------

_STARTS = ("noise", "white", "grey", "content", "style", "rings")


def _e7(base: Base) -> Sweep:
    return Sweep(base.transfer(), {"steps": [base.steps, base.longer], "init": _STARTS})


def _e7_claims(runs: Runs, base: Base) -> list[Claim]:
    by = {(run.settings.steps, run.settings.init): run for run in runs}
    traces = {steps: _traces(by, steps) for steps in (base.steps, base.longer)}
    short, long = (traces[steps] for steps in (base.steps, base.longer))
    ends = {init: by[base.steps, init].term("content") for init in _STARTS}
    return [
        claim(
            "The start remains measurable (correlation with it, more than that of the picture begun in grey)",
            short,
            min(short.values()) > 0.01,
        ),
        claim(
            "less so after more steps (mean)",
            [fmean(short.values()), fmean(long.values())],
            fmean(long.values()) < fmean(short.values()),
        ),
        claim("From the photo, the content error ends lowest", ends, min(ends, key=ends.get) == "content"),
    ]


def _traces(by: dict[tuple[int, str], Seen], steps: int) -> dict[str, float]:
    """How much more each picture is like its own first picture than the one begun in grey is."""
    grey = by[steps, "grey"].picture

    def trace(run: Seen) -> float:
        return measure.correlation(run.picture, run.start) - measure.correlation(grey, run.start)

    return {init: trace(by[steps, init]) for init in _STARTS if init != "grey"}


def _e8(base: Base) -> Sweep:
    return Sweep(base.transfer(), {"seed": range(base.seed, base.seed + 4)})


def spread_of_losses(runs: Runs) -> float:
    """How much larger the largest loss is than the smallest, as a part."""
    losses = [run.result["loss"] for run in runs]
    return max(losses) / min(losses) - 1


def _e8_claims(runs: Runs, base: Base) -> list[Claim]:
    spread = spread_of_losses(runs)
    apart = [measure.pixel_error(a.picture, b.picture) for i, a in enumerate(runs) for b in runs[:i]]
    return [
        claim("Losses of four seeds agree within 5 %", [100 * spread], spread <= 0.05, "%"),
        claim("while the pictures differ pixel by pixel (root mean square, 0.05 or more)", apart, min(apart) >= 0.05),
    ]


# --- E9, E10: pooling and optimizers ----------------------------------------------------------------------------


def _e9(base: Base) -> Sweep:
    ways = {"L-BFGS": ("lbfgs", 0.02), "Adam 0.02": ("adam", 0.02), "descent 0.5": ("gd", 0.5)}
    vary = {"pool": ["avg", "max"], "seed": [base.seed, base.seed + 1], ("optimizer", "learning_rate"): ways}
    return Sweep(base.transfer(), vary)


def guard_events(runs: Runs) -> dict[str, int]:
    """How often the guard stepped in, by pooling."""
    return {pool: sum(len(run.result["events"]) for run in runs if run.settings.pool == pool) for pool in ("avg", "max")}


def _e9_claims(runs: Runs, base: Base) -> list[Claim]:
    by = {pool: [run for run in runs if run.settings.pool == pool] for pool in ("avg", "max")}
    lbfgs = {pool: [run.picture for run in each if run.settings.optimizer == "lbfgs"] for pool, each in by.items()}
    fine = {pool: fmean(map(measure.fine_energy, pictures)) for pool, pictures in lbfgs.items()}
    events = guard_events(runs)
    worst = max(run.result["loss"] / run.history["loss"].iloc[0] for run in runs)
    return [
        claim("Average pooling makes smoother pictures (power finer than eight pixels)", fine, fine["avg"] < fine["max"]),
        claim("The loss explodes more often with max pooling (events of the guard)", events, events["avg"] < events["max"]),
        claim("The guard lets no picture end worse than it began (worst ratio of losses)", [worst], worst <= 1),
    ]


def _e10(base: Base) -> Sweep:
    ways = {"L-BFGS": ("lbfgs", 0.02), "Adam": ("adam", 0.02), "gradient descent": ("gd", 0.02)}
    return Sweep(base.transfer(), {("optimizer", "learning_rate"): ways})


def _e10_claims(runs: Runs, base: Base) -> list[Claim]:
    least = min(run.history["evaluations"].iloc[-1] for run in runs)
    ends = {label_of(run): float(run.history[run.history["evaluations"] <= least]["loss"].min()) for run in runs}
    each = [run.result["seconds"] / run.result["evaluations"] * 1000 for run in runs]
    return [
        claim(f"After {least} evaluations L-BFGS has the lowest loss", ends, min(ends, key=ends.get) == label_of(runs[0])),
        claim("An evaluation of L-BFGS, with its own work, costs at most twice Adam's", each, each[0] <= 2 * each[1], "ms"),
    ]


# --- E11: feature maps ------------------------------------------------------------------------------------------


@cache
def feature_maps(base: Base) -> dict[str, Tensor]:
    """{layer: (1, C, h, w)} of the photo at twice the size, since nothing is optimized."""
    return normalize_activations(VGG19(base.weights))(im.load(base.photo, 2 * base.size), low_to_high(base))


def low_to_high(base: Base) -> tuple[str, ...]:
    """The lowest, a middle and the highest of the style layers, behind their ReLUs."""
    chosen = dict.fromkeys((base.style[0], base.style[len(base.style) // 2], base.style[-1]))
    return tuple(map(rectified, chosen))


def _e11_claims(runs: Runs, base: Base) -> list[Claim]:
    maps = {layer: f[0].flatten(1).double() for layer, f in feature_maps(base).items()}  # (C, h w)
    # Treves and Rolls 1991: mean² over mean of squares; 1 for a constant map, towards 0 for a few peaks
    spread = {
        k: float((f.mean(1).square() / f.square().mean(1).clamp_min(1e-12))[f.amax(1) > 0].mean()) for k, f in maps.items()
    }
    sparse, pixels = [*spread.values()], {k: 2 * base.size / max(f.shape[-2:]) for k, f in feature_maps(base).items()}
    return [
        claim("The highest maps are sparser than the lowest (Treves and Rolls' measure)", spread, sparse[-1] < sparse[0]),
        claim("and higher ones are coarser (pixels of the photo to a position)", pixels, rises([*pixels.values()])),
    ]


# --- E12: the other knobs ---------------------------------------------------------------------------------------


def _e12(base: Base) -> Sweep:
    n = len(base.style)
    falling = tuple(2.0 ** (n - 1 - i) / (2**n - 1) for i in range(n))  # each twice the next, 1 in all, as by default
    rising = falling[::-1]
    given, steps = CONVENTIONS[DEFAULT_CONVENTION], base.steps
    knobs = {
        "defaults": (given.init, given.levels, steps, True, ()),
        "from noise": ("noise", given.levels, steps, True, ()),
        "at one size": (given.init, 1, steps, True, ()),
        "half the steps": (given.init, given.levels, steps // 2, True, ()),
        "twice the steps": (given.init, given.levels, steps * 2, True, ()),
        "not normalized": (given.init, given.levels, steps, False, ()),
        "lower layers heavier": (given.init, given.levels, steps, True, falling),
        "higher layers heavier": (given.init, given.levels, steps, True, rising),
    }
    return Sweep(base.transfer(), {("init", "levels", "steps", "normalize", "style_weights"): knobs})


def _e12_claims(runs: Runs, base: Base) -> list[Claim]:
    plan = recipes.prepare(base.transfer(), "cpu")
    found = dict(zip(map(label_of, runs), plan.losses(run.picture for run in runs), strict=True))
    rivals = {name: loss for name, loss in found.items() if name not in ("defaults", "twice the steps")}
    best, longer = found["defaults"], found["twice the steps"]
    return [
        claim("No other knob lowers the default loss by 2 % or more", found, best <= 1.02 * min(rivals.values())),
        claim("Twice the steps lower it by less than 10 %", [100 * (1 - longer / best)], longer >= 0.9 * best, "%"),
    ]


EXPERIMENTS = {
    e.id: e
    for e in (
        Experiment("E1", "Content reconstruction", "What does each layer know of a photo?", _e1_claims, _e1),
        Experiment("E2", "Style reconstruction", "What do the Gram matrices of more and more layers hold?", _e2_claims, _e2),
        Experiment("E3", "Content against style", "What does the ratio α/β trade?", _e3_claims, _e3, ("content", "style")),
        Experiment("E4", "The content layer", "What does a higher content layer let go?", _e4_claims, _e4),
        Experiment("E5", "The style layers", "What do higher style layers add?", _e5_claims, _e5),
        Experiment("E6", "Three examples by the tutorial's numbers", "Can colour be taken alone?", _e6_claims, _e6),
        Experiment("E7", "Initialization", "How much of the first picture remains?", _e7_claims, _e7),
        Experiment("E8", "Stochasticity", "Do other seeds make other pictures?", _e8_claims, _e8),
        Experiment("E9", "Pooling", "Why average pooling, and what does the guard do?", _e9_claims, _e9),
        Experiment("E10", "Optimizers", "Which gets furthest in equal evaluations?", _e10_claims, _e10, ("loss",)),
        Experiment("E11", "Feature maps", "What do a low and a high layer see?", _e11_claims),
        Experiment("E12", "The other knobs", "Is there anything better than the defaults?", _e12_claims, _e12),
    )
}
