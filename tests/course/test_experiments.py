"""The classic experiments: each runs, ends in numbers and is shown; and its claims can be refuted."""

import re
from types import SimpleNamespace

import pytest
import safetensors.torch
from faults import raise_at

from nstlab import cli
from nstlab.course import report
from nstlab.course.base import BUDGETS, Base, FinishedRun
from nstlab.course.experiment import Claim, claim, rises
from nstlab.course.experiments import EXPERIMENTS, experiment
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS
from nstlab.method.weights import TORCHVISION
from nstlab.runs import index
from nstlab.runs.sweep import Sweep
from nstlab.settings import InputError


def test_everything_that_can_be_named_exists():
    assert tuple(EXPERIMENTS) == EXPERIMENT_IDS
    assert set(BUDGETS) == set(BUDGET_NAMES)


@pytest.mark.parametrize("name", EXPERIMENT_IDS)
def test_every_experiment_ends_in_an_answer_claims_a_sheet_and_a_page(name, options, tmp_path):
    chosen = experiment(options(name, gallery=tmp_path, weights="embedded", photo="coffee"))
    runs = chosen.run()
    assert len(runs) == len(chosen.cases)
    assert chosen.answer(runs) in chosen.choices
    claims = list(chosen.claims(runs))
    assert claims
    assert all(re.search(r"\d", c.number) and isinstance(c.holds, bool) for c in claims)
    assert all(path.is_file() for path in report.write(chosen, runs, claims))
    page = (tmp_path / "README.md").read_text()
    assert all(text in page for text in (chosen.title, f"{name}.jpg", claims[0].text, f"nstlab sweep {name} --budget smoke"))


@pytest.mark.parametrize(
    ("name", "rows", "labels"),
    [
        ("E2", 1, [f"to conv{block}_1" for block in range(1, 6)]),
        ("E7", 2, ["noise", "steps 4", "white", "grey", "content", "style", "rings", "steps 8"]),
        ("E8", 1, ["seed 0", "seed 1", "seed 2", "seed 3"]),
        ("E12", 2, list(EXPERIMENTS["E12"].choices) + ["not normalized", "lower layers heavier", "higher layers heavier"]),
    ],
)
def test_a_sheet_names_what_is_varied(name, rows, labels, options, photo):
    chosen = experiment(options(name))
    runs = [SimpleNamespace(labels=case.labels, settings=case.settings, picture=photo, photo=photo, painting=photo)
            for case in chosen.cases]  # fmt: skip
    cells = chosen.sheet(runs).axes
    assert sum(len(cell.get_images()) for cell in cells) == len(runs) + len(runs[0].settings.roles())
    assert len({cell.get_subplotspec().rowspan.start for cell in cells}) == rows
    words = [text.replace("\n", " ") for cell in cells for text in (cell.get_title(), cell.get_ylabel()) if text]
    assert [text for text in words if text not in ("photo", "painting")] == labels


def test_claims_are_read_from_stored_runs(options, monkeypatch):
    first = experiment(options("E3"))
    claims = list(first.claims(first.run()))
    monkeypatch.setattr("nstlab.method.engine.minimize", lambda *_, **__: pytest.fail("computed again"))
    found = []
    again = experiment(options("E3"))
    assert list(again.claims(again.run(lambda case, step, done: found.append(done.found)))) == claims
    assert found == [True] * 4


def test_the_first_picture_of_a_run_is_known(options, tmp_path):
    grey, photo = map(FinishedRun, Sweep(Base(options("E7")).transfer(), {"init": ["grey", "content"]}).run(tmp_path))
    assert float(grey.start.std()) == 0
    assert photo.start.sub(photo.photo).abs().max() < 1e-6


# --- the gallery ------------------------------------------------------------------------------------------------


def test_weights_from_a_file_add_their_claims_to_the_gallery(options, tmp_path):
    for weights in ("embedded", str(tmp_path / "tiny.safetensors")):
        chosen = experiment(options("E11", gallery=tmp_path, weights=weights))
        claims = list(chosen.claims([]))
        report.write(chosen, [], claims)
    page = (tmp_path / "README.md").read_text()
    assert page.count(claims[0].text) == 2
    assert "The same with the weights `tiny` (content conv4_2, style" in page
    assert str(tmp_path) not in page.partition("The same")[2]


def test_the_gallery_keeps_the_order_of_the_experiments(tmp_path):
    for name in ("E11", "E4", "E3-other", "E3", "transfers"):
        report.hang(name, f"## {name}\n", tmp_path)
    assert re.findall("^## (.+)", (tmp_path / "README.md").read_text(), re.M) == ["transfers", "E3", "E3-other", "E4", "E11"]


