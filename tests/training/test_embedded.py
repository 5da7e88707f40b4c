"""How the embedded network is made, and how networks are judged. Its quality is measured in
benchmarks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from nstlab.base.names import CONVOLUTIONS, rectified
from nstlab.cli import program
from nstlab.feedforward import drawing
from nstlab.networks import weights
from nstlab.networks.normalization import normalize_activations
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.networks.vgg import VGG19
from nstlab.networks.weights import Weights, load_file, random_weights
from nstlab.pictures import images as im
from nstlab.pictures import samples, starts
from training import corpus as corpora
from training import distillation, finishing, fooling, losses, scoring, student, teachers, trainer
from training import embedded as training
from training.judge import Judge, at_content_error


def command(*words):
    """`python -m training.embedded`; its exit code."""
    train = program.Subcommand(training.train_command, (training.TrainSettings,))
    words = [str(word) for word in words]
    return program.run_program(lambda: {"train": train}, words, "python -m training.embedded")


@pytest.fixture(scope="module")
def corpus():
    drawings = [
        torch.from_numpy(drawing.draw(seed, 64)).permute(2, 0, 1) / 255 for seed in range(9)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "draw_pictures", lambda count: drawings[:count])
        return corpora.Corpus(7, 9)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A student of a few channels."""
    for name in CONVOLUTIONS:
        monkeypatch.setitem(student.WIDTHS, name, 8)


def saved(path, last, seed=1):
    """Weights of few channels up to a layer."""
    tensors = random_weights(seed, (6, 6, 8, 8, 8)).tensors
    names = CONVOLUTIONS[: CONVOLUTIONS.index(last) + 1]
    save_file({name: t for name, t in tensors.items() if name.rpartition(".")[0] in names}, path)
    return path


@pytest.fixture
def teacher_file(tmp_path):
    return saved(tmp_path / "teacher.safetensors", "conv4_1")


@pytest.fixture
def distilled_file(tmp_path):
    """A network of the distilled one's layout, with three channels instead of dozens."""
    generator, tensors, inputs = torch.Generator().manual_seed(3), {}, 3
    shapes = {
        f"conv{name[4]}{name[6]}": (3, 3)
        for name in CONVOLUTIONS[: CONVOLUTIONS.index("conv5_1") + 1]
    }
    for name, (width, side) in ({"conv0": (3, 1)} | shapes | {"conv51_aux": (10, 1)}).items():
        tensors[f"{name}.weight"] = torch.randn(width, inputs, side, side, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.rand(width, generator=generator)
        inputs = width
    save_file(tensors, tmp_path / "distilled.safetensors")
    return tmp_path / "distilled.safetensors"


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(set(drawing.KINDS), key=lambda kind: kind.__name__))
def test_every_kind_of_drawing_shows_something_and_another_from_another_seed(kind):
    first, again, other = (kind(np.random.default_rng(seed), 48) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.std() > 0.01
    assert not np.allclose(first, other)


def test_the_pictures_to_judge_by_are_not_trained_on(corpus):
    assert corpora.HELD_OUT in samples.PHOTOS
    assert corpora.HELD_OUT not in corpora.PHOTOS
    assert not set(corpora.PHOTOS) & {path.stem for path in samples.style_folder().glob("*.jpg")}
    assert len(corpus.photos) == len(corpora.PHOTOS) + len(corpora.SCIKIT_LEARN)


# --- the student and its teachers -----------------------------------------------------------------


def test_a_settled_student_is_the_plain_network_of_its_tensors():
    stack, x = student.Stack.begin(student.LOWER, 0, {}), torch.rand(4, 3, 32, 32)
    for _ in range(300):
        stack(x, student.LOWER)  # so that the running means are this batch's
    live = stack(x, student.LOWER)
    stack.settle()
    settled, net = stack(x, student.LOWER), VGG19(Weights(stack.tensors(), TORCHVISION, "student"))
    plain = net(x, [name.replace("conv", "relu") for name in student.LOWER])
    for name in student.LOWER:
        exact = plain[name.replace("conv", "relu")]
        assert (settled[name].float() - exact).norm() < 0.03 * exact.norm()
        assert (live[name].float() - exact).norm() < 0.06 * exact.norm()


def test_what_the_original_does_not_reach_is_taught_by_the_distilled_one(
    teacher_file, distilled_file, tmp_path
):
    group = teachers.Teachers(teacher_file, "conv5_4", distilled_file)
    assert group.targets("conv2_2") == (("original", "conv2_2"),)
    assert group.targets("conv4_2") == (("original", "conv4_1"), ("original", "conv3_3"))
    assert group.targets("conv4_3") == (("distilled", "conv4_3"),)
    assert group.targets("conv5_3") == (("distilled", "conv5_1"),)
    whole = teachers.Teachers(saved(tmp_path / "all.safetensors", "conv5_4"), "conv5_4")
    assert all(whole.targets(name) == (("original", name),) for name in CONVOLUTIONS)


def test_teachers_that_cannot_teach_are_refused(teacher_file, tmp_path):
    short = saved(tmp_path / "short.safetensors", "conv2_2")
    assert "end at conv4_1; name the distilled network" in refusal(
        teachers.Teachers, teacher_file, "conv5_4"
    )
    assert "is not the distilled VGG19" in refusal(
        teachers.Teachers, teacher_file, "conv5_4", teacher_file
    )
    assert "end at conv2_2" in refusal(teachers.Teachers, short, "conv3_4")


# --- training -------------------------------------------------------------------------------------


@pytest.fixture
def train(monkeypatch, corpus, teacher_file, distilled_file):
    """Trains as quickly as can be; returns the weights."""
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "FITTED", 2)
    monkeypatch.setattr(trainer, "FOOLED", 2)
    monkeypatch.setattr(fooling, "STEPS", (2, 5))
    monkeypatch.setattr(training, "Corpus", lambda *_: corpus)

    def train(folder, report=lambda *_: None, lower=None):
        return training.train(teacher_file, distilled_file, lower, "smoke", folder, report)

    return train


