"""Statistics against known answers."""

import pytest
import torch

from nstlab.method import statistics


@pytest.fixture
def features():
    return torch.rand(1, 5, 4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_statistics_of_known_pictures():
    pair = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2): two channels, two positions
    assert torch.equal(statistics.gram(pair), torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 2)
    assert statistics.mean_square_error(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)) == 9.0
    board = (torch.arange(8)[:, None] + torch.arange(6)) % 2
    assert statistics.total_variation(board.float().expand(1, 3, 8, 6)) == 2.0
    ramp = torch.arange(5.0).expand(1, 3, 4, 5) / 10
    assert torch.isclose(statistics.total_variation(ramp), torch.tensor(0.01))


def test_gram_is_the_weighted_mean_of_its_tiles_in_any_memory_format(features):
    left, right = features[..., :3], features[..., 3:].contiguous(memory_format=torch.channels_last)
    assert torch.allclose(statistics.gram(features), 0.3 * statistics.gram(left) + 0.7 * statistics.gram(right))


def test_covariance_is_gram_less_the_means(features):
    mean = features.mean((0, 2, 3))
    assert torch.allclose(statistics.mean(features), mean)
    assert torch.allclose(statistics.covariance(features), statistics.gram(features) - mean.outer(mean))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 61, 67), (32, 9, 11)])
def test_statistics_of_16_bits_are_float32_and_near(dtype, shape):
    features = 300 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)  # squares beyond float16
    features = features.contiguous(memory_format=torch.channels_last)
    for statistic, near in ((statistics.gram, 1e-3), (statistics.mean, 1e-5), (statistics.covariance, 5e-3)):
        exact, found = statistic(features.double()), statistic(features)
        assert found.dtype == torch.float32
        assert (found - exact).norm() < near * exact.norm()
