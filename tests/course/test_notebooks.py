"""Every notebook runs from top to bottom as the command runs it, shows its pictures and tables, and its solutions are right."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from nstlab import cli
from nstlab import images as im
from nstlab.course import notebooks
from nstlab.course.exercises import EXERCISES
from nstlab.course.settings import EXPERIMENTS, NotebooksSettings
from nstlab.settings import InputError

ALL = notebooks.known()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One store for all notebooks, as a class would have it."""
    return tmp_path_factory.mktemp("results")


def shown(notebook):
    """(cell, output) of all code cells."""
    return [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(output):
    data = output.get("data", {})
    return data.get("text/markdown") or output.get("text") or data.get("text/plain", "")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_a_notebook_runs(name, results, capsys):
    assert cli.main(["notebooks", "run", name, "--budget", "smoke", "--results", str(results), "-p", "seed", "1"]) == 0
    assert f"{name}.ipynb" in capsys.readouterr().out
    assert (results / "notebooks" / f"{name}.html").stat().st_size > 100_000
    executed = nbformat.read(results / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [output for _, output in shown(executed)]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= (1 if name == "00_studio" else 3)
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not [text for text in map(text_of, outputs) if "Warning" in text]
    for cell, output in shown(executed):
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            assert text_of(output).endswith("✓"), cell.source
        if "exercise" in tags:
            assert "put your answer" in text_of(output), cell.source
    claims = [text for text in map(text_of, outputs) if "| claim | number | holds |" in text]
    assert len(claims) == len(re.findall(r"lesson\.claims\(", "".join(c.source for c in executed.cells)))


def test_the_notebooks_teach_every_experiment_and_every_exercise():
    source = "".join(cell.source for path in ALL.values() for cell in nbformat.read(path, as_version=4).cells)
    assert set(re.findall(r'lesson\.claims\("(E\d+)"\)', source)) == set(EXPERIMENTS)
    assert set(re.findall(r'lesson\.predict\("(E\d+)"\)', source)) == set(EXPERIMENTS)
    assert set(re.findall(r'lesson\.check\("([\d.]+)"', source)) == set(EXERCISES)


@pytest.mark.parametrize("path", ALL.values(), ids=ALL)
def test_a_notebook_has_what_each_has(path):
    notebook = nbformat.read(path, as_version=4)
    assert not shown(notebook), "committed without outputs"
    if path.stem == "00_studio":
        return
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert sum("parameters" in each for each in tags) == 1
    exercises, solutions = (sum(kind in each for each in tags) for kind in ("exercise", "solution"))
    assert 2 <= exercises == solutions <= 3
    folded = [cell.metadata["jupyter"] for cell in notebook.cells if "solution" in cell.metadata.get("tags", [])]
    assert all(each == {"source_hidden": True, "outputs_hidden": True} for each in folded)
    source = "\n".join(cell.source for cell in notebook.cells)
    for part in ("lesson.predict(", "lesson.run(", "lesson.claims(", "lesson.explore(", "$", "Gatys"):
        assert part in source
    for cell in notebook.cells:  # no logic in cells, but in exercises
        if cell.cell_type == "code" and not {"exercise", "solution"} & set(cell.metadata.get("tags", [])):
            assert not re.search(r"^\s*(for|while|if|def|class|try)\b", cell.source, re.M), cell.source


def test_notebooks_are_chosen_by_name_or_number():
    assert [path.stem for path in notebooks.chosen(["03", "05_initialization", "notebooks/01_how_it_works.ipynb"])] == [
        "03_alpha_beta", "05_initialization", "01_how_it_works",
    ]  # fmt: skip
    assert len(notebooks.chosen([])) == 10
    with pytest.raises(InputError, match="no notebook '03_alpha'; did you mean '03_alpha_beta'"):
        notebooks.chosen(["03_alpha"])


def test_there_are_none_in_an_installed_package(tmp_path):
    with pytest.raises(InputError, match="come with the project's source"):
        notebooks.known(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "sed", "3"], "there is no 'sed'; did you mean 'seed'"),
        (["-p", "seed", "three"], "seed: 'three' is not an int"),
        (["-p", "size", "3"], "size: 3 is not allowed"),
        (["--budget", "long"], "budget: 'long' is not one of"),
        (["10"], "there is no notebook '10'"),
        (["-p", "photo", "nowhere.png"], "nowhere.png: no such file"),
        (["-p", "painting", "mosaik"], "no picture 'mosaik'; did you mean 'mosaic'"),
        (["-p", "weights", "nothing.pth"], "nothing.pth: no such file"),
        (["-p", "weights", "embeded"], "embeded: no such file; did you mean 'embedded'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, says, capsys, tmp_path):
    assert cli.main(["notebooks", "run", "--results", str(tmp_path / "r"), *words]) == 2
    assert says in capsys.readouterr().err


def test_parameters_are_pairs_and_typed():
    chosen = NotebooksSettings("run", parameters=("seed", "3", "photo", "cat.png")).chosen
    assert chosen == {"budget": "quick", "seed": 3, "photo": "cat.png"}
    with pytest.raises(InputError, match="'seed' has no value"):
        NotebooksSettings("run", parameters=("seed",))


def test_files_are_meant_from_where_the_command_is_given(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    im.save(photo, tmp_path / "me.png")
    assert notebooks._from_here({"photo": "me.png", "painting": "mosaic", "seed": 3}) == {"photo": str(tmp_path / "me.png")}


def test_the_list_is_the_folders(capsys):
    assert cli.main(["notebooks", "list"]) == 0
    assert capsys.readouterr().out.split() == list(ALL)


@pytest.mark.filterwarnings("default")
def test_a_notebook_that_fails_says_where_and_keeps_what_it_showed(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    broken = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    cells = ["budget = results = None", "print('so far')", "1 / 0"]
    broken.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    broken.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(broken, folder / "42_broken.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    monkeypatch.setattr(notebooks, "chosen", lambda names: [folder / "42_broken.ipynb"])
    settings = NotebooksSettings("run", results=tmp_path / "results")
    with pytest.raises(InputError, match=r"42_broken\.ipynb: cell \d+ ends in ZeroDivisionError: division by zero"):
        list(notebooks.run(settings))
    kept = json.loads(Path(tmp_path / "results" / "notebooks" / "42_broken.ipynb").read_text())
    assert "so far" in json.dumps(kept)
