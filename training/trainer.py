"""How a stage of the training goes: its steps, rates, batches and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nstlab.base.errors import InputError
from training.corpus import Corpus
from training.distillation import Distillation
from training.fooling import fool
from training.student import LOWER, UPPER

CHECKPOINT_EVERY = 200
TRIPLES = 3  # in a batch: each a picture that fools the student, its painting and its photo
FOOL_EVERY = 40  # steps between making such pictures
FOOLED = 6  # how many are made
KEPT = 900  # how many are kept

# stage, steps done, steps in all, losses
Report = Callable[[str, int, int, dict[str, float]], None]


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
        """Of all cycles."""
        return sum(self.cycles)

    def factor(self, step: int) -> float:
        """The factor of both rates at a step.

        It is half a period of a cosine in each cycle, from the cycle's peak to a hundredth of it,
        after `warm` steps of rising rates.
        """
        peak = 1.0
        for cycle in self.cycles:
            if step < cycle:
                break
            step -= cycle
            peak *= self.again
        warm = min(1.0, (step + 1) / self.warm)
        return peak * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * step / cycle)) / 2)


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
    """A stage in progress.

    Args:
        module: what is trained.
        stage: how.

    Attributes:
        done: steps so far.
        fooling: pictures that fool the student, (n, 3, 3, side, side) float16; see `fool`.
    """

    def __init__(self, module: Distillation, stage: Stage):
        self.module = module
        self.stage = stage
        self.done = 0
        self.fooling = torch.zeros(0, 3, 3, stage.side, stage.side, dtype=torch.float16)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        kernels = [p for name, p in trained.items() if name.endswith("kernel")]
        rest = [p for name, p in trained.items() if not name.endswith("kernel")]
        self.parameters = kernels + rest
        # Steps along orthogonal matrices (Jordan et al. 2024); Adam needs more than twice as many.
        muon = torch.optim.Muon(
            kernels, lr=stage.rate, momentum=0.95, weight_decay=0, adjust_lr_fn="original"
        )
        adam = torch.optim.Adam(rest, lr=stage.small_rate, betas=(0.9, 0.99), eps=1e-10)
        self.optimizers = (muon, adam)

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
        """Write the checkpoint; it replaces the previous one only when it is complete.

        Args:
            path: its file.
            key: what the training depends on.
        """
        state = {
            "key": key,
            "done": self.done,
            "module": self.module.state_dict(),
            "fooling": self.fooling,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path, key: str) -> bool:
        """Go on from a checkpoint.

        Args:
            path: its file.
            key: what the training depends on.

        Returns:
            Whether there is one.

        Raises:
            InputError: if it is damaged, or belongs to another training.
        """
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
        self.done = state["done"]
        self.fooling = state["fooling"]
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._settle()
        return True

    def run(self, corpus: Corpus, path: Path, key: str, report: Report) -> Distillation:
        """Make all steps that are left, with checkpoints.

        Args:
            corpus: where pictures come from.
            path, key: of the checkpoints, see `save`.
            report: called after each step.

        Returns:
            The module, settled.
        """
        while self.done < self.stage.steps:
            losses = next_losses(self, corpus)
            self.update(losses)
            values = {name: value.item() for name, value in losses.items()}
            report(self.stage.name, self.done, self.stage.steps, values)
            if self.done % CHECKPOINT_EVERY == 0 or self.done == self.stage.steps:
                self.save(path, key)
        return self.module


def next_losses(trainer: Trainer, corpus: Corpus) -> dict[str, Tensor]:
    """The losses of the next batch: half of it crops, half pictures that fool the student.

    Those are renewed every FOOL_EVERY steps.
    """
    stage = trainer.stage
    i = trainer.done
    if i >= stage.fool_after and (i % FOOL_EVERY == 0 or not len(trainer.fooling)):
        new = fool(trainer.module, corpus, corpus.generator(i, 1), FOOLED, stage.side)
        trainer.fooling = torch.cat([trainer.fooling, new.half()])[-KEPT:]
    if not len(trainer.fooling):
        crops = corpus.batch(i, stage.batch + 3 * TRIPLES, stage.side)
        return trainer.module.losses(crops, 0, i)
    chosen = corpus.generator(i, 2).integers(len(trainer.fooling), size=TRIPLES)
    triples = trainer.fooling[chosen].transpose(0, 1).flatten(0, 1).float()
    crops = corpus.batch(i, stage.batch, stage.side)
    return trainer.module.losses(torch.cat([triples, crops]), TRIPLES, i)
