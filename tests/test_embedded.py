"""How the embedded network is made: pictures, student, losses, training. Its quality is measured in benchmarks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nstlab import images as im
from nstlab import weights
from nstlab.embedded import corpus as corpora
from nstlab.embedded import distillation, drawing, scoring, selfsupervision, student, training
from nstlab.network import VGG19
from nstlab.settings import CONVOLUTIONS, InputError
from nstlab.weights import TORCHVISION, Weights, load_file, random_weights

# --- pictures


@pytest.mark.parametrize("kind", sorted(set(drawing.KINDS), key=lambda kind: kind.__name__))
def test_every_kind_of_drawing_shows_something_and_another_from_another_seed(kind):
    first, again, other = (kind(np.random.default_rng(seed), 48) for seed in (1, 1, 2))
    assert first.shape == (48, 48, 3)
    assert np.array_equal(first, again)
    assert first.std() > 0.01
    assert not np.allclose(first, other)


def test_a_drawing_depends_on_its_seed_alone():
    assert np.array_equal(drawing.draw(5, 40), drawing.draw(5, 40))
    assert drawing.draw(5, 40).dtype == np.uint8
    assert not np.array_equal(drawing.draw(5, 40), drawing.draw(14, 40))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_spectrum(exponent):
    noise = drawing.coloured_noise(np.random.default_rng(0), 128, exponent, 1)[..., 0]
    assert noise.mean() == pytest.approx(0, abs=1e-9)
    assert noise.std() == pytest.approx(1)
    power = np.abs(np.fft.fft2(noise)) ** 2
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    low, high = (power[(f > a) & (f < 1.2 * a)].mean() for a in (0.05, 0.4))
    assert math.log(low / high) / math.log(8) == pytest.approx(2 * exponent, abs=0.25)


@pytest.fixture(scope="module")
def corpus():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "drawn", few_drawings)
        return corpora.Corpus(7, 9)


def few_drawings(count):
    return [torch.from_numpy(drawing.draw(seed, 64)).permute(2, 0, 1) / 255 for seed in range(count)]


def test_batches_are_known_by_their_number(corpus):
    first = corpus.batch(3, 5, 32)
    assert first.shape == (5, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1
    corpus.batch(4, 5, 32)
    assert torch.equal(first, corpus.batch(3, 5, 32))
    assert not torch.equal(first, corpus.batch(4, 5, 32))


def test_twins_show_the_same_places(corpus):
    x = corpus.twins(1, 12, 32)
    assert x.shape == (24, 3, 32, 32)
    grey = x.mean(1).flatten(1)
    z = F.normalize(grey - grey.mean(1, keepdim=True), dim=1)
    likeness = (z[:12] @ z[12:].T).abs()  # a negative is the same place as well
    assert likeness.diagonal().median() > 0.6
    assert likeness.diagonal().median() > 2 * likeness.median()


def test_the_pictures_to_judge_by_are_not_trained_on(corpus):
    assert corpora.HELD_OUT in im.PHOTOS
    assert corpora.HELD_OUT not in corpora.PHOTOS
    assert not set(corpora.PHOTOS) & {path.stem for path in im.style_folder().glob("*.jpg")}
    assert len(corpus.photos) == len(corpora.PHOTOS) + len(corpora.SCIKIT_LEARN)


# --- the student


@pytest.fixture
def narrow(monkeypatch):
    """A student of a few channels."""
    for name in CONVOLUTIONS:
        monkeypatch.setitem(student.WIDTHS, name, 8)


@pytest.fixture
def teacher_file(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "teacher.safetensors"
    tensors = random_weights(1, (6, 6, 8, 8, 8)).tensors
    save_file({name: t for name, t in tensors.items() if name.rpartition(".")[0] in student.LOWER}, path)
    return path


def test_a_settled_student_is_the_plain_network_of_its_tensors(narrow):
    stack, x = student.Stack.fresh(student.LOWER, 3, 0), torch.rand(4, 3, 32, 32)
    for _ in range(300):
        stack(x, student.LOWER)  # so that the running means are this batch's
    live = stack(x, student.LOWER)
    stack.settle()
    settled, net = stack(x, student.LOWER), VGG19(Weights(stack.tensors(), TORCHVISION, "student"), normalize=False)
    plain = net(x, [name.replace("conv", "relu") for name in student.LOWER])
    assert net.pool == "avg"
    for name in student.LOWER:
        exact = plain[name.replace("conv", "relu")]
        assert (settled[name].float() - exact).norm() < 0.03 * exact.norm()
        assert (live[name].float() - exact).norm() < 0.06 * exact.norm()


def test_a_student_stops_at_the_deepest_layer_asked_for(narrow):
    stack = student.Stack.fresh(student.LOWER, 3, 0)
    del stack.layers["conv3_1"]
    assert list(stack(torch.rand(1, 3, 16, 16), ["conv2_2", "conv1_1"])) == ["conv1_1", "conv2_2"]


# --- what it learns


def test_units_are_by_the_two_pictures_that_belong_together():
    mean = torch.rand(8, 5)
    unit, floor = distillation.units(mean, 2), 2 * distillation.FLOOR
    for i in (0, 2, 4):  # picture, painting, photo of the first triple
        assert torch.allclose(unit[i], 2 / (mean[2] + mean[4] + floor))
    assert torch.allclose(unit[7], 2 / (mean[7] + mean[6] + floor))
    assert torch.allclose(distillation.units(mean, 0)[0], 2 / (mean[0] + mean[7] + floor))


def test_a_student_that_answers_as_its_teacher_has_no_error_and_one_that_is_silent_has_all():
    t = torch.rand(6, 7, 12, 12).contiguous(memory_format=torch.channels_last)
    same = distillation.compared("conv2_1", t, t, torch.eye(7), 1, 5)
    none = distillation.compared("conv2_1", 0 * t, t, torch.eye(7), 1, 5)
    for kind in ("features", "gram", "residual"):
        assert float(same[kind]) == pytest.approx(0, abs=1e-6)
        assert float(none[kind]) > 1e-3
    assert float(none["features"]) == pytest.approx(math.log(2), rel=1e-4)
    assert float(none["gram"]) == pytest.approx(math.log(2), rel=1e-4)


def test_content_that_only_the_teacher_sees_change_is_a_residual():
    t = torch.rand(3, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    t[1] = t[0]  # picture, painting; the photo, on which the student is right, is another
    blind = t.clone(memory_format=torch.channels_last)
    blind[0] = t[2]
    right, wrong = (distillation.compared(distillation.CONTENT, s, t, torch.eye(4), 1, 0) for s in (t, blind))
    assert float(right["residual"]) == pytest.approx(0, abs=1e-6)
    unit = distillation.units(t[..., ::2, ::2].mean((2, 3)), 1)[2].view(-1, 1, 1)
    seen = [(x[..., ::2, ::2] * unit).square().sum() for x in (t[0] - t[2], t[2])]
    assert float(wrong["residual"]) == pytest.approx(math.log1p(float(seen[0] / seen[1])), rel=1e-3)


def test_the_teacher_is_the_network_as_it_was_trained(teacher_file):
    net = VGG19(teacher_file, pool="max")
    x, names = torch.rand(1, 3, 32, 32), ["relu1_1", "relu2_2", "relu3_4"]
    teacher = training.original(teacher_file)[0](x, [name.replace("relu", "conv") for name in names])
    for name, f in net(x, names).items():
        assert (teacher[name.replace("relu", "conv")].float() - f).norm() < 0.03 * f.norm()


def test_peaks_are_what_lies_over_the_limit():
    f = torch.zeros(2, 2, 10, 10)
    f[:, 0], f[0, 1, 0, 0] = 1, 100.0
    f = f.contiguous(memory_format=torch.channels_last)
    found = distillation.compared("conv3_2", f, f, torch.eye(2), 0, 0)["peaked"]
    # positions at even rows and columns: mean 100/50, mean square 10⁴/25 in the first picture
    assert float(found) == pytest.approx(math.log((1e4 / 25) / 2.0**2 / distillation.PEAK) / 2, rel=1e-3)


def test_pictures_that_fool_are_nearer_to_their_paintings_in_the_students_eyes(narrow, corpus, teacher_file):
    module = distillation.Distillation(training.original(teacher_file)[0], 0)
    x = module.fooling(corpus, np.random.default_rng(0), 3, 32)
    assert x.shape == (3, 3, 3, 32, 32)
    assert x.min() >= 0
    assert x.max() <= 1
    module.student.settle()
    picture, painting, photo = (distillation.gram(module.student(x[:, i], ["conv3_1"])["conv3_1"]) for i in range(3))
    assert (picture - painting).norm() < 0.8 * (photo - painting).norm()


def test_contrast_is_low_for_twins_alone():
    a = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    right = math.log(1 + 7 * math.exp(-1 / selfsupervision.TEMPERATURE))
    assert float(selfsupervision.contrast(a, 3 * a)) == pytest.approx(right, rel=1e-4)
    assert float(selfsupervision.contrast(a, a.roll(1, 0))) > 1


def test_alike_channels_cost_and_independent_ones_do_not():
    f = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    assert float(selfsupervision.alike(f)) < 0.01
    assert float(selfsupervision.alike(f[:, :1].expand(-1, 4))) == pytest.approx(12 / 16 * 2, rel=0.01)


def test_local_statistics_are_standardized():
    f, generator = torch.rand(3, 6, 16, 16, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    kernels = torch.randn(5, 6, 2, 2, generator=generator)
    found = selfsupervision.local_statistics(f, torch.randn(4, 6, generator=generator), kernels, 4)
    assert found.shape == (3, 16, 6 + 4 + 5)
    assert found.mean((0, 1)).abs().max() < 1e-4
    assert found.std((0, 1)).sub(1).abs().max() < 0.1


def test_local_statistics_tell_the_mean_the_power_and_the_detail_of_a_cell():
    f = torch.zeros(1, 1, 8, 8)
    f[..., 0:4, 0:4], f[..., 0:4, 4:6], f[..., 4::2, 0:4], f[..., 5::2, 0:4] = 1.0, 1.0, 2.0, -1.0
    left_or_right = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    mean, power, detail = selfsupervision.local_statistics(f, torch.ones(1, 1), left_or_right, 2)[0].T
    flat, halves, stripes, empty = range(4)  # the cells, by rows
    assert mean[flat] > mean[halves] == mean[stripes] > mean[empty]
    assert power.argmax() == stripes
    assert detail.argmax() == halves
    assert detail[flat] == detail[stripes] == detail[empty]


# --- training


@pytest.fixture
def small(narrow, monkeypatch, corpus):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "Corpus", lambda *_: corpus)


def quiet(*_):
    pass


def test_a_training_that_was_interrupted_ends_with_the_same_weights(small, teacher_file, tmp_path):
    whole = training.train(teacher_file, "smoke", tmp_path / "whole", quiet)

    def stop_at(where):
        def report(stage, done, total, losses):
            assert all(math.isfinite(value) for value in losses.values())
            if (stage, done) == where:
                raise KeyboardInterrupt

        return report

    for where in (("lower", 3), ("lower", 5), ("upper", 3)):
        with pytest.raises(KeyboardInterrupt):
            training.train(teacher_file, "smoke", tmp_path / "parts", stop_at(where))
    found = training.train(teacher_file, "smoke", tmp_path / "parts", quiet)
    assert found.digest == whole.digest
    assert found.layers == CONVOLUTIONS


def test_rates_rise_fall_and_begin_anew_lower():
    stage = training.Stage("lower", (400, 200), 1, 1, 1, warm=20)
    factors = [stage.factor(step) for step in range(stage.steps)]
    assert stage.steps == 600
    assert factors[0] == pytest.approx(1 / 20)
    assert factors[19:400] == sorted(factors[19:400], reverse=True)
    assert factors[399] == pytest.approx(0.01, rel=0.01)
    assert factors[400] == pytest.approx(0.6 / 20)
    assert factors[419:] == sorted(factors[419:], reverse=True)
    assert max(factors[400:]) == pytest.approx(0.6, rel=0.05)


def test_training_lowers_the_losses(small, teacher_file, tmp_path, corpus):
    stage = dataclasses.replace(training.SCHEDULES["smoke"][0], cycles=(60,), settle=9, warm=5)
    module = distillation.Distillation(training.original(teacher_file)[0], 0)
    seen = []
    trainer = training.Trainer(module, stage)
    step, report = lambda t: training.lower_step(t, corpus), lambda *found: seen.append(found[-1])
    trainer.run(step, tmp_path / "lower.pt", "key", report)
    first, last = (sum(v["features conv3_3"] + v["features conv2_1"] for v in part) for part in (seen[:10], seen[-10:]))
    assert last < 0.8 * first
    assert all(layer.settled for layer in module.student.layers.values())


def test_a_checkpoint_of_another_training_is_refused_and_kept(small, teacher_file, tmp_path):
    path = tmp_path / "lower.pt"
    training.train(teacher_file, "smoke", tmp_path, quiet)
    before = path.read_bytes()
    other = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({k: v + 0.01 for k, v in load_file(teacher_file).tensors.items()}, other)
    with pytest.raises(InputError, match="another teacher or schedule"):
        training.train(other, "smoke", tmp_path, quiet)
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    with pytest.raises(InputError, match="damaged"):
        training.train(teacher_file, "smoke", tmp_path, quiet)


def test_a_teacher_must_reach_conv3_4(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "short.safetensors"
    tensors = random_weights(1, (4, 4, 4, 4, 4)).tensors
    save_file({name: t for name, t in tensors.items() if name < "conv3"}, path)
    with pytest.raises(InputError, match="end at conv2_2"):
        training.original(path)


def test_unreliable_are_the_quiet_and_the_peaked():
    usual, other = torch.ones(1, 4, 10, 10), torch.ones(1, 4, 10, 10)
    usual[:, 1] = 0.01  # quiet
    other[:, 2] = 0
    other[0, 2, 0, 0] = 80.0  # mean square 64: peaked
    other[0, 3, 0, 0] = 50.0  # mean square 26
    assert training.unreliable([usual, other], 1, 40.0).tolist() == [False, True, True, False]


def test_filters_that_were_switched_off_stay_silent(monkeypatch):
    tensors = random_weights(0, (8, 8, 8, 8, 8)).tensors
    tensors["conv2_1.bias"][3] = -1e3
    found = training.without_peaks(tensors)
    assert not found["conv2_1.weight"][3].any()
    assert not found["conv2_1.bias"][3].any()
    assert found["conv2_1.weight"][0].any()


def test_what_is_written_is_read_again_with_its_metadata(tmp_path):
    made = random_weights(0, (4, 4, 4, 4, 4))
    made = Weights({k: v.half().float() for k, v in made.tensors.items()}, TORCHVISION, "embedded")
    path = training.save(made, tmp_path / "e.safetensors", {"title": "a test"})
    found = load_file(path)
    assert found.digest == made.digest == found.metadata["sha256"]
    assert found.metadata["title"] == "a test"
    assert "train-embedded" in found.metadata["made by"]
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("out", ["nowhere/e.safetensors", "e.pth"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_done(out, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder|must be a \.safetensors file"):
        training.make("no-such-file.pth", "smoke", tmp_path / "folder", tmp_path / out, quiet)
    assert not list(tmp_path.iterdir())


# --- what is shipped


def test_the_shipped_weights_are_whole_small_and_say_what_they_are():
    found = load_file(weights.EMBEDDED)
    assert weights.EMBEDDED.stat().st_size <= 12e6
    assert found.layers == CONVOLUTIONS
    about = {"title", "made from", "teacher", "licence", "input", "padding", "made by", "median style error"}
    assert about <= set(found.metadata)
    assert found.metadata["sha256"] == found.digest


@torch.no_grad()
def test_no_shipped_filter_answers_in_rare_peaks_only():
    """Such filters make blown-up spots. Mean square over squared mean; where the mean is under the usual one, over that, 1."""
    net, names = VGG19(weights.load("embedded")), [name.replace("conv", "relu") for name in CONVOLUTIONS]
    for picture in im.samples():
        for name, f in net(im.sample(picture, 160), names).items():
            mean = f.mean((2, 3)).clamp(min=1)
            assert (f.square().mean((2, 3)) / mean.square()).amax() < 1.25 * training.PEAK, (picture, name)


# --- scoring


@given(st.floats(-1.5, 4.5), st.floats(0.2, 2.0))
def test_beta_is_found_for_any_monotonous_content_error(middle, slope):
    """The search encloses AT in few transfers, wherever it lies."""
    tried = []
    beta = 1e3
    while beta is not None and len(tried) < 12:
        tried.append((beta, scoring.AT * (1 + math.tanh(slope * (math.log10(beta) - middle)))))
        beta = scoring.next_beta(tried)
    errors = [error for _, error in tried]
    assert min(errors) <= scoring.AT <= max(errors)
    assert len(tried) <= 10


def test_beta_is_not_looked_for_beyond_its_bounds():
    assert scoring.next_beta([(5e5, 0.1)]) is None
    assert scoring.next_beta([(0.02, 0.9)]) is None


def test_a_pair_is_scored_at_the_content_error(monkeypatch, tiny_file):
    monkeypatch.setattr(scoring, "SIZE", 32)
    monkeypatch.setattr(scoring, "STEPS", 2)
    judge, kept = scoring.Judge(random_weights(0, (4, 4, 4, 4, 4))), {}
    row = scoring.score_pair(judge, tiny_file, "coffee", "mosaic", "three", lambda picture, name: kept.update({name: picture}))
    assert len(kept) == len(row.scores)
    errors = [score.content for _, score in row.scores]
    assert (row.reached == scoring.AT) == (min(errors) <= scoring.AT <= max(errors))
    assert all(picture.shape[-1] == 32 for picture in kept.values())
