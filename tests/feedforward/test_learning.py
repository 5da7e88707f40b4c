"""Learning: the loss is the objective's, and an interruption changes nothing."""

import functools
import json
import operator
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from faults import change_at, raise_at, refusal
from helpers import transform_network

import nstlab as nst
from nstlab.base import files
from nstlab.base.errors import InputError
from nstlab.cli import main as cli
from nstlab.feedforward import training as kept
from nstlab.feedforward.crops import Crops, photos_in
from nstlab.feedforward.learning import learn
from nstlab.feedforward.model import StyleModel
from nstlab.feedforward.perceptual import PerceptualLoss
from nstlab.feedforward.settings import LearnSettings
from nstlab.feedforward.training import train
from nstlab.pictures import images as im


def last(steps):
    *_, step = steps
    return step


def same(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_loss_and_its_gradient_are_those_of_the_plain_objective(lesson, tiny):
    net, expected = nst.normalize_activations(nst.VGG19(tiny, precision="float32")), []
    loss = PerceptualLoss(lesson.replace(tv=0.3, alpha=2.0), net)
    photos, pictures = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gradients, values = loss(pictures, photos, [1, 0])
    for i, which in enumerate((1, 0)):
        painting = im.load(lesson.paintings[which], lesson.size)
        goal = 2.0 * nst.content("conv4_2", photos[i : i + 1]) + 20.0 * nst.style(
            nst.STYLE_LAYERS, painting, fit="own"
        )
        bound = (goal + 0.3 * nst.total_variation()).bind(net, (64, 64))
        _total, gradient, each = bound.evaluate(pictures[i : i + 1])
        torch.testing.assert_close(
            gradients[i : i + 1], gradient * bound.scale / 2, rtol=1e-3, atol=1e-5
        )
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
    options = [
        [f"--{name.replace('_', '-')}", *(v if isinstance(v, list) else [str(v)])]
        for name, v in given.items()
    ]
    return ["learn", *settings.paintings, *functools.reduce(operator.iadd, options, [])]


def test_the_command_goes_on_after_an_interruption_and_keeps_what_it_has(
    lesson, tmp_path, capsys, monkeypatch
):
    whole = lesson.replace(out=tmp_path / "whole.safetensors", results=tmp_path / "other")
    assert cli.main(words(whole)) == 0
    with monkeypatch.context() as patch:
        raise_at(patch, 2 * 2 + 1)  # two pictures a batch
        assert cli.main(words(lesson)) == 130
    assert f"the model as far as it has come is {lesson.out}" in capsys.readouterr().err
    early = StyleModel.load(lesson.out)
    assert (early.paintings, early.settings["steps done"]) == (("hills", "waves"), 2)
    assert cli.main(words(lesson)) == 0
    assert "learnt in" in capsys.readouterr().out
    assert same(StyleModel.load(lesson.out).network, StyleModel.load(whole.out).network)
    (folder,) = (tmp_path / "results" / "learned").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.safetensors",
        "history.csv",
        "curves.png",
        "progress.png",
    }
    assert im.shape_of(folder / "progress.png")
    lesson.out.write_bytes(b"an older model")
    assert cli.main(words(lesson)) == 0  # found
    assert "was learnt already" in capsys.readouterr().out
    assert same(StyleModel.load(lesson.out).network, StyleModel.load(whole.out).network)


@pytest.fixture
def undrawn(monkeypatch):
    """Nothing is drawn of learning, which takes longer than to learn."""
    monkeypatch.setattr(kept.figures, "save_figure", lambda figure, path: path)


@pytest.mark.usefixtures("undrawn")
def test_what_ends_early_leaves_the_model_that_is_there(lesson, capsys, monkeypatch):
    lesson.out.write_bytes(b"an older model")
    for error, code in ((KeyboardInterrupt, 130), (InputError("the disk is gone"), 2)):
        with monkeypatch.context() as patch:
            raise_at(patch, 3, error)
            assert cli.main(words(lesson)) == code
        assert lesson.out.read_bytes() == b"an older model"
    said = capsys.readouterr().err
    assert f"{lesson.out}, which was there before, is left as it was; to go on, run the" in said
    (checkpoint,) = lesson.results.glob("learned/*/checkpoint.safetensors")
    assert nst.Checkpoint.load(checkpoint).data["done"] == 2


