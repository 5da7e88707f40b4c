"""Models for other programs: an ONNX file, for pictures of any size and all mixtures of the model's
paintings."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch

from nstlab.base import files, signals
from nstlab.base.settings import InputError
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import ExportSettings
from nstlab.pictures import outputs

OPSET = 18


def exported(settings: ExportSettings) -> Path:
    """Write the model as `settings.out`, whose metadata name the paintings; returns its path.

    Its inputs are `photo`, (1, 3, H, W) sRGB in [0, 1], and `mix`, (1, paintings), shares that add
    up to 1; its output is `picture`, (1, 3, H, W). Raises InputError without nstlab[onnx], and for
    a model or a place that cannot be used."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "ONNX files need more packages; install them: pip install 'nstlab[onnx]'"
        ) from None
    if settings.out.suffix.lower() != ".onnx":
        raise InputError(f"out: {settings.out} must be an .onnx file")
    outputs.check_outputs(settings)
    files.check_writable(settings.out)
    model = StyleModel.load(settings.model)
    size = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with signals.uninterrupted(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what the exporter does itself
        program = torch.onnx.export(
            model.network,
            (torch.rand(1, 3, 96, 128), model.mixture()[None]),
            input_names=["photo", "mix"],
            output_names=["picture"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({2: size, 3: size}, {}),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["paintings"] = json.dumps(model.paintings)
    with files.replacing(settings.out) as temporary:
        program.save(temporary)
    return settings.out
