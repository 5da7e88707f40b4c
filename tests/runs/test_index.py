"""Tables of what is stored: complete, filtered, rebuilt from the folders, and never stopped by a damaged one."""

import json
import os
import shutil

import pytest

import nstlab as nst
from nstlab import cli
from nstlab import images as im
from nstlab.recipes.plan import prepare
from nstlab.recipes.texture import TextureSettings
from nstlab.recipes.transfer import TransferSettings
from nstlab.runs import index
from nstlab.runs.store import Store, StoredRun
from nstlab.settings import InputError


@pytest.fixture
def root(tmp_path, photo, painting, tiny_file):
    """Three transfers with different β and a texture."""
    a, b = im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png")
    common = {"weights": tiny_file, "size": 32, "steps": 3, "normalize": False}
    store = Store(tmp_path / "results")
    for beta in (1.0, 10.0, 100.0):
        store.obtain(prepare(TransferSettings(a, b, beta=beta, **common), "cpu"))
    store.obtain(prepare(TextureSettings(b, **common), "cpu"))
    return store.root


def test_a_run_is_a_row_with_settings_losses_and_places(root):
    frame = nst.runs(root=root)
    assert sorted(frame["recipe"]) == ["texture", "transfer", "transfer", "transfer"]
    row = frame[frame["beta"] == 10].iloc[0]
    assert row["loss"] == pytest.approx(row["alpha"] * row["loss_content"] + row["beta"] * row["loss_style"], rel=1e-5)
    assert (row["steps"], row["steps_done"], row["events"], row["status"]) == (3, 3, 0, "all steps done")
    assert row["evaluations"] >= 4
    assert row["seconds"] > 0
    assert im.reopen(row["picture"]).shape == (1, 3, 32, 27)


@pytest.mark.parametrize(
    ("where", "betas"),
    [
        ({"beta": 10.0}, [10]),
        ({"beta": [1.0, 100.0], "pool": "avg"}, [1, 100]),
        ({"style_layers": nst.STYLE_LAYERS}, [1, 10, 100]),
        ("beta > 5", [10, 100]),
        (lambda frame: frame["beta"] < 5, [1]),
        ({"beta": 3.0}, []),
        ({"seed": range(4), "stop_loss": None}, [1, 10, 100]),
        ({"content_layers": "conv4_2"}, [1, 10, 100]),
        ({"style_layers": [["conv1_1"], list(nst.STYLE_LAYERS)]}, [1, 10, 100]),
        ({"content_layers": None}, []),
    ],
)
def test_runs_can_be_chosen(root, where, betas):
    found = nst.runs("transfer", where, root)
    assert sorted(found["beta"] if len(found) else []) == betas


@pytest.mark.parametrize(
    ("recipe", "where", "says"),
    [("x", None, "recipe: 'x'"), (None, {"betta": 1}, "'betta'"), (None, "beta >", "where: "), (None, "1", "no condition")],
)
def test_what_cannot_be_asked_is_refused_in_one_line(root, recipe, where, says):
    with pytest.raises(InputError, match=says):
        nst.runs(recipe, where, root)


def test_no_runs_are_an_empty_table(tmp_path):
    assert nst.runs(root=tmp_path / "nothing").empty
    assert not (tmp_path / "nothing").exists()


def test_a_history_has_every_step(root):
    name = nst.runs("transfer", {"beta": 10.0}, root)["id"].iloc[0]
    history = nst.history(name[:8], root)
    assert list(history["step"]) == [0, 1, 2, 3]
    assert list(history["event"]) == [""] * 4
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("name", ["", "zzz"])
def test_an_unknown_id_is_refused(root, name):
    with pytest.raises(InputError, match="no run has an id"):
        nst.history(name, root)


def test_the_index_spares_reading_and_is_made_anew_when_lost_or_damaged(root, monkeypatch):
    first = index.rows(root)
    read = []
    whole = StoredRun.problem
    monkeypatch.setattr(StoredRun, "problem", lambda run: read.append(run.id) or whole(run))
    assert index.rows(root) == first
    assert not read
    path = root / "runs" / "index.json"
    for damage in (path.unlink, lambda: path.write_text("{"), lambda: path.write_text('{"format": 1, "runs": {"x": 3}}')):
        damage()
        assert index.rows(root) == first
    assert len(read) == 3 * len(first)


def test_a_changed_manifest_is_read_again(root):
    row = index.rows(root)[0]
    path = index.find_run(row["id"], root).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["result"]["loss"] = 12.5
    path.write_text(json.dumps(manifest))
    assert next(r for r in index.rows(root) if r["id"] == row["id"])["loss"] == 12.5


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"format": 99}', None, "picture", "history"])
def test_a_damaged_run_is_reported_and_left_out(root, damage, caplog):
    index.rows(root)
    folder = index.find_run(index.rows(root)[0]["id"], root).folder
    if damage == "picture":
        (folder / "final.png").write_bytes((folder / "final.png").read_bytes()[:100])
    elif damage == "history":
        (folder / "history.csv").write_text("")
    elif damage is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(damage)
    caplog.clear()
    assert len(index.rows(root)) == 3
    assert str(folder) in caplog.text


def dropped(manifest, *path):
    """A manifest without what is at a path."""
    for name in path[:-1]:
        manifest = manifest[name]
    del manifest[path[-1]]


