"""`python -m training.embedded`: makes the weights that come with the package, from their teachers and a fixed schedule.

In stages: the lower three blocks, the upper two on them, and shorter, each once more; then filters that answer too rarely are
switched off, and activations normalized. A checkpoint is written every CHECKPOINT_EVERY steps; pictures, order and noise depend
on the step's number alone, so that a training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from nstlab import commandline, files
from nstlab import images as im
from nstlab.method.names import CONVOLUTIONS, DOWNLOADS
from nstlab.method.network import SEQUENCE, VGG19
from nstlab.method.normalization import normalization_images, normalize_activations
from nstlab.method.weights import TORCHVISION, Weights
from nstlab.settings import InputError, Settings, option
from training import scoring
from training.corpus import PHOTOS, Corpus
from training.distillation import PEAK, Distillation
from training.judge import Judge
from training.student import LOWER, UPPER
from training.teachers import Teachers

SCHEDULES = ("full", "smoke")
SEED = 2016
CHECKPOINT_EVERY = 200
TRIPLES = 3  # in a batch: pictures that fool the student, with their paintings and photos
FOOL_EVERY, FOOLED, KEPT = 40, 6, 900
FITTED = 12  # batches by which the linear maps begin, where a stage goes on with known layers
QUIET = 0.1  # of the layer's mean: a filter that answers less is switched off
ABOUT = {
    "title": "half-width VGG19, second edition, a student of the original's blocks 1 to 4 and of a distilled one's above",
    "made from": "photos that come with scikit-image and scikit-learn, and procedural pictures",
    "teacher": "VGG-19 (Simonyan and Zisserman 2014), ImageNet, Caffe weights as converted by Keras, CC BY 4.0: conv1_1 to "
    "conv4_1; above, VGG-19 distilled by Wang et al. (2020), MIT; imitated, none of the weights are copied",
    "pooling": "avg in the student, max in the teachers",
    "padding": "zero",
    "licence": "MIT",
}
Report = Callable[[str, int, int, dict[str, float]], None]  # stage, steps done, steps in all, losses


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """Make the embedded network anew, from the original VGG19 as its teacher: some hours on two CPU cores."""

    teacher: str = option(DOWNLOADS[1], "the original weights up to conv3_4 at least", choices=DOWNLOADS, or_path=True)
    distilled: Path | None = option(None, "the distilled VGG19 that teaches what these do not reach")
    lower: str | None = option(None, "weights whose first three blocks are taken over (default: trained first)", or_path=True)
    out: Path = option(Path("embedded.safetensors"), "where the weights go")
    folder: Path = option(Path("results/training"), "folder for checkpoints; what is there is taken up")
    schedule: str = option(SCHEDULES[0], "full: what is shipped; smoke: shows that all runs", choices=SCHEDULES)


@dataclass(frozen=True)
class Stage:
    """How some layers of the network are trained, on those below as they are."""

    name: str
    learnt: tuple[str, ...]
    cycles: tuple[int, ...]  # steps, from high to low rates, and again (Loshchilov and Hutter 2017)
    settle: int  # steps until normalization settles (see student.Layer); 0 for layers that are known
    batch: int  # crops that are drawn for it
    side: int  # px
    rate: float = 0.05  # of Muon, for kernels
    small_rate: float = 0.01  # of Adam, for all the rest
    fool_after: int = 300  # steps until pictures are made that fool the student
    warm: int = 50  # steps of rising rates
    again: float = 0.6  # of the rates that the cycle before began with

    @property
    def steps(self) -> int:
        return sum(self.cycles)

    def factor(self, step: int) -> float:
        """What both rates are multiplied by: in each cycle half a period of a cosine, down to one hundredth."""
        part, peak = step, 1.0
        for cycle in self.cycles:
            if part < cycle:
                break
            part, peak = part - cycle, peak * self.again
        return peak * min(1.0, (part + 1) / self.warm) * (0.01 + 0.99 * (1 + math.cos(math.pi * part / cycle)) / 2)


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
    """A stage on its way: the module it trains, its optimizers, the steps done, and pictures that fool the student."""

    def __init__(self, module: nn.Module, stage: Stage):
        self.module, self.stage, self.done = module, stage, 0
        self.fooling = torch.zeros(0, 3, 3, stage.side, stage.side, dtype=torch.float16)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        kernels = [p for name, p in trained.items() if name.endswith("kernel")]
        rest = [p for name, p in trained.items() if not name.endswith("kernel")]
        self.parameters = kernels + rest
        # Steps along orthogonal matrices (Jordan et al. 2024): here Adam needs more than twice as many.
        muon = torch.optim.Muon(kernels, lr=stage.rate, momentum=0.95, weight_decay=0, adjust_lr_fn="original")
        self.optimizers = muon, torch.optim.Adam(rest, lr=stage.small_rate, betas=(0.9, 0.99), eps=1e-10)

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
        """The checkpoint; the previous one is replaced only when this one is whole."""
        state = {"key": key, "done": self.done, "module": self.module.state_dict(), "fooling": self.fooling}
        part = path.with_suffix(".part")
        torch.save(state | {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}, part)
        part.replace(path)

    def load(self, path: Path, key: str) -> bool:
        """Go on from a checkpoint; False if there is none. Raises InputError if it belongs to another training."""
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True)
        except Exception:
            raise InputError(f"{path}: the checkpoint is damaged; remove it to begin anew") from None
        if state.get("key") != key:
            raise InputError(f"{path}: belongs to a training of another teacher or schedule; remove it, or name another folder")
        self.done, self.fooling = state["done"], state["fooling"]
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._settle()
        return True

    def run(self, step: Callable[[Trainer], dict[str, Tensor]], path: Path, key: str, report: Report) -> nn.Module:
        """All steps that are left, with checkpoints; returns the module, settled."""
        while self.done < self.stage.steps:
            losses = step(self)
            self.update(losses)
            report(self.stage.name, self.done, self.stage.steps, {name: value.item() for name, value in losses.items()})
            if self.done % CHECKPOINT_EVERY == 0 or self.done == self.stage.steps:
                self.save(path, key)
        return self.module


# --- the stages -------------------------------------------------------------------------------------------------


def step(trainer: Trainer, corpus: Corpus) -> dict[str, Tensor]:
    """Losses of the next batch: half of it crops, half pictures that fool the student, renewed now and then."""
    stage, i = trainer.stage, trainer.done
    if i >= stage.fool_after and (i % FOOL_EVERY == 0 or not len(trainer.fooling)):
        new = trainer.module.fooling(corpus, corpus.generator(i, 1), FOOLED, stage.side)
        trainer.fooling = torch.cat([trainer.fooling, new.half()])[-KEPT:]
    if not len(trainer.fooling):
        return trainer.module.losses(corpus.batch(i, stage.batch + 3 * TRIPLES, stage.side), 0, i)
    pick = corpus.generator(i, 2).integers(len(trainer.fooling), size=TRIPLES)
    triples = trainer.fooling[pick].transpose(0, 1).flatten(0, 1).float()
    return trainer.module.losses(torch.cat([triples, corpus.batch(i, stage.batch, stage.side)]), TRIPLES, i)


def train(
    teacher: Weights | str | Path, distilled: Path | None, lower: str | Path | None, schedule: str, folder: Path, report: Report
) -> Weights:
    """The embedded weights, trained, finished and named; what is in `folder` already is taken up.

    teacher: the original VGG19's weights, as for VGG19; distilled: the network that teaches what they do not reach. lower:
    weights whose first three blocks are taken over; None to train these first. schedule: one of SCHEDULES.
    folder: for checkpoints.
    Raises: InputError for a teacher that cannot be used, or a folder with checkpoints of another training."""
    teachers = Teachers(teacher, LOWER[-1]), Teachers(teacher, CONVOLUTIONS[-1], distilled)
    folder.mkdir(parents=True, exist_ok=True)
    corpus, tensors, stages = Corpus(SEED) if schedule == "full" else Corpus(SEED, 9), {}, SCHEDULES[schedule]
    if lower is not None:
        tensors = {
            name: t for name, t in normalize_activations(VGG19(lower)).tensors().items() if name.partition(".")[0] in LOWER
        }
        stages = stages[1:]
    for stage in stages:
        known = Weights(tensors, TORCHVISION, "student").digest if tensors else ""
        module = Distillation(teachers[stage.learnt[-1] not in LOWER], stage.learnt, SEED, tensors)
        path, key = folder / f"{stage.name}.pt", json.dumps([teachers[1].digest, SEED, str(stage), known])
        trainer = Trainer(module, stage)
        if not trainer.load(path, key) and stage.settle == 0:
            module.fit(corpus.batch(1_000_000 + i, stage.batch, stage.side) for i in range(FITTED))
        tensors |= trainer.run(lambda trainer: step(trainer, corpus), path, key, report).student.tensors()
    return finished(tensors)


def make(options: TrainSettings, report: Report) -> Path:
    """Train, judge and write the weights, with metadata; returns where they are."""
    out, folder = options.out, options.folder
    if out.suffix != ".safetensors":
        raise InputError(f"out: {out} must be a .safetensors file")
    files.check_place(out)
    judge = Judge(options.teacher)
    weights = train(judge.net.weights, options.distilled, options.lower, options.schedule, folder, report)
    draft = save(weights, folder / "draft.safetensors", ABOUT)
    scores = scored(judge, draft, report) if options.schedule == "full" else {}
    about = ABOUT | {"teacher sha256": judge.net.weights.digest, "median style error": json.dumps(scores)}
    return save(weights, out, about)


def scored(judge: Judge, path: Path, report: Report) -> dict[str, float]:
    """Median style error over scoring.PAIRS, for each of scoring.KINDS: on some pictures a channel of the teacher is
    silent, and a mean would tell of these alone."""
    found = {}
    for kind in scoring.KINDS:
        errors: list[float] = []
        for row in scoring.score(judge, path, kind):
            errors.append(row.style)
            found[kind] = round(median(errors), 4)
            report(f"judge {kind}", len(errors), len(scoring.PAIRS), {"style": found[kind]})
    return found


# --- what is shipped --------------------------------------------------------------------------------------------


def finished(tensors: dict[str, Tensor]) -> Weights:
    """The network without its unreliable filters, its activations normalized, in float16's precision."""
    weights = Weights(without_peaks(tensors), TORCHVISION, "embedded")
    normalized = normalize_activations(VGG19(weights)).tensors()
    return replace(weights, tensors={name: t.half().float() for name, t in normalized.items()})


