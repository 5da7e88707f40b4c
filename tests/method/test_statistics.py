"""Statistics against known answers."""

import pytest
import torch

from nstlab.method.statistics import (
    covariance,
    gram,
    mean,
    mean_square_error,
    moments,
    total_variation,
)


def test_statistics_of_known_pictures():
    pair = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2): two channels, two positions
    assert torch.equal(gram(pair), torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 2)
    assert torch.equal(covariance(pair), torch.full((2, 2), 0.25))
    assert torch.equal(moments(pair), torch.tensor([[2.5, 5.5, 1.5], [5.5, 12.5, 3.5]]))
    assert mean_square_error(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)) == 9.0
    board = (torch.arange(8)[:, None] + torch.arange(6)) % 2
    assert total_variation(board.float().expand(1, 3, 8, 6)) == 2.0
    assert torch.isclose(
        total_variation(torch.arange(5.0).expand(1, 3, 4, 5) / 10), torch.tensor(0.01)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 61, 67), (32, 9, 11)])
@pytest.mark.parametrize(("statistic", "near"), [(gram, 1e-3), (mean, 1e-5), (moments, 1e-3)])
def test_statistics_of_16_bits_are_float32_and_near(dtype, shape, statistic, near):
    # squares beyond float16
    features = 300 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = features.contiguous(memory_format=torch.channels_last)
    exact, found = statistic(features.double()), statistic(features)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < near * exact.norm()
