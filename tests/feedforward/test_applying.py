"""`nstlab apply`: photos and folders in, pictures out; nothing lost."""

import pytest
import torch
from helpers import smooth

from nstlab import cli
from nstlab import images as im


@pytest.fixture
def apply(model, photo, tmp_path, capsys):
    """A function that runs the command on words, and returns (exit code, all that was said)."""
    model.save(tmp_path / "m.safetensors"), im.save(photo, tmp_path / "photo.png")

    def run(photo="photo.png", *words, model="m.safetensors", out="out.png"):
        code = cli.main(["apply", str(tmp_path / model), str(tmp_path / photo), "--out", str(tmp_path / out), *words])
        return code, "".join(capsys.readouterr())

    return run


def test_a_photo_is_painted_at_its_own_size_or_another(apply, photo, tmp_path):
    assert apply()[0] == 0
    whole = im.load(tmp_path / "out.png")
    assert whole.shape == photo.shape
    assert apply("photo.png", "--painting", "oil", "chalk", "--mix", "1", "2", "--size", "96", out="b.png")[0] == 0
    assert im.shape_of(tmp_path / "b.png") == (96, 80)
    assert im.read_settings(tmp_path / "b.png")["painting"] == ["oil", "chalk"]
    assert apply("photo.png", "--alpha", "0", "--depth", "16", out="c.tif")[0] == 0
    torch.testing.assert_close(im.reopen(tmp_path / "c.tif"), im.load(tmp_path / "photo.png"), rtol=0, atol=1e-4)


def test_all_photos_of_a_folder_are_painted_into_another(apply, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(("a.jpg", "b.png")):
        im.save(smooth(30, 20 + 4 * i, i), tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    code, said = apply("photos", out="painted")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "painted").iterdir()) == ["a.png", "b.png"]
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("photo.png", "--painting", "inc"), "has no 'inc'; did you mean 'ink'?"),
        (("photo.png", "--painting", "ink", "--mix", "1", "2"), "give a share"),
        (("photo.png", "--alpha", "2"), "alpha: 2.0 is not allowed"),
        (("photo.png", "--depth", "12"), "depth: 12 is not allowed; allowed is 8 or 16"),
        (("absent.png",), "no such file"),
        (("m.safetensors",), "is not a picture"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(apply, words, said, tmp_path):
    (tmp_path / "out.png").write_bytes(b"an older picture")
    code, heard = apply(*words)
    assert code == 2
    assert said in heard
    assert len(heard.splitlines()) == 1
    assert (tmp_path / "out.png").read_bytes() == b"an older picture"


def test_no_output_takes_the_place_of_a_photo(apply, tmp_path):
    before = (tmp_path / "photo.png").read_bytes()
    code, said = apply(out="photo.png")
    assert (code, (tmp_path / "photo.png").read_bytes()) == (2, before)
    assert "would be lost" in said
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "a.jpg"):
        im.save(smooth(20, 20, 1), tmp_path / "photos" / name)
    assert "would become" in apply("photos", out="painted")[1]
    (tmp_path / "photos" / "a.jpg").unlink()
    assert "would be lost" in apply("photos", out="photos")[1]
    for out in ("m.safetensors", "painted.png"):
        assert "for the photos of a folder, name a folder" in apply("photos", out=out)[1]
    (tmp_path / "photos" / "a.png").unlink()
    assert "there is no picture" in apply("photos", out="painted")[1]
