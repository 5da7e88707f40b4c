"""The affine regularizer against its definition window by window, and the guided filter."""

import numpy as np
import pytest
import torch

from nstlab.method.conventions import convention_named
from nstlab.method.factories import term
from nstlab.method.terms import Term
from nstlab.pictures import images as im
from nstlab.terms.affine import Affine, guided, matting_laplacian


def random(*shape, seed=0, dtype=torch.float32):
    return torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def left_over(photo, values, ridge):
    """Σ over windows of what the best affine function of the photo's colours leaves, by ridge
    regression in each."""
    total = 0.0
    for y in range(photo.shape[-2] - 2):
        for x in range(photo.shape[-1] - 2):
            colours, wanted = (
                t[0, :, y : y + 3, x : x + 3].reshape(3, 9).T.numpy() for t in (photo, values)
            )
            known = np.vstack(
                [
                    np.hstack([colours, np.ones((9, 1))]),
                    np.hstack([ridge**0.5 * np.eye(3), np.zeros((3, 1))]),
                ]
            )
            aim = np.vstack([wanted, np.zeros((3, 3))])
            found = np.linalg.lstsq(known, aim, rcond=None)[0]
            total += ((known @ found - aim) ** 2).sum()
    return total


@pytest.fixture
def affine():
    """The term for a photo of 7×9 pixels."""
    return Affine(
        "affine",
        ("conv1_1",),
        (1.0,),
        convention_named("mean"),
        photo=random(7, 9, dtype=torch.float64),
    )


@pytest.mark.parametrize("ridge", [1e-5, 1e-2])
def test_it_is_what_an_affine_function_leaves_in_each_window(affine, ridge, monkeypatch):
    monkeypatch.setattr(
        "nstlab.terms.affine.matting_laplacian", lambda photo: matting_laplacian(photo, ridge)
    )
    other = random(7, 9, seed=1, dtype=torch.float64)
    found = float(affine.statistic(other, None)) * other.numel()
    assert found == pytest.approx(left_over(affine.photo, other, ridge), rel=1e-9)


def test_one_affine_function_of_the_photos_colours_costs_next_to_nothing_and_a_moved_edge_does_not(
    affine,
):
    photo = affine.photo
    toned = (
        torch.einsum(
            "ij,njhw->nihw",
            torch.tensor([[0.1, 0.5, 0], [0, -1, 0.2], [0.3, 0, 1]]).to(photo),
            photo,
        )
        + 0.2
    )
    assert float(affine.statistic(toned, None)) < 1e-5
    assert float(affine.statistic(torch.full_like(photo, 0.3), None)) == pytest.approx(0, abs=1e-15)
    assert float(affine.statistic(photo.roll(1, -1), None)) > 0.01


def test_its_gradient_is_that_of_autograd_written_or_added(affine):
    picture, into = (
        random(7, 9, seed=2, dtype=torch.float64),
        random(7, 9, seed=3, dtype=torch.float64),
    )
    wanted, slope = torch.empty_like(picture), torch.tensor(0.7, dtype=torch.float64)
    Term.vjp(affine, slope, picture, None, wanted, add=False)
    for add in (False, True):
        found = into.clone()
        affine.vjp(slope, picture, None, found, add)
        assert torch.allclose(found, wanted + add * into, atol=1e-14)


def test_the_photo_is_taken_at_the_size_of_the_picture():
    photo = random(48, 40)
    goal = term(Affine, "affine", ("conv1_1",), photo=photo)
    assert float(goal.terms[0][1].statistic(im.resize(photo, (24, 20)), None)) < 1e-4
    assert float(goal.terms[0][1].statistic(random(24, 20), None)) > 0.01


def test_the_guided_filter_keeps_affine_changes_and_takes_edges_from_the_photo():
    photo = torch.full((1, 3, 60, 80), 0.2)
    photo[..., 40:] = 0.7
    assert torch.allclose(guided(1 - photo, photo), 1 - photo, atol=0.01)
    blurred = torch.nn.functional.avg_pool2d(1 - photo, 5, 1, 2, count_include_pad=False)
    edge = (guided(blurred, photo)[..., 39] - guided(blurred, photo)[..., 40]).mean()
    assert edge > 2 * (blurred[..., 39] - blurred[..., 40]).mean()
    noisy = (1 - photo + 0.1 * (random(60, 80) - 0.5)).clamp(0, 1)
    assert (guided(noisy, photo) - (1 - photo))[..., :35].std() < 0.2 * (noisy - (1 - photo))[
        ..., :35
    ].std()


def test_the_guided_filter_of_an_even_photo_is_even():
    found = guided(random(40, 48), torch.full((1, 3, 40, 48), 0.5))
    assert found.std() < 0.08
    assert guided(torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).allclose(
        torch.ones(1, 3, 16, 16)
    )
