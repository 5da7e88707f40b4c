"""Models: kept in files that hold nothing but numbers; mixtures; damaged, foreign and malicious
files; ONNX."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from faults import damaged, read_or_refused, refusal
from helpers import transform_network

import nstlab as nst
from nstlab.feedforward import model as models
from nstlab.feedforward.export import export_onnx
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import ExportSettings, LearnSettings


@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_a_model_comes_back_from_its_file_with_16_bits(kind, tmp_path):
    model = StyleModel(transform_network(kind), ("ink", "oil", "chalk"), {"size": 64})
    path = model.save(tmp_path / "m.safetensors", licence="MIT")
    found = StyleModel.load(path)
    assert (found.paintings, found.settings, found.network.kind) == (
        model.paintings,
        {"size": 64},
        kind,
    )
    for name, t in model.network.state_dict().items():
        kept = t if name.endswith(("mean", "variance")) else t.half().float()
        torch.testing.assert_close(found.network.state_dict()[name], kept, rtol=0, atol=0)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["licence"] == "MIT"


def test_a_mixture_has_a_share_for_each_painting(model):
    assert model.mixture().tolist() == [1, 0, 0]
    assert model.mixture(["chalk", "ink"], [3, 1]).tolist() == [0.25, 0, 0.75]
    assert model.mixture(["ink", "ink"]).tolist() == [1, 0, 0]
    assert "no 'chalc'; did you mean 'chalk'? (it has: ink, oil, chalk)" in refusal(
        model.mixture, ["chalc"]
    )
    for shares in ([1], [0, 0], [-1, 2], [float("nan"), 1]):
        assert "share" in refusal(model.mixture, ["ink", "oil"], shares)


def test_a_model_paints_when_it_is_called(model):
    photo = torch.rand(1, 3, 24, 20)
    mixed = model(photo, ["ink", "oil"], [1, 1], alpha=0.7)
    assert mixed.shape == photo.shape
    assert not torch.equal(mixed, model(photo, "ink", alpha=0.7))


def test_damaged_files_are_refused_in_one_line_or_give_a_network_of_finite_numbers(model, tmp_path):
    whole = model.save(tmp_path / "m.safetensors").read_bytes()
    for reach in (None, 3000):  # anywhere; in the header
        for content in damaged(whole, reach):
            found = read_or_refused(StyleModel.load, tmp_path / "d.safetensors", content)
            if found is not None:
                assert all(t.isfinite().all() for t in found.network.state_dict().values())


class _Bomb:
    def __reduce__(self):
        return (print, ("this ran",))


def _changed(tensors, about, tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file(tensors, path, about)
    return path


def test_foreign_and_malicious_files_are_refused_in_one_line(model, tiny_file, tmp_path, capfd):
    path = model.save(tmp_path / "m.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = safetensors.torch.load_file(path)
    assert "is not a model" in refusal(StyleModel.load, tiny_file)
    torch.save({"state": _Bomb()}, tmp_path / "bomb.pt")
    torch.save(tensors, tmp_path / "plain.pt")
    assert "more than tensors" in refusal(StyleModel.load, tmp_path / "bomb.pt")
    assert "is not a model" in refusal(StyleModel.load, tmp_path / "plain.pt")
    assert "no such file" in refusal(StyleModel.load, tmp_path / "absent.safetensors")
    names = (
        json.dumps(["ink", "oil", "\x1b[2Jchalk"]),
        json.dumps(["ink"] * 3),
        json.dumps("ink"),
        "[" * 100_000,
        "[]",
    )
    for paintings in names:
        assert "is not a model" in refusal(
            StyleModel.load, _changed(tensors, about | {"paintings": paintings}, tmp_path)
        )
    for other in ({"format": "nstlab model 99"}, {"normalization": "layer"}, {"settings": "7"}):
        assert "is not a model" in refusal(
            StyleModel.load, _changed(tensors, about | other, tmp_path)
        )
    two = about | {"paintings": json.dumps(["ink", "oil"])}
    for changed, said in (
        (tensors, two),
        ({k: t for k, t in tensors.items() if k != "last.bias"}, about),
        (tensors | {"more": torch.zeros(3)}, about),
        (tensors | {"down.kernel": torch.zeros(16, 3)}, about),
        (tensors | {"down.kernel": torch.tensor(1.0)}, about),
        (tensors | {"last.bias": torch.tensor([0.0, torch.nan, 0.0])}, about),
        (tensors | {"last.bias": torch.zeros(3, dtype=torch.int32)}, about),
        (tensors | {"last.bias": torch.full((3,), 3e38)}, about),
        (tensors | {"up.kernel": 1e5 * tensors["up.kernel"].float()}, about),
    ):
        refusal(StyleModel.load, _changed(changed, said, tmp_path))
    assert "this ran" not in "".join(capfd.readouterr())


def test_numbers_that_no_learning_gives_are_neither_read_nor_written(tmp_path):
    model = StyleModel(transform_network("batch"), ("ink", "oil", "chalk"))
    path, variance = tmp_path / "m.safetensors", model.network.up.norm.variance
    variance[0] = 1e6  # more than 16 bits hold
    tensors = safetensors.torch.load_file(model.save(path))
    assert StyleModel.load(path).network.up.norm.variance[0] == 1e6
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
    for number in (-1.0, 1e30, torch.nan):
        tensors["up.norm.variance"][0] = variance[0] = number
        assert "up.norm.variance" in refusal(StyleModel.load, _changed(tensors, about, tmp_path))
        assert "up.norm.variance has numbers outside 0 … 1e+12" in refusal(model.save, path)
    assert StyleModel.load(path)


def test_a_picture_that_is_not_finite_is_refused(model):
    model.network.last.bias[0] = torch.nan
    assert "is not finite" in refusal(model, torch.rand(1, 3, 24, 20))


def test_the_shipped_model_has_the_projects_paintings_and_is_small():
    found = StyleModel.load()
    assert set(found.paintings) == {
        path.stem for path in nst.samples().values() if path.parent.name == "style"
    }
    assert models.SHIPPED_PATH.stat().st_size <= 3e6
    assert json.loads(models.SHIPPED_PATH.with_suffix(".json").read_text())["pairs"].keys() == set(
        found.paintings
    )


def test_an_onnx_file_gives_the_same_pictures_at_any_size(model, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    saved = str(model.save(tmp_path / "m.safetensors"))
    path = export_onnx(ExportSettings(saved, tmp_path / "M.ONNX"))  # capitals as for pictures
    assert LearnSettings("ink.png", out=tmp_path / "M.SAFETENSORS").out.suffix == ".SAFETENSORS"
    session = runtime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["paintings"]) == list(
        model.paintings
    )
    exact, mix = (
        StyleModel.load(tmp_path / "m.safetensors").network,
        model.mixture(["oil", "chalk"], [2, 1])[None],
    )
    for shape in ((32, 32), (45, 67)):
        photo = torch.rand(1, 3, *shape)
        (picture,) = session.run(None, {"photo": photo.numpy(), "mix": mix.numpy()})
        np.testing.assert_allclose(picture, exact(photo, mix).numpy(), rtol=0, atol=1e-4)
    assert "must be an .onnx file" in refusal(
        export_onnx, ExportSettings("shipped", tmp_path / "m.png")
    )
