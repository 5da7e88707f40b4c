"""`nstlab apply`: photos and folders in, pictures out; nothing lost."""

import re

import pytest
import torch
from helpers import smooth

from nstlab.cli import main as cli
from nstlab.pictures import images as im


@pytest.fixture
def apply(model, photo, tmp_path, capsys):
    """A function that runs the command on words, and returns (exit code, all that was said)."""
    model.save(tmp_path / "m.safetensors"), im.save(photo, tmp_path / "photo.png")

    def run(photo="photo.png", *words, model="m.safetensors", out="out.png"):
        code = cli.main(
            [
                "apply",
                str(tmp_path / model),
                str(tmp_path / photo),
                "--out",
                str(tmp_path / out),
                *words,
            ]
        )
        return code, "".join(capsys.readouterr())

    return run


def test_a_photo_is_painted_at_its_own_size_or_another(apply, photo, tmp_path):
    assert apply()[0] == 0
    whole = im.load(tmp_path / "out.png")
    assert whole.shape == photo.shape
    assert (
        apply(
            "photo.png",
            "--painting",
            "oil",
            "chalk",
            "--mix",
            "1",
            "2",
            "--size",
            "96",
            out="b.png",
        )[0]
        == 0
    )
    assert im.shape_of(tmp_path / "b.png") == (96, 80)
    assert im.read_settings(tmp_path / "b.png")["painting"] == ["oil", "chalk"]
    assert apply("photo.png", "--alpha", "0", "--depth", "16", out="c.tif")[0] == 0
    torch.testing.assert_close(
        im.reopen(tmp_path / "c.tif"), im.load(tmp_path / "photo.png"), rtol=0, atol=1e-4
    )


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
    im.save(smooth(20, 20, 1), tmp_path / "photos" / "a.png")
    assert "would be lost" in apply("photos", out="photos")[1]
    for out in ("m.safetensors", "painted.png"):
        assert "for the photos of a folder, name a folder" in apply("photos", out=out)[1]
    (tmp_path / "photos" / "a.png").unlink()
    assert "there is no picture" in apply("photos", out="painted")[1]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("A.PNG", "a.png", "b.png"), "A.PNG and a.png would become {}/A.PNG.png"),
        (("a.jpg", "a.png", "a.png.jpg"), "a.png and a.png.jpg would become {}/a.png.png"),
    ],
)
def test_photos_whose_pictures_would_have_one_name_are_named(apply, tmp_path, names, said):
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).touch()
    if len(list((tmp_path / "photos").iterdir())) == len(names):  # unless case says nothing there
        assert said.format(tmp_path / "painted") in apply("photos", out="painted")[1]


@pytest.fixture
def photos(tmp_path):
    """A folder of photos of several formats, and of what is none."""
    folder = tmp_path / "photos"
    (folder / "nested.png").mkdir(parents=True)
    for name in ("a.png", "b.webp", "c.bmp", "d.GIF", "e.jpg", "E.tif", "f.ppm", ".hidden.png"):
        im.to_pil(smooth(20, 24, 1)).save(folder / name)
    (folder / ".nstlab-0123.png").write_bytes((folder / "a.png").read_bytes()[:50])
    (folder / "._e.jpg").write_bytes(b"\0\5\x16\7 of a Mac")
    for name in ("letter.eps", "notes.txt"):
        (folder / name).write_text("no picture")
    return folder


def test_every_format_is_painted_but_nothing_hidden(apply, photos, tmp_path, caplog):
    assert apply("photos", out="painted")[0] == 0
    painted = sorted(path.name for path in (tmp_path / "painted").iterdir())
    assert painted == ["E.tif.png", "a.png", "b.png", "c.png", "d.png", "e.jpg.png", "f.png"]
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "left out, as they are no pictures by their names: letter.eps, notes.txt"
    ]


def test_a_bad_photo_costs_no_other_and_is_named(apply, photos, tmp_path, caplog):
    (photos / "c.bmp").write_bytes((photos / "c.bmp").read_bytes()[:300])
    (photos / "d.GIF").write_text("no picture")
    (photos / "f.ppm").unlink()
    (photos / "f.ppm").symlink_to("absent")
    code, said = apply("photos", out="painted")
    assert code == 2
    assert said.splitlines()[-1] == f"nstlab: error: photo: 3 of 7 in {photos} were skipped"
    assert len(list((tmp_path / "painted").iterdir())) == 4
    assert [message.partition(":")[0] for message in caplog.messages[1:]] == [
        str(photos / name) for name in ("c.bmp", "d.GIF", "f.ppm")
    ]


def test_a_model_that_shows_nothing_of_a_photo_is_refused(model, apply, tmp_path):
    model.network.last.bias.fill_(-100.0)
    model.save(tmp_path / "black.safetensors")
    code, said = apply(model="black.safetensors")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "photo.png: its picture is one colour everywhere" in said
    assert not (tmp_path / "out.png").exists()


def test_a_picture_beyond_the_memory_is_refused_with_the_size_that_fits(
    apply, tmp_path, monkeypatch
):
    monkeypatch.setattr("nstlab.method.fast.memory.available", lambda device: 100_000)
    code, said = apply()
    assert (code, len(said.splitlines())) == (2, 1)
    assert (
        fits := re.search(
            r"size 48 needs about 0\.00 GB of memory, 0\.00 GB is available; --size (\d+) "
            r"would fit",
            said,
        )
    )
    assert not (tmp_path / "out.png").exists()
    assert apply("photo.png", "--size", fits[1])[0] == 0
