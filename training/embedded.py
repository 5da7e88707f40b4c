"""`python -m training.embedded`: makes the weights that come with the package, from their teachers
and a fixed schedule.

It goes in stages: the lower three blocks, the upper two on top of them, and both once more, for
fewer steps. Then filters that answer too rarely are switched off, and activations are normalized. A
checkpoint is written every CHECKPOINT_EVERY steps. Pictures, order and noise depend only on the
step's number, so an interrupted training goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nstlab.base import files
from nstlab.base.names import CONVOLUTIONS, DOWNLOADS
from nstlab.base.settings import InputError, Settings, option
from nstlab.cli import program
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights
from training import scoring
from training.corpus import Corpus
from training.distillation import Distillation
from training.finishing import finished, write_weights
from training.judge import Judge
from training.student import LOWER, UPPER
from training.teachers import Teachers

SCHEDULE_NAMES = ("full", "smoke")
SEED = 2016
CHECKPOINT_EVERY = 200
TRIPLES = 3  # in a batch: each a picture that fools the student, its painting and its photo
# steps between making such pictures; how many are made, and kept
FOOL_EVERY, FOOLED, KEPT = 40, 6, 900
# batches that the linear maps are fitted to before a stage that begins with known layers
FITTED = 12
ABOUT = {
    "title": "half-width VGG19, second edition, a student of the original's blocks 1 to 4 and of "
    "a distilled one's above",
    "made from": "photos that come with scikit-image and scikit-learn, and procedural pictures",
    "teacher": "VGG-19 (Simonyan and Zisserman 2014), ImageNet, Caffe weights as converted by "
    "Keras, CC BY 4.0: conv1_1 to "
    "conv4_1; above, VGG-19 distilled by Wang et al. (2020), MIT; imitated, none of the weights "
    "are copied",
    "pooling": "avg in the student, max in the teachers",
    "padding": "zero",
    "licence": "MIT",
}
# stage, steps done, steps in all, losses
Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Train the embedded network anew, with the original VGG19 as its teacher: some hours on two
    CPU cores."""

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


@dataclass(frozen=True)
class Stage:
    """How some layers of the network are trained, while those below stay as they are."""

    name: str
    learnt: tuple[str, ...]
    # steps from high to low rates, in each cycle (Loshchilov and Hutter 2017)
    cycles: tuple[int, ...]
    # steps until normalization settles (see student.Layer); 0 for layers that are known
    settle: int
    batch: int  # crops in a batch
    side: int  # of a crop, in pixels
    rate: float = 0.05  # of Muon, for kernels
    small_rate: float = 0.01  # of Adam, for all the rest
    fool_after: int = 300  # steps before the first pictures that fool the student are made
    warm: int = 50  # steps of rising rates
    again: float = 0.6  # rates at the beginning of a cycle, as a part of those of the cycle before

    @property
    def steps(self) -> int:
        return sum(self.cycles)

    def factor(self, step: int) -> float:
        """The factor of both rates: half a period of a cosine in each cycle, down to one
        hundredth."""
        part, peak = step, 1.0
        for cycle in self.cycles:
            if part < cycle:
                break
            part, peak = part - cycle, peak * self.again
        return (
            peak
            * min(1.0, (part + 1) / self.warm)
            * (0.01 + 0.99 * (1 + math.cos(math.pi * part / cycle)) / 2)
        )


SCHEDULES = {
    "full": (
        Stage("lower", LOWER, (8000, 6000), 1350, 9, 96),
        Stage("upper", UPPER, (2000,), 300, 4, 128),
        Stage("lower again", LOWER, (1500,), 0, 9, 96, 0.015, 0.003, 0),
        Stage("upper again", UPPER, (800,), 0, 4, 128, 0.015, 0.003, 0),
    ),
    "smoke": (  # to see that everything runs
        Stage("lower", LOWER, (4, 2), 1, 3, 32, fool_after=2),
        Stage("upper", UPPER, (4,), 1, 3, 48, fool_after=2),
        Stage("lower again", LOWER, (2,), 0, 3, 32, fool_after=0),
    ),
}


