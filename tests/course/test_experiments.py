"""The classic experiments: each runs, ends in numbers and is shown; and its claims can be refuted."""

import re
from types import SimpleNamespace

import pytest
import safetensors.torch
from faults import raise_at, refusal

from nstlab import cli
from nstlab.course import report
from nstlab.course.base import BUDGETS, Base, FinishedRun
from nstlab.course.experiment import Claim, claim
from nstlab.course.experiments import EXPERIMENTS, experiment
from nstlab.course.settings import BUDGET_NAMES, EXPERIMENT_IDS, SweepSettings
from nstlab.method.weights import TORCHVISION
from nstlab.runs import index
from nstlab.runs.sweep import Sweep


@pytest.mark.usefixtures("small")  # figures
@pytest.mark.parametrize("name", EXPERIMENT_IDS)
def test_every_experiment_ends_in_an_answer_claims_a_sheet_and_a_page(name, results, tmp_path):
    chosen = experiment(SweepSettings(name, "smoke", seed=1, weights="embedded", gallery=tmp_path, results=results))
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
        ("E7", 2, ["noise", "steps 4", "white", "grey", "content", "style", "rings", "steps 8"]),
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


def test_the_first_picture_of_a_run_is_known(options, tmp_path):
    grey, photo = map(FinishedRun, Sweep(Base(options("E7")).transfer(), {"init": ["grey", "content"]}).run(tmp_path))
    assert float(grey.start.std()) == 0
    assert photo.start.sub(photo.photo).abs().max() < 1e-6


def test_weights_from_a_file_add_their_claims_to_a_gallery_in_the_order_of_the_experiments(options, tmp_path):
    for weights in ("embedded", str(tmp_path / "tiny.safetensors")):
        chosen = experiment(options("E11", gallery=tmp_path, weights=weights))
        claims = list(chosen.claims([]))
        report.write(chosen, [], claims)
    for name in ("E4", "E3-other", "E3", "transfers"):
        report.hang(name, f"## {name}\n", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.count(claims[0].text) == 2
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
    chosen = experiment(options("E5", weights=ending_at("conv3_4")))
    assert (chosen.base.content, chosen.base.style) == (("conv3_3",), ("conv1_1", "conv2_1", "conv3_1"))
    assert [run.label for run in chosen.run()] == ["to conv2_1", "to conv3_1"]


@pytest.mark.parametrize(("last", "name"), [("conv1_1", "E1"), ("conv1_1", "E11"), ("conv2_1", "E5"), ("conv3_1", "E4")])
def test_weights_that_end_too_early_are_refused_before_anything_runs(options, ending_at, last, name):
    assert re.match(f"{name}: .* end at {last}", refusal(experiment, options(name, weights=ending_at(last))))


@pytest.mark.parametrize(("changes", "expected"), [({}, (48, 4, 8)), ({"size": 64, "steps": 40}, (64, 40, 80))])
def test_size_and_steps_replace_the_budgets(options, changes, expected):
    base = Base(options("E3", **changes))
    assert (base.size, base.steps, base.longer) == expected
    assert set(BUDGETS) == set(BUDGET_NAMES)


def test_claims_are_shown_with_names_and_units_and_can_be_refuted_by_numbers_and_by_pictures(options, photo):
    assert claim("x", [0.12345, 1e-5], True, "px") == Claim("x", "0.123, 1e-05 px", True)
    assert claim("x", {"avg": 1.0, "max": 2.0}, False).number == "avg 1, max 2"

    def verdicts(name, **columns):
        """What an experiment says of each claim, for runs that have only these values: a column for each field or term."""
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [c.holds for c in experiment(options(name)).claims([SimpleNamespace(**row, term=row.get) for row in rows])]

    assert verdicts("E3", content=[1, 2, 3, 4], style=[4, 3, 2, 1]) == [True, True]
    assert verdicts("E3", content=[1, 2, 4, 3], style=[4, 3, 2, 2]) == [False, False]
    assert verdicts("E4", photo=[photo] * 2, picture=[photo, 1 - photo], style=[2, 1]) == [True, True]
    assert verdicts("E4", photo=[photo] * 2, picture=[1 - photo, photo], style=[1, 2]) == [False, False]


@pytest.fixture
def sweep(small):
    """The command, with small pictures and weights; its exit code."""
    words = [word for name in ("budget", "photo", "painting", "weights", "results") for word in (f"--{name}", str(small[name]))]
    return lambda *given: cli.main(["sweep", *words, *given])


def test_sweeps_are_run_shown_and_found_again_and_go_on_after_ctrl_c(sweep, tmp_path, capsys, monkeypatch):
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
    assert [line for line in again.splitlines() if line.startswith("|")] == [x for x in out.splitlines() if x.startswith("|")]
    assert len(index.rows(tmp_path / "results")) == 4


@pytest.mark.filterwarnings("default")  # of the cluster's own making
def test_sweeps_are_carried_out_by_a_cluster(sweep, tmp_path, cluster, capsys):
    assert sweep("E4", "--dask", cluster.scheduler_address) == 0
    assert capsys.readouterr().err.count("done in") == 2
    assert len(index.rows(tmp_path / "results")) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["E13"], "experiment: 'E13'"),
        (["E3", "--budget", "huge"], "budget: 'huge'"),
        (["E3", "--photo", "nowhere"], "no picture"),
        (["E11", "--gallery", "nowhere"], "there is no folder"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(sweep, given, says, capsys, tmp_path):
    assert sweep(*given) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
