"""E7 to E10 and E12: how much the picture depends on the start, the pooling, the optimizer and the other knobs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from nstlab.course import measurements as measure
from nstlab.course.base import FinishedRun, Runs
from nstlab.course.experiment import Claim, Experiment, claim
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION
from nstlab.recipes import plan as recipes
from nstlab.runs.sweep import Sweep


class Initialization(Experiment):
    id, title = "E7", "Initialization"
    question = "How much of the first picture remains?"
    prediction = "From which start does the content error end lowest?"
    choices = ("noise", "white", "grey", "content", "style", "rings")

    def sweep(self) -> Sweep:
        return Sweep(self.base.transfer(), {"steps": [self.base.steps, self.base.longer], "init": self.choices})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        short, long = self._traces(runs, self.base.steps), self._traces(runs, self.base.longer)
        means = [fmean(short.values()), fmean(long.values())]
        ends = {init: run.term("content") for init, run in self._by_start(runs, self.base.steps).items()}
        yield claim(
            "The start remains measurable (correlation with it, more than that of the picture begun in grey)",
            short,
            min(short.values()) > 0.01,
        )
        yield claim("less so after more steps (mean)", means, means[1] < means[0])
        yield claim("From the photo, the content error ends lowest", ends, min(ends, key=ends.get) == "content")

    def answer(self, runs: Runs) -> str:
        begun = self._by_start(runs, self.base.steps)
        return min(begun, key=lambda init: begun[init].term("content"))

    def _by_start(self, runs: Runs, steps: int) -> dict[str, FinishedRun]:
        """{first picture: run} of so many steps."""
        return {run.settings.init: run for run in runs if run.settings.steps == steps}

    def _traces(self, runs: Runs, steps: int) -> dict[str, float]:
        """How much more each picture correlates with its own first picture than the one begun in grey does."""
        begun = self._by_start(runs, steps)
        grey = begun.pop("grey").picture
        return {
            init: measure.correlation(run.picture, run.start) - measure.correlation(grey, run.start)
            for init, run in begun.items()
        }


class Stochasticity(Experiment):
    id, title = "E8", "Stochasticity"
    question = "Do other seeds make other pictures?"
    prediction = "By how much do the final losses of four seeds differ?"
    choices = ("less than 1 %", "1 to 10 %", "more than 10 %")

    def sweep(self) -> Sweep:
        return Sweep(self.base.transfer(), {"seed": range(self.base.seed, self.base.seed + 4)})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        spread = self._spread(runs)
        apart = [measure.pixel_error(a.picture, b.picture) for i, a in enumerate(runs) for b in runs[:i]]
        yield claim("Losses of four seeds agree within 5 %", [100 * spread], spread <= 0.05, "%")
        yield claim("while the pictures differ pixel by pixel (root mean square, 0.05 or more)", apart, min(apart) >= 0.05)

    def answer(self, runs: Runs) -> str:
        spread = self._spread(runs)
        if spread < 0.01:
            return "less than 1 %"
        return "1 to 10 %" if spread < 0.1 else "more than 10 %"

    def _spread(self, runs: Runs) -> float:
        """How much larger the largest loss is than the smallest, as a part of it."""
        losses = [run.result["loss"] for run in runs]
        return max(losses) / min(losses) - 1


class Pooling(Experiment):
    id, title = "E9", "Pooling"
    question = "Why average pooling, and what does the guard do?"
    prediction = "With which pooling must the guard step in more often, all runs together?"
    choices = ("avg", "max", "both alike")

    def sweep(self) -> Sweep:
        ways = {"L-BFGS": ("lbfgs", 0.02), "Adam 0.02": ("adam", 0.02), "descent 0.5": ("gd", 0.5)}
        seeds = [self.base.seed, self.base.seed + 1]
        return Sweep(self.base.transfer(), {"pool": ["avg", "max"], "seed": seeds, ("optimizer", "learning_rate"): ways})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        by_lbfgs = [run for run in runs if run.settings.optimizer == "lbfgs"]
        fine = {
            pool: fmean(measure.fine_energy(run.picture) for run in by_lbfgs if run.settings.pool == pool)
            for pool in ("avg", "max")
        }
        yield claim("Average pooling makes smoother pictures (power finer than eight pixels)", fine, fine["avg"] < fine["max"])
        events = self._events(runs)
        more = events["max"] > events["avg"]
        yield claim("The loss explodes more often with max pooling (events of the guard)", events, more)
        worst = max(run.result["loss"] / run.history["loss"].iloc[0] for run in runs)
        yield claim("The guard lets no picture end worse than it began (worst ratio of losses)", [worst], worst <= 1)

    def answer(self, runs: Runs) -> str:
        events = self._events(runs)
        return "both alike" if events["avg"] == events["max"] else max(events, key=events.get)

    def _events(self, runs: Runs) -> dict[str, int]:
        """How often the guard stepped in, by pooling."""
        return {pool: sum(len(run.result["events"]) for run in runs if run.settings.pool == pool) for pool in ("avg", "max")}


class Optimizers(Experiment):
    id, title = "E10", "Optimizers"
    question = "Which gets furthest in equal evaluations?"
    prediction = "Which optimizer ends with the lowest loss?"
    choices = ("L-BFGS", "Adam", "gradient descent")
    terms = ("loss",)

    def sweep(self) -> Sweep:
        ways = {"L-BFGS": ("lbfgs", 0.02), "Adam": ("adam", 0.02), "gradient descent": ("gd", 0.02)}
        return Sweep(self.base.transfer(), {("optimizer", "learning_rate"): ways})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        least = min(run.history["evaluations"].iloc[-1] for run in runs)
        ends = {run.label: float(run.history[run.history["evaluations"] <= least]["loss"].min()) for run in runs}
        yield claim(f"After {least} evaluations L-BFGS has the lowest loss", ends, min(ends, key=ends.get) == "L-BFGS")
        cost = [run.result["seconds"] / run.result["evaluations"] * 1000 for run in runs]
        cheap = cost[0] <= 2 * cost[1]
        yield claim("An evaluation of L-BFGS, with its own work, costs at most twice Adam's", cost, cheap, "ms")

    def answer(self, runs: Runs) -> str:
        return min(runs, key=lambda run: run.result["loss"]).label


class OtherKnobs(Experiment):
    id, title = "E12", "The other knobs"
    question = "Is there anything better than the defaults?"
    prediction = "Which of these ends with the lowest loss?"
    choices = ("defaults", "from noise", "at one size", "half the steps", "twice the steps")

    def sweep(self) -> Sweep:
        given, steps, count = CONVENTIONS[DEFAULT_CONVENTION], self.base.steps, len(self.base.style)
        falling = tuple(2.0 ** (count - 1 - i) / (2**count - 1) for i in range(count))  # each twice the next, 1 in all
        knobs = {
            "defaults": (given.init, given.levels, steps, True, ()),
            "from noise": ("noise", given.levels, steps, True, ()),
            "at one size": (given.init, 1, steps, True, ()),
            "half the steps": (given.init, given.levels, steps // 2, True, ()),
            "twice the steps": (given.init, given.levels, steps * 2, True, ()),
            "not normalized": (given.init, given.levels, steps, False, ()),
            "lower layers heavier": (given.init, given.levels, steps, True, falling),
            "higher layers heavier": (given.init, given.levels, steps, True, falling[::-1]),
        }
        return Sweep(self.base.transfer(), {("init", "levels", "steps", "normalize", "style_weights"): knobs})

    def claims(self, runs: Runs) -> Iterator[Claim]:
        plan = recipes.prepare(self.base.transfer(), "cpu")  # the objective that all of them are judged by
        losses = dict(zip([run.label for run in runs], plan.losses(run.picture for run in runs), strict=True))
        best, longer = losses["defaults"], losses["twice the steps"]
        rival = min(loss for name, loss in losses.items() if name not in ("defaults", "twice the steps"))
        yield claim("No other knob lowers the default loss by 2 % or more", losses, best <= 1.02 * rival)
        yield claim("Twice the steps lower it by less than 10 %", [100 * (1 - longer / best)], longer >= 0.9 * best, "%")

    def answer(self, runs: Runs) -> str:
        return min((run for run in runs if run.label in self.choices), key=lambda run: run.result["loss"]).label
