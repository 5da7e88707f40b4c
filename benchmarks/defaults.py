"""The evidence for a transfer's default settings: `python -m benchmarks defaults FILE`.

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

from torch import Tensor

import nstlab as nst
from benchmarks.scene import teacher_option, weights_option
from nstlab import figures
from nstlab.base.options import option
from nstlab.base.settings import Settings
from nstlab.course.measurements import fine_energy, ssim
from nstlab.pictures import samples
from nstlab.recipes.plan import Plan
from nstlab.recipes.prepare import prepare
from training.corpus import SCIKIT_LEARN
from training.judge import Judge

FROM_SCIKIT_LEARN = tuple(Path(name).stem for name in SCIKIT_LEARN)
PHOTOS = (*samples.PHOTOS, *FROM_SCIKIT_LEARN)
PAINTINGS = tuple(name for name in nst.samples() if name not in samples.PHOTOS)
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


@dataclass(frozen=True)
class DefaultsSettings(Settings):
    """Compare candidates for the default settings of a transfer."""

    teacher: Path = teacher_option()
    candidates: tuple[str, ...] = option(
        tuple(CANDIDATES), "names of CANDIDATES, or others, as field=value,field=value"
    )
    photos: tuple[str, ...] = option(PHOTOS, "names of samples, and of scikit-learn's photos")
    paintings: tuple[str, ...] = option(PAINTINGS, "names of samples, or paths")
    size: int = option(256, "long side", low=64, high=4096, unit="px")
    weights: str = weights_option()
    sheets: Path | None = option(None, "folder for the pictures, and a sheet of each candidate")
    json: Path | None = option(None, "keep all numbers in this file")


def photo(name: str, folder: Path) -> str:
    """The name of a sample, or the path of a photo of scikit-learn's.

    Args:
        name: of the photo.
        folder: where one of scikit-learn's is written.
    """
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
    if candidate in CANDIDATES:
        return CANDIDATES[candidate]
    return dict(part.split("=") for part in candidate.split(","))


def pictures(
    settings: DefaultsSettings, candidate: str, folder: Path
) -> Iterator[tuple[str, str, Plan, Tensor]]:
    """Paint each pair as a candidate does; yields (photo, painting, plan, picture)."""
    plan = None
    for name in settings.photos:
        for painting in settings.paintings:
            transfer = nst.TransferSettings(
                photo(name, folder), painting, size=settings.size, weights=settings.weights
            )
            plan = prepare(transfer.replace(**changes(candidate)), "cpu", like=plan)
            yield name, painting, plan, plan.solve().image


def numbers(judge: Judge, plan: Plan, picture: Tensor) -> dict[str, float]:
    """{name: value} of the NUMBERS of a picture."""
    content = plan.inputs["content"]
    style = nst.fit(plan.inputs["style"], picture.shape[-2:])
    score = judge(picture, content, style)
    return {
        "style": score.pair[1],
        "content": score.pair[0],
        "style_deep": score.deep[1],
        "content_deep": score.deep[0],
        "mesh": 100 * (fine_energy(picture, MESH) - fine_energy(style, MESH)),
        "ssim": ssim(picture, content),
    }


def lines(candidate: str, rows: list[dict[str, Any]]) -> str:
    """The two lines of a candidate in the table."""
    typical = [f"| {candidate} | median"]
    worst = ["| | worst quarter"]
    for number in NUMBERS:
        values = [row[number] for row in rows]
        quarter = 0 if number == "ssim" else -1  # the larger the similarity, the better
        typical.append(f"{median(values):.3g}")
        worst.append(f"{quantiles(values, n=4)[quarter]:.3g}")
    return "\n".join(" | ".join(line) + " |" for line in (typical, worst))


def defaults_command(settings: DefaultsSettings) -> int:
    """Print two lines for each candidate; keep the numbers and pictures that are asked for."""
    judge = Judge(settings.teacher)
    folder = settings.sheets or Path("results")
    folder.mkdir(parents=True, exist_ok=True)
    candidates: dict[str, dict[str, Any]] = {}
    header = "| candidate | | " + " | ".join(NUMBERS) + " |\n"
    print(header + "|---|---" + "|---" * len(NUMBERS) + "|", flush=True)
    for candidate in settings.candidates:
        rows = []
        painted = {}
        for name, painting, plan, picture in pictures(settings, candidate, folder):
            rows.append({"photo": name, "painting": painting, **numbers(judge, plan, picture)})
            painted[name, painting] = picture
        candidates[candidate] = {"settings": changes(candidate), "pairs": rows}
        print(lines(candidate, rows), flush=True)
        if settings.sheets:
            _save_sheet(settings, candidate, painted)
        if settings.json:
            result = {
                "size": settings.size,
                "weights": plan.net.weights.digest,
                "judge": judge.net.weights.digest,
                "candidates": candidates,
            }
            settings.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


def _save_sheet(
    settings: DefaultsSettings, candidate: str, painted: dict[tuple[str, str], Tensor]
) -> None:
    """Write the sheet of a candidate's pictures, by photo and painting."""
    grid = [
        [painted[name, painting] for painting in settings.paintings] for name in settings.photos
    ]
    sheet = figures.contact_sheet(grid, settings.photos, settings.paintings, title=candidate)
    label = "".join(letter if letter.isalnum() else "-" for letter in candidate)
    figures.save_figure(sheet, settings.sheets / f"{label}.jpg")