def test_a_gallery_that_does_not_exist_is_refused_before_anything_runs(options, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        experiment(options("E11", gallery=tmp_path / "none"))


# --- weights that end early, size and steps ---------------------------------------------------------------------


@pytest.fixture
def ending_at(tiny, tmp_path):
    """Makes a file of weights that end at a layer."""

    def ending_at(last):
        few = {name: t for name, t in tiny.tensors.items() if name.partition(".")[0] <= last}
        safetensors.torch.save_file(few, tmp_path / "few.safetensors", {"input": str(TORCHVISION)})
        return str(tmp_path / "few.safetensors")

    return ending_at


def test_weights_are_used_as_far_as_they_reach(options, ending_at):
    chosen = experiment(options("E5", weights=ending_at("conv3_4")))
    assert chosen.base.content == ("conv3_3",)
    assert chosen.base.style == ("conv1_1", "conv2_1", "conv3_1")
    assert [run.label for run in chosen.run()] == ["to conv2_1", "to conv3_1"]


@pytest.mark.parametrize(
    ("last", "names"), [("conv1_1", ("E1", "E2", "E5", "E11")), ("conv2_1", ("E5",)), ("conv3_1", ("E4",))]
)
def test_weights_that_end_too_early_are_refused_before_anything_runs(options, ending_at, last, names):
    weights = ending_at(last)
    for name in names:
        with pytest.raises(InputError, match=f"{name}: .* end at {last}"):
            experiment(options(name, weights=weights))


@pytest.mark.parametrize(("changes", "expected"), [({}, (48, 4, 8)), ({"size": 64, "steps": 40}, (64, 40, 80))])
def test_size_and_steps_replace_the_budgets(options, changes, expected):
    base = Base(options("E3", **changes))
    assert (base.size, base.steps, base.longer) == expected


# --- claims -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "expected"), [([1, 2, 3], True), ([1, 1], False), ([3, 2], False), ([1], False)])
def test_rising_is_strict(values, expected):
    assert rises(values) is expected


def test_numbers_are_shown_with_names_and_units():
    assert claim("x", [0.12345, 1e-5], True, "px") == Claim("x", "0.123, 1e-05 px", True)
    assert claim("x", {"avg": 1.0, "max": 2.0}, False).number == "avg 1, max 2"


def verdicts(experiment, **columns):
    """What an experiment says of each claim, for runs that have only these values: a column for each field or term."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [c.holds for c in experiment.claims([SimpleNamespace(**row, term=row.get) for row in rows])]


@pytest.mark.parametrize(
    ("content", "style", "holds"),
    [([1, 2, 3, 4], [4, 3, 2, 1], [True, True]), ([1, 2, 4, 3], [4, 3, 1, 2], [False, False])],
)
def test_the_claims_of_e3_can_be_refuted_by_numbers(options, content, style, holds):
    assert verdicts(experiment(options("E3")), content=content, style=style) == holds


def test_the_claims_of_e4_can_be_refuted_by_pictures(options, photo):
    chosen, pictures = experiment(options("E4")), [photo, 1 - photo]
    assert verdicts(chosen, photo=[photo] * 2, picture=pictures, style=[2, 1]) == [True, True]
    assert verdicts(chosen, photo=[photo] * 2, picture=pictures[::-1], style=[1, 2]) == [False, False]


# --- the command line -------------------------------------------------------------------------------------------


def test_sweeps_are_run_shown_and_found_again(words, tmp_path, capsys):
    assert cli.main(["sweep", "E3", *words]) == 0
    out, err = capsys.readouterr()
    assert "| As α/β falls, the content error rises |" in out
    assert "E3-smoke/sheet.png" in out
    assert err.count("done in") == 4
    assert cli.main(["sweep", "E3", *words]) == 0
    assert capsys.readouterr().err.count("found") == 4
    assert len(index.rows(tmp_path / "results")) == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["E13"], "experiment: 'E13'"),
        (["E3", "--budget", "huge"], "budget: 'huge'"),
        (["E3", "--photo", "nowhere"], "no picture"),
    ],
)
def test_what_cannot_be_swept_is_refused(given, says, capsys, tmp_path):
    assert cli.main(["sweep", *given, "--results", str(tmp_path / "r")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.filterwarnings("default")  # of the cluster's own making
def test_sweeps_are_carried_out_by_a_cluster(words, tmp_path, cluster, capsys):
    assert cli.main(["sweep", "E4", "--dask", cluster.scheduler_address, *words]) == 0
    assert capsys.readouterr().err.count("done in") == 2
    assert len(index.rows(tmp_path / "results")) == 2


def test_ctrl_c_says_how_to_go_on(words, monkeypatch, capsys):
    raise_at(monkeypatch, 3)
    assert cli.main(["sweep", "E3", *words]) == 130
    assert "run the same command again" in capsys.readouterr().err
