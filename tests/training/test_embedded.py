"""How the embedded network is made: pictures, student, losses, training. Its quality is measured in benchmarks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save_file

from nstlab import commandline
from nstlab import images as im
from nstlab.method import weights
from nstlab.method.names import CONVOLUTIONS
from nstlab.method.network import VGG19
from nstlab.method.normalization import normalization_images, normalize_activations
from nstlab.method.weights import TORCHVISION, Weights, load_file, random_weights
from nstlab.settings import InputError
from training import corpus as corpora
from training import distillation, drawing, finishing, scoring, student, teachers
from training import embedded as training
from training.embedded import TrainSettings

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


def test_some_crops_stand_before_an_even_ground(corpus):
    rng = np.random.default_rng(0)
    x = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    changed = [y for y in (corpus.before_even_ground(rng, x) for _ in range(200)) if y is not x]
    assert 20 < len(changed) < 60
    kept = [float(((y - x).abs().amax(0) < 1e-3).float().mean()) for y in changed]
    assert min(kept) < 0.4 < 0.6 < max(kept)
    rough = [float((y[:, 1:] - y[:, :-1]).abs().amax(0).lt(0.05).float().mean()) for y in changed]
    assert max(rough) > 0.5  # most of it is even
    assert min(y.min() for y in changed) >= 0
    assert max(y.max() for y in changed) <= 1


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
    return saved(tmp_path / "teacher.safetensors", "conv4_1")


def saved(path, last, seed=1):
    """Weights of few channels up to a layer."""
    tensors = random_weights(seed, (6, 6, 8, 8, 8)).tensors
    names = CONVOLUTIONS[: CONVOLUTIONS.index(last) + 1]
    save_file({name: t for name, t in tensors.items() if name.rpartition(".")[0] in names}, path)
    return path


@pytest.fixture
def distilled_file(tmp_path):
    """A network of the distilled one's layout, with three channels instead of dozens."""
    generator, tensors, inputs = torch.Generator().manual_seed(3), {}, 3
    shapes = {f"conv{name[4]}{name[6]}": (3, 3) for name in CONVOLUTIONS[: CONVOLUTIONS.index("conv5_1") + 1]}
    for name, (width, side) in ({"conv0": (3, 1)} | shapes | {"conv51_aux": (10, 1)}).items():
        tensors[f"{name}.weight"] = torch.randn(width, inputs, side, side, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.rand(width, generator=generator)
        inputs = width
    save_file(tensors, tmp_path / "distilled.safetensors")
    return tmp_path / "distilled.safetensors"


def test_a_settled_student_is_the_plain_network_of_its_tensors(narrow):
    stack, x = student.Stack.begun(student.LOWER, 0, {}), torch.rand(4, 3, 32, 32)
    for _ in range(300):
        stack(x, student.LOWER)  # so that the running means are this batch's
    live = stack(x, student.LOWER)
    stack.settle()
    settled, net = stack(x, student.LOWER), VGG19(Weights(stack.tensors(), TORCHVISION, "student"))
    plain = net(x, [name.replace("conv", "relu") for name in student.LOWER])
    assert net.pool == "avg"
    for name in student.LOWER:
        exact = plain[name.replace("conv", "relu")]
        assert (settled[name].float() - exact).norm() < 0.03 * exact.norm()
        assert (live[name].float() - exact).norm() < 0.06 * exact.norm()


def test_a_student_stops_at_the_deepest_layer_asked_for(narrow):
    stack = student.Stack.begun(student.LOWER, 0, {})
    del stack.layers["conv3_1"]
    assert list(stack(torch.rand(1, 3, 16, 16), ["conv2_2", "conv1_1"])) == ["conv1_1", "conv2_2"]


def test_given_layers_begin_as_they_are(narrow):
    known = student.Stack.begun(student.LOWER, 0, {}).tensors()
    stack = student.Stack.begun([*student.LOWER, "conv4_1"], 5, known)
    for name, t in stack.tensors().items():
        if name in known:
            assert torch.allclose(t, known[name], rtol=1e-5, atol=1e-7)
    assert [layer.settled for layer in stack.layers.values()] == [True] * 8 + [False]
    norms = [float(layer.kernel.detach().norm()) for layer in stack.layers.values()]
    assert norms == pytest.approx([4.0] * 9, rel=0.15)  # √(2 · 8 channels), as He-initialized: steps have the usual effect
    assert not any(p.requires_grad for p in student.Stack.frozen(known, TORCHVISION, "conv3_4").parameters())


# --- its teachers


def test_what_the_original_does_not_reach_is_taught_by_the_distilled_one(teacher_file, distilled_file):
    group = teachers.Teachers(teacher_file, "conv5_4", distilled_file)
    assert group.targets("conv2_2") == (("original", "conv2_2"),)
    assert group.targets("conv4_2") == (("original", "conv4_1"), ("original", "conv3_3"))
    assert group.targets("conv4_3") == (("distilled", "conv4_3"),)
    assert group.targets("conv5_3") == (("distilled", "conv5_1"),)
    wanted = [target for name in CONVOLUTIONS for target in group.targets(name)]
    found, widths = group(torch.rand(2, 3, 48, 48), wanted), group.widths(wanted)
    assert set(found) == set(wanted)
    for target, f in found.items():
        assert f.shape[:2] == (2, widths[target])
    assert widths["distilled", "conv5_1"] == 10


def test_an_original_that_reaches_all_teaches_all(tmp_path):
    group = teachers.Teachers(saved(tmp_path / "all.safetensors", "conv5_4"), "conv5_4")
    assert all(group.targets(name) == (("original", name),) for name in CONVOLUTIONS)


def test_the_distilled_teacher_is_the_plain_network_with_reflected_borders(distilled_file):
    tensors, x = load_safetensors(distilled_file), torch.rand(1, 3, 48, 48)

    def layer(name, f, padded=True):
        f = F.pad(f, (1, 1, 1, 1), mode="reflect") if padded else f
        return F.conv2d(f, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    f = layer("conv11", layer("conv0", x, False)).relu()
    f = F.max_pool2d(layer("conv12", f).relu(), 2)
    exact = layer("conv21", f).relu()
    found = teachers.Distilled(distilled_file)(x, ["conv2_1"])["conv2_1"].float()
    scale = (found * exact).sum((0, 2, 3)) / exact.square().sum((0, 2, 3)).clamp_min(1e-9)  # channels of usual mean 1
    assert (found - exact * scale.view(1, -1, 1, 1)).norm() < 0.05 * found.norm()


def test_channels_of_the_distilled_teacher_have_the_usual_mean_one(distilled_file):
    network = teachers.Distilled(distilled_file)
    shown = [network(picture, network.names) for picture in normalization_images()]
    for name in network.names:
        mean = torch.stack([f[name].float().mean((0, 2, 3)) for f in shown]).mean(0)
        assert torch.allclose(mean[mean > 0], torch.ones(()), atol=0.02)


def test_teachers_that_cannot_teach_are_refused(teacher_file, tmp_path):
    with pytest.raises(InputError, match="end at conv4_1; name the distilled network"):
        teachers.Teachers(teacher_file, "conv5_4")
    with pytest.raises(InputError, match="is not the distilled VGG19"):
        teachers.Teachers(teacher_file, "conv5_4", teacher_file)
    with pytest.raises(InputError, match="end at conv2_2"):
        teachers.Teachers(saved(tmp_path / "short.safetensors", "conv2_2"), "conv3_4")


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
    same = distillation.compared("conv2_1", t, t, torch.eye(7), torch.ones(7), 1, 5)
    none = distillation.compared("conv2_1", 0 * t, t, torch.eye(7), torch.ones(7), 1, 5)
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
    right, wrong = (distillation.compared("conv3_3", s, t, torch.eye(4), torch.ones(4), 1, 0) for s in (t, blind))
    assert float(right["residual"]) == pytest.approx(0, abs=1e-6)
    unit = distillation.units(t[..., ::2, ::2].mean((2, 3)), 1)[2].view(-1, 1, 1)
    seen = [(x[..., ::2, ::2] * unit).square().sum() for x in (t[0] - t[2], t[2])]
    assert float(wrong["residual"]) == pytest.approx(math.log1p(float(seen[0] / seen[1])), rel=1e-3)


def test_the_teacher_is_the_network_as_it_was_trained(teacher_file):
    net = normalize_activations(VGG19(teacher_file, pool="max"))
    x, names = torch.rand(1, 3, 32, 32), ["relu1_1", "relu2_2", "relu3_4"]
    wanted = [("original", name.replace("relu", "conv")) for name in names]
    teacher = teachers.Teachers(teacher_file, "conv3_4")(x, wanted)
    for name, f in net(x, names).items():
        assert (teacher["original", name.replace("relu", "conv")].float() - f).norm() < 0.03 * f.norm()


def test_peaks_are_what_lies_over_the_limit():
    f = torch.zeros(2, 2, 10, 10)
    f[:, 0], f[0, 1, 0, 0] = 1, 100.0
    f = f.contiguous(memory_format=torch.channels_last)
    found = distillation.unhealthy("conv3_2", f, 0)["peaked"]
    # positions at even rows and columns: mean 100/50, mean square 10⁴/25 in the first picture
    assert float(found) == pytest.approx(math.log((1e4 / 25) / 2.0**2 / distillation.PEAK) / 2, rel=1e-3)


def test_pictures_that_fool_are_nearer_to_their_paintings_in_the_students_eyes(narrow, corpus, teacher_file):
    module = distillation.Distillation(teachers.Teachers(teacher_file, "conv3_4"), student.LOWER, 0, {})
    x = module.fooling(corpus, np.random.default_rng(0), 6, 32)
    assert x.shape == (6, 3, 3, 32, 32)
    assert x.min() >= 0
    assert x.max() <= 1
    module.student.settle()
    picture, painting, photo = (distillation.gram(module.student(x[:, i], ["conv2_1"])["conv2_1"]) for i in range(3))
    left = (picture - painting).flatten(1).norm(dim=1) / (photo - painting).flatten(1).norm(dim=1)
    assert left.min() < 0.5  # style weights differ
    assert left.median() < 0.95


def test_dense_is_what_answers_nearly_everywhere():
    f = torch.zeros(2, 50, 3)
    f[:, :, 0] = 1  # everywhere: squared mean over mean square 1
    f[:, :5, 1] = 2.0  # a tenth: 0.1
    assert float(distillation.dense(f[..., :1])) == pytest.approx(math.log(1 / distillation.DENSE), rel=1e-3)
    assert float(distillation.dense(f[..., 1:])) == 0


def test_framed_is_what_answers_at_the_border_rather_than_inside():
    f = torch.ones(2, 3, 8, 8)
    f[:, 1, 1:-1, 1:-1] = 0.25  # a bright frame: 4 times as much at the border
    f[:, 2, 0] = 0  # a dark one
    assert float(distillation.framed(f)) == pytest.approx(math.log(4 / distillation.FRAMED) / 3, rel=1e-3)


def test_distances_agree_where_both_see_the_same_departures():
    photo = torch.rand(1, 4, 3) + 1
    changed = photo.clone()
    changed[:, 2] += 1
    elsewhere = photo.clone()
    elsewhere[:, 0] += 1
    see = lambda picture: torch.stack([picture, photo])  # noqa: E731
    assert float(distillation.distance(see(changed), 7 * see(changed))) == pytest.approx(0, abs=1e-5)
    assert float(distillation.distance(see(elsewhere), see(changed))) == pytest.approx(math.log(1 + 2), rel=1e-2)


def test_only_what_is_to_be_learnt_is(narrow, corpus, teacher_file, distilled_file):
    group = teachers.Teachers(teacher_file, "conv5_4", distilled_file)
    lower = student.Stack.begun(student.LOWER, 1, {}).tensors()
    module, x = distillation.Distillation(group, student.UPPER, 0, lower), corpus.batch(0, 6, 48)
    found = module.losses(x, 2, 0)
    assert {name.split()[1] for name in found} == set(student.UPPER)
    assert {name.split()[0] for name in found} == set(distillation.LOSSES)
    for kind in ("peaked", "framed", "dense"):  # once a layer, though conv4_2 has two teachers
        layers = [name.split()[1] for name in found if name.startswith(kind)]
        assert len(layers) == len(set(layers))
    assert all(value.isfinite() and module.weight(name) > 0 for name, value in found.items())
    sum(found.values()).backward()
    assert {name.split(".")[2] for name, p in module.named_parameters() if "layers" in name and p.grad is not None} == set(
        student.UPPER
    )


@torch.no_grad()
def test_maps_fitted_to_given_layers_leave_little_error(narrow, corpus, teacher_file):
    group, given = teachers.Teachers(teacher_file, "conv3_4"), student.Stack.begun(student.LOWER, 1, {}).tensors()
    module, x = distillation.Distillation(group, student.LOWER, 0, given), corpus.batch(0, 6, 48)
    before = module.losses(x, 0, 0)
    module.fit([x])
    after = module.losses(x, 0, 0)
    for name in student.LOWER[:2]:  # random layers above see next to nothing
        loss = f"features {name} original {name}"
        assert float(after[loss]) < 0.95 * float(before[loss])
        mean = module.student(x, [name])[name][..., ::4, ::4].float().mean((0, 2, 3))
        assert torch.allclose(module.means[name], mean, rtol=0.05)


# --- training


@pytest.fixture
def small(narrow, monkeypatch, corpus):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(training, "Corpus", lambda *_: corpus)


def quiet(*_):
    pass


def test_a_training_that_was_interrupted_ends_with_the_same_weights(small, teacher_file, distilled_file, tmp_path):
    whole = training.train(teacher_file, distilled_file, None, "smoke", tmp_path / "whole", quiet)

    def stop_at(where):
        def report(stage, done, total, losses):
            assert all(math.isfinite(value) for value in losses.values())
            if (stage, done) == where:
                raise KeyboardInterrupt

        return report

    for where in (("lower", 3), ("lower", 5), ("upper", 3), ("lower again", 1)):
        with pytest.raises(KeyboardInterrupt):
            training.train(teacher_file, distilled_file, None, "smoke", tmp_path / "parts", stop_at(where))
    found = training.train(teacher_file, distilled_file, None, "smoke", tmp_path / "parts", quiet)
    assert found.digest == whole.digest
    assert found.layers == CONVOLUTIONS


def test_rates_rise_fall_and_begin_anew_lower():
    stage = training.Stage("lower", student.LOWER, (400, 200), 1, 1, 1, warm=20)
    factors = [stage.factor(step) for step in range(stage.steps)]
    assert stage.steps == 600
    assert factors[0] == pytest.approx(1 / 20)
    assert factors[19:400] == sorted(factors[19:400], reverse=True)
    assert factors[399] == pytest.approx(0.01, rel=0.01)
    assert factors[400] == pytest.approx(0.6 / 20)
    assert factors[419:] == sorted(factors[419:], reverse=True)
    assert max(factors[400:]) == pytest.approx(0.6, rel=0.05)


def test_training_lowers_the_losses(small, teacher_file, tmp_path, corpus):
    stage = dataclasses.replace(training.SCHEDULES["smoke"][0], cycles=(60,), settle=9, warm=5, fool_after=20)
    module = distillation.Distillation(teachers.Teachers(teacher_file, "conv3_4"), student.LOWER, 0, {})
    seen = []
    trainer = training.Trainer(module, stage)
    step, report = lambda t: training.step(t, corpus), lambda *found: seen.append(found[-1])
    trainer.run(step, tmp_path / "lower.pt", "key", report)
    first, last = (
        sum(v[f"features {name} original {name}"] for v in part for name in ("conv3_3", "conv2_1"))
        for part in (seen[:10], seen[-10:])
    )
    assert last < 0.8 * first
    assert all(layer.settled for layer in module.student.layers.values())


def test_a_checkpoint_of_another_training_is_refused_and_kept(small, teacher_file, distilled_file, tmp_path):
    path = tmp_path / "lower.pt"
    training.train(teacher_file, distilled_file, None, "smoke", tmp_path, quiet)
    before = path.read_bytes()
    other = saved(tmp_path / "other.safetensors", "conv4_1", seed=2)
    with pytest.raises(InputError, match="another teacher or schedule"):
        training.train(other, distilled_file, None, "smoke", tmp_path, quiet)
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    with pytest.raises(InputError, match="damaged"):
        training.train(teacher_file, distilled_file, None, "smoke", tmp_path, quiet)


def test_lower_blocks_can_be_taken_over(small, teacher_file, distilled_file, tmp_path):
    lower = tmp_path / "lower.safetensors"
    finishing.write_weights(random_weights(4, (8, 8, 8, 8, 8)), lower, {})
    seen = set()
    found = training.train(teacher_file, distilled_file, lower, "smoke", tmp_path / "f", lambda stage, *_: seen.add(stage))
    assert seen == {"upper", "lower again"}
    assert found.layers == CONVOLUTIONS


def test_unreliable_are_the_quiet_and_the_peaked():
    usual, other = torch.ones(1, 4, 10, 10), torch.ones(1, 4, 10, 10)
    usual[:, 1] = 0.01  # quiet
    other[:, 2] = 0
    other[0, 2, 0, 0] = 80.0  # mean square 64: peaked
    other[0, 3, 0, 0] = 50.0  # mean square 26
    assert finishing.unreliable([usual, other], 1, 40.0).tolist() == [False, True, True, False]


def test_filters_that_were_switched_off_stay_silent(monkeypatch):
    tensors = random_weights(0, (8, 8, 8, 8, 8)).tensors
    tensors["conv2_1.bias"][3] = -1e3
    found = finishing.without_peaks(tensors)
    assert not found["conv2_1.weight"][3].any()
    assert not found["conv2_1.bias"][3].any()
    assert found["conv2_1.weight"][0].any()


def test_what_is_written_is_read_again_with_its_metadata(tmp_path):
    made = random_weights(0, (4, 4, 4, 4, 4))
    made = Weights({k: v.half().float() for k, v in made.tensors.items()}, TORCHVISION, "embedded")
    path = finishing.write_weights(made, tmp_path / "e.safetensors", {"title": "a test"})
    found = load_file(path)
    assert found.digest == made.digest == found.metadata["sha256"]
    assert found.metadata["title"] == "a test"
    assert "training.embedded" in found.metadata["made by"]
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]


@pytest.mark.parametrize("out", ["nowhere/e.safetensors", "e.pth"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_done(out, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder|must be a \.safetensors file"):
        training.make(TrainSettings(teacher="no-such-file.pth", out=tmp_path / out, folder=tmp_path / "folder"), quiet)
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
    net, names = normalize_activations(VGG19(weights.load("embedded"))), [name.replace("conv", "relu") for name in CONVOLUTIONS]
    for picture in im.samples():
        for name, f in net(im.sample(picture, 160), names).items():
            mean = f.mean((2, 3)).clamp(min=1)
            assert (f.square().mean((2, 3)) / mean.square()).amax() < 1.25 * distillation.PEAK, (picture, name)


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
    errors = [score.content["conv3_3"] for _, score in row.scores]
    assert (row.reached == scoring.AT) == (min(errors) <= scoring.AT <= max(errors))
    assert all(picture.shape[-1] == 32 for picture in kept.values())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--schedule", "half"], "full, smoke"),
        (["--teacher", "nowhere.pth"], "nowhere.pth"),
        (["--teacher", "caffe"], "nstlab fetch --weights caffe"),
        (["--out", "e.pth"], ".safetensors"),
    ],
)
def test_a_training_that_cannot_begin_is_refused_in_one_line(options, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = commandline.Subcommand(training.train_command, (training.TrainSettings,))
    assert commandline.run_program({"train": command}, options, "python -m training.embedded") == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert named in said
    assert not list(tmp_path.iterdir())
