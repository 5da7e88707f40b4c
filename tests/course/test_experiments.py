"""The classic experiments, as their notebooks define them: each runs and ends in numbers; and its
claims can be refuted."""

import re
from types import SimpleNamespace

import pytest
import safetensors.torch
from faults import raise_at, refusal

import nstlab as nst
from nstlab.cli import main as cli
from nstlab.course import experiment, report
from nstlab.course.claims import Claim
from nstlab.course.experiment import carry_out, cells
from nstlab.course.lesson import BUDGETS
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS, SweepSettings
from nstlab.feedforward import crops
from nstlab.networks import normalization
from nstlab.networks.preprocessing import TORCHVISION
from nstlab.runs import index


def silent(*_):
    pass


@pytest.mark.usefixtures("small")  # figures
@pytest.mark.parametrize("name", EXPERIMENT_IDS)
def test_every_experiment_ends_in_an_answer_claims_a_sheet_and_a_page(
    name, results, course_weights, course_pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(crops, "DRAWN", 2)  # pictures to learn from, which take their time
    monkeypatch.setattr(normalization, "NORMALIZATION_SIZE", 64)
    options = SweepSettings(
        name,
        "smoke",
        **course_pictures,
        seed=1,
        weights=str(course_weights),
        gallery=tmp_path,
        results=results,
    )
    outcome = carry_out(options, silent)
    assert outcome.answer in outcome.guess.choices
    assert bool(outcome.runs) == (name not in ("E11", "E19"))
    assert all(re.search(r"\d", c.number) and isinstance(c.holds, bool) for c in outcome.claims)
    assert all(
        path.is_file() for path in report.write(options.replace(weights="embedded"), outcome)
    )
    page = (tmp_path / "README.md").read_text()
    texts = (
        outcome.title,
        outcome.guess.question,
        f"{name}.jpg",
        outcome.claims[0].text,
        f"nstlab sweep {name} --budget smoke",
    )
    assert all(text in page for text in texts)


def test_weights_from_a_file_add_their_claims_to_a_gallery_in_the_order_of_the_experiments(
    options, tmp_path
):
    for weights in ("embedded", str(tmp_path / "tiny.safetensors")):
        given = options("E11", gallery=tmp_path, weights=weights)
        outcome = carry_out(given, silent)
        report.write(given, outcome)
    for name in ("E4", "E3-other", "E3", "transfers"):
        report.hang(name, f"## {name}\n", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.count(outcome.claims[0].text) == 2
    assert "The same with the weights `tiny` (content conv4_2, style" in page
    assert str(tmp_path) not in page.partition("The same")[2]
    assert re.findall(r"^## (\S+)", page, re.M) == ["transfers", "E3", "E3-other", "E4", "E11"]


@pytest.fixture
def ending_at(tiny, tmp_path):
    """Makes a file of weights that end at a layer."""

    def ending_at(last):
        few = {name: t for name, t in tiny.tensors.items() if name.partition(".")[0] <= last}
        safetensors.torch.save_file(few, tmp_path / "few.safetensors", {"input": str(TORCHVISION)})
        return str(tmp_path / "few.safetensors")

    return ending_at


def test_weights_are_used_as_far_as_they_reach(options, ending_at):
    outcome = carry_out(options("E5", weights=ending_at("conv3_4")), silent)
    assert outcome.lesson.layers == {
        "content_layers": ("conv3_3",),
        "style_layers": ("conv1_1", "conv2_1", "conv3_1"),
    }
    assert [run.label for run in outcome.runs] == ["to conv2_1", "to conv3_1"]


@pytest.mark.parametrize(
    ("last", "name"), [("conv1_1", "E1"), ("conv2_1", "E5"), ("conv3_1", "E4")]
)
def test_weights_that_end_too_early_are_refused_before_anything_runs(
    options, ending_at, last, name, tmp_path
):
    assert re.match(
        f"{name}: .* end at {last}",
        refusal(carry_out, options(name, weights=ending_at(last)), silent),
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, (48, 4, 8)), ({"size": 64, "steps": 40}, (64, 40, 80))]
)
def test_size_and_steps_replace_the_budgets(make, changes, expected):
    lesson = make(**changes)
    assert (lesson.size, lesson.steps, lesson.longer) == expected
    assert (lesson.common["size"], lesson.common["steps"]) == expected[:2]
    assert set(BUDGETS) == set(BUDGET_NAMES)


