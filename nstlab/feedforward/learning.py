"""Learning to paint: a network's weights are changed until its pictures minimise the objective that
the optimizer minimises.

    for step in learn(LearnSettings(("mosaic",))):
        print(step.index, step.loss, step.terms)        # step.model() is the network so far

The loss is the lab's own: the engine's fast path gives the gradient at each painted picture, whose
content target is the photo that was painted, and autograd takes it from there to the weights
(Johnson, Alahi, Fei-Fei 2016, equation 5).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nstlab.base import jsonfiles
from nstlab.base.devices import device
from nstlab.base.jsonfiles import NUMBER, TEXT, WHOLE, dict_of, list_of, object_with
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.base.settings import DEVICES, VERSION, InputError
from nstlab.feedforward.crops import Crops, photos_in
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.network import TransformNetwork
from nstlab.feedforward.settings import LearnSettings
from nstlab.method import Checkpoint, content, style, total_variation
from nstlab.method.fast.arithmetic import native_halves
from nstlab.method.fast.tiles import bind
from nstlab.networks.base import Network
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.pictures import samples, sizes

WARM = 30  # steps of rising rates
LEAST_RATE = 0.01  # of the rate, at the end
LARGEST_GRADIENT = 1.0  # norm to which a longer gradient is cut
MOMENTUM = 0.95  # of Muon
SMALL, BETAS = 0.2, (0.9, 0.99)  # of Adam: its rate as a part of Muon's
WORKERS = 8  # processes that cut photos for a GPU
CHECKPOINT = object_with({"history": list_of(dict_of(NUMBER))}, identity=TEXT, done=WHOLE)


class PerceptualLoss:
    """α content + β style + tv, of the network's pictures."""

    def __init__(self, settings: LearnSettings, net: Network):
        s = settings
        shape = (settings.crop, settings.crop)
        self.targets = []
        blank = torch.zeros(1, 3, *shape)
        for source in s.paintings:
            painting = im.load(source, s.painting_size)
            goal = s.alpha * content(CONTENT_LAYERS, blank) + s.beta * style(
                STYLE_LAYERS, painting, fit="own"
            )
            self.bound = bind(goal + s.tv * total_variation(), net, shape)
            self.actives = self.bound.objective.active(self.bound.weights)
            self.photo_read = [each for each in self.actives if each.term.positional]
            keys = {each.key for each in self.photo_read}
            self.targets.append(
                {
                    key: target.clone()
                    for key, target in self.bound.targets.items()
                    if key not in keys
                }
            )

    @property
    def names(self) -> list[str]:
        """The terms."""
        return self.bound.names

    def __call__(
        self, pictures: Tensor, photos: Tensor, paintings: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(gradient of the mean loss at each picture, mean of each unweighted term) of (B, 3, H, W)
        sRGB in [0, 1]."""
        gradients = torch.empty_like(pictures)
        values = []
        for i, painting in enumerate(paintings):
            self._aim(photos[i : i + 1].contiguous(), painting)
            _, gradient, terms = self.bound.evaluate(pictures[i : i + 1].contiguous())
            gradients[i] = gradient[0]
            values.append(terms.clone())
        return gradients.mul_(self.bound.scale / len(pictures)), torch.stack(values).mean(0)

    def _aim(self, photo: Tensor, painting: int) -> None:
        """Set the targets, in place, since a CUDA graph reads them where they are."""
        for key, target in self.targets[painting].items():
            self.bound.targets[key].copy_(target)
        for active in self.photo_read:
            found = self.bound.features(photo, {active.read}, self.actives)
            self.bound.targets[active.key].copy_(
                next(features for read, features in found if read == active.read)
            )


@dataclass(frozen=True, eq=False)
class LearningStep:
    """What one batch has given: its number from 1 on, its mean loss, and each term's unweighted
    mean."""

    index: int
    loss: float
    terms: dict[str, float]
    learner: Learner

    def model(self) -> StyleModel:
        """The network as it is now."""
        return self.learner.model()

    def checkpoint(self) -> Checkpoint:
        """From which `learn` goes on, to the same weights as without an interruption, on the same
        machine."""
        return self.learner.checkpoint()


def optimizers(network: TransformNetwork, rate: float) -> tuple[torch.optim.Optimizer, ...]:
    """For the kernels, steps along orthogonal matrices (Jordan et al. 2024), with which learning
    takes fewer of them and leaves less of a pattern than with Adam; Adam for the rest."""
    named = dict(network.named_parameters())
    kernels = [p for name, p in named.items() if name.endswith("kernel")]
    rest = [p for name, p in named.items() if not name.endswith("kernel")]
    muon = torch.optim.Muon(
        kernels, rate, momentum=MOMENTUM, weight_decay=0, adjust_lr_fn="original"
    )
    return muon, torch.optim.Adam(rest, SMALL * rate, BETAS)


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of each parameter, {"0.exp_avg": …}."""
    states = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": torch.as_tensor(t)
        for i, state in states.items()
        for name, t in state.items()
    }


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let an optimizer remember what `state_of` gave. LookupError or ValueError for anything
    else."""
    parameters = optimizer.param_groups[0]["params"]
    whole = optimizer.state_dict()
    if len(tensors) != len(parameters) * len({key.partition(".")[2] for key in tensors}):
        raise ValueError("some of what an optimizer remembers is missing")
    for key, t in tensors.items():
        i, _, name = key.partition(".")
        if t.shape not in (parameters[int(i)].shape, ()):
            raise ValueError(f"{key} has another shape")
        whole["state"].setdefault(int(i), {})[name] = t
    optimizer.load_state_dict(whole)


class Learner:
    """A network, its optimizer and the number of batches that it has seen. Raises InputError for
    what cannot be used."""

    def __init__(self, settings: LearnSettings, device: torch.device):
        s = self.settings = settings
        self.device, self.done = device, 0
        for source in s.paintings:  # first all that is quickly checked
            shape = im.shape_of(source)
            path = samples.path_of(source)
            sizes.fit_size(shape, s.painting_size, path, "size × style_scale")
        self.crops = Crops(photos_in(s.photos), s.size, s.crop, s.seed, s.steps * s.batch)
        net = normalize_activations(VGG19(s.weights)).to(device)
        self.loss = PerceptualLoss(s, net)
        self.identity = self._identity(net)
        self.network = (
            TransformNetwork(len(s.paintings), s.width, s.normalization).drawn(s.seed).to(device)
        )
        self.optimizers = optimizers(self.network, s.rate)
        self.halves = torch.bfloat16 in native_halves(device)

    def _identity(self, net: Network) -> str:
        """A hash of everything that decides the weights, 16 hexadecimal digits."""
        parts = [
            self.settings.to_dict(identity=True),
            self.settings.names,
            self.crops.digest,
            net.weights.digest,
            VERSION,
        ]
        parts += [
            hashlib.sha256(samples.path_of(source).read_bytes()).hexdigest()
            for source in self.settings.paintings
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def batches(self) -> Iterator[LearningStep]:
        """Learn from the batches that are left."""
        s = self.settings
        workers = 0 if self.device.type == "cpu" else min(WORKERS, (os.cpu_count() or 2) - 1)
        left = range(self.done * s.batch, s.steps * s.batch)
        if workers:
            self.crops.prepare()
        for photos in DataLoader(self.crops, s.batch, sampler=left, num_workers=workers):
            photos = photos.to(self.device, memory_format=torch.channels_last)
            terms = dict(zip(self.loss.names, self._update(photos).tolist(), strict=True))
            weights = self.loss.bound.weights
            yield LearningStep(
                self.done, sum(weights[name] * value for name, value in terms.items()), terms, self
            )

    def _update(self, photos: Tensor) -> Tensor:
        """One step of the optimizer; returns the mean of each term."""
        which = [
            (self.done * len(photos) + i) % len(self.settings.paintings) for i in range(len(photos))
        ]
        mix = torch.eye(len(self.settings.paintings), device=self.device)[which]
        for optimizer, part in zip(self.optimizers, (1.0, SMALL), strict=True):
            optimizer.param_groups[0]["lr"] = part * self.settings.rate * self._factor()
            optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, self.halves):
            pictures = self.network(photos, mix).float()
        gradients, terms = self.loss(pictures.detach(), photos, which)
        pictures.backward(gradients)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        if not norm.isfinite():
            what = f"batch {self.done + 1}: the gradient is not finite"
            raise InputError(f"{what}; a lower --rate may help")
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        return terms

    def _factor(self) -> float:
        """The factor of the rate: rising at first, then half a period of a cosine."""
        part = self.done / self.settings.steps
        return min(1.0, (self.done + 1) / WARM) * (
            LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * part)) / 2
        )

    def model(self) -> StyleModel:
        network = TransformNetwork(
            len(self.settings.paintings), self.settings.width, self.settings.normalization
        )
        network.load_state_dict(self.network.state_dict())
        about = self.settings.to_dict(identity=True) | {"steps done": self.done}
        return StyleModel(network.eval().requires_grad_(False), self.settings.names, about)

    def checkpoint(self) -> Checkpoint:
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        for k, optimizer in enumerate(self.optimizers):
            tensors |= {f"{k}.{name}": t for name, t in state_of(optimizer).items()}
        tensors = {name: t.detach().cpu().clone() for name, t in tensors.items()}
        return Checkpoint(tensors, {"identity": self.identity, "done": self.done})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; InputError if it is not one of the same learning, or lacks
        something."""
        if checkpoint.data.get("identity") != self.identity:
            raise InputError(
                "the checkpoint belongs to a learning with other settings, pictures or weights"
            )
        try:
            jsonfiles.check(checkpoint.data, CHECKPOINT)
            if checkpoint.data["done"] > self.settings.steps:
                raise ValueError("it has seen more batches than there are")
            self._restore(checkpoint.tensors)
        except (LookupError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the checkpoint is not whole, or another version's ({reason:.80})"
            ) from None
        self.done = checkpoint.data["done"]

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the network and its optimizers be as a checkpoint's tensors have them.

        Raises LookupError, ValueError or RuntimeError for others."""
        states: dict[str, dict[str, Tensor]] = {}
        for key, t in tensors.items():
            kind, _, name = key.partition(".")
            states.setdefault(kind, {})[name] = t
        self.network.load_state_dict(states["network"])
        for k, optimizer in enumerate(self.optimizers):
            restore(optimizer, states[str(k)])


def learn(
    settings: LearnSettings,
    on: torch.device | str = DEVICES[0],
    checkpoint: Checkpoint | None = None,
) -> Iterator[LearningStep]:
    """Learn to paint like the settings' paintings; yields after each batch.

    on: a device. checkpoint: go on from there. Raises: InputError for pictures, weights or a
    checkpoint that cannot be used."""
    learner = Learner(settings, device(on))
    if checkpoint is not None:
        learner.resume(checkpoint)
    return learner.batches()
