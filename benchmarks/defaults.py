"""The evidence for a transfer's default settings: `python -m benchmarks.defaults --teacher FILE`.

Every photo of the lab is painted like every painting of the lab, by every candidate for the default
settings. Each picture is judged by the original VGG19 (its first three blocks, and conv4_1 if FILE
reaches it): `style` is the relative error of the Gram matrices, `content` that of the features (see
training.judge). The unchanged photo has content 0, the painting has style 0. `mesh` is the power of
the luminance above 0.35 cycles per pixel, less the painting's, in per cent: what is left of noise.
The lines of a candidate give the median and the bound of the worst quarter; not the worst pair,
since a channel that is silent in both pictures can make any error. With --sheets FOLDER the
pictures are kept, with a sheet for each candidate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import tyro
from torch import Tensor

import nstlab as nst
from nstlab import figures
from nstlab.course.measurements import fine_energy, ssim
from nstlab.pictures import images
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from training.corpus import SCIKIT_LEARN
from training.judge import Judge

FROM_SCIKIT_LEARN = tuple(Path(name).stem for name in SCIKIT_LEARN)
PHOTOS = (*images.PHOTOS, *FROM_SCIKIT_LEARN)
PAINTINGS = tuple(name for name in nst.samples() if name not in images.PHOTOS)
MESH = 0.35  # cycles per pixel
BEFORE: dict[str, Any] = {"init": "white", "beta": 1e3, "levels": 1, "steps": 300}
CANDIDATES: dict[str, dict[str, Any]] = {
    "as before: white noise, β 1000": BEFORE,
    "noise, 3 levels": {"init": "noise", "levels": 3},
    "β 10": {"beta": 10.0},
    "defaults": {},
    "β 40": {"beta": 40.0},
    "3 levels": {"levels": 3},
}
NUMBERS = ("style", "content", "style_deep", "content_deep", "mesh", "ssim")


@dataclass
class Options:
    """Compare candidates for the default settings of a transfer."""

    teacher: Path
    """the original VGG19's weights, conv1_1 to conv3_4 at least"""
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    """names of CANDIDATES, or candidates of your own, as field=value,field=value"""
    photos: tuple[str, ...] = PHOTOS
    paintings: tuple[str, ...] = PAINTINGS
    size: int = 256
    """long side in pixels"""
    weights: str = "embedded"
    sheets: Path | None = None
    """a folder for the pictures, and a sheet for each candidate"""
    json: Path | None = None
    """keep all numbers in this file"""


def photo(name: str, folder: Path) -> str:
    """The name of a sample, or the path of a photo of scikit-learn's, which is written into the
    folder."""
    if name not in FROM_SCIKIT_LEARN:
        return name
    from PIL import Image
    from sklearn.datasets import load_sample_image

    path = folder / f"{name}.png"
    if not path.exists():
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(path)
    return str(path)


def changes(candidate: str) -> dict[str, Any]:
    """The settings in which a candidate differs from the defaults."""
    return (
        CANDIDATES[candidate]
        if candidate in CANDIDATES
        else dict(part.split("=") for part in candidate.split(","))
    )


def pictures(
    options: Options, candidate: str, folder: Path
) -> Iterator[tuple[str, str, Plan, Tensor]]:
    """(photo, painting, plan, picture) of each pair."""
    plan = None
    for name in options.photos:
        for painting in options.paintings:
            settings = nst.TransferSettings(
                photo(name, folder), painting, size=options.size, weights=options.weights
            )
            plan = prepare(settings.replace(**changes(candidate)), "cpu", like=plan)
            yield name, painting, plan, plan.solve().image


def numbers(judge: Judge, plan: Plan, picture: Tensor) -> dict[str, float]:
    """The NUMBERS of a picture."""
    content, style = plan.inputs["content"], nst.fit(plan.inputs["style"], picture.shape[-2:])
    score = judge(picture, content, style)
    mesh = 100 * (fine_energy(picture, MESH) - fine_energy(style, MESH))
    values = (
        score.pair[1],
        score.pair[0],
        score.deep[1],
        score.deep[0],
        mesh,
        ssim(picture, content),
    )
    return dict(zip(NUMBERS, values, strict=True))


def lines(candidate: str, rows: list[dict[str, Any]]) -> str:
    """The two lines of a candidate in the table."""
    typical, bad = [f"| {candidate} | median"], ["| | worst quarter"]
    for number in NUMBERS:
        values = [row[number] for row in rows]
        typical.append(f"{median(values):.3g}")
        bad.append(f"{quantiles(values, n=4)[0 if number == 'ssim' else -1]:.3g}")
    return "\n".join(" | ".join(line) + " |" for line in (typical, bad))


def main(options: Options) -> None:
    """Print a table with two lines for each candidate, and keep the numbers and pictures that are
    asked for."""
    judge, folder, found = Judge(options.teacher), options.sheets or Path("results"), {}
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| candidate | | " + " | ".join(NUMBERS) + " |\n|---|---" + "|---" * len(NUMBERS) + "|",
        flush=True,
    )
    for candidate in options.candidates:
        rows, shown = [], {}
        for name, painting, plan, picture in pictures(options, candidate, folder):
            rows.append({"photo": name, "painting": painting, **numbers(judge, plan, picture)})
            shown[name, painting] = picture
        found[candidate] = {"settings": changes(candidate), "pairs": rows}
        print(lines(candidate, rows), flush=True)
        if options.sheets:
            grid = [
                [shown[name, painting] for painting in options.paintings] for name in options.photos
            ]
            sheet = figures.contact_sheet(grid, options.photos, options.paintings, title=candidate)
            label = "".join(letter if letter.isalnum() else "-" for letter in candidate)
            figures.save_figure(sheet, folder / f"{label}.jpg")
        if options.json:
            about = {
                "size": options.size,
                "weights": plan.net.weights.digest,
                "judge": judge.net.weights.digest,
            }
            options.json.write_text(
                json.dumps(about | {"candidates": found}, indent=1, ensure_ascii=False) + "\n"
            )


if __name__ == "__main__":
    main(tyro.cli(Options))
