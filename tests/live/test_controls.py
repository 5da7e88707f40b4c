"""Controls: one value, and a view for every field of every recipe that shows, changes and refuses
what the field does."""

import dataclasses
from pathlib import PureWindowsPath

import ipywidgets as w
import pytest

import nstlab as nst
from nstlab.base.options import option
from nstlab.live import special
from nstlab.live.controls import Controls
from nstlab.live.special import SPECIAL, MixView
from nstlab.recipes.base import known
from nstlab.recipes.photoreal import PhotorealSettings
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.sketch import SketchSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings

TRANSFER = TransferSettings("coffee", "mosaic")
MADE = {
    "transfer": TRANSFER, "reconstruct": ReconstructSettings("coffee"),
    "texture": TextureSettings("mosaic"),
    "sketch": SketchSettings("coffee", "mosaic"),
    "photoreal": PhotorealSettings("coffee", "rocket"),
}  # fmt: skip


@pytest.fixture
def told():
    return []


@pytest.fixture
def controls(told):
    """Controls that tell of each change and each refusal."""
    return Controls(TRANSFER, {"photo": ["astronaut", "coffee"]}, told.append, told.append)


def test_every_field_of_every_recipe_has_a_view_with_its_help():
    assert set(MADE) == set(known())
    for settings in MADE.values():
        controls = Controls(settings)
        for name, _, opt in settings.options():
            if not isinstance(controls.views[name], tuple(SPECIAL.values())):
                widget = controls.views[name].widget
                assert widget.description.startswith(name.replace("_", " "))
                assert widget.tooltip.startswith(opt.help)
                assert opt.unit in widget.description
        assert controls.settings == settings


@pytest.mark.parametrize(
    "changes",
    [
        {
            "size": 256,
            "steps": 10,
            "levels": 3,
            "pool": "max",
            "optimizer": "adam",
            "learning_rate": 0.5,
        },
        {
            "style_layers": ("conv1_1", "conv2_1"),
            "style_weights": (1.0, 0.25),
            "content_layers": ("relu4_2",),
        },
        {"rescale_pool": True, "normalize": False, "stop_loss": 0.5, "tv": 0.01},
        {"init": "some/file.png", "photo": "chelsea", "alpha": 2.0, "beta": 1 / 3},
        {
            "more_paintings": ("swirl_strokes", "my/file.jpg"),
            "mix": (0.5, 0.25, 0.0),
            "mix_layers": ("conv1_1", "conv2_1", "3"),
        },
    ],
)
def test_what_is_shown_is_what_each_view_says_and_moves_nothing(changes, controls, told):
    wanted = TRANSFER.replace(**changes)
    controls.show(wanted)
    assert controls.settings == wanted
    assert [view.changes(wanted) for view in controls.views.values() if view.changes(wanted)] == []
    for name in ("size", "levels", "pool", "stop_loss", "rescale_pool", "style_layers", "photo"):
        assert wanted.replace(**controls.views[name].read(wanted)) == wanted
    assert told == []


def test_a_moved_widget_changes_its_field_and_is_told(controls, told):
    for name, value in {"size": 128, "pool": "l2", "stop_change": "0.01"}.items():
        controls.views[name].widget.value = value
    assert controls.settings == TRANSFER.replace(size=128, pool="l2", stop_change=0.01)
    assert told == [["size"], ["pool"], ["stop_change"]]
    controls.views["stop_change"].widget.value = " "
    assert controls.settings.stop_change is None
    controls.views["stop_loss"].widget.value = "low"  # which is refused and taken back
    assert "stop_loss: 'low'" in str(told[-1])
    assert (len(told), controls.settings.stop_loss, controls.views["stop_loss"].widget.value) == (
        5,
        None,
        "",
    )
    controls.views["size"].widget.value = 3  # below the field's range
    assert (controls.settings.size, controls.views["size"].widget.max) == (16, 16384)
    assert isinstance(controls.views["levels"].widget, w.IntSlider)
    controls.show(TRANSFER)
    controls.views["convention"].widget.value = "tutorial"  # which brings its weights
    assert controls.settings == TRANSFER.replace(convention="tutorial")
    assert controls.views["style_layers"].widget.value == controls.settings.style_layers
    assert {"convention", "beta", "style_layers"} <= set(told[-1])
    special_first_and_each_once = [
        controls.views[name].widget for name in ("beta", "style_weights", "size")
    ]
    assert (
        controls.widgets(["size", "style_weights", "alpha", "beta"]) == special_first_and_each_once
    )


