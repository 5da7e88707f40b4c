"""What `nstlab info` prints: what there is on this machine, and the layers of a network."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import version

import torch

from nstlab.base.devices import device as named_device
from nstlab.base.errors import InputError
from nstlab.base.settings import DEVICES
from nstlab.cli.console import print_table
from nstlab.method.conventions import CONVENTIONS, DEFAULT_CONVENTION
from nstlab.method.fast import memory
from nstlab.method.fast.arithmetic import arithmetic_of
from nstlab.networks import sources, weights
from nstlab.networks.architectures import ARCHITECTURES, architecture
from nstlab.networks.downloads import Download
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.receptive import fields
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.pictures import samples
from nstlab.recipes.capacity import largest_square


def print_machine() -> None:
    """Print versions, devices, memory, weights and sample pictures of this machine."""
    print(
        f"nstlab {version('nstlab')} - python {platform.python_version()} - torch "
        f"{torch.__version__}"
    )
    for name in DEVICES[1:]:
        with contextlib.suppress(InputError):
            print(f"device   {name}: {_capacity(named_device(name))}")
    for name, download in sources.SOURCES.items():
        print(f"weights  {name}: {_place(download, f'--weights {name}')}")
    embedded = weights.load("embedded")
    print(
        f"weights  embedded: {embedded.metadata.get('title', '')}; the ImageNet VGG19 remains the "
        "reference"
    )
    print("networks", ", ".join(ARCHITECTURES), "(nstlab info --network NAME lists its layers)")
    print("fetched ", ", ".join(sources.fetched()) or "none; nstlab fetch --network NAME")
    print("samples ", ", ".join(samples.samples()))


def print_network(name: str) -> None:
    """Print a network's layers, its preprocessing, and where its weights are."""
    net = architecture(name)
    defaults = CONVENTIONS[DEFAULT_CONVENTION] if net.blocks else net
    roles = {role: getattr(defaults, f"{role}_layers") for role in ("style", "content")}
    rows = [("layer", "depth", "filters", "stride, px", "sees, px", "default for")]
    for layer, field in fields(name).items():
        read = " ".join(role for role, layers in roles.items() if layer in layers)
        rows.append((layer, field.depth, field.filters, field.stride, field.across, read))
    print_table(rows)
    print(
        "\ndepth: convolutions up to it; sees: its receptive field. Input:",
        sources.preprocessing_of(name),
    )
    print("weights  imagenet:", _place(sources.download(name), f"--network {name}"))


def _place(download: Download, option: str) -> str:
    """Where downloaded weights are, or how to fetch them."""
    if download.path.is_file():
        return str(download.path)
    return f"not here; nstlab fetch {option} ({download.megabytes} MB)"


def _capacity(device: torch.device) -> str:
    """A device's free memory, its arithmetic, and the largest pictures that fit there."""
    random = VGG19(weights.random_weights(0))  # of which only the size matters
    nets = {
        "embedded": normalize_activations(VGG19("embedded")),
        "VGG19": normalize_activations(random, [im.sample("coffee", 32)]),
    }
    sides = [
        f"{largest_square(net.to(device), device)} px with {name}" for name, net in nets.items()
    ]
    arithmetic = arithmetic_of(nets["embedded"]).name
    return (
        f"{memory.available(device) / 1e9:.1f} GB free, {arithmetic}; room for a square of "
        f"{', '.join(sides)}"
    )
