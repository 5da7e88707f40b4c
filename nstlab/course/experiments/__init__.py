"""The classic experiments, E1 to E12.

Sources: Gatys, Ecker, Bethge 2016 (E1 to E4, E7), Gatys et al. 2015 (E2), and reports that varied the method's knobs. Where a
source gives no threshold, it is ours, and the claim's text says what it is.
"""

from __future__ import annotations

from nstlab.course.experiment import Experiment
from nstlab.course.experiments import minimization, objective
from nstlab.course.settings import SweepSettings

EXPERIMENTS: dict[str, type[Experiment]] = {
    experiment.id: experiment
    for experiment in (
        objective.ContentReconstruction,
        objective.StyleReconstruction,
        objective.ContentAgainstStyle,
        objective.ContentLayer,
        objective.StyleLayers,
        objective.TutorialLayers,
        minimization.Initialization,
        minimization.Stochasticity,
        minimization.Pooling,
        minimization.Optimizers,
        objective.FeatureMaps,
        minimization.OtherKnobs,
    )
}


def experiment(options: SweepSettings) -> Experiment:
    """The experiment that the options name. Raises InputError if the weights end too early for what it compares."""
    found = EXPERIMENTS[options.experiment](options)
    found.check()
    return found