def test_claims_are_shown_with_names_and_units():
    assert nst.claim("x", [0.12345, 1e-5], True, "px") == Claim("x", "0.123, 1e-05 px", True)
    assert nst.claim("x", {"avg": 1.0, "max": 2.0}, False).number == "avg 1, max 2"
    assert nst.claim("x", 0.5, True).number == "0.5"
    assert [nst.rises(values) for values in ([1, 2, 3], [1, 1], [2, 1], [1])] == [
        True,
        False,
        False,
        False,
    ]


def verdicts(name, **columns):
    """What an experiment's claims say of runs that have only these attributes, each with a column
    of values; and its answer."""
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    _, source = cells(name)[3]
    names = {"nst": nst, "runs": [SimpleNamespace(**row) for row in rows], "choices": ["a", "b"]}
    names["guess"] = nst.predict("?", names["choices"])
    exec(source, names)
    return [c.holds for c in names["claims"]], names["answer"]


def test_claims_can_be_refuted_by_numbers_and_by_pictures(photo):
    def terms(content, style):
        return [{"content": c, "style": s} for c, s in zip(content, style, strict=True)]

    assert verdicts("E3", terms=terms([1, 2, 3, 9], [4, 3, 2, 1])) == ([True, True], "a")
    assert verdicts("E3", terms=terms([1, 2, 4, 3], [4, 3, 2, 1])) == ([False, True], "b")
    photos = [photo] * 2
    assert verdicts(
        "E4", photo=photos, picture=[photo, 1 - photo], terms=terms([1, 1], [2, 1])
    ) == ([True, True], "a")
    assert verdicts(
        "E4", photo=photos, picture=[1 - photo, photo], terms=terms([1, 1], [1, 2])
    ) == ([False, False], "b")


def test_a_command_without_notebooks_says_what_is_missing(options, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    assert "there are none" in refusal(carry_out, options("E3"), silent)
    (tmp_path / "10_new.ipynb").write_text(
        '{"metadata": {}, "nbformat": 4, "cells": [{"cell_type": "markdown", "metadata": {}, '
        '"source": []}]}'
    )
    assert "no notebook has cells that are tagged E3" in refusal(carry_out, options("E3"), silent)


@pytest.fixture
def sweep(small):
    """The command, with small pictures and weights; its exit code."""
    words = [
        word
        for name in ("budget", "photo", "painting", "weights", "results")
        for word in (f"--{name}", str(small[name]))
    ]
    return lambda *given: cli.main(["sweep", *words, *given])


def test_sweeps_are_run_shown_and_found_again_and_go_on_after_ctrl_c(
    sweep, tmp_path, capsys, monkeypatch
):
    with monkeypatch.context() as patch:
        raise_at(patch, 3)
        assert sweep("E3") == 130
    assert "run the same command again" in capsys.readouterr().err
    assert sweep("E3") == 0
    out, err = capsys.readouterr()
    assert "| As α/β falls, the content error rises |" in out
    assert "E3-smoke/sheet.png" in out
    assert err.count("done in") == 4
    assert sweep("E3") == 0
    again, err = capsys.readouterr()
    assert err.count("found") == 4
    assert [line for line in again.splitlines() if line.startswith("|")] == [
        x for x in out.splitlines() if x.startswith("|")
    ]
    assert len(index.rows(tmp_path / "results")) == 4


@pytest.mark.filterwarnings("default")  # of the cluster's own making
def test_sweeps_are_carried_out_by_a_cluster(sweep, tmp_path, cluster, capsys):
    assert sweep("E4", "--dask", cluster.scheduler_address) == 0
    assert capsys.readouterr().err.count("done in") == 2
    assert len(index.rows(tmp_path / "results")) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["E99"], "experiment: 'E99'"),
        (["E3", "--budget", "huge"], "budget: 'huge'"),
        (["E3", "--photo", "nowhere"], "no picture"),
        (["E11", "--gallery", "nowhere"], "there is no folder"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(sweep, given, says, capsys, tmp_path):
    assert sweep(*given) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
