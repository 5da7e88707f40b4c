"""A recipe of a term, both defined outside the package: all that the lab does with recipes, it does
with this one."""

from dataclasses import dataclass

import pytest
from faults import refusal
from helpers import Means

import nstlab as nst
from nstlab.cli import main as cli
from nstlab.live.session import Phase
from nstlab.recipes import base
from nstlab.recipes.base import RunSettings
from nstlab.recipes.fields import first_picture, live_field, picture
from nstlab.runs import source


@pytest.fixture
def settings(small_transfer, monkeypatch):
    """Settings of a recipe that is known for the time of a test."""
    monkeypatch.setattr(base, "REGISTERED", base.known())

    @dataclass(frozen=True)
    class TintSettings(RunSettings, recipe="tint"):
        """Give PHOTO the mean activations of PAINTING."""

        photo: str = picture("content")
        painting: str = picture("style")
        strength: float = live_field(10.0, "how strongly", low=0, high=1e6, log=True)
        init: str = first_picture("content")

        def objective(self, pictures, shape):
            means = nst.term(Means, "means", ["conv1_1", "conv2_1"], image=pictures["style"])
            return nst.content("conv2_1", pictures["content"]) + self.strength * means

    same = {
        name: getattr(small_transfer, name)
        for name in ("photo", "painting", "size", "weights", "normalize", "precision")
    }
    return TintSettings(**same, steps=4)


def test_it_runs_from_the_command_line_and_is_found_again(settings, tmp_path, capsys):
    words = source.command(settings).split()[1:]
    words += ["--out", str(tmp_path / "out.png"), "--results", str(tmp_path / "results")]
    assert words[0] == "tint"
    assert cli.main(words) == 0
    assert cli.main(words) == 0
    assert "found in" in capsys.readouterr().out
    assert nst.load(tmp_path / "out.png").shape == (1, 3, 48, 40)
    assert cli.main(["tint", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Give PHOTO the mean activations of PAINTING" in said
    assert "--strength" in said


def test_a_sweep_keeps_its_runs_in_the_store(settings, tmp_path):
    sweep = nst.Sweep(settings, vary={"strength": [1.0, 100.0]})
    assert [done.found for done in sweep.run(tmp_path / "results")] == [False, False]
    assert [done.found for done in sweep.run(tmp_path / "results")] == [True, True]
    table = nst.runs("tint", where={"strength": 100.0}, root=tmp_path / "results")
    assert list(table["loss_means"] > 0) == [True]


def test_its_studio_has_its_controls_and_moves_its_weights(settings, tmp_path):
    studio = nst.Studio(settings.replace(steps=100_000), results=tmp_path / "results", device="cpu")
    try:
        studio.single()
        studio.controls.views["strength"].widget.value = 1e3
        assert studio.settings.strength == 1e3
        studio.resume()
        assert studio.wait(0.5) is Phase.RUNNING
        assert studio.session.step.weights["means"] == 1e3
        assert "--strength 1000.0" in studio.code()[1]
    finally:
        studio.close()


def test_it_changes_what_it_is_to_change_within_the_memory_there_is(settings):
    plan = nst.prepare(settings.replace(steps=30, strength=1e4))
    before, after = plan.losses([plan.start, plan.solve().image])
    assert after < 0.1 * before
    assert "needs about" in refusal(nst.prepare, settings.replace(size=4096), "cpu", budget=10**8)


def test_its_settings_are_kept_and_its_name_is_taken(settings):
    assert source.needed_fields(settings)["photo"] == settings.photo
    assert settings.from_dict(settings.to_dict()) == settings
    assert base.named("tint") is type(settings)
    assert "'tin' is not one of" in refusal(base.named, "tin")
    assert "already one called 'tint'" in refusal(type, "Other", (RunSettings,), {}, recipe="tint")
