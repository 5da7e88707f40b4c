"""Weights: every format is known by its content, what is not VGG19 is refused, and nothing in a file is run."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from faults import refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from nstlab.method import weights
from nstlab.method.names import CONVOLUTIONS
from nstlab.method.weights import CAFFE, TORCHVISION, Preprocessing, load_file, random_weights
from nstlab.settings import InputError

# Where torchvision's vgg19().features has its convolutions.
INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


def renamed(tensors: dict, pattern: str) -> dict:
    """The tensors under torchvision's numbers, e.g. "features.{}"."""
    numbers = {name: pattern.format(index) for name, index in zip(CONVOLUTIONS, INDICES, strict=True)}
    return {f"{numbers[key.split('.')[0]]}.{key.split('.')[1]}": tensor for key, tensor in tensors.items()}


def assert_same_tensors(found: weights.Weights, expected: weights.Weights) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == torch.float32
        assert_close(found.tensors[name], tensor, atol=0, rtol=0)


# --- formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["features.{}", "{}", "module.features.{}"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torchvisions_state_dicts_are_known_by_their_names(tmp_path, tiny, pattern, legacy):
    torch.save(renamed(tiny.tensors, pattern), tmp_path / "a", _use_new_zipfile_serialization=not legacy)
    found = load_file(tmp_path / "a")
    assert_same_tensors(found, tiny)
    assert found.preprocessing == TORCHVISION
    assert found.source == str(tmp_path / "a")


def test_a_full_torchvision_file_is_read_without_its_classifier(tmp_path, tiny):
    classifier = {"classifier.0.weight": torch.ones(4, 4), "classifier.0.bias": torch.ones(4)}
    torch.save(renamed(tiny.tensors, "features.{}") | classifier, tmp_path / "a.pth")
    assert_same_tensors(load_file(tmp_path / "a.pth"), tiny)


def test_a_real_torchvision_network_is_read(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        names = list(torchvision.models.vgg19().features.state_dict())
    assert names == [f"{i}.{part}" for i in INDICES for part in ("weight", "bias")]


def test_the_authors_names_mean_their_preprocessing(tmp_path, tiny):
    torch.save(tiny.tensors, tmp_path / "vgg_conv.pth")
    found = load_file(tmp_path / "vgg_conv.pth")
    assert_same_tensors(found, tiny)
    assert found.preprocessing == CAFFE


def test_a_checkpoint_with_a_state_dict_inside_is_read(tmp_path, tiny):
    torch.save({"epoch": 3, "state_dict": tiny.tensors}, tmp_path / "a.pth")
    assert_same_tensors(load_file(tmp_path / "a.pth"), tiny)


def test_parameters_in_half_precision_become_plain_float32_tensors(tmp_path, tiny):
    torch.save({n: torch.nn.Parameter(t.half()) for n, t in tiny.tensors.items()}, tmp_path / "a.pth")
    found = load_file(tmp_path / "a.pth")
    assert all(t.dtype == torch.float32 and not t.requires_grad for t in found.tensors.values())
    assert_close(found.tensors["conv3_1.weight"], tiny.tensors["conv3_1.weight"].half().float())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a"])
def test_safetensors_are_known_by_their_content_and_say_their_preprocessing(tmp_path, tiny, name):
    given_input = "BGR, 0-255, mean 100/110.5/120 subtracted, std 1"
    safetensors.torch.save_file(tiny.tensors, tmp_path / name, {"input": given_input, "title": "a title"})
    found = load_file(tmp_path / name)
    assert_same_tensors(found, tiny)
    assert found.preprocessing == Preprocessing("BGR", 255.0, (100.0, 110.5, 120.0), (1.0, 1.0, 1.0))
    assert found.metadata["title"] == "a title"


def test_safetensors_without_metadata_go_by_their_names(tmp_path, tiny):
    safetensors.torch.save_file(tiny.tensors, tmp_path / "ours.safetensors")
    safetensors.torch.save_file(renamed(tiny.tensors, "features.{}"), tmp_path / "torchvisions.safetensors")
    assert load_file(tmp_path / "ours.safetensors").preprocessing == CAFFE
    assert load_file(tmp_path / "torchvisions.safetensors").preprocessing == TORCHVISION


def test_the_originals_numbers_are_known_under_torchvisions_names(tmp_path, tiny, monkeypatch):
    tensors = tiny.tensors | {"conv1_1.bias": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    torch.save(renamed(tensors, "features.{}"), tmp_path / "a.pth")
    assert load_file(tmp_path / "a.pth").preprocessing == TORCHVISION
    monkeypatch.setattr(weights, "CAFFE_BIAS_SUM", 10.0)
    assert load_file(tmp_path / "a.pth").preprocessing == CAFFE


def test_a_file_that_ends_early_has_fewer_layers(tmp_path, tiny):
    some = {name: t for name, t in tiny.tensors.items() if name.split(".")[0] in CONVOLUTIONS[:5]}
    torch.save(renamed(some, "features.{}"), tmp_path / "a.pth")
    assert load_file(tmp_path / "a.pth").layers == CONVOLUTIONS[:5]


# --- what is refused --------------------------------------------------------------------------------------------


def without(tensors, *names):
    return {name: t for name, t in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: without(t, "conv2_1.weight", "conv2_1.bias"), "without a gap"),
        (lambda t: without(t, "conv1_1.weight"), "without a gap"),
        (lambda t: without(t, "conv3_2.bias"), "conv3_2"),
        (lambda t: t | {"conv2_2.weight": torch.zeros(6, 6, 5, 5)}, "(6, 6, 5, 5)"),
        (lambda t: t | {"conv2_2.weight": torch.zeros(6, 7, 3, 3)}, "conv2_2"),
        (lambda t: t | {"conv1_1.weight": torch.zeros(4, 1, 3, 3)}, "conv1_1"),
        (lambda t: t | {"conv4_1.bias": torch.zeros(7)}, "conv4_1"),
        (lambda t: t | {"conv5_1.weight": torch.tensor(1.0)}, "conv5_1"),
        (lambda t: t | {"conv5_4.bias": torch.full((8,), torch.nan)}, "conv5_4.bias holds numbers that are not finite"),
        (lambda t: t | {"conv1_2.weight": torch.full((4, 4, 3, 3), torch.inf)}, "conv1_2.weight holds numbers that are not finite"),
        (lambda t: {"a": torch.zeros(3)}, "no VGG19 weights found"),
        (lambda t: {}, "no VGG19 weights found"),
    ],
)
@pytest.mark.parametrize("save", [torch.save, safetensors.torch.save_file])
def test_what_is_not_vgg19_is_refused_by_file_and_layer(tmp_path, tiny, save, change, named):
    path = tmp_path / "a.pth"
    save(change(tiny.tensors), path)
    message = refusal(load_file, path)
    assert message.startswith(f"{path}: ")
    assert named in message


