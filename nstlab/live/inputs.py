"""How pictures that come from a page become settings: photos, paintings and their regions."""

from __future__ import annotations

from pathlib import Path

from nstlab.base.errors import one_of
from nstlab.live.brush import NONE
from nstlab.live.controls import Controls
from nstlab.live.uploads import Uploads
from nstlab.pictures import labels


class Inputs:
    """The files of a studio's page, kept and put into its settings.

    Args:
        controls: of the settings.
        folder: where files are kept.
    """

    def __init__(self, controls: Controls, folder: Path):
        self.controls = controls
        self.uploads = Uploads(folder)

    def use_picture(self, field: str, name: str, data: bytes) -> None:
        """Keep a file, and use it for a field, such as "photo" or "painting".

        Raises:
            InputError: if it does not pass the checks of all pictures.
        """
        one_of("upload", field, list(self.controls.settings.roles()))
        self.controls.change(**{field: str(self.uploads.keep(name, data))})

    def use_regions(self, photo: bytes, painting: bytes) -> None:
        """Keep the label pictures of photo and painting, as PNG, and use them.

        Raises:
            InputError: for what is no label picture, or lacks a region that the photo has.
        """
        paths = {
            "mask": str(self.uploads.keep("mask.png", photo)),
            "painting_mask": str(self.uploads.keep("painting_mask.png", painting)),
        }
        # Refused before anything changes: the page keeps what was painted.
        labels.masks(*map(labels.load, paths.values()))
        self.controls.change(**NONE | paths)

    def leave_regions(self) -> None:
        """Paint without regions, and show none."""
        self.controls.views["mask"].forget()
        self.controls.change(**NONE)
