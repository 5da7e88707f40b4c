import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab import images as im
from nstlab.judge import Judge, Score, at_content_error


@pytest.fixture(scope="module")
def judge():
    from nstlab.weights import random_weights

    return Judge(random_weights(3, (4, 5, 6, 7, 8)))


@pytest.fixture(scope="module")
def pictures():
    return [im.noise(torch.empty(1, 3, 40, 48), seed) for seed in range(3)]


def test_the_photo_itself_has_no_content_error_and_the_painting_no_style_error(judge, pictures):
    photo, painting, _ = pictures
    assert judge(photo, photo, painting).content == 0
    assert judge(painting, photo, painting).style == {"conv1_1": 0, "conv2_1": 0, "conv3_1": 0}
    assert judge(photo, photo, painting).style_mean > 0 < judge(painting, photo, painting).content


def test_errors_are_relative_to_the_target_and_by_the_definition(judge, pictures):
    x, p, a = pictures
    read = {layer: [judge.net(image, [layer])[layer] for image in pictures] for layer in ("relu2_1", "relu3_3")}
    fx, fp, fa = read["relu3_3"]
    unit = 2 / (fp.mean((0, 2, 3)) + fa.mean((0, 2, 3)))[:, None, None].clamp(min=2e-6)
    found = judge(x, p, a)
    assert found.content == pytest.approx(float((((fx - fp) * unit) ** 2).sum() / ((fp * unit) ** 2).sum()), rel=1e-4)
    fx, fp, fa = read["relu2_1"]
    unit = 2 / (fp.mean((0, 2, 3)) + fa.mean((0, 2, 3)))[:, None, None].clamp(min=2e-6)
    gx, ga = (torch.einsum("bihw,bjhw->ij", f * unit, f * unit) for f in (fx, fa))
    assert found.style["conv2_1"] == pytest.approx(float(((gx - ga) ** 2).sum() / (ga**2).sum()), rel=1e-4)


def test_the_painting_may_have_any_shape(judge, pictures):
    x, p, _ = pictures
    assert judge(x, p, im.noise(torch.empty(1, 3, 64, 40), 9)).style_mean > 0


def scores(*pairs):
    return [Score({"conv1_1": style}, content) for content, style in pairs]


def test_style_error_at_a_content_error_lies_on_the_line_in_its_logarithm():
    assert at_content_error(scores((0.4, 0.1), (0.8, 0.001)), 0.6) == pytest.approx(0.01)
    assert at_content_error(scores((0.8, 0.001), (0.4, 0.1), (0.5, 0.05)), 0.5) == pytest.approx(0.05)
    assert at_content_error(scores((0.4, 0.1), (0.5, 0.05)), 0.6) is None
    assert at_content_error(scores((0.7, 0.1)), 0.6) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1)), min_size=2, max_size=6), st.floats(0, 1))
def test_an_interpolated_error_lies_between_the_errors(points, wanted):
    found = at_content_error(scores(*points), wanted)
    if found is not None:
        errors = [style for _, style in points]
        assert min(errors) * 0.999 <= found <= max(errors) * 1.001
