"""Tables of stored runs: complete, filtered, rebuilt from the folders, and never stopped by a
damaged one."""

import json
import os
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from faults import refusal

import nstlab as nst
from nstlab.base import files
from nstlab.cli import main as cli
from nstlab.pictures import images as im
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
def command(root, capsys):
    """Gives a command on these runs, and returns its exit code and the lines that it says."""

    def given(*words):
        code = cli.main([*words, "--results", str(root)])
        said = capsys.readouterr()
        return code, (said.err if code else said.out).splitlines()

    return given


def edit(folder, change):
    """Change the manifest of a run."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_is_a_row_with_settings_losses_and_places_and_has_a_history(root):
    frame = nst.runs(root=root)
    assert sorted(frame["recipe"]) == ["texture", "transfer", "transfer", "transfer"]
    row = frame[frame["beta"] == 10].iloc[0]
    assert row["loss"] == pytest.approx(
        row["alpha"] * row["loss_content"] + row["beta"] * row["loss_style"], rel=1e-5
    )
    assert (row["steps"], row["steps_done"], row["events"], row["status"]) == (
        3,
        3,
        0,
        "all steps done",
    )
    assert row["evaluations"] >= 4
    assert row["seconds"] > 0
    assert max(im.reopen(row["picture"]).shape) == 32
    history = nst.history(row["id"][:8], root)
    assert list(history["step"]) == [0, 1, 2, 3]
    assert list(history["event"]) == [""] * 4
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


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
    [
        ("x", None, "recipe: 'x'"),
        (None, {"betta": 1}, "'betta'"),
        (None, "beta >", "where: "),
        (None, "1", "no condition"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(root, recipe, where, says):
    assert says in refusal(nst.runs, recipe, where, root)


def test_no_runs_are_an_empty_table(tmp_path):
    assert nst.runs(root=tmp_path / "nothing").empty
    assert not (tmp_path / "nothing").exists()


def test_a_setting_never_takes_the_place_of_what_is_known_of_a_run(root, folder):
    first = index.rows(root)[0]
    edit(
        folder,
        lambda manifest: manifest["settings"].update(id=["a"], loss="none", folder="elsewhere"),
    )
    assert index.rows(root)[0] == first


def test_the_index_spares_reading_but_not_of_what_has_changed_and_runs_may_be_moved(
    root, folder, tmp_path, monkeypatch
):
    first, read, problem = index.rows(root), [], StoredRun.problem
    monkeypatch.setattr(StoredRun, "problem", lambda run: read.append(run.id) or problem(run))
    assert index.rows(root) == first
    assert not read
    edit(folder, lambda manifest: manifest["result"].update(loss=12.5))
    assert index.rows(root)[0]["loss"] == 12.5
    assert read == [first[0]["id"]]
    moved = shutil.move(root, tmp_path / "elsewhere")
    assert all(row["folder"].startswith(str(moved)) for row in index.rows(moved))


DAMAGED = {
    "lost": Path.unlink,
    "another version": lambda path: path.write_text('{"version": 1, "runs": {}}'),
    "too deep": lambda path: path.write_text("[" * 200_000),
    "a manifest lacks something": lambda path: path.write_text(
        path.read_text().replace('"loss"', '"lost"', 1)
    ),
    "too large to be read": lambda path: os.truncate(path, 3_000_000_000),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_an_index_that_is_lost_or_damaged_is_made_anew(root, damage):
    first, path = index.rows(root), root / "runs" / "index.json"
    whole = path.read_text()
    damage(path)
    assert index.rows(root) == first
    assert path.read_text() == whole


MANIFESTS = {
    "nothing in it": dict.clear,
    "no loss": lambda m: m["result"].pop("loss"),
    "another format": lambda m: m.update(format=99),
    "a date": lambda m: m["environment"].update(created="yesterday"),
    "a huge loss": lambda m: m["result"].update(loss=10**400),
    "events": lambda m: m["result"].update(events=[["a"]]),
    "setting": lambda m: m["settings"].update(pool={"deep": []}),
    "recipe": lambda m: m.update(recipe="soup"),
    "id": lambda m: m.update(id="0" * 16),
    "frames": lambda m: m.update(frames="all"),
}
DAMAGE = {name: partial(edit, change=change) for name, change in MANIFESTS.items()} | {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "an empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "no picture": lambda folder: (folder / "final.png").unlink(),
    "no history": lambda folder: (folder / "history.csv").unlink(),
    "a pipe for a picture": lambda folder: (
        (folder / "final.png").unlink() or os.mkfifo(folder / "final.png")
    ),
    "a pipe for a history": lambda folder: (
        (folder / "history.csv").unlink() or os.mkfifo(folder / "history.csv")
    ),
    "a huge manifest": lambda folder: os.truncate(folder / "manifest.json", 3_000_000_000),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and sparse files")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_reported_and_left_out_and_no_other(folder, command, damage, caplog):
    damage(folder)
    for _ in range(2):  # also when the index is there
        code, lines = command("runs")
        assert (code, len(lines)) == (0, 4)
        assert f"{folder}: is damaged" in caplog.text
    code, (said,) = command("runs", "show", folder.name)
    assert code == 2
    assert f"nstlab runs rm {folder.name}" in said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("zzz", "no run has an id"), ("", "no run has an id"), ("notes", "no run has an id")]
    + [(digit * 3, f"2 runs have ids that begin with '{digit * 3}'") for digit in "01"],
)
def test_nothing_is_removed_if_an_id_is_unknown_or_that_of_several_runs(root, folder, wrong, says):
    index.remove_runs([row["id"] for row in index.rows(root)[1:]], root)
    for name in (
        "notes",
        *(
            f"{digit * 15}{last}{end}"
            for digit, end in (("0", ""), ("1", ".partial"))
            for last in "23"
        ),
    ):
        (folder.parent / name).mkdir()
    assert says in refusal(index.remove_runs, [folder.name, wrong], root)
    assert [row["id"] for row in index.rows(root)] == [folder.name]


@pytest.mark.parametrize("name", [".partial", ".kept.partial", ".01234567.removed"])
def test_what_is_left_of_unfinished_runs_is_listed_and_can_be_removed(root, command, name):
    left = root / "runs" / "transfer" / f"0123456789abcdef{name}"
    left.mkdir()
    assert str(left) in "\n".join(command("runs")[1])
    code, (said,) = command("runs", "show", "01234567")
    assert code == 2
    assert said.endswith(f"an id that begins with '01234567'; {left} is under way or interrupted")
    assert index.remove_runs(["01234567"], root) == [left]
    assert index.unfinished(root) == []
    assert len(index.rows(root)) == 4


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_is_being_computed_is_not_removed(root, folder, finished):
    folder = folder if finished else folder.rename(folder.with_suffix(".partial"))
    with files.locked_results(root, folder):
        assert "is being computed" in refusal(index.remove_runs, [folder.name[:10]], root)
    assert (folder / "final.png").is_file()


def test_a_folder_that_cannot_be_removed_is_named(root, folder, monkeypatch):
    monkeypatch.setattr(Path, "rename", Mock(side_effect=PermissionError(13, "Permission denied")))
    message = refusal(index.remove_runs, [folder.name], root)
    assert str(folder) in message
    assert "Permission denied" in message


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_of_a_run_that_is_a_link_the_link_is_removed(root, folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert index.remove_runs([folder.name, folder.name[:12]], root) == [folder]
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "final.png").is_file()
    assert index.unfinished(root) == []


def test_runs_are_listed_shown_and_removed_in_the_terminal(root, command):
    code, lines = command("runs")
    assert (code, len(lines)) == (0, 5)
    assert lines[0].split()[:2] == ["id", "recipe"]
    name = lines[1].split()[0]
    code, shown = command("runs", "show", name)
    assert code == 0
    assert all(word in "\n".join(shown) for word in ("loss", "final.png"))
    assert command("runs", "rm", name)[0] == 0
    assert not list(root.glob(f"runs/*/{name}*"))
    assert [line.split()[0] for line in command("runs")[1]] == [
        "id",
        *(line.split()[0] for line in lines[2:]),
    ]


@pytest.mark.parametrize(("place", "kind"), [("films", "film"), ("learned", "learning")])
def test_films_and_learnings_are_listed_shown_and_removed_too(root, command, place, kind):
    folder = root / place / "0123456789abcdef"
    (folder / "pass1").mkdir(parents=True)
    (folder / "pass1" / "000000.png").write_bytes(b"x" * 2_500_000)
    for name in ("notes", "fedcba9876543210.mp4"):  # what others have put there
        (root / place / name).mkdir()
    code, lines = command("runs")
    assert (code, len(lines)) == (0, 8)
    assert lines[-2].split() == ["id", "kind", "files", "MB", "changed", "folder"]
    assert lines[-1].split()[:4] == [folder.name, kind, "1", "2.5"]
    assert lines[-1].endswith(str(folder))
    assert len(nst.runs(root=root)) == 4
    assert any(line.split() == ["kind", kind] for line in command("runs", "show", "01234567")[1])
    with files.locked_results(root, folder):
        code, (said,) = command("runs", "rm", "01234567")
        assert (code, folder.is_dir()) == (2, True)
        assert "by another process" in said
    # a removal that was stopped
    left = folder.rename(folder.with_name(f"{folder.name}.89abcdef.removed"))
    assert f"{left}: under way or interrupted" in command("runs")[1]
    assert command("runs", "rm", "01234567")[0] == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        "fedcba9876543210.mp4",
        "notes",
    ]


@pytest.mark.parametrize(
    ("time", "date"), [(2.0**40, "9999-12-31T23:59:59"), (-(2.0**40), "1970-01-01T00:00:00")]
)
def test_files_of_times_that_no_date_can_name_are_listed(time, date):
    stat = Mock(st_mode=0o100644, st_size=0, st_mtime=time)
    film = Mock(
        **{"parent.name": "films", "rglob.return_value": [Mock(**{"stat.return_value": stat})]}
    )
    assert index.other_row(film)["changed"].startswith(date)


def test_an_id_of_a_run_and_of_a_film_is_neither(root, folder, command):
    film = root / "films" / f"{folder.name[:8]}00000000"
    film.mkdir(parents=True)
    for action in ("show", "rm"):
        code, (said,) = command("runs", action, folder.name[:8])
        assert (code, film.is_dir(), folder.is_dir()) == (2, True, True)
        assert "2 runs have ids that begin" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show"], "an id"),
        (["rm"], "an id"),
        (["show", "zzz"], "zzz"),
        (["burn"], "'burn'"),
        (["list", "x"], "list"),
    ],
)
def test_what_runs_cannot_do_is_refused(root, command, words, says):
    code, (said,) = command("runs", *words)
    assert code == 2
    assert says in said
    assert len(index.rows(root)) == 4
