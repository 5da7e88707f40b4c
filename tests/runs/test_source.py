"""Settings as code: what is written makes the same settings again."""

import shlex

import pytest

from nstlab.cli import main as cli
from nstlab.cli import program
from nstlab.method.conventions import CONVENTIONS
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import source

OTHER = {
    "alpha": 5.0,
    "beta": 1e3,
    "tv": 0.0,
    "normalize": True,
    "init": "content",
    "pool": "l2",
    "stop_change": 0.0,
}
EXAMPLES = [
    TransferSettings("coffee", "mosaic"),
    TransferSettings("my photo.jpg", "it's; rm -rf.png", size=256, alpha=0.1, beta=1 / 3, tv=1e-7),
    TransferSettings("coffee", "mosaic", convention="tutorial", beta=1e3, normalize=True),
    TransferSettings(
        "coffee", "mosaic", rescale_pool=True, normalize=False, stop_loss=0.5, init="some/start.png"
    ),
    TransferSettings(
        "coffee",
        "mosaic",
        style_layers=("conv1_1", "relu3_2"),
        style_weights=(0.0, 2.5),
        content_layers=(),
    ),
    TransferSettings("-photo.png", "--painting", init="-start.png"),
    ReconstructSettings("coffee", layer="conv2_1", weights="a b.safetensors", seed=5),
    TextureSettings("mosaic", optimizer="adam", learning_rate=0.123456789, levels=3),
    *[TransferSettings("coffee", "mosaic", convention=name) for name in CONVENTIONS],
    *[TransferSettings("coffee", "mosaic", convention=name, **OTHER) for name in CONVENTIONS],
]


@pytest.mark.parametrize("settings", EXAMPLES, ids=range(len(EXAMPLES)))
def test_script_and_command_make_the_settings_again(settings):
    names = {}
    exec(source.python(settings).split("plan =")[0], names)
    assert names["settings"] == settings
    _, made = program.parse(cli.commands(), shlex.split(source.command(settings))[1:], "nstlab")
    assert made[0] == settings


def test_only_what_differs_is_written():
    assert source.command(TransferSettings("coffee", "mosaic")) == "nstlab transfer coffee mosaic"
    fields = source.needed_fields(TransferSettings("coffee", "mosaic", beta=20.0, size=256))
    assert list(fields) == ["photo", "painting", "size"]
    assert "--device cuda" in source.command(EXAMPLES[0], "cuda")
    assert "prepare(settings, 'cuda')" in source.python(EXAMPLES[0], "cuda")


def test_the_script_paints(tmp_path, monkeypatch, tiny_file, capsys):
    monkeypatch.chdir(tmp_path)
    settings = TransferSettings(
        "coffee", "mosaic", size=32, steps=2, weights=str(tiny_file), normalize=False
    )
    exec(source.python(settings, "cpu"), {})
    assert (tmp_path / "picture.png").is_file()
    assert len(capsys.readouterr().out.splitlines()) == 3
