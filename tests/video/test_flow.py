"""Optical flow: exact motions of real photos, and where a flow can be relied on."""

import pytest
import torch
from faults import refusal

from nstlab.pictures import images as im
from nstlab.video import flow as flows
from nstlab.video.filming import FramePainter
from nstlab.video.flow import dis, end_point_error, raft, reliable, temporal_error, warped
from nstlab.video.moving import MovingScene
from nstlab.video.settings import VideoSettings

SHAPE = (212, 320)
STILL = {"move": (0.0, 0.0), "zoom": 1.0, "turn": 0.0}
MOTIONS = {
    "pan": {"move": (6.0, -3.5)},
    "zoom": {"zoom": 1.03},
    "rotation": {"turn": 3.0},
    "all": {"zoom": 1.02, "turn": 1.5, "move": (5.0, 2.0)},
}


@pytest.fixture(scope="module")
def pictures():
    return [im.fit(im.sample(name, 500), (340, 500)) for name in ("coffee", "chelsea")]


def test_a_picture_is_read_where_the_flow_points_and_at_the_edge_beyond_it(photo):
    whole = torch.zeros(1, 2, *photo.shape[-2:])
    whole[:, 0], whole[:, 1] = 3, -2
    moved = warped(photo, whole)
    torch.testing.assert_close(moved[..., 2:, :-3], photo[..., :-2, 3:])
    torch.testing.assert_close(moved[..., :2, -1], photo[..., :1, -1].expand(1, 3, 2))
    half = warped(photo, torch.full_like(whole, 0.5))
    torch.testing.assert_close(half[..., 0, 0], photo[..., :2, :2].mean((-2, -1)))


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_motion_of_a_photo_and_of_what_moves_before_it_is_found(pictures, motion):
    scene = MovingScene(*pictures, SHAPE, **STILL | MOTIONS[motion])
    (first, second), true, visible = map(scene.frame, (4, 5)), scene.flow(5), scene.visible(5)
    assert temporal_error(second, first, true, visible) < 3e-4
    found, back = dis(second, first), dis(first, second)
    assert end_point_error(found, true, visible) < 0.3  # pixels
    where = reliable(found, back)
    assert end_point_error(found, true, where) < 0.2
    assert float((where * visible).sum() / visible.sum()) > 0.95
    # of what was hidden or is new
    assert float((where * (1 - visible)).sum() / (1 - visible).sum()) < 0.15
    assert (
        temporal_error(second, first, found, where)
        < 1e-3
        < temporal_error(second, first, 0 * found, where)
    )


def test_a_flow_is_not_relied_on_where_things_part_or_beyond_the_edge(pictures):
    scene = MovingScene(*pictures, SHAPE, **STILL)
    flow = scene.flow(5)
    edge = scene.covered(5) - MovingScene(*pictures, SHAPE, **STILL, radius=0.18).covered(5)
    assert reliable(flow, -flow)[edge > 0].mean() < 0.5
    still = torch.zeros(1, 2, *SHAPE)
    assert reliable(still, still).min() == 1
    beyond = still.clone()
    beyond[:, 0] = 30
    assert reliable(beyond, -beyond)[..., -30:].max() == 0
    assert reliable(beyond, -beyond)[..., :-30].min() == 1


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (20, 400)], ids=str)
def test_frames_of_any_size_have_a_flow(shape):
    one = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    found = dis(one, one)
    assert found.shape == (1, 2, *shape)
    assert end_point_error(found, torch.zeros_like(found)) < 0.5


def test_raft_is_refused_without_its_weights_and_used_with_them(pictures, monkeypatch, tmp_path):
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    flows._raft.cache_clear()
    small, fitting = (
        [im.resize(each, shape) for each in pictures] for shape in ((96, 130), (128, 136))
    )
    message = refusal(raft, *small)
    assert "choose dis, or get them (20 MB) with: nstlab fetch --network raft_large" in message
    # before anything is painted
    assert refusal(FramePainter, VideoSettings("clip.mp4", "mosaic", flow="raft")) == message
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    net, path = (
        raft_large().eval(),
        tmp_path / "checkpoints" / Raft_Large_Weights.DEFAULT.url.rpartition("/")[2],
    )
    path.write_bytes(b"half a file")
    assert str(path) in refusal(raft, *small)
    torch.save({"a": torch.zeros(1)}, path)
    assert "does not hold RAFT's weights" in (message := refusal(raft, *small))
    assert message.endswith("nstlab fetch --network raft_large")
    torch.save(net.state_dict(), path)
    with torch.no_grad():
        expected = net(*Raft_Large_Weights.DEFAULT.transforms()(*fitting))[-1]
    torch.testing.assert_close(raft(*fitting), expected)
    found = raft(*small)
    assert found.shape == (1, 2, 96, 130)
    assert found.isfinite().all()
    flows._raft.cache_clear()