class Trainer:
    """A stage in progress: the module it trains, its optimizers, the steps done, and pictures that
    fool the student."""

    def __init__(self, module: nn.Module, stage: Stage):
        self.module, self.stage, self.done = module, stage, 0
        self.fooling = torch.zeros(0, 3, 3, stage.side, stage.side, dtype=torch.float16)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        kernels = [p for name, p in trained.items() if name.endswith("kernel")]
        rest = [p for name, p in trained.items() if not name.endswith("kernel")]
        self.parameters = kernels + rest
        # Steps along orthogonal matrices (Jordan et al. 2024): here Adam needs more than twice as
        # many.
        muon = torch.optim.Muon(
            kernels, lr=stage.rate, momentum=0.95, weight_decay=0, adjust_lr_fn="original"
        )
        self.optimizers = (
            muon,
            torch.optim.Adam(rest, lr=stage.small_rate, betas=(0.9, 0.99), eps=1e-10),
        )

    def update(self, losses: dict[str, Tensor]) -> None:
        """One step down the weighted sum of the losses."""
        stage = self.stage
        factor = stage.factor(self.done)
        for optimizer, rate in zip(self.optimizers, (stage.rate, stage.small_rate), strict=True):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        sum(self.module.weight(name) * value for name, value in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 20.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        self._settle()

    def _settle(self) -> None:
        if self.done >= self.stage.settle:
            self.module.student.settle()

    def save(self, path: Path, key: str) -> None:
        """Write the checkpoint; it replaces the previous one only when it is whole."""
        state = {
            "key": key,
            "done": self.done,
            "module": self.module.state_dict(),
            "fooling": self.fooling,
        }
        part = path.with_suffix(".part")
        torch.save(
            state | {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}, part
        )
        part.replace(path)

    def load(self, path: Path, key: str) -> bool:
        """Go on from a checkpoint; False if there is none. Raises InputError if it belongs to
        another training."""
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True)
        except Exception:
            raise InputError(
                f"{path}: the checkpoint is damaged; remove it to start again"
            ) from None
        if state.get("key") != key:
            raise InputError(
                f"{path}: belongs to a training with another teacher or schedule; remove it or "
                "name another folder"
            )
        self.done, self.fooling = state["done"], state["fooling"]
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._settle()
        return True

    def run(
        self, step: Callable[[Trainer], dict[str, Tensor]], path: Path, key: str, report: Report
    ) -> nn.Module:
        """All steps that are left, with checkpoints; returns the module, settled."""
        while self.done < self.stage.steps:
            losses = step(self)
            self.update(losses)
            report(
                self.stage.name,
                self.done,
                self.stage.steps,
                {name: value.item() for name, value in losses.items()},
            )
            if self.done % CHECKPOINT_EVERY == 0 or self.done == self.stage.steps:
                self.save(path, key)
        return self.module


# --- the stages -----------------------------------------------------------------------------------


def step(trainer: Trainer, corpus: Corpus) -> dict[str, Tensor]:
    """The losses of the next batch: half of it crops, half pictures that fool the student, which
    are renewed from time to time."""
    stage, i = trainer.stage, trainer.done
    if i >= stage.fool_after and (i % FOOL_EVERY == 0 or not len(trainer.fooling)):
        new = trainer.module.fooling(corpus, corpus.generator(i, 1), FOOLED, stage.side)
        trainer.fooling = torch.cat([trainer.fooling, new.half()])[-KEPT:]
    if not len(trainer.fooling):
        return trainer.module.losses(corpus.batch(i, stage.batch + 3 * TRIPLES, stage.side), 0, i)
    pick = corpus.generator(i, 2).integers(len(trainer.fooling), size=TRIPLES)
    triples = trainer.fooling[pick].transpose(0, 1).flatten(0, 1).float()
    return trainer.module.losses(
        torch.cat([triples, corpus.batch(i, stage.batch, stage.side)]), TRIPLES, i
    )


