"""Settings as code: what is written makes the same settings again."""

import shlex

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstlab import cli, commandline
from nstlab.method.conventions import CONVENTIONS
from nstlab.method.names import POOLS
from nstlab.recipes.base import INITS
from nstlab.recipes.reconstruct import ReconstructSettings
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import source

EXAMPLES = [
    TransferSettings("coffee", "mosaic"),
    TransferSettings("my photo.jpg", "it's; rm -rf.png", size=256, alpha=0.1, beta=1 / 3, tv=1e-7),
    TransferSettings("coffee", "mosaic", convention="tutorial", beta=1e3, normalize=True),
    TransferSettings("coffee", "mosaic", rescale_pool=True, normalize=False, stop_loss=0.5, init="some/start.png"),
    TransferSettings("coffee", "mosaic", style_layers=("conv1_1", "relu3_2"), style_weights=(0.0, 2.5), content_layers=()),
    TransferSettings("-photo.png", "--painting", init="-start.png"),
    ReconstructSettings("coffee", layer="conv2_1", weights="a b.safetensors", seed=5),
    TextureSettings("mosaic", optimizer="adam", learning_rate=0.123456789, levels=3),
]


def check(settings):
    """Check that script and command make the settings again."""
    names = {}
    exec(source.python(settings).split("plan =")[0], names)
    assert names["settings"] == settings
    _, made = commandline.parse(cli.commands(), shlex.split(source.command(settings))[1:], "nstlab")
    assert made[0] == settings


@pytest.mark.parametrize("settings", EXAMPLES, ids=range(len(EXAMPLES)))
def test_what_is_written_makes_the_settings_again(settings):
    check(settings)


numbers = st.floats(0, 1e9, allow_subnormal=False)


@hypothesis.settings(max_examples=40)
@given(
    st.builds(
        TransferSettings,
        photo=st.sampled_from(("coffee", "a b.png")),
        painting=st.just("mosaic"),
        size=st.integers(16, 4096),
        alpha=numbers.filter(bool),
        beta=numbers.filter(bool),
        tv=st.none() | numbers,
        convention=st.sampled_from(tuple(CONVENTIONS)),
        pool=st.sampled_from(POOLS),
        rescale_pool=st.booleans(),
        normalize=st.none() | st.booleans(),
        stop_change=st.none() | st.floats(0, 1),
        init=st.sampled_from(INITS),
    )
)
def test_any_settings_come_back(settings):
    check(settings)


def test_only_what_differs_is_written():
    assert source.command(TransferSettings("coffee", "mosaic")) == "nstlab transfer coffee mosaic"
    assert source.needed_fields(TransferSettings("coffee", "mosaic", beta=20.0, size=256)).keys() == {
        "photo",
        "painting",
        "size",
    }
    assert "--device cuda" in source.command(EXAMPLES[0], "cuda")
    assert "prepare(settings, 'cuda')" in source.python(EXAMPLES[0], "cuda")


def test_the_script_paints(tmp_path, monkeypatch, tiny_file, capsys):
    monkeypatch.chdir(tmp_path)
    settings = TransferSettings("coffee", "mosaic", size=32, steps=2, weights=str(tiny_file), normalize=False)
    exec(source.python(settings, "cpu"), {})
    assert (tmp_path / "picture.png").is_file()
    assert len(capsys.readouterr().out.splitlines()) == 3
