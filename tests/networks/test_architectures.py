"""Names of networks and of their layers, and where their weights are."""

import pytest
from faults import refusal
from torchvision import models

from nstlab.base.names import CONTENT_LAYERS, STYLE_LAYERS, WEIGHTS
from nstlab.networks import sources, weights
from nstlab.networks.architectures import ARCHITECTURES, architecture
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.sketch import SketchSettings
from nstlab.recipes.transfer import TransferSettings


def transfer(**changes):
    return TransferSettings("coffee", "mosaic", **changes)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_network_has_the_layers_that_are_read_by_default_and_weights_whose_hash_is_known(name):
    known, settings = architecture(name), transfer(network=name)
    assert known.has((*settings.style_layers, *settings.content_layers))
    assert set(settings.style_layers) <= set(known.offered)
    assert all(known.layer(layer) == layer for layer in known.layers)
    published = models.get_model_weights(name).IMAGENET1K_V1
    found = sources.download(name)
    assert found.url == published.url
    assert found.sha256 in published.url
    assert found.megabytes == round(published.meta["_file_size"])


def test_vgg16_has_fewer_convolutions_and_its_own_indices():
    vgg19, vgg16 = architecture("vgg19"), architecture("vgg16")
    assert set(vgg19.layers) - set(vgg16.layers) == {
        f"{op}{block}_4" for op in ("conv", "relu") for block in (3, 4, 5)
    }
    assert (vgg19.layer(8), vgg16.layer(8), vgg16.layer("13")) == ("conv3_4", "conv4_1", "conv5_3")
    assert "conv1_1 to conv5_3" in refusal(vgg16.layer, 14)


def test_what_is_left_open_is_the_networks_and_follows_it_as_do_layers_that_it_lacks():
    first = transfer()
    assert (first.style_layers, first.content_layers) == (STYLE_LAYERS, CONTENT_LAYERS)
    second = first.replace(network="resnet50")
    assert second.style_layers == ARCHITECTURES["resnet50"].style_layers
    assert second.replace(network="vgg19") == first
    chosen = first.replace(
        style_layers=("conv1_1", "conv2_1"), style_weights=(1.0, 2.0), content_layers=("conv3_1",)
    )
    assert chosen.replace(network="vgg16").style_weights == (1.0, 2.0)
    other = chosen.replace(network="alexnet")
    assert (other.style_layers, other.style_weights) == (ARCHITECTURES["alexnet"].style_layers, ())
    mixed = first.replace(more_paintings=("swirl_strokes",), mix_layers=("1", "2+conv3_1"))
    assert mixed.mix_layers == ("conv1_1", "conv1_2+conv3_1")
    assert mixed.replace(network="alexnet").mix_layers == ()
    deep = first.replace(more_paintings=("swirl_strokes",), mix_layers=("conv1_1", "conv3_4"))
    assert deep.replace(network="vgg16").mix_layers == ()
    assert "network: None is not a name" in refusal(first.replace, network=None)


def test_recipes_with_layers_of_their_own_have_them_in_a_vgg_alone():
    assert ReconstructSettings("coffee", convention="tutorial").layer == "conv4_2"
    assert ReconstructSettings("coffee", network="squeezenet1_1").layer == "fire5"
    assert [SketchSettings("coffee", "mosaic", network=name).content_layers for name in ("vgg16",
    "alexnet")] == [
        ("conv3_1",), ("conv3",),
    ]  # fmt: skip


def test_any_classifier_can_be_named_if_layers_are_chosen_and_nothing_else():
    assert "`nstlab info --network resnet18` lists them" in refusal(transfer, network="resnet18")
    settings = transfer(
        network="resnet18",
        style_layers=["relu", "layer1.0.add"],
        content_layers=["layer2.1.relu_1"],
    )
    assert settings.replace(convention="paper").style_layers == ("relu", "layer1.0.add")
    assert settings.replace(network="vgg19").style_layers == STYLE_LAYERS
    assert "layer: choose layers of resnet18" in refusal(
        ReconstructSettings, "coffee", network="resnet18"
    )
    message = refusal(transfer, network="resnet51")
    assert all(name in message for name in ARCHITECTURES)
    assert "did you mean 'resnet50'" in message
    assert "has no layer 'fire'; did you mean 'fire" in refusal(
        transfer, network="squeezenet1_1", style_layers=["fire"]
    )


@pytest.mark.parametrize("source", WEIGHTS)
def test_weights_that_another_network_does_not_have_are_refused_or_where_to_get_them_is_said(
    source,
):
    if source == "random":
        return
    message = refusal(weights.load, source, network="squeezenet1_1")
    known = {"embedded": "VGG19's", "caffe": "VGG19's"}
    assert known.get(source, "nstlab fetch --network squeezenet1_1") in message
