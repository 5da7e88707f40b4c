"""Style by regions: known answers of guided Gram matrices, and how masks are carried down."""

import pytest
import torch

import nstlab as nst
from nstlab.base.errors import InputError
from nstlab.method.statistics import gram
from nstlab.terms.regions import RegionStyle, mask_at_layer, region_styles


def halves(height, width, edge):
    """The masks (1, 2, H, W) of the first columns and of the rest."""
    left = (torch.arange(width) < edge).float().expand(height, width)
    return torch.stack([left, 1 - left])[None]


@pytest.fixture
def styles(photo, painting):
    masks, painting_masks = halves(*photo.shape[-2:], 16), halves(*painting.shape[-2:], 20)
    return region_styles(["conv1_1"], painting, masks, painting_masks, (), "mean")


def test_a_regions_gram_matrix_is_that_of_its_positions_alone(styles):
    term = styles.terms[0][1]
    features = torch.rand(1, 5, *term.mask.shape[-2:], generator=torch.Generator().manual_seed(0))
    assert torch.allclose(term.statistic(features, None), gram(features[..., :16]), atol=1e-6)
    other = features.clone()
    other[..., 16:] = 9.0  # nothing outside is seen
    assert torch.equal(term.statistic(features, None), term.statistic(other, None))


def test_a_mask_of_ones_gives_the_plain_gram_matrix_to_the_bit(photo, painting):
    masks, painting_masks = (torch.ones(1, 1, *picture.shape[-2:]) for picture in (photo, painting))
    ((_, term),) = region_styles(["conv1_1"], painting, masks, painting_masks, (), "mean").terms
    features = torch.rand(1, 5, 24, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(term.statistic(features, None), gram(features))


@pytest.mark.parametrize("shape", [(24, 20), (25, 21), (12, 10), (5, 7), (23, 19)])
def test_masks_are_carried_down_as_features_are(shape):
    """By a network of poolings alone, or to the nearest size where a picture was resized on its
    way."""
    mask = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    pooled = mask
    for _ in range(2):
        pooled = torch.nn.functional.avg_pool2d(pooled, 2)
        assert torch.equal(mask_at_layer(mask, pooled.shape[-2:]), pooled)
    near = [max(1, side // 2 - 1) for side in shape]
    assert list(mask_at_layer(mask, near).shape[-2:]) == near
    assert torch.equal(mask_at_layer(torch.ones_like(mask), near), torch.ones(1, 1, *near))


def test_the_weight_of_a_region_is_its_share_of_the_picture_times_what_is_asked_for(
    photo, painting
):
    masks, painting_masks = halves(*photo.shape[-2:], 10), halves(*painting.shape[-2:], 20)
    goal = region_styles(["conv1_1"], painting, masks, painting_masks, (2.0, 0.5), "mean")
    share = 10 / photo.shape[-1]
    assert goal.weights["style"] == pytest.approx(2 * share)
    assert goal.weights["style_2"] == pytest.approx(0.5 * (1 - share))


def test_a_region_smaller_than_a_layers_position_does_not_count_there(tiny, photo, painting):
    masks, painting_masks = (
        torch.zeros(1, 1, *photo.shape[-2:]),
        torch.ones(1, 1, *painting.shape[-2:]),
    )
    masks[..., :3, :3] = 1.0
    net, shape = nst.VGG19(tiny, precision="float32"), photo.shape[-2:]
    for layer, counts in (("conv1_1", True), ("conv3_1", False)):
        total, _ = region_styles([layer], painting, masks, painting_masks, (1e3,), "mean").bind(
            net, shape
        )(photo)
        assert (float(total) > 0) == counts


def test_style_does_not_leak_out_of_its_region(tiny, photo, painting):
    """A region that nothing else constrains is left as it was, but for what its neighbour's filters
    see across the edge."""
    masks, painting_masks = halves(*photo.shape[-2:], 16), torch.ones(1, 2, *painting.shape[-2:])
    goal = region_styles(["conv1_1"], painting, masks, painting_masks, (1.0, 0.0), "mean")
    start = nst.grey(photo)
    result = nst.solve(
        goal, nst.VGG19(tiny, precision="float32"), start, steps=5, optimizer=nst.LBFGS(smooth=None)
    ).image
    assert (result - start)[..., :16].abs().max() > 0.01
    assert (result - start)[..., 18:].abs().max() < 1e-6


def test_a_region_style_is_a_style_by_name_and_convention(styles):
    assert all(isinstance(term, RegionStyle) for _, term in styles.terms)
    assert [term.name for _, term in styles.terms] == ["style", "style_2"]
    with pytest.raises(InputError, match="convention"):
        region_styles(
            ["conv1_1"], styles.terms[0][1].image, *(torch.ones(1, 1, 8, 8),) * 2, (), "nobody's"
        )
