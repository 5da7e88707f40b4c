"""`python -m training.embedded`: makes the weights that come with the package.

It goes in stages: the lower three blocks, the upper two on top of them, and both once more, for
fewer steps. Then filters that answer too rarely are switched off, and activations are normalized. A
checkpoint is written every CHECKPOINT_EVERY steps. Pictures, order and noise depend only on the
step's number, so an interrupted training goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import Tensor
from tqdm import tqdm

from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.base.names import CONVOLUTIONS, DOWNLOADS
from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.cli import program
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from nstlab.pictures import outputs
from training import scoring
from training.corpus import Corpus
from training.distillation import Distillation
from training.finishing import finish, write_weights
from training.judge import Judge
from training.student import LOWER
from training.teachers import Teachers
from training.trainer import SCHEDULES, Report, Stage, Trainer

SCHEDULE_NAMES = ("full", "smoke")
SEED = 2016
# batches that the linear maps are fitted to before a stage that begins with known layers
FITTED = 12
ABOUT = {
    "title": "half-width VGG19, second edition, a student of the original's blocks 1 to 4 and of "
    "a distilled one's above",
    "made from": "photos that come with scikit-image and scikit-learn, and procedural pictures",
    "teacher": "VGG-19 (Simonyan and Zisserman 2014), ImageNet, Caffe weights as converted by "
    "Keras, CC BY 4.0: conv1_1 to conv4_1; above, VGG-19 distilled by Wang et al. (2020), MIT; "
    "imitated, none of the weights are copied",
    "pooling": "avg in the student, max in the teachers",
    "padding": "zero",
    "licence": "MIT",
}


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Train the embedded network anew, with VGG19 as its teacher: some hours on two CPU cores."""

    teacher: str = option(
        DOWNLOADS[1], "the original weights up to conv3_4 at least", choices=DOWNLOADS, or_path=True
    )
    distilled: Path | None = option(
        None, "the distilled VGG19, which teaches what those do not reach", paths=True
    )
    lower: str | None = option(
        None, "weights whose first three blocks are used (default: train them first)", or_path=True
    )
    out: Path = option(Path("embedded.safetensors"), "where the weights go", output=True)
    folder: Path = option(
        Path("results/training"), "folder for checkpoints; a training that is there goes on"
    )
    schedule: str = option(
        SCHEDULE_NAMES[0],
        "full: what is shipped; smoke: shows that all runs",
        choices=SCHEDULE_NAMES,
    )


# --- the stages -----------------------------------------------------------------------------------


def train(
    teacher: Weights | str | Path,
    distilled: Path | None,
    lower: str | Path | None,
    schedule: str,
    folder: Path,
    report: Report,
) -> Weights:
    """Train the weights, and finish them (see `finish`).

    Args:
        teacher: the original VGG19's weights, as for VGG19.
        distilled: the network that teaches what they do not reach.
        lower: weights whose first three blocks are used as they are; None to train these first.
        schedule: one of SCHEDULES.
        folder: for checkpoints; a training that is there goes on.
        report: called after each step.

    Raises:
        InputError: for a teacher that cannot be used, or a folder with checkpoints of another
            training.
    """
    lower_teachers = Teachers(teacher, LOWER[-1])
    all_teachers = Teachers(teacher, CONVOLUTIONS[-1], distilled)
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(SEED) if schedule == "full" else Corpus(SEED, 9)
    stages = SCHEDULES[schedule]
    tensors: dict[str, Tensor] = {}
    if lower is not None:
        normalized = normalize_activations(VGG19(lower)).tensors()
        tensors = {name: t for name, t in normalized.items() if name.partition(".")[0] in LOWER}
        stages = stages[1:]
    for stage in stages:
        teachers = lower_teachers if stage.learnt[-1] in LOWER else all_teachers
        key = _checkpoint_key(all_teachers, stage, tensors)
        path = folder / f"{stage.name}.pt"
        module = Distillation(teachers, stage.learnt, SEED, tensors)
        trainer = Trainer(module, stage)
        if not trainer.load(path, key) and stage.settle == 0:
            module.fit(corpus.batch(1_000_000 + i, stage.batch, stage.side) for i in range(FITTED))
        tensors |= trainer.run(corpus, path, key, report).student.tensors()
    return finish(tensors)


def _checkpoint_key(teachers: Teachers, stage: Stage, tensors: dict[str, Tensor]) -> str:
    """What a stage depends on: its teachers, the seed, the schedule, and weights of before."""
    before = Weights(tensors, TORCHVISION, "student").digest if tensors else ""
    return json.dumps([teachers.digest, SEED, str(stage), before])


def make(options: TrainSettings, report: Report) -> Path:
    """Train, judge and write the weights, with metadata; return their path."""
    if options.out.suffix != ".safetensors":
        raise InputError(f"out: {options.out} must be a .safetensors file")
    files.check_writable(options.out)
    judge = Judge(options.teacher)
    teacher = judge.net.weights
    weights = train(
        teacher, options.distilled, options.lower, options.schedule, options.folder, report
    )
    draft = write_weights(weights, options.folder / "draft.safetensors", ABOUT)
    errors = median_errors(judge, draft, report) if options.schedule == "full" else {}
    metadata = {"teacher sha256": teacher.digest, "median style error": json.dumps(errors)}
    return write_weights(weights, options.out, ABOUT | metadata)


def median_errors(judge: Judge, path: Path, report: Report) -> dict[str, float]:
    """The median style error over scoring.PAIRS, for each of scoring.KINDS.

    The mean is ruled by the few pictures to which a channel of the teacher does not answer.

    Args:
        judge: of the pictures.
        path: the weights.
        report: called after each pair.
    """
    medians = {}
    for kind in scoring.KINDS:
        errors: list[float] = []
        for row in scoring.score(judge, path, kind):
            errors.append(row.style)
            medians[kind] = round(median(errors), 4)
            report(f"judge {kind}", len(errors), len(scoring.PAIRS), {"style": medians[kind]})
    return medians


# --- the command ----------------------------------------------------------------------------------


class _Bars:
    """A progress bar for each stage."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack = stack
        self.bars: dict[str, tqdm] = {}

    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None:
        if stage not in self.bars:
            bar = tqdm(total=total, desc=stage, unit="step", dynamic_ncols=True, disable=None)
            self.bars[stage] = self.stack.enter_context(bar)
        bar = self.bars[stage]
        bar.update(done - bar.n)
        kinds: dict[str, list[float]] = {}
        for name, value in values.items():
            kinds.setdefault(name.split()[0], []).append(value)
        means = [f"{kind} {sum(losses) / len(losses):.3g}" for kind, losses in kinds.items()]
        bar.set_postfix_str(" ".join(means), refresh=False)


def train_command(options: TrainSettings) -> int:
    """Train with a progress bar for each stage, and say where the weights were written."""
    outputs.check_outputs(options)
    with contextlib.ExitStack() as bars:
        path = make(options, _Bars(bars))
    print(f"{path}: written ({path.stat().st_size / 1e6:.1f} MB); use it with --weights {path}")
    return 0


if __name__ == "__main__":
    command = program.Subcommand(train_command, (TrainSettings,))
    sys.exit(program.run_program(lambda: {"train": command}, None, "python -m training.embedded"))
