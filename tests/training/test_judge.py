import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nstlab import images as im
from nstlab.method.names import rectified
from nstlab.method.weights import TORCHVISION, Weights, random_weights
from nstlab.settings import InputError
from training.judge import Judge, at_content_error


@pytest.fixture(scope="module")
def judge():
    return Judge(random_weights(3, (4, 5, 6, 7, 8)))


@pytest.fixture(scope="module")
def pictures():
    return [im.white_noise(torch.empty(1, 3, 40, 48), seed) for seed in range(3)]


def test_the_photo_itself_has_no_content_error_and_the_painting_no_style_error(judge, pictures):
    photo, painting, _ = pictures
    assert judge(photo, photo, painting).content == {"conv3_3": 0, "conv4_1": 0}
    assert judge(painting, photo, painting).style == dict.fromkeys(("conv1_1", "conv2_1", "conv3_1", "conv4_1"), 0)
    assert min(judge(photo, photo, painting).style.values()) > 0 < min(judge(painting, photo, painting).content.values())


@pytest.mark.parametrize(("style", "content"), [("conv2_1", "conv3_3"), ("conv4_1", "conv4_1")])
def test_errors_are_relative_to_the_target_and_by_the_definition(judge, pictures, style, content):
    read = {layer: [judge.net(image, [layer])[layer] for image in pictures] for layer in map(rectified, (style, content))}
    found = judge(*pictures)

    def in_units(layer):
        _, p, a = read[layer]
        unit = 2 / (p.mean((0, 2, 3)) + a.mean((0, 2, 3)))[:, None, None].clamp(min=2e-6)
        return [f * unit for f in read[layer]]

    fx, fp, _ = in_units(rectified(content))
    assert found.content[content] == pytest.approx(float(((fx - fp) ** 2).sum() / (fp**2).sum()), rel=1e-4)
    gx, _, ga = (torch.einsum("bihw,bjhw->ij", f, f) for f in in_units(rectified(style)))
    assert found.style[style] == pytest.approx(float(((gx - ga) ** 2).sum() / (ga**2).sum()), rel=1e-4)
    assert found.pair == (found.content["conv3_3"], pytest.approx(sum(list(found.style.values())[:3]) / 3))
    assert found.deep == (found.content["conv4_1"], found.style["conv4_1"])


def test_weights_of_three_blocks_judge_what_they_reach(pictures):
    tensors = random_weights(3, (4, 5, 6, 7, 8)).tensors
    short = Judge(Weights({k: t for k, t in tensors.items() if k < "conv4"}, TORCHVISION, "three blocks"))
    found = short(*pictures)
    assert set(found.style) == {"conv1_1", "conv2_1", "conv3_1"}
    assert all(map(math.isnan, found.deep))
    with pytest.raises(InputError, match="end at conv3_2"):
        Judge(Weights({k: t for k, t in tensors.items() if k < "conv3_3"}, TORCHVISION, "too few"))


def test_the_painting_may_have_any_shape(judge, pictures):
    x, p, _ = pictures
    assert judge(x, p, im.white_noise(torch.empty(1, 3, 64, 40), 9)).style_mean > 0


def test_style_error_at_a_content_error_lies_on_the_line_in_its_logarithm():
    assert at_content_error([(0.4, 0.1), (0.8, 0.001)], 0.6) == pytest.approx(0.01)
    assert at_content_error([(0.8, 0.001), (0.4, 0.1), (0.5, 0.05)], 0.5) == pytest.approx(0.05)
    assert at_content_error([(0.4, 0.1), (0.5, 0.05)], 0.6) is None
    assert at_content_error([(0.7, 0.1)], 0.6) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-6, 1)), min_size=2, max_size=6), st.floats(0, 1))
def test_an_interpolated_error_lies_between_the_errors(points, wanted):
    found = at_content_error(points, wanted)
    if found is not None:
        errors = [style for _, style in points]
        assert min(errors) * 0.999 <= found <= max(errors) * 1.001
