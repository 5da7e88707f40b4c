"""Learning: the loss is the objective's, and an interruption changes nothing."""

import functools
import json
import operator

import pytest
import torch
from faults import raise_at, refusal

import nstlab as nst
from nstlab import cli
from nstlab import images as im
from nstlab.feedforward.crops import Crops, photos_in
from nstlab.feedforward.learning import PerceptualLoss, learn
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.settings import LearnSettings
from nstlab.runs.learned import learned


def last(steps):
    *_, step = steps
    return step


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_loss_and_its_gradient_are_those_of_the_plain_objective(lesson, tiny):
    net, expected = nst.normalize_activations(nst.VGG19(tiny, precision="float32")), []
    loss = PerceptualLoss(lesson.replace(tv=0.3, alpha=2.0), net)
    photos, pictures = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    gradients, values = loss(pictures, photos, [1, 0])
    for i, which in enumerate((1, 0)):
        painting = im.load(lesson.paintings[which], lesson.size)
        goal = 2.0 * nst.content("conv4_2", photos[i : i + 1]) + 20.0 * nst.style(nst.STYLE_LAYERS, painting, fit="own")
        bound = (goal + 0.3 * nst.total_variation()).bind(net, (64, 64))
        _total, gradient, each = bound.evaluate(pictures[i : i + 1])
        torch.testing.assert_close(gradients[i : i + 1], gradient * bound.scale / 2, rtol=1e-3, atol=1e-5)
        expected.append(each)
    torch.testing.assert_close(values, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-6)
    assert loss.names == ["content", "style", "tv"]


def test_learning_lowers_the_loss_on_the_photos_it_has_seen(lesson):
    steps = list(learn(lesson.replace(paintings=lesson.paintings[:1], steps=25), "cpu"))
    first, end = (sum(step.loss for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert end < 0.6 * first


@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_interrupted_and_resumed_learning_gives_the_same_weights(lesson, kind, tmp_path):
    settings = lesson.replace(normalization=kind)
    whole = last(learn(settings, "cpu"))
    some = learn(settings, "cpu")
    next(some)
    path = next(some).checkpoint().save(tmp_path / "c.safetensors")
    resumed = last(learn(settings, "cpu", nst.Checkpoint.load(path)))
    assert resumed.index == settings.steps
    assert same(whole.learner.network, resumed.learner.network)
    other = settings.replace(beta=3.0)
    assert "other settings" in refusal(learn, other, "cpu", nst.Checkpoint.load(path))


def test_crops_depend_on_their_number_alone(lesson):
    crops = Crops(photos_in(lesson.photos), 64, 64, seed=3, count=8)
    torch.rand(5)
    again = Crops(photos_in(lesson.photos), 64, 64, seed=3, count=8)
    assert torch.equal(crops[5], again[5])
    assert not torch.equal(crops[5], crops[6])
    assert crops[5].shape == (3, 64, 64)
    assert 0 <= crops[5].min() <= crops[5].max() <= 1
    assert not torch.equal(crops[5], Crops(photos_in(lesson.photos), 64, 64, seed=4, count=8)[5])


def test_without_photos_the_held_out_one_is_not_learnt_from():
    crops = Crops([], 64, 64, seed=0, count=40)
    assert "rocket" not in {path.stem for path in crops.photos}
    assert crops.drawn


def words(settings):
    given = {k: v for k, v in settings.to_dict().items() if k != "paintings"}
    options = [[f"--{name.replace('_', '-')}", *(v if isinstance(v, list) else [str(v)])] for name, v in given.items()]
    return ["learn", *settings.paintings, *functools.reduce(operator.iadd, options, [])]


def test_the_command_goes_on_after_an_interruption_and_keeps_what_it_has(lesson, tmp_path, capsys, monkeypatch):
    whole = lesson.replace(out=tmp_path / "whole.safetensors", results=tmp_path / "other")
    assert cli.main(words(whole)) == 0
    with monkeypatch.context() as patch:
        raise_at(patch, 2 * 2 + 1)  # two pictures a batch
        assert cli.main(words(lesson)) == 130
    assert "as far as it has come" in capsys.readouterr().err
    early = StyleModel.load(lesson.out)
    assert (early.paintings, early.settings["steps done"]) == (("hills", "waves"), 2)
    assert cli.main(words(lesson)) == 0
    assert "learnt in" in capsys.readouterr().out
    assert same(StyleModel.load(lesson.out).network, StyleModel.load(whole.out).network)
    (folder,) = (tmp_path / "results" / "learned").iterdir()
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "history.csv", "curves.png", "progress.png"}
    assert im.shape_of(folder / "progress.png")
    lesson.out.unlink()
    assert cli.main(words(lesson)) == 0  # found
    assert "was learnt already" in capsys.readouterr().out
    assert same(StyleModel.load(lesson.out).network, StyleModel.load(whole.out).network)


def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(lesson):
    path = learned(lesson) / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    assert str(path) in refusal(learned, lesson)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"paintings": ()}, "paintings: name one painting or more"),
        ({"paintings": ("mosaic", "a/mosaic.jpg")}, "names one twice"),
        ({"paintings": ("mosaic",), "out": "model.pt"}, "must be a .safetensors file"),
        ({"paintings": ("mosaic",), "normalization": "layer"}, "normalization: 'layer' is not one of instance, batch"),
        ({"paintings": ("mosaic",), "crop": 8}, "crop: 8 is not allowed"),
    ],
)
def test_settings_that_cannot_be_learnt_are_refused(given, said):
    assert said in refusal(lambda: LearnSettings(**given))


def test_folders_without_photos_and_paintings_that_are_none_are_refused(lesson, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no picture" in refusal(learn, lesson.replace(photos=(tmp_path / "empty",)), "cpu")
    assert "is not a folder" in refusal(learn, lesson.replace(photos=(tmp_path / "absent",)), "cpu")
    assert "no picture 'nothing'" in refusal(learn, lesson.replace(paintings=("nothing",)), "cpu")
    assert json.dumps(lesson.to_dict())
