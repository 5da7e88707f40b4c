"""Models for other programs: ONNX files, for pictures of any size and all mixtures of paintings."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch

from nstlab.base import files, signals
from nstlab.base.errors import InputError
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import ExportSettings
from nstlab.pictures import outputs

OPSET = 18


def export_onnx(settings: ExportSettings) -> Path:
    """Write a model as an ONNX file, whose metadata name the paintings.

    Its inputs are `photo`, (1, 3, H, W) sRGB in [0, 1], and `mix`, (1, paintings), shares that add
    up to 1; its output is `picture`, (1, 3, H, W).

    Args:
        settings: name the model and the file.

    Returns:
        The path of the file.

    Raises:
        InputError: without nstlab[onnx], and for a model or a place that cannot be used.
    """
    outputs.check_outputs(settings)
    _check_packages()
    if settings.out.suffix.lower() != ".onnx":
        raise InputError(f"out: {settings.out} must be an .onnx file")
    files.check_writable(settings.out)
    model = StyleModel.load(settings.model)
    program = _onnx_program(model)
    program.model.metadata_props["paintings"] = json.dumps(model.paintings)
    with files.replacing(settings.out) as temporary:
        program.save(temporary)
    return settings.out


def _check_packages() -> None:
    """InputError without the packages that write ONNX files."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "ONNX files need more packages; install them: pip install 'nstlab[onnx]'"
        ) from None


def _onnx_program(model: StyleModel) -> torch.onnx.ONNXProgram:
    """The model's network, traced for pictures of any size."""
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
    return program