@pytest.mark.parametrize(
    "thing", [[1, 2], torch.zeros(3), 5, None, {0: torch.zeros(2)}, {"state_dict": [1]}, {"state_dict": torch.zeros(2)}]
)
def test_a_torch_file_of_something_else_is_refused(tmp_path, thing):
    torch.save(thing, tmp_path / "a.pth")
    assert str(tmp_path / "a.pth") in refusal(load_file, tmp_path / "a.pth")


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, tiny, kind):
    path, sprung = tmp_path / "a.pth", tmp_path / "sprung"
    state = tiny.tensors | {"trap": Trap(sprung)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert str(path) in refusal(load_file, path)
    assert not sprung.exists()


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "text")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\0",
        b"text, no weights\n" * 9,
        picture(),
        zipped(),
        b"\xff" * 8 + b"{",
        b"\x02" + b"\0" * 7 + b"{}",
        b"PK\3\4",
    ],
    ids=["empty", "brace", "zero", "text", "picture", "zip", "huge header", "no tensors", "zip header"],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert refusal(load_file, path).startswith(f"{path}: ")


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path):
    assert str(tmp_path) in refusal(load_file, tmp_path)
    message = refusal(load_file, tmp_path / "missing.pth")
    assert f"{tmp_path / 'missing.pth'}: no such file" in message
    assert "embedded" in message


def contents(kind: str, tensors: dict) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(tensors)
    stream = io.BytesIO()
    torch.save(tensors, stream, _use_new_zipfile_serialization=kind == "zip")
    return stream.getvalue()


def read_or_refused(path) -> bool:
    """Whether a file gives weights, or a message of one line that names it; any other error gets through."""
    try:
        return bool(load_file(path).layers)
    except InputError as error:
        return str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path, tiny, kind):
    whole, path = contents(kind, tiny.tensors), tmp_path / "a.pth"
    for end in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:end])
        assert refusal(load_file, path).startswith(f"{path}: ")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_with_wrong_bytes_is_read_or_refused_but_never_breaks(tmp_path, tiny, kind):
    whole, path, random = contents(kind, tiny.tensors), tmp_path / "a.pth", np.random.default_rng(0)
    for _ in range(150):
        wrong = bytearray(whole)
        for place in random.integers(0, 3000, size=3):
            wrong[place] = random.integers(0, 256)
        path.write_bytes(wrong)
        assert read_or_refused(path)


# --- preprocessing ----------------------------------------------------------------------------------------------


