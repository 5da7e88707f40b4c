"""Controls: one for every field of every recipe, that shows, changes and refuses what the field does."""

import dataclasses

import ipywidgets as w
import pytest

from nstlab.controls import Controls
from nstlab.settings import RECIPES, InputError, ReconstructSettings, TextureSettings, TransferSettings, option

MADE = {
    "transfer": TransferSettings("coffee", "mosaic"),
    "reconstruct": ReconstructSettings("coffee"),
    "texture": TextureSettings("mosaic"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_field_has_a_control_with_its_help(recipe):
    controls = Controls(MADE[recipe])
    for name, _, opt in MADE[recipe].options():
        widget = controls.widgets[name]
        assert widget.description.startswith(name.replace("_", " "))
        assert widget.tooltip.startswith(opt.help)
        if opt.unit:
            assert opt.unit in widget.description
    assert controls.settings() == MADE[recipe]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 256, "steps": 10},
        {"levels": 3},
        {"pool": "max", "optimizer": "adam", "learning_rate": 0.5},
        {"style_layers": ("conv1_1", "conv2_1"), "style_weights": (1.0, 0.25)},
        {"content_layers": ("relu4_2",)},
        {"rescale_pool": True, "normalize": False},
        {"stop_loss": 0.5, "tv": 0.01},
        {"init": "some/file.png", "photo": "chelsea"},
        {"alpha": 2.0, "beta": 1e5},
    ],
)
def test_controls_show_settings_and_give_them_back(changes):
    controls, wanted = Controls(MADE["transfer"]), MADE["transfer"].replace(**changes)
    controls.show(wanted)
    assert controls.settings() == wanted
    fresh = Controls(wanted)
    assert fresh.settings() == wanted


def test_a_moved_control_changes_its_field_and_is_told():
    controls, told = Controls(MADE["transfer"]), []
    controls.observe(told.append)
    controls.widgets["size"].value = 128
    controls.widgets["pool"].value = "l2"
    controls.widgets["style_weights"].value = "1, 2 3 4 5"
    controls.widgets["stop_change"].value = "0.01"
    found = controls.settings()
    assert (found.size, found.pool, found.style_weights, found.stop_change) == (128, "l2", (1, 2, 3, 4, 5), 0.01)
    assert told == ["size", "pool", "style_weights", "stop_change"]
    controls.widgets["stop_change"].value = " "
    assert controls.settings().stop_change is None


def test_small_moves_of_large_numbers_are_seen():
    controls = Controls(MADE["transfer"].replace(beta=1234567.0))
    controls.widgets["beta"].value = "1234568"
    assert controls.settings().beta == 1234568


def test_another_convention_brings_its_weights():
    controls = Controls(MADE["transfer"])
    controls.widgets["convention"].value = "tutorial"
    assert controls.settings() == MADE["transfer"].replace(convention="tutorial")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("style_weights", "1 2", "style_weights: 2 given for 5"),
        ("stop_loss", "low", "stop_loss: 'low'"),
        ("style_layers", (), "style_layers"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(name, value, says):
    controls = Controls(MADE["transfer"])
    controls.widgets[name].value = value
    if name == "style_layers":  # none chosen: the convention's
        assert controls.settings() == MADE["transfer"]
        return
    with pytest.raises(InputError, match=says):
        controls.settings()


def test_ranges_are_the_fields():
    widgets = Controls(MADE["transfer"]).widgets
    assert (widgets["size"].min, widgets["size"].max) == (16, 16384)
    widgets["size"].value = 3
    assert widgets["size"].value == 16


def test_a_new_field_shows_up_by_itself():
    @dataclasses.dataclass(frozen=True)
    class More(TransferSettings):
        warmth: float = option(0.5, "how warm", low=0, high=1, unit="K")

    controls = Controls(More("coffee", "mosaic"))
    assert controls.widgets["warmth"].description == "warmth (K)"
    controls.widgets["warmth"].value = 0.75
    assert controls.settings().warmth == 0.75


def test_a_box_holds_the_named_controls():
    controls = Controls(MADE["transfer"])
    assert controls.box(["size", "pool"]).children == (controls.widgets["size"], controls.widgets["pool"])
    assert len(controls.box().children) == len(controls.widgets)
    assert isinstance(controls.widgets["levels"], w.IntSlider)


def moved(name, **changes):
    """Controls of a transfer, and the master of a field."""
    controls = Controls(MADE["transfer"].replace(**changes))
    return controls, next(master for master in controls.masters if master.field == name)


def test_the_ratio_moves_beta():
    controls, ratio = moved("beta", alpha=2.0)
    ratio.widget.value = 1e-4
    assert (controls.settings().alpha, controls.settings().beta) == (2.0, 2e4)
    controls.show(MADE["transfer"].replace(beta=10.0))
    assert ratio.widget.value == pytest.approx(0.1)


def test_the_ratio_brings_a_photo_back():
    controls, ratio = moved("beta", alpha=0.0)
    ratio.widget.value = 1e-2
    assert (controls.settings().alpha, controls.settings().beta) == (1.0, 100.0)


def test_a_slider_that_rounds_what_it_shows_moves_nothing():
    exact = MADE["transfer"].replace(beta=300.0, style_weights=(1 / 3, 0.1234, 0.2, 0.2, 0.2), learning_rate=0.0123)
    controls = Controls(exact)
    ratio, equalizer = controls.masters[0], controls.masters[2]
    ratio.widget.value = 10**-2.5  # the nearest of its steps, which browsers send back
    controls.widgets["learning_rate"].value = 10**-1.9
    equalizer.sliders[0].value = 0.33
    assert controls.settings() == exact
    equalizer.sliders[0].value = 0.5
    assert controls.settings() == exact.replace(style_weights=(0.5, 0.1234, 0.2, 0.2, 0.2))


def test_layers_come_and_go_and_the_others_keep_their_weights():
    controls, equalizer = moved("style_weights")
    controls.widgets["style_layers"].value = ("conv1_1", "conv2_1", "conv3_1")
    assert [slider.value for slider in equalizer.sliders] == pytest.approx([1 / 3] * 3)
    equalizer.sliders[1].value = 1.0
    controls.widgets["style_layers"].value = ("conv2_1", "conv3_1", "conv4_1")
    found = controls.settings()
    assert found.style_weights == pytest.approx((1.0, 1 / 3, (1 + 2 / 3) / 3))
    assert [slider.tooltip for slider in equalizer.sliders] == list(found.style_layers)
    controls.widgets["style_layers"].value = ()
    assert controls.settings() == MADE["transfer"]


def test_a_menu_that_gets_another_choice_tells_only_of_that():
    controls, told = Controls(MADE["transfer"], {"photo": ["astronaut", "coffee"]}), []
    controls.observe(lambda name: told.append((name, controls.settings().photo)))
    controls.set("photo", "/some/where/cat.png")
    assert told == [("photo", "/some/where/cat.png")]
    assert controls.widgets["photo"].options[-1] == ("cat.png", "/some/where/cat.png")


def test_several_content_layers_can_be_shown():
    controls, layer = moved("content_layers")
    controls.show(MADE["transfer"].replace(content_layers=("conv3_2", "conv4_2")))
    assert layer.widget.label == "conv3_2 + conv4_2"
    layer.widget.value = ("conv1_1",)
    assert controls.settings().content_layers == ("conv1_1",)


def test_a_panel_has_masters_first_and_nothing_twice():
    controls = Controls(MADE["transfer"])
    panel = controls.panel(["alpha", "beta", "tv", "size"])
    assert panel == [controls.masters[0].widget, controls.masters[3].widget, controls.widgets["size"]]
