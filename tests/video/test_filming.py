"""What a frame takes from earlier ones."""

import pytest
import torch
from faults import refusal
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st

from nstlab.pictures import images as im
from nstlab.video.filming import FramePainter, temporal
from nstlab.video.flow import FLOWS, dis, reliable
from nstlab.video.moving import MovingScene
from nstlab.video.reference import PastFrame, Reference, alike, recolour
from nstlab.video.settings import VideoSettings, words

SHAPE = (106, 160)


@pytest.fixture(scope="module")
def pictures():
    return [im.fit(im.sample(name, 300), (200, 300)) for name in ("coffee", "chelsea")]


@pytest.fixture
def painter():
    return FramePainter(VideoSettings("clip.mp4", "mosaic", device="cpu"))


def test_what_was_seen_before_is_held_to_it_and_what_was_not_has_its_colours(painter, pictures):
    scene = MovingScene(*pictures, SHAPE)
    first, second, visible = scene.frame(4), scene.frame(5), scene.visible(5)
    painted = 1 - first
    held, part = painter.reference(second, [PastFrame(first, painted)])
    assert part == pytest.approx(float(held.reliable.mean()))
    assert ((held.picture - (1 - second)).abs() * held.reliable).mean() < 0.01
    hidden = (1 - visible).expand_as(second) > 0
    # a negative is an affine map of colours
    assert (held.picture - (1 - second)).abs()[hidden].mean() < 0.1
    assert float(held.reliable[visible == 0].mean()) < 0.2


@pytest.mark.parametrize("flow", FLOWS)
def test_the_flow_is_computed_on_the_films_device(painter, photo, monkeypatch, flow):
    asked = []

    def spy(one, other):
        asked.append((one.device.type, other.device.type))
        return torch.zeros(1, 2, *one.shape[-2:])

    monkeypatch.setitem(FLOWS, flow, spy)
    monkeypatch.setattr(painter, "settings", painter.settings.replace(flow=flow))
    monkeypatch.setattr(painter, "device", torch.device("meta"))
    held, part = painter.reference(photo, [PastFrame(photo, 1 - photo)])
    assert asked == [("meta", "meta")] * 2
    assert (part, held.picture.device.type) == (1, "cpu")
    monkeypatch.setattr("nstlab.video.filming.device", lambda name: torch.device("meta"))
    FramePainter(painter.settings)
    assert asked[2:] == [("meta", "meta")]


def test_a_scene_begins_where_too_little_was_seen(painter, pictures):
    held, part = painter.reference(pictures[0], [PastFrame(pictures[1], pictures[1])])
    assert held is None
    assert part < 0.3
    assert painter.reference(pictures[0], []) == (None, 0.0)


def test_what_the_nearest_frame_does_not_show_is_taken_from_one_before(painter, pictures):
    scene = MovingScene(*pictures, SHAPE)
    first, second = scene.frame(4), scene.frame(5)
    near, _ = painter.reference(second, [PastFrame(first, first)])
    both, _ = painter.reference(
        second, [PastFrame(first, first), PastFrame(second, torch.zeros_like(second))]
    )
    added = both.reliable - near.reliable
    assert added.min() >= 0
    assert added.mean() > 0.02
    assert (both.picture * added).abs().max() == 0
    assert torch.equal(both.picture * near.reliable, near.picture * near.reliable)


def test_what_has_come_into_sight_lately_is_held_less_until_it_is_painted(painter, pictures):
    scene = MovingScene(*pictures, SHAPE)
    far, near, now = (scene.frame(i) for i in (2, 4, 5))
    held, _ = painter.reference(now, [PastFrame(near, near), PastFrame(far, far)])
    flow = dis(now, far)
    old = reliable(flow, dis(far, now))
    assert 0.02 < float((held.reliable * (1 - old)).mean()) < 0.5
    torch.testing.assert_close(held.temporal_weight, held.reliable * (0.1 + 0.9 * old))
    alone, _ = painter.reference(now, [PastFrame(near, near)])
    assert torch.equal(alone.temporal_weight, alone.reliable)


def test_colours_are_mapped_as_they_are_where_it_is_known(pictures):
    photo, weight = im.resize(pictures[0], SHAPE), torch.zeros(1, 1, *SHAPE)
    weight[..., :80] = 1
    painted = 0.2 + 0.5 * photo.flip(1)
    painted[..., 80:] = 0
    torch.testing.assert_close(
        recolour(photo, painted, weight), 0.2 + 0.5 * photo.flip(1), rtol=0, atol=1e-3
    )
    other = photo.clone()
    other[..., :40] += 0.5
    found = alike(photo, other)
    assert found[..., :38].max() == 0
    assert found[..., 42:].min() == 1


def test_blends_and_the_temporal_term_are_of_what_can_be_relied_on(photo):
    where = torch.zeros_like(photo[:, :1])
    where[..., :20, :] = 1
    held = Reference(torch.ones_like(photo), where, where)
    blended = held.blend_over(photo, 0.25)
    torch.testing.assert_close(blended[..., :20, :], photo[..., :20, :].lerp(torch.ones(()), 0.25))
    assert torch.equal(blended[..., 20:, :], photo[..., 20:, :])
    assert next(iter(temporal(held).weights)) == "temporal"


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@checks(max_examples=15)
@given(st.lists(NAME, max_size=3))
def test_what_is_written_for_a_film_is_read_again_whatever_its_names_hold(names):
    film = VideoSettings(
        "clip.mp4", "a, b.jpg", parameters=words({"more_paintings": names, "seed": 3})
    )
    frame = film.frame_settings("photo.png", 60)
    assert (frame.more_paintings, frame.seed, frame.painting, frame.size) == (
        tuple(names),
        3,
        "a, b.jpg",
        60,
    )


def test_names_with_commas_are_files_or_stand_in_quotes(tmp_path, photo):
    path = im.save(photo, tmp_path / "a, b.png")

    def read(name, line):
        return getattr(
            VideoSettings("clip.mp4", "mosaic", parameters=(name, line)).frame_settings("photo"),
            name,
        )

    assert read("more_paintings", str(path)) == (str(path),)
    assert read("more_paintings", f'"{path}",mosaic') == (str(path), "mosaic")
    assert read("style_layers", "conv1_1,conv2_1") == ("conv1_1", "conv2_1")
    assert read("init", "a, b.png") == "a, b.png"
    assert "quotes that do not match" in refusal(read, "more_paintings", '"a, b.png')