def test_an_interrupted_training_ends_with_the_same_weights_and_is_not_mixed_with_another(
    train, teacher_file, distilled_file, tmp_path, capsys
):
    whole = train(tmp_path / "whole")

    def stop_at(where):
        def report(stage, done, total, losses):
            assert all(math.isfinite(value) for value in losses.values())
            if (stage, done) == where:
                raise KeyboardInterrupt

        return report

    for where in (("lower", 3), ("lower", 5), ("upper", 3), ("lower again", 1)):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", stop_at(where))
    out, path = tmp_path / "e.safetensors", tmp_path / "parts" / "lower.pt"
    words = [
        "--distilled",
        distilled_file,
        "--schedule",
        "smoke",
        "--out",
        out,
        "--folder",
        path.parent,
    ]
    assert command("--teacher", teacher_file, *words) == 0
    found = load_file(out)
    assert found.digest == whole.digest == found.metadata["sha256"]
    assert found.layers == CONVOLUTIONS
    assert "training.embedded" in found.metadata["made by"]
    before = path.read_bytes()
    assert (
        command("--teacher", saved(tmp_path / "other.safetensors", "conv4_1", seed=2), *words) == 2
    )
    assert "another teacher or schedule" in capsys.readouterr().err
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    assert command("--teacher", teacher_file, *words) == 2
    assert "damaged" in capsys.readouterr().err


def test_lower_blocks_can_be_taken_over(train, tmp_path):
    lower, seen = tmp_path / "lower.safetensors", set()
    finishing.write_weights(random_weights(4, (8, 8, 8, 8, 8)), lower, {})
    assert train(tmp_path / "f", lambda stage, *_: seen.add(stage), lower).layers == CONVOLUTIONS
    assert seen == {"upper", "lower again"}


