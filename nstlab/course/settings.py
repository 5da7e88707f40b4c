"""Settings of `nstlab sweep` and `nstlab notebooks`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstlab.base.errors import InputError, nearest
from nstlab.base.files import shipped_folder
from nstlab.base.names import WEIGHTS
from nstlab.base.options import RESULTS, option, results_folder
from nstlab.base.settings import DEVICES, MAX_SIDE, MIN_SIDE, Settings, pairs_to_dict

EXPERIMENT_IDS = tuple(f"E{i}" for i in range(1, 22))
BUDGET_NAMES = ("quick", "paper", "smoke")
NOTEBOOK_ACTIONS = ("run", "list")
BUDGET_HELP = "quick: minutes on a laptop; paper: as published; smoke: seconds"
# The parameters of notebooks, besides budget and results.
PARAMETERS = ("size", "seed", "photo", "painting", "weights")


@dataclass(frozen=True)
class SweepSettings(Settings):
    """Carry out one of the classic experiments: its runs, its sheet, the table of its claims."""

    experiment: str = option(
        help="E1 or another, see notebooks and gallery", choices=EXPERIMENT_IDS
    )
    budget: str = option(BUDGET_NAMES[0], BUDGET_HELP, choices=BUDGET_NAMES)
    photo: str = option("coffee", "a picture file, or the name of a sample", paths=True)
    painting: str = option("swirl_strokes", "a picture file, or the name of a sample", paths=True)
    size: int | None = option(
        None, "long side (default: the budget's)", low=MIN_SIDE, high=MAX_SIDE, unit="px"
    )
    steps: int | None = option(
        None, "optimizer steps (default: the budget's)", low=1, high=1_000_000
    )
    seed: int = option(
        0, "seed of the noise; the first of several where seeds are varied", low=0, high=2**63 - 5
    )
    weights: str = option(
        WEIGHTS[0], "where VGG19's weights come from", choices=WEIGHTS, or_path=True
    )
    results: Path = results_folder()
    device: str = option(DEVICES[0], "where to compute", choices=DEVICES, identity=False)
    dask: str | None = option(
        None, "address of a Dask scheduler whose workers carry out the runs", identity=False
    )
    gallery: Path | None = option(
        None,
        "folder of the gallery, for a small sheet and the page with the claims",
        output=True,
        identity=False,
    )

    @property
    def folder(self) -> Path:
        """Where the experiment's sheet, curves and claims go."""
        return self.results / "sweeps" / f"{self.experiment}-{self.budget}"

    @property
    def gallery_pictures(self) -> dict[str, Path]:
        """Where a small sheet, and small curves of losses, go in the gallery, if there is one."""
        if self.gallery is None:
            return {}
        ends = {"sheet": ".jpg", "loss": "-loss.jpg"}
        return {name: self.gallery / f"{self.experiment}{end}" for name, end in ends.items()}

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """What is written beside the runs, and into the gallery."""
        return {"results": (self.folder,), "gallery": tuple(self.gallery_pictures.values())}


@dataclass(frozen=True)
class NotebooksSettings(Settings):
    """Run the notebooks, and keep them with their results and as HTML; or list them."""

    action: str = option(
        NOTEBOOK_ACTIONS[0], "what to do", choices=NOTEBOOK_ACTIONS, positional=True
    )
    names: tuple[str, ...] = option(
        (), "notebooks by name or number: 03 (default: all)", positional=True
    )
    budget: str = option(BUDGET_NAMES[0], BUDGET_HELP, choices=BUDGET_NAMES)
    parameters: tuple[str, ...] = option(
        (), "a parameter and its value: -p seed 3; may be repeated", short="-p", pairs=True
    )
    results: Path = option(
        Path(RESULTS),
        "folder in which runs are kept; executed notebooks go into its folder notebooks",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs_to_dict(self.parameters)

    @property
    def files(self) -> dict[str, tuple[str | Path, ...]]:
        """The notebooks."""
        return {"notebook": tuple(shipped_folder("notebooks").glob("*.ipynb"))}

    @property
    def outputs(self) -> dict[str, tuple[str | Path, ...]]:
        """What is executed, in a folder of the results."""
        return {"results": (self.folder,)}

    @property
    def folder(self) -> Path:
        """Where executed notebooks go."""
        return self.results / "notebooks"

    @property
    def chosen(self) -> dict[str, Any]:
        """The notebooks' parameters, checked as those of a sweep are: {name: value}.

        Raises:
            InputError: for one that notebooks do not have, or whose value is not allowed.
        """
        texts = pairs_to_dict(self.parameters)
        for name in texts:
            if name not in PARAMETERS:
                allowed = f"(allowed: {', '.join(PARAMETERS)})"
                raise InputError(
                    f"parameters: there is no '{name}'{nearest(name, PARAMETERS)} {allowed}"
                )
        checked = SweepSettings.from_dict({"experiment": EXPERIMENT_IDS[0], **texts})
        return {"budget": self.budget} | {name: getattr(checked, name) for name in texts}
