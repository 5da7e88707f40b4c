"""What readers are asked before the runs, and how the runs answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nstlab.course import measurements as measure
from nstlab.course.base import Base, Seen, label_of
from nstlab.course.experiments import feature_maps, guard_events, spread_of_losses

Runs = Sequence[Seen]


@dataclass(frozen=True)
class Prediction:
    """A question before the run; `answer` finds in the runs which of the choices is true."""

    question: str
    choices: tuple[str, ...]
    answer: Callable[[Runs, Base], str]


def _e1(runs: Runs, base: Base) -> str:
    psnr = [measure.psnr(run.picture, run.photo) for run in runs]
    return ("none", "one", "two", "three or more")[min(3, sum(value >= 20 for value in psnr))]


def _e2(runs: Runs, base: Base) -> str:
    return "no" if measure.ssim(runs[-1].picture, runs[-1].painting) < 0.3 else "yes"


def _e3(runs: Runs, base: Base) -> str:
    changes = {name: runs[-1].term(name) / runs[0].term(name) for name in ("content", "style")}
    more = max(changes, key=lambda name: max(changes[name], 1 / changes[name]))
    return f"the {more} error"


def _e4(runs: Runs, base: Base) -> str:
    alike = [measure.ssim(run.picture, run.photo) for run in runs]
    return "the lower one" if alike[0] > alike[1] else "the higher one"


def _e5(runs: Runs, base: Base) -> str:
    waves = [measure.mean_wavelength(run.picture) for run in runs]
    return "larger" if waves[1] > waves[0] else "smaller"


def _e6(runs: Runs, base: Base) -> str:
    alike = [measure.ssim(run.picture, run.photo) for run in runs]
    return ("the base case", "[1]", "[2]", "[3]")[alike.index(max(alike))]


def _e7(runs: Runs, base: Base) -> str:
    ends = {run.settings.init: run.term("content") for run in runs if run.settings.steps == base.steps}
    return min(ends, key=ends.get)


def _e8(runs: Runs, base: Base) -> str:
    spread = spread_of_losses(runs)
    return "less than 1 %" if spread < 0.01 else "1 to 10 %" if spread < 0.1 else "more than 10 %"


def _e9(runs: Runs, base: Base) -> str:
    events = guard_events(runs)
    return "both alike" if events["avg"] == events["max"] else max(events, key=events.get)


def _e10(runs: Runs, base: Base) -> str:
    return label_of(min(runs, key=lambda run: run.result["loss"]))


def _e11(runs: Runs, base: Base) -> str:
    silent = [float((f[0].flatten(1) <= 0).double().mean()) for f in feature_maps(base).values()]
    return "the highest" if silent[-1] > silent[0] else "the lowest"


def _e12(runs: Runs, base: Base) -> str:
    comparable = [run for run in runs if run.settings.normalize and not run.settings.style_weights]  # one objective
    return label_of(min(comparable, key=lambda run: run.result["loss"]))


PREDICTIONS = {
    "E1": Prediction("From how many of the layers will the photo come back clearly (PSNR of 20 dB or more)?",
                     ("none", "one", "two", "three or more"), _e1),
    "E2": Prediction("Will the texture from all five layers show where things were in the painting?", ("yes", "no"), _e2),
    "E3": Prediction("From α/β = 1e-1 to 1e-4, which error changes by the larger factor?",
                     ("the content error", "the style error"), _e3),
    "E4": Prediction("With which content layer is the picture more like the photo (SSIM)?",
                     ("the lower one", "the higher one"), _e4),
    "E5": Prediction("With higher style layers, does the picture's structure get larger or smaller?",
                     ("larger", "smaller"), _e5),
    "E6": Prediction("Which of the four keeps most of the photo's structure?", ("the base case", "[1]", "[2]", "[3]"), _e6),
    "E7": Prediction("From which start does the content error end lowest?",
                     ("noise", "white", "grey", "content", "style", "rings"), _e7),
    "E8": Prediction("By how much do the final losses of four seeds differ?",
                     ("less than 1 %", "1 to 10 %", "more than 10 %"), _e8),
    "E9": Prediction("With which pooling must the guard step in more often, all runs together?",
                     ("avg", "max", "both alike"), _e9),
    "E10": Prediction("Which optimizer ends with the lowest loss?", ("L-BFGS", "Adam", "gradient descent"), _e10),
    "E11": Prediction("In which layer is a larger part of the map zero?", ("the lowest", "the highest"), _e11),
    "E12": Prediction("Which of these ends with the lowest loss?",
                      ("defaults", "from noise", "at one size", "half the steps", "twice the steps"), _e12),
}  # fmt: skip
