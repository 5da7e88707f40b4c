"""Tables of stored runs: complete, filtered, rebuilt from the folders, and never stopped by a damaged one."""

import json
import os
import shutil
from pathlib import Path

import pytest

import nstlab as nst
from nstlab import cli
from nstlab import images as im
from nstlab.runs import index
from nstlab.runs.stored import StoredRun


@pytest.fixture
def root(stored_runs, tmp_path):
    """Three transfers with different β and a texture."""
    return Path(shutil.copytree(stored_runs, tmp_path / "results"))


@pytest.fixture
def folder(root):
    """The folder of the run that was computed first."""
    return Path(index.rows(root)[0]["folder"])


@pytest.fixture
def edit(folder):
    """Changes the manifest of that run."""

    def edited(change):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return edited


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_run_is_a_row_with_settings_losses_and_places(root):
    frame = nst.runs(root=root)
    assert sorted(frame["recipe"]) == ["texture", "transfer", "transfer", "transfer"]
    row = frame[frame["beta"] == 10].iloc[0]
    assert row["loss"] == pytest.approx(row["alpha"] * row["loss_content"] + row["beta"] * row["loss_style"], rel=1e-5)
    assert (row["steps"], row["steps_done"], row["events"], row["status"]) == (3, 3, 0, "all steps done")
    assert row["evaluations"] >= 4
    assert row["seconds"] > 0
    assert max(im.reopen(row["picture"]).shape) == 32


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
    with pytest.raises(nst.InputError, match=says):
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


def test_a_setting_never_takes_the_place_of_what_is_known_of_a_run(root, edit):
    first = index.rows(root)[0]
    edit(lambda manifest: manifest["settings"].update(id=["a"], loss="none", folder="elsewhere"))
    assert index.rows(root)[0] == first


def test_results_that_were_moved_are_found_where_they_are(root, folder, tmp_path):
    moved = shutil.move(root, tmp_path / "elsewhere")
    assert all(row["folder"].startswith(str(moved)) for row in index.rows(moved))


# --- the index --------------------------------------------------------------------------------------------------


def test_the_index_spares_reading_and_is_made_anew_when_lost_or_damaged(root, monkeypatch):
    first, read, problem = index.rows(root), [], StoredRun.problem
    monkeypatch.setattr(StoredRun, "problem", lambda run: read.append(run.id) or problem(run))
    assert index.rows(root) == first
    assert not read
    path = root / "runs" / "index.json"
    for damage in (path.unlink, lambda: path.write_text("{"), lambda: path.write_text('{"version": 1, "runs": {}}')):
        damage()
        assert index.rows(root) == first
    assert len(read) == 3 * len(first)


def test_a_changed_manifest_is_read_again(root, edit):
    edit(lambda manifest: manifest["result"].update(loss=12.5))
    assert index.rows(root)[0]["loss"] == 12.5


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


# --- damaged runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["manifest.json", "history.csv", "final.png"])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes()[:40])], ids=range(3)
)
def test_a_damaged_run_is_reported_and_left_out(root, folder, file, damage, caplog, capsys):
    damage(folder / file)
    assert len(index.rows(root)) == 3
    assert f"{folder}: is damaged" in caplog.text
    assert cli.main(["runs", "show", folder.name, "--results", str(root)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"nstlab runs rm {folder.name}" in said


ODD = {
    f"no {' '.join(path)}": lambda m, path=path: (m[path[0]] if len(path) > 1 else m).pop(path[-1])
    for path in [
        ("result", "loss"), ("result", "status"), ("result", "evaluations"), ("result", "steps"), ("result", "terms"),
        ("settings", "size"), ("settings",), ("environment", "created"), ("environment",), ("changes",), ("recipe",), ("id",),
    ]
} | {
    "another format": lambda m: m.update(format=99),
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
}  # fmt: skip


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_odd_manifest_is_one_run_less_and_no_more(root, edit, change, capsys):
    edit(change)
    for _ in range(2):  # also when the index is there
        assert cli.main(["runs", "--results", str(root)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("text", ["[]", "{}", "[" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000], ids=range(4))
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_json_that_is_something_else_or_nested_too_deeply_is_damage(root, folder, name, text):
    next(root.rglob(name) if name == "index.json" else folder.glob(name)).write_text(text)
    assert len(index.rows(root)) == (3 if name == "manifest.json" else 4)


@pytest.mark.skipif(os.name != "posix", reason="sparse files")
@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_a_file_too_large_for_what_it_is_is_damage_and_not_read(root, folder, name):
    os.truncate(next(root.rglob(name)), 3_000_000_000)
    assert len(index.rows(root)) == (3 if name == "manifest.json" else 4)


# --- folders by id ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "zzz"])
def test_an_unknown_id_is_refused(root, name):
    index.remove_runs([row["id"] for row in index.rows(root)[1:]], root)
    with pytest.raises(nst.InputError, match="no run has an id"):
        nst.history(name, root)


@pytest.mark.parametrize("ending", ["", ".partial"])
def test_an_id_that_is_not_unique_is_refused(root, ending):
    for last in "01":
        (root / "runs" / "transfer" / f"{'0' * 15}{last}{ending}").mkdir()
    with pytest.raises(nst.InputError, match="2 runs have ids that begin with '000'"):
        index.remove_runs(["000"], root)


def test_a_removed_run_is_gone_and_the_others_stay(root, folder):
    assert index.remove_runs([folder.name, folder.name[:12]], root) == [folder]
    assert not folder.exists()
    assert folder.name not in {row["id"] for row in index.rows(root)}
    assert len(index.rows(root)) == 3


@pytest.mark.parametrize("wrong", ["zzz", "notes"])
def test_nothing_is_removed_if_one_of_the_ids_is_wrong(root, folder, wrong):
    (root / "runs" / "transfer" / "notes").mkdir()
    with pytest.raises(nst.InputError, match="no run has an id"):
        index.remove_runs([folder.name, wrong], root)
    assert len(index.rows(root)) == 4


@pytest.mark.parametrize("name", [".partial", ".kept.partial", ".01234567.removed"])
def test_what_is_left_of_unfinished_runs_is_listed_and_can_be_removed(root, folder, name, capsys):
    left = root / "runs" / "transfer" / f"0123456789abcdef{name}"
    left.mkdir()
    cli.main(["runs", "--results", str(root)])
    assert str(left) in capsys.readouterr().out
    assert index.remove_runs(["01234567"], root) == [left]
    assert index.unfinished(root) == []
    assert len(index.rows(root)) == 4


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_is_being_computed_is_not_removed(root, folder, finished):
    folder = folder if finished else folder.rename(folder.with_suffix(".partial"))
    with nst.Store(root).locked(folder), pytest.raises(nst.InputError, match="is being computed"):
        index.remove_runs([folder.name[:10]], root)
    assert (folder / "final.png").is_file()


def test_a_folder_that_cannot_be_removed_is_named(root, folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(nst.InputError, match=f"{folder}.*Permission denied"):
        index.remove_runs([folder.name], root)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_of_a_run_that_is_a_link_the_link_is_removed(root, folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert index.remove_runs([folder.name], root) == [folder]
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "final.png").is_file()
    assert index.unfinished(root) == []


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
