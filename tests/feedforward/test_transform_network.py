"""The network: mixtures, normalization, edges; and the painter, which gives the same pictures
sooner and in bands."""

import pytest
import torch
import torch.nn.functional as F
from helpers import transform_network

from nstlab.feedforward.network import Layer, TransformNetwork
from nstlab.feedforward.painter import Painter, fold

MIX = torch.tensor([0.2, 0.5, 0.3])


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (18, 30), (19, 16)])
def test_a_picture_has_the_shape_of_its_photo_and_values_between_black_and_white(shape):
    with torch.no_grad():
        picture = transform_network()(torch.rand(2, 3, *shape), MIX.expand(2, 3))
    assert picture.shape == (2, 3, *shape)
    assert picture.min() > 0
    assert picture.max() < 1


def test_instance_normalization_does_not_depend_on_other_pictures_of_the_batch_nor_on_contrast():
    net, photos = transform_network(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    net.double()
    mix = MIX.double().expand(2, 3)
    together = net(photos, mix)
    torch.testing.assert_close(net(photos[:1], mix[:1]), together[:1])
    # but for EPSILON
    torch.testing.assert_close(net(0.5 + (photos - 0.5) * 0.6, mix), together, rtol=0, atol=1e-4)


def test_batch_normalization_does_and_keeps_averages_for_later():
    net = TransformNetwork(1, 8, "batch").randomize(0).double()
    photos, mix = (
        torch.rand(4, 3, 32, 32, dtype=torch.float64),
        torch.ones(4, 1, dtype=torch.float64),
    )
    assert not torch.allclose(net(photos[:2], mix[:2]), net(photos, mix)[:2])
    for _ in range(300):
        trained = net(photos, mix)
    torch.testing.assert_close(net.eval()(photos, mix), trained, rtol=1e-3, atol=1e-3)


def test_a_mixture_takes_the_mean_of_scales_and_shifts():
    norm = transform_network().down.norm
    scale, shift = norm.affine(MIX[None])
    torch.testing.assert_close(
        scale[0], 0.2 * norm.scale[0] + 0.5 * norm.scale[1] + 0.3 * norm.scale[2]
    )
    torch.testing.assert_close(
        shift[0], 0.2 * norm.shift[0] + 0.5 * norm.shift[1] + 0.3 * norm.shift[2]
    )


def test_an_even_photo_becomes_an_even_picture_without_a_frame_or_a_checkerboard():
    picture = transform_network()(torch.full((1, 3, 40, 48), 0.3), MIX[None])
    torch.testing.assert_close(picture, picture[..., :1, :1].expand_as(picture), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("times", [2, 3])
def test_a_folded_convolution_is_that_of_the_enlarged_picture(kernel, times):
    x, weight = torch.rand(1, 2, 9, 8), torch.randn(3, 2, kernel, kernel)
    around = kernel // 2
    wide = F.conv2d(F.interpolate(x, scale_factor=float(times)), weight, padding=around)
    small = fold(weight, times)
    narrow = F.pixel_shuffle(F.conv2d(x, small, padding=small.shape[-1] // 2), times)
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-4)


def test_an_enlarging_layer_reflects_the_picture_before_it_is_enlarged():
    layer = Layer((1, 1), 3, None, enlarge=2)
    with torch.no_grad():
        layer.kernel.fill_(1.0)
        layer.bias.zero_()
        found = layer(torch.tensor([[[[1.0, 2.0, 4.0], [1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]]]), None)
    # 2, 1 1, 2 2, 4 4, 2: three of them, three rows
    assert found[0, 0, 0].tolist() == [12.0, 12.0, 15.0, 24.0, 30.0, 30.0]


@pytest.mark.parametrize("kind", ["instance", "batch"])
@pytest.mark.parametrize("shape", [(64, 64), (61, 83)])
def test_the_painter_gives_the_networks_pictures(kind, shape):
    net, photo = transform_network(kind).double(), torch.rand(1, 3, *shape)
    with torch.no_grad():
        wanted = net(photo.double(), MIX.double()[None]).float()
    painter = Painter(net.float(), torch.device("cpu"), torch.float32)
    torch.testing.assert_close(painter(photo, MIX), wanted, rtol=0, atol=1e-5)


def test_16_bits_change_a_picture_by_a_few_levels():
    net, photo = transform_network(), torch.rand(1, 3, 64, 64)
    exact, half = (
        Painter(net, torch.device("cpu"), dtype)(photo, MIX)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < (exact - half).abs().mean() < 0.02


def test_alpha_goes_from_the_photo_to_the_painted_picture():
    painter, photo = (
        Painter(transform_network(), torch.device("cpu"), torch.float32),
        torch.rand(1, 3, 20, 24),
    )
    none, half, full = (painter(photo, MIX, alpha) for alpha in (0.0, 0.5, 1.0))
    torch.testing.assert_close(none, photo)
    torch.testing.assert_close(half, (photo + full) / 2)
