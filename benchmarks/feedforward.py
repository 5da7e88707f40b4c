"""The rows about models that paint in one pass: how fast they are, and how good against the
optimizer.

`python -m benchmarks.feedforward --model MODEL --teacher FILE --out FILE` scores a model beside the
optimizer, as the original VGG19 sees their pictures.
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
from typing import Any

import matplotlib
import torch
import tyro
from torch import Tensor

from benchmarks.scene import BenchSettings, Row
from benchmarks.speed import alternating
from nstlab import figures
from nstlab.base import files
from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS
from nstlab.course import report
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import SHIPPED
from nstlab.method.objectives import content, style
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
    """The painter, in 16 bits and in 32, against the network as it is written, eager and in
    float32."""
    photo, mix = torch.rand(1, 3, *shape, device=device), model.mixture().to(device)[None]
    network = StyleModel.load(SHIPPED).network.to(device)
    painter, exact = model.painter(device), Painter(network, device, torch.float32)
    work = {
        "painter": lambda: painter(photo, mix[0]),
        "float32": lambda: exact(photo, mix[0]),
        "plain": lambda: network(photo, mix),
    }
    seconds = alternating(work, device, 11)
    values = {f"{name}, pictures a second": 1 / each for name, each in seconds.items()}
    values["painter over plain"] = seconds["plain"] / seconds["painter"]
    met = None if least is None else 1 / seconds["painter"] >= least
    return Row(
        f"one pass, {shape[1]}×{shape[0]}",
        values,
        f"{least} a second or more" if least else "",
        met,
    )


def cold_start() -> Row:
    """Seconds from the command's start to its picture, and what Python takes to import PyTorch."""
    photo = photos()[HELD_OUT]

    def seconds(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        command = ("-m", "nstlab", "apply", SHIPPED, photo, "--out", f"{folder}/cold.png")
        whole = min(seconds(*command) for _ in range(3))
    torch_alone = min(seconds("-c", "import torch") for _ in range(3))
    return Row(
        "first picture",
        {"s": whole, "of it importing PyTorch": torch_alone},
        f"{COLD:g} s",
        whole <= COLD,
    )


# --- quality --------------------------------------------------------------------------------------


@dataclass
class Options:
    """Score a model's pictures beside the optimizer's, as the original VGG19 sees them."""

    model: str
    """a file that `nstlab learn` made, or 'shipped'"""
    teacher: Path
    """the original VGG19's weights, conv1_1 to conv4_1 or more"""
    out: Path
    """a JSON file for the scores"""
    results: Path = Path("results")
    """folder of the store, where the optimizer's pictures are kept"""
    gallery: Path | None = None
    """a folder for a sheet of all photos, painted like all paintings"""


def points(
    judge: Judge, net: VGG19, picture: Tensor, photo: Tensor, painting: Tensor
) -> dict[str, tuple[float, float]]:
    """{kind: (content error, style error)}: as the original's fourth block sees them, and by the
    loss that was minimised."""
    with torch.no_grad():
        shape = photo.shape[-2:]
        away = content(CONTENT_LAYERS, photo).bind(net, shape)(picture)[0]
        style_error = style(STYLE_LAYERS, painting, fit="own").bind(net, shape)(picture)[0]
    return {
        "original": judge(picture, photo, painting).deep,
        "loss": (float(away), float(style_error)),
    }


def optimized(photo: str, painting: str, results: Path) -> Iterator[Tensor]:
    """The optimizer's pictures of a pair, at weights that lie on both sides of a model's content
    error."""
    for beta in BETAS:
        settings = TransferSettings(
            photo, painting, size=SIZE, steps=STEPS, beta=beta, style_fit="area"
        )
        yield im.reopen(Store(results).obtain(prepare(settings)).run.picture)


def scored(options: Options) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(painting, photo, style errors and their ratios, and content errors) of each pair."""
    model, judge, net = (
        StyleModel.load(options.model),
        Judge(options.teacher),
        normalize_activations(VGG19()),
    )
    for painting, (name, path) in itertools.product(model.paintings, photos().items()):
        photo = im.load(path, SIZE)
        own = im.fit(im.load(painting), photo.shape[-2:], "area")
        curves = [
            points(judge, net, picture, photo, own)
            for picture in optimized(path, painting, options.results)
        ]
        row = {}
        for kind, (away, error) in points(judge, net, model(photo, painting), photo, own).items():
            curve = sorted(each[kind] for each in curves)
            # a few lie beyond the optimizer's weights
            within = min(max(away, curve[0][0]), curve[-1][0])
            expected = at_content_error(curve, within)
            row |= {f"{kind}, beyond": round(away / within, 3)} if away != within else {}
            row |= {f"{kind}, content": away, f"{kind}, style": error}
            row |= {f"{kind}, the optimizer's style": expected, f"{kind}, ratio": error / expected}
        yield painting, name, {key: round(value, 4) for key, value in row.items()}


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
        "like each of the eight "
        "paintings.\n\n![Four photos, painted like eight paintings in one pass](paintings.jpg)\n\n"
        "Again: `python -m benchmarks.feedforward --gallery results/gallery`, with the original's "
        "weights as `--teacher`\n"
    )
    report.hang("paintings", text, gallery)


def main(options: Options) -> None:
    """Print scores, and write them: of each pair, and geometric means of the ratios."""
    files.check_writable(options.out)
    if options.gallery is not None:
        hang(StyleModel.load(options.model), options.gallery)
    found: dict[str, dict[str, Any]] = {}
    for painting, photo, row in scored(options):
        found.setdefault(painting, {})[photo] = row
        print(painting, photo, row, flush=True)
    rows = [row for each in found.values() for row in each.values()]
    means = {
        key: round(geometric_mean(row[key] for row in rows), 3)
        for key in ("original, ratio", "loss, ratio")
    }
    print(means)
    with files.replacing(options.out) as temporary:
        temporary.write_text(json.dumps({"mean ratio": means, "pairs": found}, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