def test_a_full_disk_under_the_results_costs_no_model(lesson, monkeypatch, caplog, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.Checkpoint, "save", full)
    monkeypatch.setattr(kept.figures, "save_figure", full)
    monkeypatch.setattr(kept, "SAVE_INTERVAL", -1.0)  # each time there is a row
    monkeypatch.setattr(kept, "ROW_BATCHES", 2)
    assert cli.main(words(lesson)) == 0
    assert StyleModel.load(lesson.out).settings["steps done"] == lesson.steps
    assert len(caplog.messages) == 9  # three after two batches, after four, and at the end
    assert all("progress is not kept ([Errno 28]" in message for message in caplog.messages)


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_under_the_model_costs_no_learning(lesson, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nstlab.feedforward.model.Path.write_bytes", full)
        assert cli.main(words(lesson)) == 2
    said = f"nstlab: error: {lesson.out}: cannot be written (No space left on device)"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert cli.main(words(lesson)) == 0
    assert "was learnt already" in capsys.readouterr().out


def test_bad_photos_are_left_out_and_do_not_begin_learning_anew(lesson, caplog):
    (folder,) = lesson.photos
    (folder / "c.png").write_text("no picture")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:-300])
    (folder / "e.gif").symlink_to("absent")
    whole = last(learn(lesson, "cpu"))
    assert [message.partition(":")[0] for message in caplog.messages] == [
        str(folder / name) for name in ("c.png", "e.gif", "d.png")
    ]
    checkpoint = next(learn(lesson, "cpu")).checkpoint()
    resumed = last(learn(lesson, "cpu", checkpoint))
    assert same(whole.learner.network, resumed.learner.network)
    for name in "ab":
        (folder / f"{name}.png").unlink()
    assert "none of them can be used" in refusal(learn, lesson, "cpu")


def test_photos_are_known_by_their_content(lesson):
    (folder,) = lesson.photos
    digest = Crops(photos_in(lesson.photos), 64, 64, 0, 4).digest
    (folder / "a.png").rename(folder / "0.png")
    assert Crops(photos_in(lesson.photos), 64, 64, 0, 4).digest == digest
    content = bytearray((folder / "0.png").read_bytes())
    content[-20] ^= 1  # in a checksum, which Pillow does not check at the end of a file
    (folder / "0.png").write_bytes(content)
    assert Crops(photos_in(lesson.photos), 64, 64, 0, 4).digest != digest


def test_processes_that_are_not_forked_cut_the_same_crops(lesson):
    (lesson.photos[0] / "c.png").write_bytes((lesson.photos[0] / "a.png").read_bytes()[:-300])
    crops = Crops(photos_in(lesson.photos), 64, 64, seed=3, count=4)
    crops.prepare()
    sent = pickle.dumps(crops)
    assert len(sent) < 4000  # without decoded photos
    other = pickle.loads(sent)
    assert all(torch.equal(crops[i], other[i]) for i in range(8))


@pytest.mark.usefixtures("undrawn")
def test_what_diverges_ends_before_the_network_is_spoilt(lesson, monkeypatch):
    change_at(monkeypatch, 3, lambda found: (found[0], found[1] * float("nan"), found[2]))
    assert "batch 2: the gradient is not finite" in refusal(train, lesson)
    (path,) = lesson.results.rglob("checkpoint.safetensors")
    assert all(t.isfinite().all() for t in nst.Checkpoint.load(path).tensors.values())


SHOWN = {
    "Screenshot 2024-05-01 at 9.41.00\u202fPM": "Screenshot 2024-05-01 at 9.41.00 PM",
    "two\nlines\u2028or\ttabs\xa0": "two lines or tabs",
    "Cafe\u0301": "Café",
    "\U0001f468\u200d\U0001f3a8 \u2764\ufe0f": "\U0001f468\u200d\U0001f3a8 \u2764\ufe0f",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f": "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "\u0646\u0642\u0627\u0634\u06cc\u200c\u0647\u0627": (
        "\u0646\u0642\u0627\u0634\u06cc\u200c\u0647\u0627"
    ),
    "\u661f\u6708\u591c $x^2$": "\u661f\u6708\u591c $x^2$",
}