def test_preprocessing_of_known_colours():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    expected = torch.tensor([(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, -0.406 / 0.225])
    assert_close(TORCHVISION(image).flatten(), expected)
    assert_close(CAFFE(image).flatten(), torch.tensor([0 - 103.939, 127.5 - 116.779, 255 - 123.68]))


@pytest.mark.parametrize("known", [TORCHVISION, CAFFE, Preprocessing("RGB", 1.0, (0.0,) * 3, (1.0,) * 3)])
def test_known_preprocessings_come_back_from_their_text(known):
    assert Preprocessing.parse(str(known)) == known


numbers = st.integers(1, 300_000).map(lambda n: n / 1000)
triples = st.tuples(numbers, numbers, numbers) | numbers.map(lambda n: (n,) * 3)


@given(st.builds(Preprocessing, st.sampled_from(["RGB", "BGR"]), st.sampled_from([1.0, 255.0]), triples, triples))
def test_any_preprocessing_comes_back_from_its_text(preprocessing):
    assert Preprocessing.parse(str(preprocessing)) == preprocessing


@given(st.floats(1e-7, 1e7), st.floats(-1e3, -1e-7))
def test_any_numbers_of_a_preprocessing_come_back_about_as_they_were(std, mean):
    back = Preprocessing.parse(str(Preprocessing("RGB", 1.0, (mean, 0.0, 0.0), (std, 1.0, 1.0))))
    assert back.std[0] == pytest.approx(std, rel=1e-5)
    assert back.mean[0] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RGB",
        "GBR, 0-1, mean 0.5 subtracted, std 1",
        "RGB, 0-2, mean 0.5 subtracted, std 1",
        "RGB, 0-1, mean 1/2 subtracted, std 1",
        "RGB, 0-1, mean 1.2.3 subtracted, std 1",
        "RGB, 0-1, mean 0.5 subtracted, std 0",
    ],
)
def test_a_preprocessing_that_cannot_be_meant_is_refused(text):
    assert f"'{text}'" in refusal(Preprocessing.parse, text)


def test_a_file_whose_preprocessing_cannot_be_meant_is_named(tmp_path, tiny):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(tiny.tensors, path, {"input": "as usual"})
    message = refusal(load_file, path)
    assert str(path) in message
    assert "'as usual'" in message


# --- identity ---------------------------------------------------------------------------------------------------


def test_the_digest_is_of_numbers_and_preprocessing_and_not_of_files(tmp_path, tiny, tiny_file):
    torch.save(renamed(tiny.tensors, "features.{}"), tmp_path / "a.pth")
    torch.save(tiny.tensors, tmp_path / "b.pth")
    assert load_file(tmp_path / "a.pth").digest == load_file(tiny_file).digest == tiny.digest
    assert load_file(tmp_path / "b.pth").digest != tiny.digest  # the authors' names, so their preprocessing
    changed = tiny.tensors | {"conv5_4.bias": tiny.tensors["conv5_4.bias"] + 1e-7}
    assert weights.Weights(changed, TORCHVISION, "x").digest != tiny.digest


def test_random_weights_are_decided_by_their_seed():
    widths = (16, 4, 4, 4, 4)
    assert random_weights(1, widths).digest == random_weights(1, widths).digest != random_weights(2, widths).digest
    made = random_weights(0, widths)
    assert made.layers == CONVOLUTIONS
    assert made.tensors["conv1_2.weight"].var().item() == pytest.approx(2 / (9 * 16), rel=0.1)
    assert not made.tensors["conv1_2.bias"].any()


# --- sources ----------------------------------------------------------------------------------------------------


def place_download(name: str, tensors: dict) -> None:
    path = weights.SOURCES[name].path
    path.parent.mkdir(parents=True)
    torch.save(renamed(tensors, "features.{}"), path)


def test_auto_takes_the_embedded_weights_and_says_so(tiny, tiny_file, monkeypatch, caplog):
    weights._say.cache_clear()  # it is said once in a process
    monkeypatch.setattr(weights, "EMBEDDED", tiny_file)
    with caplog.at_level("INFO", "nstlab"):
        found = weights.load()
    assert_same_tensors(found, tiny)
    assert found.source == "embedded"
    assert "embedded" in caplog.text
    assert "nstlab fetch --weights imagenet" in caplog.text


def test_auto_takes_the_imagenet_weights_if_they_are_here(tiny, tiny_file, monkeypatch, caplog):
    weights._say.cache_clear()  # it is said once in a process
    monkeypatch.setattr(weights, "EMBEDDED", tiny_file)
    other = random_weights(5, (2, 2, 2, 2, 2))
    place_download("imagenet", other.tensors)
    with caplog.at_level("INFO", "nstlab"):
        found = weights.load("auto")
    assert_same_tensors(found, other)
    assert (found.source, found.preprocessing) == ("imagenet", TORCHVISION)
    assert "ImageNet" in caplog.text


def test_downloads_are_looked_for_where_torch_hub_keeps_them(tiny):
    place_download("caffe", tiny.tensors)
    assert weights.SOURCES["caffe"].path.is_relative_to(torch.hub.get_dir())
    assert weights.load("caffe").preprocessing == CAFFE