@torch.no_grad()
def without_peaks(tensors: dict[str, Tensor], limit: float = 2 * PEAK) -> dict[str, Tensor]:
    """Switch off filters that hardly answer, or answer in rare peaks: an optimizer meets the Gram matrix of such a
    filter by a few blown-up spots.

    Layer by layer: off is a filter whose mean activation is under QUIET of the layer's, or whose mean square is over
    `limit` times its squared mean on any photo of the training or on noise."""
    tensors = {name: t.clone() for name, t in tensors.items()}
    net = VGG19(Weights(tensors, TORCHVISION, "student"))
    usual = list(normalization_images())
    pictures = usual + [im.sample(name, 192) for name in PHOTOS] + [im.noise(torch.empty(1, 3, 128, 128))]
    features = [TORCHVISION(picture) for picture in pictures]
    for name in SEQUENCE[: SEQUENCE.index(net.weights.layers[-1]) + 2]:
        features = [net.layer(name, x) for x in features]
        if name.startswith("relu"):
            layer = name.replace("relu", "conv")
            off = unreliable(features, len(usual), limit)
            tensors[f"{layer}.weight"][off], tensors[f"{layer}.bias"][off] = 0, 0
            features = [x * ~off.view(1, -1, 1, 1) for x in features]
    return tensors