@pytest.mark.parametrize(("name", "shown"), SHOWN.items(), ids=range(len(SHOWN)))
def test_a_painting_may_have_a_name_of_any_script(model, name, shown, tmp_path):
    settings = LearnSettings((f"a/{name}.png", "b.png"))
    assert settings.names == (shown, "b")
    made = StyleModel(transform_network(), (*settings.names, "c")).save(tmp_path / "m.safetensors")
    found = StyleModel.load(made)
    assert found.paintings == (shown, "b", "c")
    assert found.mixture([name])[0] == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a\x1b[2J",), "holds U+001B"),
        (("a\u202egnp",), "holds U+202E"),
        (("\u200fa",), "holds U+200F"),
        (("\udcff",), "holds U+DCFF"),
        (("\xa0",), "must have 1 to 255 characters"),
        (("Cafe\u0301", "x/Café"), "names one twice"),
        (("a b", "a\xa0b"), "names one twice"),
        (map(str, range(257)), "a model has 256 at most"),
    ],
)
def test_names_that_no_model_can_have_are_refused_before_any_work(names, said):
    assert said in refusal(LearnSettings, tuple(f"{name}.png" for name in names))


def test_learning_under_way_is_refused_or_waited_for(lesson, monkeypatch):
    monkeypatch.setattr(files, "POLL", 0.01)
    waiting, batches = [], []

    def watch(step):
        if not waiting:
            waiting.append(pool.submit(train, lesson, batches.append, wait=True))
        assert "is being computed by another process" in refusal(train, lesson)
        assert not waiting[0].done()

    with ThreadPoolExecutor(1) as pool:
        assert train(lesson, watch) == waiting[0].result(60)
    assert not batches  # it learned nothing itself


def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(lesson):
    path = train(lesson) / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    assert f"to begin anew, delete {path}" in refusal(train, lesson)
    assert path.read_bytes() == content


def test_a_whole_checkpoint_that_holds_something_else_is_refused_in_one_line(lesson):
    learner = next(learn(lesson, "cpu")).learner
    usual = learner.checkpoint()
    kernel = next(name for name in usual.tensors if name.startswith("0."))
    weight = next(name for name in usual.tensors if name.startswith("network."))
    less = [
        {name: t for name, t in usual.tensors.items() if name != each} for each in (kernel, weight)
    ]
    short = [usual.tensors | {name: usual.tensors[name][:1]} for name in (kernel, weight)]
    more = [usual.tensors | {name: torch.zeros(1)} for name in ("0.x.y", "0.999.y", "network.x")]
    data = [{"done": "1"}, {"done": -1}, {"done": 1.5}, {"done": 10**9}, {"history": 5}]
    odd = [nst.Checkpoint(usual.tensors, usual.data | each) for each in data]
    odd += [nst.Checkpoint(tensors, usual.data) for tensors in (*less, *short, *more, {})]
    odd.append(nst.Checkpoint(usual.tensors, {"identity": learner.identity}))
    for each in odd:
        assert "the checkpoint is not whole, or another version's" in refusal(learner.resume, each)
    learner.resume(usual)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"paintings": ()}, "paintings: name one painting or more"),
        ({"paintings": ("mosaic", "a/mosaic.jpg")}, "names one twice"),
        ({"paintings": ("mosaic",), "out": "model.pt"}, "must be a .safetensors file"),
        (
            {"paintings": ("mosaic",), "normalization": "layer"},
            "normalization: 'layer' is not one of instance, batch",
        ),
        ({"paintings": ("mosaic",), "crop": 8}, "crop: 8 is not allowed"),
    ],
)
def test_settings_that_cannot_be_learnt_are_refused(given, said):
    assert said in refusal(lambda: LearnSettings(**given))


def test_folders_without_photos_and_paintings_that_are_none_are_refused(lesson, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no picture" in refusal(
        learn, lesson.replace(photos=(tmp_path / "empty",)), "cpu"
    )
    assert "is not a folder" in refusal(learn, lesson.replace(photos=(tmp_path / "absent",)), "cpu")
    assert "no picture 'nothing'" in refusal(learn, lesson.replace(paintings=("nothing",)), "cpu")
    said = refusal(learn, lesson.replace(paintings=("mosaic",), style_scale=0.1), "cpu")
    assert "1024×800 at size × style_scale 6 has a side of 5 px" in said
    assert "size × style_scale must be 21 or more" in said
    assert json.dumps(lesson.to_dict())
