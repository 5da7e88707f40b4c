"""Figures: what is on them, that they belong to no global state, and that files are whole and small
enough."""

import io
import sys
import threading

import numpy as np
import pandas
import pytest
import torch
from faults import refusal
from PIL import Image

import nstlab as nst
from nstlab import figures
from nstlab.figures import animation


def shown(figure):
    """The pictures on a figure, as arrays."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


def words(figure):
    """All titles and labels of axes."""
    return [
        text
        for axes in figure.axes
        for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
        if text
    ]


@pytest.fixture
def histories():
    step = np.arange(6)
    each = {
        "step": step,
        "level": [0, 0, 1, 1, 1, 1],
        "evaluations": step + 1,
        "seconds": step / 10,
        "style": step + 1.0,
    }
    return {
        name: pandas.DataFrame(each | {"loss": factor / (step + 1)})
        for name, factor in (("a $ sign", 1), ("b", 2))
    }


def test_a_contact_sheet_shows_every_picture_with_its_labels(photo, painting):
    inputs = {"photo": photo, "painting": painting}
    figure = figures.contact_sheet(
        [[photo, None], [photo, photo]], ["low", "high"], ["one", "two"], "A title", inputs
    )
    assert len(shown(figure)) == 5
    assert {"low", "high", "one", "two", "photo", "painting"} <= set(words(figure))
    assert figure.get_suptitle() == "A title"
    assert shown(figure)[0].shape == (48, 40, 3)
    assert words(
        figures.contact_sheet([[photo, photo], [photo]], ["", ""], [["a", "b"], ["c"]])
    ) == ["a", "b", "c"]
    assert words(figures.before_after(photo, painting, photo)) == ["photo", "painting", "result"]


def test_labels_have_room(photo):
    column, row = words(
        figures.contact_sheet([[photo]], ["row " * 20], ["conv1_1 conv2_1 conv3_1 conv4_1 conv5_1"])
    )
    assert column.count("\n") >= 1
    assert row.count("\n") >= 2
    tall = figures.contact_sheet(
        [[torch.rand(1, 3, 160, 20)] * 3],
        [""],
        ["one", "two", "three"],
        "A longer title of a sheet",
    )
    assert tall.get_size_inches()[0] > 3


def test_curves_are_those_of_the_full_size_on_log_axes(histories):
    figure = figures.loss_curves(histories, ("loss", "style"))
    left, right = figure.axes
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"a \$ sign", "b"]
    assert left.get_lines()[1].get_ydata().tolist() == [2 / 3, 2 / 4, 2 / 5, 2 / 6]
    assert right.get_ylabel() == "style loss"
    assert figures.loss_curves(histories, against="step").axes[0].get_xscale() == "linear"
    histories["b"] = histories["b"].drop(columns="style")  # a term that this run lacks
    assert len(figures.loss_curves(histories, ("style",)).axes[0].get_lines()) == 1
    for steps in (0, 1):
        short = figures.loss_curves({"a $ sign": histories["a $ sign"].tail(steps)})
        assert len(short.axes[0].get_lines()) == steps
        assert short._repr_png_()


def test_feature_maps_are_strong_ones_that_differ_and_matrices_share_one_scale(photo):
    maps = torch.zeros(1, 6, 12, 10)
    maps[0, 1] = torch.rand(12, 10, generator=torch.Generator().manual_seed(0))
    maps[0, 3], maps[0, 4], maps[0, 5, 4, 4] = 9 * maps[0, 1], 8 * maps[0, 1], 0.5
    figure = figures.feature_maps({"relu1_1": maps, "relu2_1": maps[..., ::2, ::2]}, photo, count=2)
    assert words(figure) == ["photo", "relu1_1\n12×10", "relu2_1\n6×5"]
    first, second = shown(figure)[1:3]
    # the strongest; not the next one, which is the same but for its strength
    assert np.array_equal(first, maps[0, 3])
    assert np.array_equal(second, maps[0, 5])
    assert len(shown(figure)) == 5
    one, tenth = shown(
        figures.matrices({"one": torch.ones(3, 3), "tenth": torch.full((3, 3), 0.1)})
    )
    assert (one == 0).all()
    assert np.allclose(tenth, -1)


def test_paths_go_through_the_valley_and_down_their_curves():
    path = np.array([[1.0, 1.0], [0.5, 0.0]])
    plane, curve = figures.valley(
        lambda p: p.square().sum(-1) + 1e-6, {"way": path}, (-1, 1), (-1, 2)
    ).axes
    assert plane.get_lines()[0].get_xydata().tolist() == path.tolist()
    assert curve.get_lines()[0].get_ydata() == pytest.approx([2, 0.25], rel=1e-4)
    assert (plane.get_xlim(), plane.get_ylim()) == ((-1, 1), (-1, 2))


@pytest.mark.parametrize(("ending", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_a_figure_is_made_and_saved_by_its_ending_in_any_thread_without_pyplot(
    ending, kind, photo, painting, tmp_path
):
    path = tmp_path / f"a.{ending}"
    thread = threading.Thread(
        target=lambda: figures.save_figure(figures.before_after(photo, painting, photo), path)
    )
    thread.start()
    thread.join()
    with Image.open(path) as picture:
        assert (picture.format, picture.width > 500) == (kind, True)
    assert list(tmp_path.iterdir()) == [path]
    assert "matplotlib.pyplot" not in sys.modules


def test_a_jpeg_is_made_to_fit_or_refused(tmp_path):
    figure = figures.contact_sheet(
        [[torch.rand(1, 3, 200, 200)] * 3] * 3, [""] * 3, ["a", "b", "c"]
    )
    free = figures.save_figure(figure, tmp_path / "a.jpg").stat().st_size
    assert figures.save_figure(figure, tmp_path / "b.jpg", free // 2).stat().st_size <= free // 2
    assert "does not fit into 1000 bytes" in refusal(
        figures.save_figure, figure, tmp_path / "c.jpg", 1000
    )
    assert not (tmp_path / "c.jpg").exists()
    assert "there is no folder" in refusal(figures.save_figure, figure, tmp_path / "none" / "a.png")


def test_receptive_fields_are_squares_in_the_middle_and_do_not_change_the_view(
    photo,
):
    figure = figures.receptive_fields(photo, {"relu1_1": 3, "relu5_1": 156}, "Fields")
    cell = figure.axes[0]
    height, width = photo.shape[-2:]
    for square, side in zip(cell.patches, (3, 156), strict=True):
        assert (square.get_width(), square.get_height()) == (side, side)
        assert square.get_center() == pytest.approx(((width - 1) / 2, (height - 1) / 2))
    assert cell.get_xlim() == (-0.5, width - 0.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "relu1_1: 3 px",
        "relu5_1: 156 px",
    ]


def test_a_film_has_the_first_and_the_last_picture_and_no_more_frames_than_it_may(
    photo, monkeypatch
):
    monkeypatch.setattr(animation, "FRAMES", 5)
    made = animation.film(
        [photo * i / 8 for i in range(9)],
        [float(9 - i) for i in range(9)],
        "A film",
        milliseconds=50,
    )
    film = Image.open(io.BytesIO(made.data))
    assert film.n_frames == 5
    brightness = []
    for i in range(5):
        film.seek(i)
        brightness.append(np.asarray(film.convert("L"))[:, : film.width // 3].mean())
    assert brightness == sorted(brightness)
    assert made._repr_html_().startswith('<img alt="a film" src="data:image/webp;base64,')


def test_a_figure_says_what_is_on_it(photo):
    for title, about in (("A title", "A title"), ("", "one, two")):
        data, metadata = figures.contact_sheet(
            [[photo, photo]], [""], ["one", "two"], title
        )._repr_mimebundle_()
        assert data["image/png"].startswith(b"\x89PNG")
        assert metadata == {"image/png": {"alt": about}}


def test_a_map_of_tiles_shows_one_of_them_bright_in_its_dimmed_halo(net):
    picture = torch.full((1, 3, 96, 128), 0.5)
    tiles = nst.tiles(net, ["conv2_1"], (96, 128), 32)
    figure = figures.tile_map(picture, tiles, 5, "Tiles")
    whole, one = shown(figure)
    window = tiles[5].window.shape
    assert (whole.shape[:2], one.shape[:2]) == ((96, 128), window)
    assert window == (40, 40)  # conv2_1 sees 4 pixels more on each side
    assert one[0, 0, 0] > one[20, 20, 0] == whole[0, 0, 0]
    assert len(figure.axes[0].patches) == len(tiles) + 2
