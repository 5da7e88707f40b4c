"""Weights: known by their names and numbers, refused if they are not VGG19's, and identified by
what they compute."""

import pytest
import safetensors.torch
import torch
import torchvision
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from nstlab.base.names import CONVOLUTIONS
from nstlab.networks import sources, weights
from nstlab.networks.preprocessing import CAFFE, TORCHVISION, Preprocessing
from nstlab.networks.weights import Weights, load_file, random_weights


def as_torchvisions(tensors: dict, pattern: str = "features.{}") -> dict:
    """The tensors under the names that they have in torchvision's network: features.0.weight,
    features.0.bias, …"""
    with torch.device("meta"):
        theirs = torchvision.models.vgg19().features.state_dict()
    ours = [f"{name}.{part}" for name in CONVOLUTIONS for part in ("weight", "bias")]
    return {pattern.format(new): tensors[old] for old, new in zip(ours, theirs, strict=True)}


def assert_same_tensors(found: Weights, expected: Weights) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(
        torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items()
    )


@pytest.mark.parametrize("pattern", ["features.{}", "{}", "module.features.{}"])
def test_torchvisions_state_dicts_are_known_by_their_names(tmp_path, tiny, pattern):
    classifier = {"classifier.0.weight": torch.ones(4, 4)} if pattern == "features.{}" else {}
    torch.save(as_torchvisions(tiny.tensors, pattern) | classifier, tmp_path / "a")
    found = load_file(tmp_path / "a")
    assert_same_tensors(found, tiny)
    assert (found.preprocessing, found.source) == (TORCHVISION, str(tmp_path / "a"))


def test_the_originals_are_known_by_their_names_and_by_their_numbers(tmp_path, tiny, monkeypatch):
    torch.save(tiny.tensors, tmp_path / "vgg_conv.pth")
    found = load_file(tmp_path / "vgg_conv.pth")
    assert_same_tensors(found, tiny)
    assert found.preprocessing == CAFFE
    torch.save(
        as_torchvisions(tiny.tensors | {"conv1_1.bias": torch.tensor([1.0, 2.0, 3.0, 4.0])}),
        tmp_path / "a.pth",
    )
    assert load_file(tmp_path / "a.pth").preprocessing == TORCHVISION
    monkeypatch.setattr(weights, "CAFFE_BIAS_SUM", 10.0)
    assert load_file(tmp_path / "a.pth").preprocessing == CAFFE


def test_a_file_may_state_its_preprocessing(tmp_path, tiny):
    path = tmp_path / "a.safetensors"
    for stated in (TORCHVISION, CAFFE):
        safetensors.torch.save_file(tiny.tensors, path, {"input": str(stated)})
        assert load_file(path).preprocessing == stated
    safetensors.torch.save_file(tiny.tensors, path, {"input": "as usual"})
    assert f"{path}: input 'as usual'" in refusal(load_file, path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"conv2_1.weight": None, "conv2_1.bias": None}, "no VGG19 weights found; expected are"),
        ({"conv1_1.weight": None}, "from conv1_1 on without a gap"),
        (
            {"conv1_1.weight": torch.zeros(4, 1, 3, 3)},
            "conv1_1 has the shape (4, 1, 3, 3); expected is (N, 3, 3, 3)",
        ),
        (
            {"conv2_2.weight": torch.zeros(6, 6, 5, 5)},
            "conv2_2 has the shape (6, 6, 5, 5); expected is (N, 6, 3, 3)",
        ),
        ({"conv4_1.bias": torch.zeros(7)}, "conv4_1 has the shape"),
        ({"conv5_1.weight": torch.tensor(1.0)}, "conv5_1 has the shape ()"),
        (
            {"conv5_4.weight": torch.zeros(0, 8, 3, 3), "conv5_4.bias": torch.zeros(0)},
            "shape (0, 8, 3, 3)",
        ),
        (
            {"conv5_4.bias": torch.zeros(1).expand(8)},
            "conv5_4.bias does not consist of stored numbers",
        ),
        (
            {"conv5_4.bias": torch.full((8,), torch.nan)},
            "conv5_4.bias holds numbers that are not finite",
        ),
    ],
)
def test_what_is_not_vgg19_is_refused_by_file_and_layer(tmp_path, tiny, changes, named):
    tensors = {
        name: tensor for name, tensor in (tiny.tensors | changes).items() if tensor is not None
    }
    torch.save(tensors, tmp_path / "a.pth")
    message = refusal(load_file, tmp_path / "a.pth")
    assert message.startswith(f"{tmp_path / 'a.pth'}: ")
    assert named in message


