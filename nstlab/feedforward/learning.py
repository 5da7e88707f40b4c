"""Learning to paint: a network is trained to minimise what the optimizer minimises.

    for step in learn(LearnSettings(("mosaic",))):
        print(step.index, step.loss, step.terms)        # step.model() is the network so far

`PerceptualLoss` gives the gradient at the painted pictures; autograd takes it from there to the
weights, which `Optimizers` change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from nstlab.base import jsonfiles
from nstlab.base.devices import device
from nstlab.base.errors import InputError
from nstlab.base.jsonfiles import NUMBER, TEXT, WHOLE, dict_of, list_of, object_with
from nstlab.base.settings import DEVICES, VERSION
from nstlab.feedforward.crops import Crops, photos_in
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.network import TransformNetwork
from nstlab.feedforward.optimizing import Optimizers, rate_factor
from nstlab.feedforward.perceptual import PerceptualLoss
from nstlab.feedforward.settings import LearnSettings
from nstlab.method import Checkpoint
from nstlab.method.fast.arithmetic import native_halves
from nstlab.networks.base import Network
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.pictures import samples, sizes

LARGEST_GRADIENT = 1.0  # norm to which a longer gradient is cut
PREFIX = "network."  # of the network's tensors in a checkpoint
WORKERS = 8  # processes that cut photos for a GPU
CHECKPOINT = object_with({"history": list_of(dict_of(NUMBER))}, identity=TEXT, done=WHOLE)


@dataclass(frozen=True, eq=False)
class LearningStep:
    """What one batch gave.

    Attributes:
        index: number of the batch, from 1 on.
        loss: mean of the weighted total over the batch.
        terms: {name: mean of the unweighted term}.
        learner: holds the network, which the next batch changes.
    """

    index: int
    loss: float
    terms: dict[str, float]
    learner: Learner

    def model(self) -> StyleModel:
        """The network as it is now."""
        return self.learner.model()

    def checkpoint(self) -> Checkpoint:
        """The state from which `learn` goes on to the same weights, on the same machine."""
        return self.learner.checkpoint()


class Learner:
    """A network, its optimizers and the number of batches that it has seen.

    Raises:
        InputError: for pictures or weights that cannot be used.
    """

    def __init__(self, settings: LearnSettings, device: torch.device):
        self.settings = settings
        self.device = device
        self.done = 0  # batches
        _check_paintings(settings)  # first all that is quickly checked
        self.crops = Crops(
            photos_in(settings.photos),
            settings.size,
            settings.crop,
            settings.seed,
            settings.steps * settings.batch,
        )
        net = normalize_activations(VGG19(settings.weights)).to(device)
        self.loss = PerceptualLoss(settings, net)
        self.identity = self._identity(net)
        self.network = self._network().randomize(settings.seed).to(device)
        self.optimizers = Optimizers(self.network, settings.rate)
        self.uses_bfloat16 = torch.bfloat16 in native_halves(device)

    def _network(self) -> TransformNetwork:
        """A network such as the settings ask for, whose kernels are not set."""
        s = self.settings
        return TransformNetwork(len(s.paintings), s.width, s.normalization)

    def _identity(self, net: Network) -> str:
        """A hash of everything that decides the weights, 16 hexadecimal digits."""
        parts = [
            self.settings.to_dict(identity=True),
            self.settings.names,
            self.crops.digest,
            net.weights.digest,
            VERSION,
        ]
        for source in self.settings.paintings:
            parts.append(hashlib.sha256(samples.path_of(source).read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def batches(self) -> Iterator[LearningStep]:
        """Learn from the batches that are left."""
        s = self.settings
        workers = 0
        if self.device.type != "cpu":
            workers = min(WORKERS, (os.cpu_count() or 2) - 1)
        if workers:
            self.crops.prepare()
        remaining = range(self.done * s.batch, s.steps * s.batch)
        for photos in DataLoader(self.crops, s.batch, sampler=remaining, num_workers=workers):
            photos = photos.to(self.device, memory_format=torch.channels_last)
            terms = dict(zip(self.loss.names, self._update(photos).tolist(), strict=True))
            loss = sum(self.loss.weights[name] * value for name, value in terms.items())
            yield LearningStep(index=self.done, loss=loss, terms=terms, learner=self)

    def _update(self, photos: Tensor) -> Tensor:
        """Change the weights by one batch of photos; returns the mean of each term."""
        count = len(self.settings.paintings)
        paintings = [(self.done * len(photos) + i) % count for i in range(len(photos))]
        mix = torch.eye(count, device=self.device)[paintings]
        self.optimizers.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, self.uses_bfloat16):
            pictures = self.network(photos, mix).float()
        gradients, terms = self.loss(pictures.detach(), photos, paintings)
        pictures.backward(gradients)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        if not norm.isfinite():
            problem = f"batch {self.done + 1}: the gradient is not finite"
            raise InputError(f"{problem}; a lower --rate may help")
        self.optimizers.step(rate_factor(self.done, self.settings.steps))
        self.done += 1
        return terms

    def model(self) -> StyleModel:
        """A copy of the network as it is now, with its settings and the number of batches."""
        network = self._network()
        network.load_state_dict(self.network.state_dict())
        settings = self.settings.to_dict(identity=True) | {"steps done": self.done}
        return StyleModel(network.eval().requires_grad_(False), self.settings.names, settings)

    def checkpoint(self) -> Checkpoint:
        """The weights, what the optimizers remember, and the number of batches."""
        tensors = {f"{PREFIX}{name}": t for name, t in self.network.state_dict().items()}
        tensors |= self.optimizers.state()
        tensors = {name: t.detach().cpu().clone() for name, t in tensors.items()}
        return Checkpoint(tensors, {"identity": self.identity, "done": self.done})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: if it belongs to another learning, or is not complete.
        """
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
        """Set weights and optimizers; LookupError, ValueError or RuntimeError for other tensors."""
        weights = {
            key.removeprefix(PREFIX): t for key, t in tensors.items() if key.startswith(PREFIX)
        }
        self.network.load_state_dict(weights)
        self.optimizers.restore(tensors)


def _check_paintings(settings: LearnSettings) -> None:
    """InputError for a painting that is no picture, or has another size than is allowed."""
    for source in settings.paintings:
        shape = im.shape_of(source)
        path = samples.path_of(source)
        sizes.fit_size(shape, settings.painting_size, path, "size × style_scale")


def learn(
    settings: LearnSettings,
    on: torch.device | str = DEVICES[0],
    checkpoint: Checkpoint | None = None,
) -> Iterator[LearningStep]:
    """Learn to paint like the settings' paintings.

    Args:
        settings: what is learned.
        on: a device.
        checkpoint: of the same learning, from which it goes on.

    Returns:
        An iterator that learns from one batch at a time, and yields what it gave.

    Raises:
        InputError: for pictures, weights or a checkpoint that cannot be used.
    """
    learner = Learner(settings, device(on))
    if checkpoint is not None:
        learner.resume(checkpoint)
    return learner.batches()