def unreliable(features: Sequence[Tensor], usual: int, limit: float) -> Tensor:
    """(C,) whether a channel of activations (1, C, h, w) behind the ReLU is too quiet over the first `usual` of them,
    or too peaked on any."""
    mean = torch.stack([f.mean((0, 2, 3)) for f in features[:usual]]).mean(0)
    power = torch.stack([f.square().mean((0, 2, 3)) for f in features]).amax(0)
    return (mean < QUIET * mean.mean()) | (power > limit * mean.square())


def save(weights: Weights, path: Path, metadata: dict[str, str]) -> Path:
    """Write float16 safetensors, whole or not at all."""
    about = {"input": str(weights.preprocessing), **weights.metadata, **metadata, "sha256": weights.digest}
    about["made by"] = f"nstlab {version('nstlab')}: python -m training.embedded; torch {torch.__version__}"
    part = path.with_suffix(".part")
    safetensors.torch.save_file({name: t.half().contiguous() for name, t in weights.tensors.items()}, part, about)
    return part.replace(path)


# --- the command ------------------------------------------------------------------------------------------------


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
        bar.set_postfix_str(" ".join(f"{name} {sum(v) / len(v):.3g}" for name, v in kinds.items()), refresh=False)


def run(options: TrainSettings) -> int:
    """Train with a progress bar for each stage, and say where the weights are."""
    with contextlib.ExitStack() as bars:
        path = make(options, _Bars(bars))
    print(f"{path}: done ({path.stat().st_size / 1e6:.1f} MB); use it with --weights {path}")
    return 0


if __name__ == "__main__":
    command = commandline.Subcommand(run, (TrainSettings,))
    sys.exit(commandline.run_program({"train": command}, None, "python -m training.embedded"))
