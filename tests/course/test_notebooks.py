"""Every notebook runs from top to bottom as the command runs it, shows its pictures and tables, and
its solutions are right."""

import functools
import json
import os
import re
import sys

import nbformat
import papermill
import pytest
from faults import refusal
from jupyter_client.manager import KernelManager

from nstlab.cli import main as cli
from nstlab.course import experiment, notebooks
from nstlab.course.exercises import EXERCISES
from nstlab.course.settings import EXPERIMENT_IDS, NotebooksSettings
from nstlab.live.static import STATIC
from nstlab.pictures import images as im

ALL = {name: nbformat.read(path, as_version=4) for name, path in experiment.available().items()}
LESSONS = [name for name in ALL if name != "00_studio"]
# of which a solution, or the regions, ask for a network that has learned to see
TRAINED = ("03_alpha_beta", "11_regions")
FORGET = """
%reset -f
from nstlab.feedforward import crops
from nstlab.figures import base as figures
from nstlab.networks import normalization
crops.DRAWN, figures.DPI, normalization.NORMALIZATION_SIZE = 2, 20, 64
del crops, figures, normalization
"""


def code(notebook, *kinds):
    """The code cells, all of them or those with one of these tags."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if not kinds or set(kinds) & set(cell.metadata.get("tags", []))]


def text_of(output):
    data = output.get("data", {})
    return data.get("text/markdown") or output.get("text") or data.get("text/plain", "")


class Kernel(KernelManager):
    """The kernel of all notebooks: to start one and to import the lab takes longer than most
    notebooks."""

    def __init__(self):
        super().__init__(kernel_name="python3")
        self.clients = []

    def client(self):
        self.clients.append(super().client())
        return self.clients[-1]

    def forget(self):
        """Forget the names of the notebook before. Draw two pictures to learn from, normalize by
        small photos, and make figures of few pixels: nobody looks at them."""
        client = self.client()
        client.start_channels()
        client.wait_for_ready()
        client.execute(FORGET, reply=True)


@pytest.fixture(scope="module")
def kernel():
    made = Kernel()
    yield made
    if made.has_kernel:
        made.shutdown_kernel(now=True)


@pytest.fixture
def in_one_kernel(kernel, monkeypatch):
    if not kernel.has_kernel:  # started here, where the environment is that of the tests
        kernel.start_kernel(cwd=str(experiment.FOLDER), env=os.environ | {STATIC: "4"})
    kernel.forget()
    monkeypatch.setattr(
        papermill, "execute_notebook", functools.partial(papermill.execute_notebook, km=kernel)
    )
    yield
    while kernel.clients:
        kernel.clients.pop().stop_channels()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.usefixtures("in_one_kernel")
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_a_notebook_runs(name, results, course_weights, course_pictures, capsys):
    weights = "embedded" if name in TRAINED else str(course_weights)
    parameters = {"seed": "1", "weights": weights} | course_pictures
    words = ["notebooks", "run", name, "--budget", "smoke", "--results", str(results)]
    words += [word for pair in parameters.items() for word in ("-p", *pair)]
    assert cli.main(words) == 0
    assert f"{name}.ipynb" in capsys.readouterr().out
    assert (results / "notebooks" / f"{name}.html").stat().st_size > 100_000
    executed = nbformat.read(results / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in code(executed) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= (
        1 if name == "00_studio" else 3
    )
    assert not [
        output
        for output in outputs
        if output.get("name") == "stderr" or "Warning" in text_of(output)
    ]
    for kind, says in (("solution", "✓"), ("exercise", "put your answer")):
        assert all(says in text_of(cell.outputs[-1]) for cell in code(executed, kind))
    tables = [output for output in outputs if "| claim | number | holds |" in text_of(output)]
    assert len(tables) == "".join(cell.source for cell in code(executed)).count("nst.verdict(")
    if name != "00_studio":
        assert re.search(
            r"steps in all: |E11|E19|by hand, ", "".join(map(text_of, outputs)) + str(executed)
        )


def test_the_notebooks_teach_every_experiment_and_every_exercise_and_are_kept_without_outputs():
    cells = [cell for notebook in ALL.values() for cell in code(notebook)]
    source = "".join(cell.source for cell in cells)
    assert {tag for cell in cells for tag in cell.metadata.get("tags", []) if tag[0] == "E"} == set(
        EXPERIMENT_IDS
    )
    assert set(re.findall(r'nst\.check\("([\d.]+)"', source)) == set(EXERCISES)
    assert not any(cell.outputs for cell in cells)


@pytest.mark.parametrize("name", LESSONS)
def test_a_notebook_needs_one_import_of_the_lab_and_asks_before_it_answers(name):
    source = "\n".join(cell.source for cell in code(ALL[name]))
    assert re.findall(r"^.*\bimport nstlab.*|^from nstlab.*", source, re.M) == [
        "import nstlab as nst"
    ]
    assert len(code(ALL[name], "parameters")) == 1
    for tag in EXPERIMENT_IDS:
        cells = [cell.source for cell in code(ALL[name], tag)]
        order = [
            i
            for i, cell in enumerate(cells)
            for call in ("nst.predict(", "lesson.run(", "nst.verdict(")
            if call in cell
        ]
        assert not cells or (len(order) in (2, 3) and order == sorted(set(order)))


@pytest.mark.parametrize("name", LESSONS)
def test_every_exercise_has_a_hidden_solution(name):
    exercises, solutions = (code(ALL[name], kind) for kind in ("exercise", "solution"))
    assert 2 <= len(exercises) == len(solutions) <= 5
    assert all(
        cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
        for cell in solutions
    )


def test_notebooks_are_listed_and_selected_by_name_or_number(capsys):
    assert cli.main(["notebooks", "list"]) == 0
    assert capsys.readouterr().out.split() == list(ALL)
    assert cli.main(["notebooks", "list", "05", "03"]) == 0
    assert capsys.readouterr().out.split() == ["05_initialization", "03_alpha_beta"]
    assert cli.main(["notebooks", "list", "99"]) == 2
    selected = notebooks.select(["03", "05_initialization", "notebooks/01_how_it_works.ipynb"])
    assert [path.stem for path in selected] == [
        "03_alpha_beta",
        "05_initialization",
        "01_how_it_works",
    ]
    assert notebooks.select([]) == list(experiment.available().values())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "sed", "3"], "there is no 'sed'; did you mean 'seed'"),
        (["-p", "seed", "three"], "seed: 'three' is not an int"),
        (["-p", "size", "3"], "size: 3 is not allowed"),
        (["--budget", "long"], "budget: 'long' is not one of"),
        (["99"], "there is no notebook '99'"),
        (["03_alpha"], "no notebook '03_alpha'; did you mean '03_alpha_beta'"),
        (["-p", "photo", "nowhere.png"], "nowhere.png: no such file"),
        (["-p", "painting", "mosaik"], "no picture 'mosaik'; did you mean 'mosaic'"),
        (["-p", "weights", "nothing.pth"], "nothing.pth: no such file"),
        (["-p", "weights", os.devnull], "no such file"),
        (["-p", "weights", __file__], "is not a file of weights"),
        (["-p", "weights", "embeded"], "embeded: no such file; did you mean 'embedded'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(words, says, capsys, tmp_path):
    assert cli.main(["notebooks", "run", "--results", str(tmp_path / "r"), *words]) == 2
    assert says in capsys.readouterr().err


def test_parameters_are_pairs_and_typed_and_files_are_looked_for_where_the_command_is_given(
    tmp_path, monkeypatch, photo
):
    chosen = NotebooksSettings(
        "run", parameters=("seed", "3", "photo", "me.png", "painting", "mosaic")
    ).chosen
    assert chosen == {"budget": "quick", "seed": 3, "photo": "me.png", "painting": "mosaic"}
    monkeypatch.chdir(tmp_path)
    im.save(photo, tmp_path / "me.png")
    assert notebooks.absolute_paths(chosen) == {"photo": str(tmp_path / "me.png")}
    assert "'seed' has no value" in refusal(NotebooksSettings, "run", parameters=("seed",))
    assert "there are none" in refusal(experiment.available, tmp_path)


@pytest.mark.filterwarnings("default")
def test_a_notebook_runs_with_this_python_and_if_it_fails_says_where_and_keeps_what_it_showed(
    tmp_path, monkeypatch, capfd
):
    # somebody else's python3, which is broken
    other = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(
        json.dumps(
            {
                "argv": ["no-such-python", "{connection_file}"],
                "display_name": "",
                "language": "python",
            }
        )
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    broken = nbformat.v4.new_notebook()  # which says nothing of its kernel
    broken.cells = [
        nbformat.v4.new_code_cell(source)
        for source in ("budget = results = None", "import sys; print(sys.executable)", "1 / 0")
    ]
    broken.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(broken, tmp_path / "42_broken.ipynb")
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    assert cli.main(["notebooks", "run", "--results", str(tmp_path / "results")]) == 2
    said = capfd.readouterr().err
    assert re.search(
        r"42_broken\.ipynb: cell \d+ ends in ZeroDivisionError: division by zero", said
    )
    assert "IPKernelApp" not in said  # the kernel's warnings, as of connections within this machine
    executed = nbformat.read(tmp_path / "results" / "notebooks" / "42_broken.ipynb", as_version=4)
    assert f"{sys.executable}\n" in [
        output.text for cell in code(executed) for output in cell.outputs if "text" in output
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code"}]}',
        "\xff",
    ],
    ids=repr,
)
def test_a_damaged_notebook_is_refused_before_any_is_run(text, tmp_path, monkeypatch, capsys):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "41_good.ipynb")
    (tmp_path / "42_damaged.ipynb").write_bytes(text.encode("latin1"))
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    for command in ("notebooks", "run"), ("sweep", "E1"):
        assert cli.main([*command, "--results", str(tmp_path / "results")]) == 2
        assert "42_damaged.ipynb: is not a notebook, or is damaged" in capsys.readouterr().err
