"""The rows about models that paint in one pass: how fast, and how good against the optimizer.

`python -m benchmarks feedforward MODEL TEACHER OUT` scores a model beside the optimizer, as the
original VGG19 sees their pictures.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

import matplotlib
import torch
from torch import Tensor

from benchmarks.scene import BenchSettings, Row, teacher_option
from benchmarks.speed import alternating
from nstlab import figures
from nstlab.base import files
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.base.options import option, results_folder
from nstlab.base.settings import Settings
from nstlab.course import report
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import SHIPPED
from nstlab.method.factories import content, style
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.vgg import VGG19
from nstlab.pictures import images as im
from nstlab.pictures import samples
from nstlab.recipes.prepare import prepare
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs.store import Store
from training.judge import Judge, at_content_error

SPEEDS = {256: 30, 512: 9}  # px: pictures a second that are promised on two cores with 16-bit units
FRAME = (1080, 1920)
STEPS = 100  # of the optimizer whose pictures are compared
BETAS = (20.0, 80.0)  # whose style errors are interpolated at equal content error
SIZE = 512  # px, where models are judged
SHOWN = 320  # px, on the sheet of the gallery
RATIO = 2.0  # the style error over the optimizer's that is promised at most
COLD = 3.0  # seconds from a cold start


def photos() -> dict[str, str]:
    """{name: file} of photos that no shipped model has learnt from."""
    import sklearn.datasets  # which takes seconds

    pictures = Path(sklearn.datasets.__file__).parent / "images"
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    paths = (samples.path_of(HELD_OUT), hopper, pictures / "china.jpg", pictures / "flower.jpg")
    return {path.stem: str(path) for path in paths}


def feedforward(options: BenchSettings, device: torch.device) -> Iterator[Row]:
    """Pictures a second, a cold start, and the style error over the optimizer's."""
    model = StyleModel.load(SHIPPED)
    for size, least in SPEEDS.items():
        yield speed(model, (size, size), least if device.type == "cpu" else None, device)
    if device.type == "cuda":
        yield speed(model, FRAME, 60, device)
    else:
        yield cold_start()


@torch.inference_mode()
def speed(model: StyleModel, shape: Sequence[int], least: int | None, device: torch.device) -> Row:
    """The row of the painter, in 16 bits and in 32, against the network as it is written.

    Args:
        model: what paints; the network as it is written is eager, in float32.
        shape: (H, W) of the photo.
        least: pictures a second that are promised; None for no promise.
        device: where it computes.
    """
    photo = torch.rand(1, 3, *shape, device=device)
    mix = model.mixture().to(device)[None]
    network = StyleModel.load(SHIPPED).network.to(device)
    painter = model.painter(device)
    exact = Painter(network, device, torch.float32)
    work = {
        "painter": lambda: painter(photo, mix[0]),
        "float32": lambda: exact(photo, mix[0]),
        "plain": lambda: network(photo, mix),
    }
    seconds = alternating(work, device, 11)
    values = {f"{name}, pictures a second": 1 / time for name, time in seconds.items()}
    values["painter over plain"] = seconds["plain"] / seconds["painter"]
    name = f"one pass, {shape[1]}×{shape[0]}"
    if least is None:
        return Row(name, values)
    return Row(name, values, f"{least} a second or more", 1 / seconds["painter"] >= least)