def test_preprocessing_of_known_colours():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    expected = torch.tensor([(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, -0.406 / 0.225])
    assert_close(TORCHVISION(image).flatten(), expected)
    assert_close(CAFFE(image).flatten(), torch.tensor([0 - 103.939, 127.5 - 116.779, 255 - 123.68]))


means, stds = (
    st.tuples(n, n, n) | n.map(lambda n: (n,) * 3)
    for n in (st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
)


@given(
    st.builds(
        Preprocessing, st.sampled_from(["RGB", "BGR"]), st.sampled_from([1.0, 255.0]), means, stds
    )
)
def test_any_preprocessing_comes_back_from_its_text(given):
    found = Preprocessing.parse(str(given))
    assert (found.order, found.scale) == (given.order, given.scale)
    assert found.mean + found.std == pytest.approx(given.mean + given.std, rel=1e-5)


@pytest.mark.parametrize(("order", "scale", "mean", "std"), [
    ("GBR", 1, 0, 1), ("RGB", 2, 0, 1), ("RGB", 1, "1/2", 1), ("RGB", 1, "1.2.3", 1),
    ("RGB", 1, "1e10", 1),
    ("RGB", 1, 0, 0), ("RGB", 1, 0, "1e400"), ("RGB", 1, 0, "1e-300"),
])  # fmt: skip
def test_a_preprocessing_that_cannot_be_meant_is_refused(order, scale, mean, std):
    text = f"{order}, 0-{scale}, mean {mean} subtracted, std {std}"
    assert f"'{text}'" in refusal(Preprocessing.parse, text)


def test_the_digest_is_of_numbers_and_preprocessing_and_not_of_files(tmp_path, tiny, tiny_file):
    torch.save(as_torchvisions(tiny.tensors), tmp_path / "a.pth")
    assert load_file(tmp_path / "a.pth").digest == load_file(tiny_file).digest == tiny.digest
    changed = tiny.tensors | {"conv5_4.bias": tiny.tensors["conv5_4.bias"] + 1e-7}
    others = [Weights(changed, TORCHVISION, "x"), Weights(tiny.tensors, CAFFE, "x")]
    assert len({each.digest for each in (tiny, *others)}) == 3


def test_random_weights_are_decided_by_their_seed():
    made, again, other = (random_weights(seed, (16, 4, 4, 4, 4)) for seed in (3, 3, 4))
    assert made.digest == again.digest != other.digest
    assert made.layers == CONVOLUTIONS
    assert made.tensors["conv1_2.weight"].var().item() == pytest.approx(2 / (9 * 16), rel=0.1)
    assert not made.tensors["conv1_2.bias"].any()
    assert weights.load("random", 3).source == "random (seed 3)"


def test_auto_takes_the_embedded_weights_unless_imagenets_are_here_and_says_so_once(
    tiny, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(weights, "EMBEDDED", tmp_path / "a.safetensors")
    safetensors.torch.save_file(tiny.tensors, weights.EMBEDDED, {"title": "of this test"})
    caplog.set_level("INFO", "nstlab")
    for _ in range(2):
        found = weights.load()
        assert_same_tensors(found, tiny)
        assert found.source == "embedded"
    (said,) = caplog.messages
    assert "embedded (of this test)" in said
    assert "nstlab fetch --weights imagenet" in said
    other = random_weights(5, (2, 2, 2, 2, 2))
    assert sources.SOURCES["imagenet"].path.is_relative_to(torch.hub.get_dir())
    sources.SOURCES["imagenet"].path.parent.mkdir(parents=True)
    torch.save(as_torchvisions(other.tensors), sources.SOURCES["imagenet"].path)
    found = weights.load("auto")
    assert_same_tensors(found, other)
    assert (found.source, found.preprocessing) == ("imagenet", TORCHVISION)
    assert "ImageNet VGG19, found on this machine" in caplog.messages[1]
    assert "nstlab fetch --weights caffe" in refusal(weights.load, "caffe")


def test_the_embedded_weights_reach_the_deepest_layer_and_others_may_end_early(tmp_path, tiny):
    embedded = weights.load("embedded")
    assert (embedded.layers, embedded.metadata.keys() >= {"title", "input"}) == (CONVOLUTIONS, True)
    torch.save(
        {name: tensor for name, tensor in tiny.tensors.items() if name < "conv5_4"},
        tmp_path / "a.pth",
    )
    assert load_file(tmp_path / "a.pth").layers == CONVOLUTIONS[:-1]


def test_a_name_that_is_no_source_is_a_path(tiny, tiny_file, tmp_path):
    assert_same_tensors(weights.load(tiny_file), tiny)
    assert_same_tensors(weights.load(str(tiny_file)), tiny)
    assert "a.pth: no such file; weights are auto, imagenet, caffe, embedded, random" in refusal(
        weights.load, tmp_path / "a.pth"
    )
    message = refusal(weights.load, "imagnet")
    assert (
        "did you mean 'imagenet'? (allowed: auto, imagenet, caffe, embedded, random, or a path)"
        in message
    )
    for name in ("x" * 300, "x" * 300 + ".pth"):  # too long for any file
        assert "xxx" in refusal(weights.load, name)