def test_training_lowers_the_losses(teacher_file, tmp_path, corpus):
    stage = dataclasses.replace(
        trainer.SCHEDULES["smoke"][0], cycles=(60,), settle=9, warm=5, fool_after=20
    )
    module = distillation.Distillation(
        teachers.Teachers(teacher_file, "conv3_4"), student.LOWER, 0, {}
    )
    seen = []
    trainer.Trainer(module, stage).run(
        corpus, tmp_path / "lower.pt", "key", lambda *progress: seen.append(progress[-1])
    )
    errors = [
        sum(values[f"features {name} original {name}"] for name in ("conv3_3", "conv2_1"))
        for values in seen
    ]
    assert sum(errors[-10:]) < 0.8 * sum(errors[:10])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--schedule", "half"], "full, smoke"),
        (["--teacher", "nowhere.pth"], "nowhere.pth"),
        (["--teacher", "caffe"], "nstlab fetch --weights caffe"),
        (["--out", "e.pth"], ".safetensors"),
        (["--out", "nowhere/e.safetensors"], "there is no folder"),
    ],
)
def test_a_training_that_cannot_begin_is_refused_in_one_line(
    options, named, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert command(*options) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert named in said
    assert not list(tmp_path.iterdir())


def test_filters_that_do_not_answer_are_switched_off():
    tensors = random_weights(0, (8, 8, 8, 8, 8)).tensors
    tensors["conv2_1.bias"][3] = -1e3
    found = finishing.without_peaks(tensors)
    assert not found["conv2_1.weight"][3].any()
    assert not found["conv2_1.bias"][3].any()
    assert found["conv2_1.weight"][0].any()


# --- what is shipped ------------------------------------------------------------------------------


def test_the_shipped_weights_are_whole_half_as_wide_small_and_say_what_they_are():
    found = load_file(weights.EMBEDDED)
    assert weights.EMBEDDED.stat().st_size <= 12e6
    assert found.layers == CONVOLUTIONS
    assert [len(found.tensors[f"conv{block}_1.bias"]) for block in range(1, 6)] == [
        32,
        64,
        128,
        256,
        256,
    ]
    about = {
        "title",
        "made from",
        "teacher",
        "licence",
        "input",
        "padding",
        "made by",
        "median style error",
    }
    assert about <= set(found.metadata)
    assert found.metadata["sha256"] == found.digest


@torch.no_grad()
def test_no_shipped_filter_answers_in_rare_peaks_only():
    """Such filters make blown-up spots. Mean square over squared mean; where the mean is under the
    usual one, over that, 1."""
    net, names = (
        normalize_activations(VGG19(weights.load("embedded"))),
        [name.replace("conv", "relu") for name in CONVOLUTIONS],
    )
    for picture in samples.samples():
        for name, f in net(im.sample(picture, 160), names).items():
            mean = f.mean((2, 3)).clamp(min=1)
            assert (f.square().mean((2, 3)) / mean.square()).amax() < 1.25 * losses.PEAK, (
                picture,
                name,
            )


# --- scoring --------------------------------------------------------------------------------------


@given(st.floats(-1.5, 4.5), st.floats(0.2, 2.0))
def test_beta_is_found_for_any_monotonous_content_error_in_few_transfers(middle, slope):
    tried, beta = [], 1e3
    while beta is not None and len(tried) < 12:
        tried.append((beta, scoring.AT * (1 + math.tanh(slope * (math.log10(beta) - middle)))))
        beta = scoring.next_beta(tried)
    errors = [error for _, error in tried]
    assert min(errors) <= scoring.AT <= max(errors)
    assert len(tried) <= 10
    # beyond its bounds
    assert scoring.next_beta([(5e5, 0.1)]) is scoring.next_beta([(0.02, 0.9)]) is None


def test_a_pair_is_scored_at_the_content_error(monkeypatch, tiny_file):
    monkeypatch.setattr(scoring, "SIZE", 32)
    monkeypatch.setattr(scoring, "STEPS", 2)
    judge, kept = scoring.Judge(random_weights(0, (4, 4, 4, 4, 4))), {}
    row = scoring.score_pair(
        judge,
        tiny_file,
        "coffee",
        "mosaic",
        "three",
        lambda picture, name: kept.update({name: picture}),
    )
    assert len(kept) == len(row.scores)
    errors = [score.content["conv3_3"] for _, score in row.scores]
    assert (row.reached == scoring.AT) == (min(errors) <= scoring.AT <= max(errors))


@pytest.fixture(scope="module")
def judge():
    return Judge(random_weights(3, (4, 5, 6, 7, 8)))


@pytest.fixture(scope="module")
def pictures():
    return [starts.white_noise(torch.empty(1, 3, 40, 48), seed) for seed in range(3)]


@pytest.mark.parametrize(("style", "content"), [("conv2_1", "conv3_3"), ("conv4_1", "conv4_1")])
def test_errors_are_relative_to_the_target_and_by_the_definition(judge, pictures, style, content):
    found = judge(*pictures)

    def in_units(layer):
        x, p, a = (judge.net(image, [rectified(layer)])[rectified(layer)] for image in pictures)
        unit = 2 / (p.mean((0, 2, 3)) + a.mean((0, 2, 3)))[:, None, None].clamp(min=2e-6)
        return x * unit, p * unit, a * unit

    fx, fp, _ = in_units(content)
    assert found.content[content] == pytest.approx(
        float(((fx - fp) ** 2).sum() / (fp**2).sum()), rel=1e-4
    )
    gx, _, ga = (torch.einsum("bihw,bjhw->ij", f, f) for f in in_units(style))
    assert found.style[style] == pytest.approx(
        float(((gx - ga) ** 2).sum() / (ga**2).sum()), rel=1e-4
    )
    assert found.pair == (
        found.content["conv3_3"],
        pytest.approx(sum(list(found.style.values())[:3]) / 3),
    )
    assert found.deep == (found.content["conv4_1"], found.style["conv4_1"])


def test_weights_of_three_blocks_judge_what_they_reach(pictures):
    tensors = random_weights(3, (4, 5, 6, 7, 8)).tensors
    short, few = (
        Weights({k: t for k, t in tensors.items() if k < end}, TORCHVISION, "short")
        for end in ("conv4", "conv3_3")
    )
    found = Judge(short)(*pictures)
    assert set(found.style) == {"conv1_1", "conv2_1", "conv3_1"}
    assert all(map(math.isnan, found.deep))
    assert "end at conv3_2" in refusal(Judge, few)


def test_style_error_at_a_content_error_lies_on_the_line_in_its_logarithm():
    assert at_content_error([(0.4, 0.1), (0.8, 0.001)], 0.6) == pytest.approx(0.01)
    assert at_content_error([(0.8, 0.001), (0.4, 0.1), (0.5, 0.05)], 0.5) == pytest.approx(0.05)
    assert at_content_error([(0.4, 0.1), (0.5, 0.05)], 0.6) is None
    assert at_content_error([(0.7, 0.1)], 0.6) is None
