"""The rows about models that paint in one pass: how fast they are, and how good against the optimizer.

`python -m benchmarks.feedforward MODEL` writes a model's scores beside it, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean

import matplotlib
import numpy as np
import sklearn.datasets
import torch
from torch import Tensor

from benchmarks.scene import BenchSettings, Row
from benchmarks.speed import alternating
from nstlab import files
from nstlab import images as im
from nstlab.devices import device as device_named
from nstlab.feedforward.crops import HELD_OUT
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.painter import Painter
from nstlab.feedforward.settings import SHIPPED
from nstlab.method.objectives import Bound
from nstlab.recipes.plan import Plan, prepare
from nstlab.recipes.transfer import TransferSettings

SPEEDS = {256: 30, 512: 9}  # px: pictures a second that are promised on two cores with 16-bit units
FRAME = (1080, 1920)
STEPS = 100  # of the optimizer whose pictures are compared
BETAS = (10.0, 20.0, 40.0)  # whose style errors are interpolated at equal content error
SIZE = 512  # px, where models are judged
RATIO = 2.0  # the style error over the optimizer's that is promised at most
COLD = 3.0  # seconds from a cold start


def photos() -> dict[str, str]:
    """{name: file} of photos that no shipped model has learnt from."""
    pictures = Path(sklearn.datasets.__file__).parent / "images"
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    paths = (im.path_of(HELD_OUT), hopper, pictures / "china.jpg", pictures / "flower.jpg")
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
    """The painter, in 16 bits and in 32, against the network as it is written, eager and in float32."""
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
    return Row(f"one pass, {shape[1]}×{shape[0]}", values, f"{least} a second or more" if least else "", met)


def cold_start() -> Row:
    """Seconds from the command's start to its picture, and what Python takes to import PyTorch."""
    photo = photos()[HELD_OUT]

    def seconds(*words: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    command = ("-m", "nstlab", "apply", SHIPPED, photo, "--out", "cold.png")
    whole = min(seconds(*command) for _ in range(3))
    torch_alone = min(seconds("-c", "import torch") for _ in range(3))
    Path("cold.png").unlink()
    return Row("first picture", {"s": whole, "of it importing PyTorch": torch_alone}, f"{COLD:g} s", whole <= COLD)


# --- quality ----------------------------------------------------------------------------------------------------


def errors(bound: Bound, picture: Tensor) -> tuple[float, float]:
    """(content error, style error) of a picture, in the objective's terms."""
    values = dict(zip(bound.names, bound.evaluate(picture.to(bound.net.device))[2].tolist(), strict=True))
    return values["content"], values["style"]


def compared(model: StyleModel, photo: str, painting: str, device: torch.device, known: Plan | None) -> tuple[dict, Plan]:
    """A model's errors for one pair, the optimizer's style error at the same content error, and their ratio."""
    curve, plan = [], known
    for beta in BETAS:
        settings = TransferSettings(photo, painting, size=SIZE, steps=STEPS, beta=beta, style_fit="area")
        plan = prepare(settings, device, plan)
        *_, last = plan.steps()
        bound = plan.objective.bind(plan.net, plan.shape)
        curve.append(errors(bound, last.best().to(device)))
    picture = model(plan.inputs["content"], painting)
    content, style = errors(bound, picture)
    contents, styles = np.log(sorted(curve)).T
    optimizer = float(np.exp(np.interp(np.log(content), contents, styles)))
    inside = contents[0] <= np.log(content) <= contents[-1]
    return {
        "content": content,
        "style": style,
        "optimizer's style": optimizer,
        "ratio": style / optimizer,
        "inside": bool(inside),
    }, plan


def scores(
    model: StyleModel, device: torch.device, paintings: Sequence[str] = ()
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """(painting, photo, what `compared` finds) for each painting and photo."""
    plan = None
    for painting in paintings or model.paintings:
        for name, path in photos().items():
            found, plan = compared(model, path, painting, device, plan)
            yield painting, name, found


def main(words: Sequence[str]) -> None:
    """Print a model's scores, and write them beside it."""
    path = Path(words[0])
    model, found = StyleModel.load(path), {}
    for painting, photo, row in scores(model, device_named()):
        found.setdefault(painting, {})[photo] = row
        print(painting, photo, {name: round(value, 4) for name, value in row.items()}, flush=True)
    ratios = [row["ratio"] for rows in found.values() for row in rows.values()]
    table = {"ratio": geometric_mean(ratios), "largest": max(ratios), "pairs": found}
    print({name: round(value, 3) for name, value in table.items() if name != "pairs"})
    with files.replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