@pytest.mark.parametrize("name", list(weights.SOURCES))
def test_a_download_that_is_not_here_is_refused_with_the_command_that_gets_it(name):
    assert f"nstlab fetch --weights {name}" in refusal(weights.load, name)


def test_the_embedded_weights_are_whole_and_reach_the_deepest_layer():
    found = weights.load("embedded")
    assert found.layers == CONVOLUTIONS
    assert found.metadata["title"]
    assert "input" in found.metadata


def test_random_weights_take_the_seed():
    assert weights.load("random", 3).digest == weights.load("random", 3).digest != weights.load("random", 4).digest


def test_an_unknown_name_is_refused_with_all_that_are_known():
    message = refusal(weights.load, "imagnet")
    assert "did you mean 'imagenet'?" in message
    assert "auto, imagenet, caffe, embedded, random, or a path" in message


def test_a_name_too_long_for_any_file_is_refused():
    for name in ("x" * 300, "x" * 300 + ".pth"):
        assert "xxx" in refusal(weights.load, name)


def test_a_path_is_taken_as_one(tiny, tiny_file):
    assert_same_tensors(weights.load(tiny_file), tiny)
    assert_same_tensors(weights.load(str(tiny_file)), tiny)


# --- sizes are checked before anything is made


def test_tensors_that_are_views_of_a_few_numbers_are_refused_before_they_are_written_out(tmp_path, tiny):
    wide = 10**7
    views = {"conv5_4.weight": torch.zeros(1, 8, 3, 3).expand(wide, 8, 3, 3), "conv5_4.bias": torch.zeros(1).expand(wide)}
    torch.save(dict(tiny.tensors) | views, tmp_path / "a.pth")
    assert "conv5_4.weight does not consist of stored numbers" in refusal(load_file, tmp_path / "a.pth")


@pytest.mark.parametrize("odd", [torch.Tensor.to_sparse, torch.Tensor.int, torch.Tensor.cfloat])
def test_tensors_that_are_no_plain_floats_are_refused(tmp_path, tiny, odd):
    torch.save(dict(tiny.tensors) | {"conv1_1.weight": odd(tiny.tensors["conv1_1.weight"])}, tmp_path / "a.pth")
    assert "a.pth" in refusal(load_file, tmp_path / "a.pth")


def test_tensors_that_share_their_numbers_are_refused(tmp_path, tiny):
    layers = {}
    big = torch.zeros(64 * 64 * 9)
    for name in ("conv1_2", "conv2_1", "conv2_2"):
        layers |= {f"{name}.weight": big.view(64, 64, 3, 3), f"{name}.bias": big[:64]}
    layers |= {"conv1_1.weight": big[: 64 * 27].view(64, 3, 3, 3), "conv1_1.bias": big[:64]}
    torch.save(layers, tmp_path / "a.pth")
    assert "share their numbers" in refusal(load_file, tmp_path / "a.pth")


def test_a_pickle_that_asks_for_an_array_of_bytes_is_refused(tmp_path, tiny):
    torch.save(dict(tiny.tensors) | {"more": bytearray(3)}, tmp_path / "a.pth")
    assert "more than tensors" in refusal(load_file, tmp_path / "a.pth")


def test_numbers_stored_with_their_signs_turned_are_read(tmp_path, tiny):
    name = "conv1_1.weight"
    torch.save(dict(tiny.tensors) | {name: torch._neg_view(tiny.tensors[name])}, tmp_path / "a.pth")
    found = load_file(tmp_path / "a.pth")
    assert torch.equal(found.tensors[name], -tiny.tensors[name])
    assert len(found.digest) == 64


@pytest.mark.parametrize("text", ["std 1e400", "std 1e-300", "std 0"])
def test_a_preprocessing_beyond_numbers_is_refused(text):
    assert "allowed are" in refusal(Preprocessing.parse, f"RGB, 0-1, mean 0 subtracted, {text}")


def test_layers_without_filters_are_refused(tmp_path):
    empty = {"conv1_1.weight": torch.zeros(0, 3, 3, 3), "conv1_1.bias": torch.zeros(0)}
    safetensors.torch.save_file(empty, tmp_path / "a.safetensors", {"input": str(TORCHVISION)})
    assert "conv1_1 has the shape (0, 3, 3, 3)" in refusal(load_file, tmp_path / "a.safetensors")


def test_an_archive_that_would_unpack_to_more_than_it_is_is_refused(tmp_path, tiny):
    torch.save(dict(tiny.tensors), tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as archive,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in archive.infolist():
            packed.writestr(part.filename, archive.read(part))
        packed.writestr("archive/bomb", bytes(10**7))
    assert "would unpack to" in refusal(load_file, tmp_path / "b.pth")