LACKING = [
    ("result", "loss"), ("result", "status"), ("result", "evaluations"), ("result", "steps"), ("result", "terms"),
    ("settings", "size"), ("settings",), ("environment", "created"), ("environment",), ("changes",), ("recipe",), ("id",),
]  # fmt: skip
ODD = {
    "created": lambda m: m["environment"].update(created=12),
    "a date": lambda m: m["environment"].update(created="yesterday"),
    "loss": lambda m: m["result"].update(loss="low"),
    "a huge loss": lambda m: m["result"].update(loss=10**400),
    "events": lambda m: m["result"].update(events=[["a"]]),
    "terms": lambda m: m["result"].update(terms={"style": None}),
    "size": lambda m: m["settings"].update(size=None),
    "setting": lambda m: m["settings"].update(pool={"deep": []}),
    "recipe": lambda m: m.update(recipe="soup"),
    "id": lambda m: m.update(id="0" * 16),
    "frames": lambda m: m.update(frames="all"),
}


@pytest.mark.parametrize(
    "change", [lambda m, p=p: dropped(m, *p) for p in LACKING] + list(ODD.values()), ids=[*map(str, LACKING), *ODD]
)
def test_a_manifest_that_lacks_something_is_one_run_less_and_no_more(root, change, capsys):
    folder = index.find_run(index.rows(root)[0]["id"], root).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for _ in range(2):  # also when the index is there
        assert cli.main(["runs", "--results", str(root)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4
    assert len(nst.runs(root=root)) == 3


def test_a_setting_never_takes_the_place_of_what_is_known_of_a_run(root):
    first = index.rows(root)[0]
    path = index.find_run(first["id"], root).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"] |= {"id": ["a"], "loss": "none", "folder": "elsewhere"}
    path.write_text(json.dumps(manifest))
    found = next(row for row in index.rows(root) if row["id"] == first["id"])
    assert (found["loss"], found["folder"]) == (first["loss"], first["folder"])


@pytest.mark.skipif(os.name != "posix", reason="sparse files")
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_a_file_too_large_for_what_it_is_is_damage_and_not_read(root, name):
    index.rows(root)
    (path,) = list(root.rglob(name))[:1]
    os.truncate(path, 3_000_000_000)
    assert len(index.rows(root)) == (3 if name == "manifest.json" else 4)


def test_a_damaged_run_is_shown_by_one_line(root, capsys):
    folder = index.find_run(index.rows(root)[0]["id"], root).folder
    (folder / "final.png").write_bytes(b"")
    capsys.readouterr()
    assert cli.main(["runs", "show", folder.name, "--results", str(root)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"nstlab runs rm {folder.name}" in said


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000])
def test_json_nested_too_deeply_is_damage(root, deep):
    folder = index.find_run(index.rows(root)[0]["id"], root).folder
    (root / "runs" / "index.json").write_text(deep)
    assert len(index.rows(root)) == 4
    (folder / "manifest.json").write_text(deep)
    assert len(index.rows(root)) == 3


@pytest.mark.parametrize(
    "entry", [None, 3, [], {}, {"stamp": [1]}, {"stamp": "x", "manifest": {}}, {"stamp": [], "manifest": []}]
)
def test_an_index_that_lacks_something_is_made_anew(root, entry):
    first = index.rows(root)
    path = root / "runs" / "index.json"
    found = json.loads(path.read_text())
    name = next(iter(found["runs"]))
    for broken in (entry, {"stamp": found["runs"][name]["stamp"], "manifest": entry}):
        path.write_text(json.dumps(found | {"runs": found["runs"] | {name: broken}}))
        assert index.rows(root) == first
        assert json.loads(path.read_text()) == found


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_of_a_run_that_is_a_link_the_link_is_removed(root, tmp_path):
    folder = index.find_run(index.rows(root)[0]["id"], root).folder
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert index.remove_runs([folder.name], root) == [folder]
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "final.png").is_file()
    assert index.unfinished(root) == []


def test_results_that_were_moved_are_found_where_they_are(root, tmp_path):
    index.rows(root)
    moved = shutil.move(root, tmp_path / "elsewhere")
    assert all(row["folder"].startswith(str(moved)) for row in index.rows(moved))


def test_a_removed_run_is_gone_and_the_others_stay(root):
    name = index.rows(root)[0]["id"]
    (folder,) = index.remove_runs([name, name[:12]], root)
    assert not folder.exists()
    assert len(index.rows(root)) == 3
    assert name not in {row["id"] for row in index.rows(root)}


def test_nothing_is_removed_if_one_of_the_ids_is_wrong(root):
    name = index.rows(root)[0]["id"]
    with pytest.raises(InputError, match="no run has an id"):
        index.remove_runs([name, "zzz"], root)
    (root / "runs" / "transfer" / "notes").mkdir()
    with pytest.raises(InputError, match="no run has an id"):
        index.remove_runs(["notes"], root)
    assert len(index.rows(root)) == 4


def test_interrupted_runs_are_listed_and_can_be_removed(root, capsys):
    folder = root / "runs" / "transfer" / ("0123456789abcdef" + ".partial")
    folder.mkdir()
    cli.main(["runs", "--results", str(root)])
    assert str(folder) in capsys.readouterr().out
    assert index.remove_runs(["01234567"], root) == [folder]
    assert index.unfinished(root) == []
    assert len(index.rows(root)) == 4


def test_runs_are_listed_shown_and_removed_in_the_terminal(root, capsys):
    assert cli.main(["runs", "--results", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["id", "recipe"]
    name = lines[1].split()[0]
    assert cli.main(["runs", "show", name, "--results", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "loss" in shown
    assert "final.png" in shown
    assert cli.main(["runs", "rm", name, "--results", str(root)]) == 0
    capsys.readouterr()
    cli.main(["runs", "--results", str(root)])
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [(["show"], "an id"), (["rm"], "an id"), (["show", "zzz"], "zzz"), (["burn"], "'burn'"), (["list", "x"], "list")],
)
def test_what_runs_cannot_do_is_refused(root, words, says, capsys):
    assert cli.main(["runs", *words, "--results", str(root)]) == 2
    assert says in capsys.readouterr().err
    assert len(index.rows(root)) == 4