def cold_start() -> Row:
    """Seconds from the command's start to its picture, and what Python takes to import PyTorch."""
    photo = photos()[HELD_OUT]

    def seconds(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        command = ("-m", "nstlab", "apply", SHIPPED, photo, "--out", f"{folder}/cold.png")
        total = min(seconds(*command) for _ in range(3))
    importing = min(seconds("-c", "import torch") for _ in range(3))
    values = {"s": total, "of it importing PyTorch": importing}
    return Row("first picture", values, f"{COLD:g} s", total <= COLD)


# --- quality --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeedforwardSettings(Settings):
    """Score a model's pictures beside the optimizer's, as the original VGG19 sees them."""

    model: str = option(help="a file that `nstlab learn` made, or 'shipped'")
    teacher: Path = teacher_option()
    out: Path = option(help="a JSON file for the scores", output=True)
    results: Path = results_folder("the optimizer's pictures are kept")
    gallery: Path | None = option(None, "folder of the gallery, for a sheet of all pictures")


Points = dict[str, tuple[float, float]]  # {kind: (content error, style error)}


def points(judge: Judge, net: VGG19, picture: Tensor, photo: Tensor, painting: Tensor) -> Points:
    """A picture's errors, of two kinds.

    Args:
        judge: with the original's weights; its fourth block sees the errors "original".
        net: by whose loss "loss" is, the loss that was minimised.
        picture, photo, painting: (1, 3, H, W) in [0, 1], of one shape.
    """
    with torch.no_grad():
        shape = photo.shape[-2:]
        content_error = content(CONTENT_LAYERS, photo).bind(net, shape)(picture)[0]
        style_error = style(STYLE_LAYERS, painting, fit="own").bind(net, shape)(picture)[0]
    return {
        "original": judge(picture, photo, painting).deep,
        "loss": (float(content_error), float(style_error)),
    }


def optimize(photo: str, painting: str, results: Path) -> Iterator[Tensor]:
    """Paint a pair by the optimizer, at weights on both sides of a model's content error."""
    for beta in BETAS:
        settings = TransferSettings(
            photo, painting, size=SIZE, steps=STEPS, beta=beta, style_fit="area"
        )
        yield im.reopen(Store(results).obtain(prepare(settings)).run.picture)


def scores(settings: FeedforwardSettings) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(painting, photo, style errors, their ratios, and content errors) of each pair."""
    model = StyleModel.load(settings.model)
    judge = Judge(settings.teacher)
    net = normalize_activations(VGG19())
    for painting, (name, path) in itertools.product(model.paintings, photos().items()):
        photo = im.load(path, SIZE)
        target = im.fit(im.load(painting), photo.shape[-2:], "area")
        optimized = [
            points(judge, net, picture, photo, target)
            for picture in optimize(path, painting, settings.results)
        ]
        painted = points(judge, net, model(photo, painting), photo, target)
        yield painting, name, compare(painted, optimized)


def compare(painted: Points, optimized: Sequence[Points]) -> dict[str, float]:
    """The errors of a model's picture, and the optimizer's style error at its content error."""
    row = {}
    for kind, (content_error, style_error) in painted.items():
        curve = sorted(errors[kind] for errors in optimized)
        # a few lie beyond the optimizer's weights
        within = min(max(content_error, curve[0][0]), curve[-1][0])
        expected = at_content_error(curve, within)
        if content_error != within:
            row[f"{kind}, beyond"] = round(content_error / within, 3)
        row |= {
            f"{kind}, content": content_error,
            f"{kind}, style": style_error,
            f"{kind}, the optimizer's style": expected,
            f"{kind}, ratio": style_error / expected,
        }
    return {key: round(value, 4) for key, value in row.items()}


def hang(model: StyleModel, gallery: Path) -> None:
    """Put the photos, each painted like each painting, into the gallery."""
    pictures = {name: im.load(path, SHOWN) for name, path in photos().items()}
    rows = [
        [photo, *(model(photo, painting) for painting in model.paintings)]
        for photo in pictures.values()
    ]
    sheet = figures.contact_sheet(rows, list(pictures), ["photo", *model.paintings])
    figures.save_figure(sheet, gallery / "paintings.jpg", 2 * report.GALLERY_BYTES)
    text = (
        "## In one pass\n\nFour photos that the shipped model has not learnt from, painted by it "
        "like each of the eight paintings.\n\n![Four photos, painted like eight paintings in one "
        "pass](paintings.jpg)\n\nAgain: `python -m benchmarks feedforward shipped TEACHER OUT "
        "--gallery results/gallery`, with the original's weights as `TEACHER`\n"
    )
    report.hang("paintings", text, gallery)


def feedforward_command(settings: FeedforwardSettings) -> int:
    """Print scores, and write them: of each pair, and geometric means of the ratios."""
    files.check_writable(settings.out)
    if settings.gallery is not None:
        hang(StyleModel.load(settings.model), settings.gallery)
    pairs: dict[str, dict[str, dict[str, float]]] = {}
    for painting, photo, row in scores(settings):
        pairs.setdefault(painting, {})[photo] = row
        print(painting, photo, row, flush=True)
    rows = [row for by_photo in pairs.values() for row in by_photo.values()]
    means = {
        key: round(geometric_mean(row[key] for row in rows), 3)
        for key in ("original, ratio", "loss, ratio")
    }
    print(means)
    with files.replacing(settings.out) as temporary:
        temporary.write_text(json.dumps({"mean ratio": means, "pairs": pairs}, indent=1))
    return 0