@pytest.mark.parametrize("name", [*vars(TRANSFER)])
def test_any_value_is_taken_or_refused_and_then_nothing_has_changed(controls, name):
    before = TRANSFER.replace(style_weights=(1.0,) * 5)
    for value in (5, -0.5, None, "4", "no such", ("a", 3), [], {"a": 1}, b"x", object):
        controls.show(before)
        try:
            controls.change(**{name: value})
        except nst.InputError:
            assert controls.settings == before, value


def test_a_new_field_shows_up_by_itself():
    @dataclasses.dataclass(frozen=True)
    class More(TransferSettings):
        warmth: float = option(0.5, "how warm", low=0, high=1, unit="K")
        shares: tuple[float, ...] = option((0.5, 0.25), "how much")

    controls = Controls(More("coffee", "mosaic"))
    assert controls.views["warmth"].widget.description == "warmth (K)"
    controls.views["warmth"].widget.value = 0.75
    assert controls.views["shares"].widget.value == "0.5 0.25"
    controls.views["shares"].widget.value = "1, 2 3"
    assert controls.settings == More("coffee", "mosaic", warmth=0.75, shares=(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("before", "moved", "after"),
    [
        ({"alpha": 2.0}, 1e-4, {"alpha": 2.0, "beta": 2e4}),
        ({"alpha": 0.0}, 1e-2, {"alpha": 1.0, "beta": 100.0}),  # the photo comes back
        ({"beta": 0.0}, 1e-2, {"beta": 100.0}),
    ],
)
def test_the_ratio_moves_beta(before, moved, after):
    controls = Controls(TRANSFER.replace(**before))
    controls.views["beta"].widget.value = moved
    assert controls.settings == TRANSFER.replace(**after)
    controls.show(TRANSFER.replace(beta=10.0))
    assert controls.views["beta"].widget.value == pytest.approx(0.1)


@pytest.mark.parametrize("exact", [{"alpha": 0.0}, {"beta": 0.0}, {"beta": 1e15}])
def test_a_ratio_beyond_the_sliders_reach_is_at_its_end_and_stays(exact, told):
    slider = Controls(TRANSFER.replace(**exact), None, told.append).views["beta"].widget
    assert slider.value == pytest.approx(
        10 ** (slider.max if exact.get("beta") == 0 else slider.min)
    )
    slider.value *= 1.01 if slider.value < 1 else 0.99  # what a browser makes of it
    assert told == []


def test_a_slider_that_rounds_what_it_shows_moves_nothing():
    exact = TRANSFER.replace(
        beta=300.0, style_weights=(1 / 3, 0.1234, 0.2, 0.2, 0.2), learning_rate=0.0123, tv=0.0011
    )
    controls = Controls(exact)
    assert controls.views["tv"].widget.value == 0.001
    # the nearest of its steps, which browsers send back
    controls.views["beta"].widget.value = 10**-2.5
    controls.views["learning_rate"].widget.value = 10**-1.9
    sliders = controls.views["style_weights"].sliders
    sliders[0].value = 0.33
    assert controls.settings == exact
    sliders[0].value = 0.5
    controls.views["tv"].widget.value = 0.1
    assert controls.settings == exact.replace(style_weights=(0.5, 0.1234, 0.2, 0.2, 0.2), tv=0.1)


def test_layers_come_and_go_and_the_others_keep_their_weights(controls):
    layers, equalizer = controls.views["style_layers"].widget, controls.views["style_weights"]
    for value in (("conv2_1",), ()):  # no layer at all is the convention's
        layers.value = value
    assert controls.settings == TRANSFER
    layers.value = ("conv1_1", "conv2_1", "conv3_1")
    assert [slider.value for slider in equalizer.sliders] == pytest.approx([1 / 3] * 3)
    equalizer.sliders[1].value = 1.0
    layers.value = ("conv2_1", "conv3_1", "conv4_1")
    found = controls.settings
    assert found.style_weights == pytest.approx((1.0, 1 / 3, (1 + 2 / 3) / 3))
    assert [slider.tooltip for slider in equalizer.sliders] == list(found.style_layers)


def test_a_menu_gets_another_choice(controls, told):
    controls.change(photo="/some/where/cat.png")
    assert (told, controls.settings.photo) == ([["photo"]], "/some/where/cat.png")
    assert controls.views["photo"].widget.options[-1] == ("cat.png", "/some/where/cat.png")
    controls.show(TRANSFER.replace(content_layers=("conv3_2", "conv4_2")))
    layer = controls.views["content_layers"].widget
    assert layer.label == "conv3_2 + conv4_2"
    layer.value = ("conv1_1",)
    assert controls.settings.content_layers == ("conv1_1",)


def test_a_mixture_has_a_slider_for_each_painting_and_other_paintings_begin_with_equal_shares(
    controls, told
):
    mix, more = controls.views["mix"], controls.views["more_paintings"].widget
    assert (mix.sliders, mix.widget.layout.display) == ([], "none")
    more.value = "swirl_strokes, some/where/waves.jpg"
    assert controls.settings.more_paintings == ("swirl_strokes", "some/where/waves.jpg")
    assert [slider.tooltip for slider in mix.sliders] == ["mosaic", "swirl_strokes", "waves"]
    assert [slider.value for slider in mix.sliders] == pytest.approx([1 / 3] * 3)
    assert mix.widget.layout.display is None
    mix.sliders[2].value = 0.9
    assert controls.settings.mix == pytest.approx((1 / 3, 1 / 3, 0.9))
    assert told == [["more_paintings"], ["mix"]]
    more.value = "swirl_strokes"
    assert (controls.settings.mix, [slider.tooltip for slider in mix.sliders]) == (
        (),
        ["mosaic", "swirl_strokes"],
    )
    for slider in mix.sliders:
        slider.value = 0.0
    assert "all shares are 0" in str(told[-1])
    assert controls.settings.mix == (0.0, 0.5)


def test_what_means_nothing_is_hidden_until_it_does(controls):
    def hidden():
        return {
            name
            for name in ("mix", "mix_layers", "region_weights")
            if controls.views[name].widget.layout.display == "none"
        }

    assert hidden() == {"mix", "mix_layers", "region_weights"}
    controls.change(more_paintings=("mosaic",))
    assert hidden() == {"region_weights"}
    controls.change(more_paintings=(), regions=3)
    assert hidden() == {"mix", "mix_layers"}


def test_a_file_is_shown_by_its_name_on_any_system(small_transfer, tmp_path, monkeypatch):
    settings = small_transfer.replace(photo=f"{tmp_path.as_posix()}/photo.png")
    monkeypatch.setattr("os.sep", "\\")  # as on Windows, where both will do
    widget = Controls(settings, {"photo": ("coffee",)}).views["photo"].widget
    assert [label for label, _ in widget.options] == ["coffee", "photo.png"]


def test_paintings_are_labelled_by_their_names_in_paths_of_every_system(monkeypatch):
    settings = TransferSettings(
        "coffee", "/paintings/a.b.jpg", more_paintings=("mosaic", "~nobody/c")
    )
    assert MixView().labels(settings) == ["a.b", "mosaic", "c"]
    monkeypatch.setattr(special, "Path", PureWindowsPath)
    settings = settings.replace(painting="C:\\gfx\\a.jpg", more_paintings=("C:/gfx/b.jpg",))
    assert MixView().labels(settings) == ["a", "b"]