def train(
    teacher: Weights | str | Path,
    distilled: Path | None,
    lower: str | Path | None,
    schedule: str,
    folder: Path,
    report: Report,
) -> Weights:
    """Train the weights, and finish them (see `finished`); a training that is in `folder` already
    goes on.

    teacher: the original VGG19's weights, as for VGG19; distilled: the network that teaches what
    they do not reach. lower: weights whose first three blocks are used as they are; None to train
    these first. schedule: one of SCHEDULES. Raises InputError for a teacher that cannot be used, or
    a folder with checkpoints of another training."""
    teachers = Teachers(teacher, LOWER[-1]), Teachers(teacher, CONVOLUTIONS[-1], distilled)
    folder.mkdir(parents=True, exist_ok=True)
    corpus, tensors, stages = (
        Corpus(SEED) if schedule == "full" else Corpus(SEED, 9),
        {},
        SCHEDULES[schedule],
    )
    if lower is not None:
        normalized = normalize_activations(VGG19(lower)).tensors()
        tensors = {name: t for name, t in normalized.items() if name.partition(".")[0] in LOWER}
        stages = stages[1:]
    for stage in stages:
        known = Weights(tensors, TORCHVISION, "student").digest if tensors else ""
        module = Distillation(teachers[stage.learnt[-1] not in LOWER], stage.learnt, SEED, tensors)
        path, key = (
            folder / f"{stage.name}.pt",
            json.dumps([teachers[1].digest, SEED, str(stage), known]),
        )
        trainer = Trainer(module, stage)
        if not trainer.load(path, key) and stage.settle == 0:
            module.fit(corpus.batch(1_000_000 + i, stage.batch, stage.side) for i in range(FITTED))
        tensors |= trainer.run(
            lambda trainer: step(trainer, corpus), path, key, report
        ).student.tensors()
    return finished(tensors)


def make(options: TrainSettings, report: Report) -> Path:
    """Train, judge and write the weights, with metadata; returns their path."""
    out, folder = options.out, options.folder
    if out.suffix != ".safetensors":
        raise InputError(f"out: {out} must be a .safetensors file")
    files.check_writable(out)
    judge = Judge(options.teacher)
    weights = train(
        judge.net.weights, options.distilled, options.lower, options.schedule, folder, report
    )
    draft = write_weights(weights, folder / "draft.safetensors", ABOUT)
    scores = scored(judge, draft, report) if options.schedule == "full" else {}
    about = ABOUT | {
        "teacher sha256": judge.net.weights.digest,
        "median style error": json.dumps(scores),
    }
    return write_weights(weights, out, about)


def scored(judge: Judge, path: Path, report: Report) -> dict[str, float]:
    """The median style error over scoring.PAIRS, for each of scoring.KINDS. Not the mean, which is
    ruled by the few pictures to which a channel of the teacher does not answer."""
    found = {}
    for kind in scoring.KINDS:
        errors: list[float] = []
        for row in scoring.score(judge, path, kind):
            errors.append(row.style)
            found[kind] = round(median(errors), 4)
            report(f"judge {kind}", len(errors), len(scoring.PAIRS), {"style": found[kind]})
    return found


# --- the command ----------------------------------------------------------------------------------


class _Bars:
    """A progress bar for each stage."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack, self.bars = stack, {}

    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None:
        if stage not in self.bars:
            bar = tqdm(total=total, desc=stage, unit="step", dynamic_ncols=True, disable=None)
            self.bars[stage] = self.stack.enter_context(bar)
        bar = self.bars[stage]
        bar.update(done - bar.n)
        kinds: dict[str, list[float]] = {}
        for name, value in values.items():
            kinds.setdefault(name.split()[0], []).append(value)
        bar.set_postfix_str(
            " ".join(f"{name} {sum(v) / len(v):.3g}" for name, v in kinds.items()), refresh=False
        )


def train_command(options: TrainSettings) -> int:
    """Train with a progress bar for each stage, and say where the weights were written."""
    with contextlib.ExitStack() as bars:
        path = make(options, _Bars(bars))
    print(f"{path}: written ({path.stat().st_size / 1e6:.1f} MB); use it with --weights {path}")
    return 0


if __name__ == "__main__":
    command = program.Subcommand(train_command, (TrainSettings,))
    sys.exit(program.run_program(lambda: {"train": command}, None, "python -m training.embedded"))
