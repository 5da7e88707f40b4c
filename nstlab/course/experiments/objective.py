"""E1 to E6 and E11: what the layers see, and what the choice of layers and weights does to the picture."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from torch import Tensor

from nstlab import figures
from nstlab import images as im
from nstlab.course import measurements as measure
from nstlab.course.base import Runs
from nstlab.course.experiment import Claim, Experiment, claim, rises
from nstlab.method.names import rectified
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalize_activations
from nstlab.runs.sweep import Sweep


class ContentReconstruction(Experiment):
    id, title = "E1", "Content reconstruction"
    question = "What does each layer know of a photo?"
    prediction = "From how many of the layers will the photo come back clearly (PSNR of 20 dB or more)?"
    choices = ("none", "one", "two", "three or more")

    def sweep(self) -> Sweep:
        return Sweep(self.base.reconstruct(), {"layer": self.base.style})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        psnr = [measure.psnr(run.picture, run.photo) for run in runs]
        clear = psnr[0] >= 25
        yield claim("From the lowest layer the photo comes back almost perfectly (25 dB or more)", psnr[:1], clear, "dB")
        error = [measure.pixel_error(run.picture, run.photo) for run in runs]
        yield claim("The pixels' error grows with depth", error, rises(error))
        left = [run.remaining("content") for run in runs]
        yield claim("Yet the matched layer's own error falls to 5 % of the noise's or less", left, max(left) <= 0.05)

    def answer(self, runs: Runs) -> str:
        clear = [run for run in runs if measure.psnr(run.picture, run.photo) >= 20]
        return self.choices[min(3, len(clear))]


class StyleReconstruction(Experiment):
    id, title = "E2", "Style reconstruction"
    question = "What do the Gram matrices of more and more layers hold?"
    prediction = "Will the texture from all five layers show where things were in the painting?"
    choices = ("yes", "no")

    def sweep(self) -> Sweep:
        style = self.base.style
        return Sweep(self.base.texture(), {"style_layers": {f"to {last}": style[: i + 1] for i, last in enumerate(style)}})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        fallen = [1 / max(run.remaining("style"), 1e-12) for run in runs]
        yield claim("The Gram matrices' error falls a hundredfold or more", fallen, min(fallen) >= 100, "times")
        long = [measure.coherence(run.picture) for run in runs]
        yield claim("Strokes get longer with every layer (coherence of edges' directions over 10 px)", long, rises(long))
        own = measure.autocorrelation_length(runs[0].painting)
        length = {run.label: measure.autocorrelation_length(run.picture) for run in runs}
        yield claim(
            "From two layers on, the autocorrelation length is the painting's own within 15 %, and tells no more",
            {"painting": own} | length,
            all(abs(value / own - 1) <= 0.15 for value in list(length.values())[1:]),
            "px",
        )
        alike = [measure.ssim(run.picture, run.painting) for run in runs]
        yield claim("The painting's arrangement is not copied (SSIM to it below 0.3)", alike, max(alike) < 0.3)

    def answer(self, runs: Runs) -> str:
        return "no" if measure.ssim(runs[-1].picture, runs[-1].painting) < 0.3 else "yes"


class ContentAgainstStyle(Experiment):
    id, title = "E3", "Content against style"
    question = "What does the ratio α/β trade?"
    prediction = "From α/β = 1e-1 to 1e-4, which error changes by the larger factor?"
    choices = ("the content error", "the style error")
    terms = ("content", "style")

    def sweep(self) -> Sweep:
        betas = {"α/β = 1e-1": 1e1, "α/β = 1e-2": 1e2, "α/β = 1e-3": 1e3, "α/β = 1e-4": 1e4}
        return Sweep(self.base.transfer(alpha=1.0), {"beta": betas})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        content, style = [run.term("content") for run in runs], [run.term("style") for run in runs]
        yield claim("As α/β falls, the content error rises", content, rises(content))
        yield claim("As α/β falls, the style error falls", style, rises(style[::-1]))

    def answer(self, runs: Runs) -> str:
        changes = {name: runs[-1].term(name) / runs[0].term(name) for name in ("content", "style")}
        more = max(changes, key=lambda name: max(changes[name], 1 / changes[name]))
        return f"the {more} error"


class ContentLayer(Experiment):
    id, title = "E4", "The content layer"
    question = "What does a higher content layer let go?"
    prediction = "With which content layer is the picture more like the photo (SSIM)?"
    choices = ("the lower one", "the higher one")

    def sweep(self) -> Sweep:
        return Sweep(self.base.transfer(), {"content_layers": [("conv2_2",), self.base.content]})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        alike = [measure.ssim(run.picture, run.photo) for run in runs]
        yield claim("The lower content layer keeps more of the photo's pixels (SSIM to it)", alike, alike[0] > alike[1])
        errors = [run.term("style") for run in runs]
        yield claim("The higher one lets more style in (style error)", errors, errors[1] < errors[0])

    def answer(self, runs: Runs) -> str:
        low, high = (measure.ssim(run.picture, run.photo) for run in runs)
        return "the lower one" if low > high else "the higher one"


class StyleLayers(Experiment):
    id, title = "E5", "The style layers"
    question = "What do higher style layers add?"
    prediction = "With higher style layers, does the picture's structure get larger or smaller?"
    choices = ("larger", "smaller")

    def sweep(self) -> Sweep:
        upper = self.base.style[:4]
        return Sweep(self.base.transfer(), {"style_layers": {"to conv2_1": upper[:2], f"to {upper[-1]}": upper}})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        length = [measure.mean_wavelength(run.picture) for run in runs]
        yield claim("With higher style layers structure is larger (mean wavelength)", length, rises(length), "px")
        fine = [measure.fine_energy(run.picture) for run in runs]
        yield claim("and less of it is finer than eight pixels (part of the power)", fine, rises(fine[::-1]))

    def answer(self, runs: Runs) -> str:
        few, more = (measure.mean_wavelength(run.picture) for run in runs)
        return "larger" if more > few else "smaller"


class TutorialLayers(Experiment):
    id, title = "E6", "Three examples by the tutorial's numbers"
    question = "Can colour be taken alone?"
    prediction = "Which of the four keeps most of the photo's structure?"
    choices = ("the base case", "[1]", "[2]", "[3]")

    def sweep(self) -> Sweep:
        five, three = ("1", "2", "3", "4", "5"), ("1", "2", "3")
        examples = {
            "base: content 4, style 1–5": (("4",), five),
            "[1] content 2, style 1–5": (("2",), five),
            "[2] content 6, style 1–5": (("6",), five),
            "[3] content 6, style 1–3": (("6",), three),
        }
        return Sweep(self.base.transfer(init="content"), {("content_layers", "style_layers"): examples})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        third = runs[3]
        away = measure.colour_distance(third.photo, third.painting)
        left = measure.colour_distance(third.picture, third.painting) / max(away, 1e-9)
        half = left <= 0.5
        yield claim("[3] takes the painting's colours: half the photo's distance to them, or less, is left", [left], half)
        names = ("base", "[1]", "[2]", "[3]")
        alike = {name: measure.ssim(run.picture, run.photo) for name, run in zip(names, runs, strict=True)}
        more = alike["[3]"] > alike["[2]"]
        yield claim("It keeps more of the photo's structure than [2], with more style layers (SSIM)", alike, more)
        kept, enough = alike["[3]"] / alike["base"], alike["[3]"] >= 0.9 * alike["base"]
        yield claim("and nine tenths of what the base case keeps, or more, whose content layer is lower", [kept], enough)

    def answer(self, runs: Runs) -> str:
        alike = [measure.ssim(run.picture, run.photo) for run in runs]
        return self.choices[alike.index(max(alike))]


class FeatureMaps(Experiment):
    id, title = "E11", "Feature maps"
    question = "What do a low and a high layer see?"
    prediction = "In which layer is a larger part of the map zero?"
    choices = ("the lowest", "the highest")

    def sweep(self) -> None:
        return None

    def compares(self) -> bool:
        return len(self.layers) > 1

    @property
    def layers(self) -> list[str]:
        """The lowest, a middle and the highest of the style layers, behind their ReLUs."""
        style = self.base.style
        return [rectified(name) for name in dict.fromkeys((style[0], style[len(style) // 2], style[-1]))]

    @cached_property
    def maps(self) -> dict[str, Tensor]:
        """{layer: (1, C, h, w)} of the photo at twice the size, which costs little where nothing is optimized."""
        return normalize_activations(VGG19(self.base.weights))(im.load(self.base.photo, 2 * self.base.size), self.layers)

    def claims(self, runs: Runs) -> Iterator[Claim]:
        spread = {name: _spread(maps) for name, maps in self.maps.items()}
        pixels = {name: 2 * self.base.size / max(maps.shape[-2:]) for name, maps in self.maps.items()}
        low, *_, high = spread.values()
        yield claim("The highest maps are sparser than the lowest (Treves and Rolls' measure)", spread, high < low)
        yield claim("and higher ones are coarser (pixels of the photo to a position)", pixels, rises([*pixels.values()]))

    def answer(self, runs: Runs) -> str:
        low, *_, high = (float((maps[0].flatten(1) <= 0).double().mean()) for maps in self.maps.values())
        return "the highest" if high > low else "the lowest"

    def sheet(self, runs: Runs) -> figures.Shown:
        return figures.feature_maps(self.maps, photo=im.load(self.base.photo, self.base.size), title=self.heading)


def _spread(maps: Tensor) -> float:
    """Features (1, C, h, w) -> mean over the channels that answer of squared mean over mean square: 1 for constant maps, near 0
    for a few peaks (Treves and Rolls 1991)."""
    values = maps[0].flatten(1).double()
    spread = values.mean(1).square() / values.square().mean(1).clamp_min(1e-12)
    return float(spread[values.amax(1) > 0].mean())
