"""The classic experiments: every one runs, ends in numbers, and is shown; and the claims can be refuted."""

import re

import pytest

from nstlab import cli
from nstlab import images as im
from nstlab.course import base as bases
from nstlab.course import report
from nstlab.course.base import BUDGETS, Base, Claim, claim, rises
from nstlab.course.experiments import EXPERIMENTS
from nstlab.course.settings import BUDGETS as NAMES
from nstlab.course.settings import EXPERIMENTS as IDS
from nstlab.course.settings import SweepSettings
from nstlab.runs import index
from nstlab.settings import InputError


@pytest.fixture
def options(tmp_path, photo, painting, tiny_file):
    """Makes an experiment's options, with small pictures and a tiny network."""
    a, b = im.save(photo, tmp_path / "photo.png"), im.save(painting, tmp_path / "painting.png")

    def make(experiment, **changes):
        usual = {"budget": "smoke", "photo": str(a), "painting": str(b), "weights": str(tiny_file), "device": "cpu"}
        return SweepSettings(experiment, **usual | {"results": tmp_path / "results"} | changes)

    return make


def test_what_can_be_named_is_there():
    assert tuple(EXPERIMENTS) == IDS
    assert set(BUDGETS) == set(NAMES)


@pytest.mark.parametrize("experiment", IDS)
def test_every_experiment_ends_in_claims_with_numbers_and_in_a_sheet(experiment, options, tmp_path):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    chosen = options(experiment, gallery=gallery, weights="embedded", photo="coffee")
    runs = report.carry_out(chosen)
    found = report.claims(chosen, runs)
    assert found
    assert all(re.search(r"\d", c.number) and isinstance(c.holds, bool) for c in found)
    places = report.write(chosen, runs, found)
    assert all(path.is_file() for path in places)
    assert (gallery / f"{experiment}.jpg").stat().st_size <= 300_000
    page = (gallery / "README.md").read_text()
    assert all(text in page for text in (EXPERIMENTS[experiment].title, f"{experiment}.jpg", found[0].text))
    assert f"nstlab sweep {experiment} --budget smoke" in page


def test_claims_are_read_from_stored_runs(options, monkeypatch):
    chosen = options("E3")
    first = report.claims(chosen, report.carry_out(chosen))
    monkeypatch.setattr("nstlab.method.engine.minimize", lambda *_, **__: pytest.fail("computed again"))
    seen = []
    again = report.carry_out(chosen, lambda case, step, done: seen.append(done.found))
    assert seen == [True] * 4
    assert report.claims(chosen, again) == first


def test_weights_from_a_file_add_their_claims_to_the_gallery(options, tmp_path):
    for weights in ("embedded", str(tmp_path / "tiny.safetensors")):
        chosen = options("E11", gallery=tmp_path, weights=weights)
        report.write(chosen, [], report.claims(chosen, []))
    page = (tmp_path / "README.md").read_text()
    assert page.count(report.claims(chosen, [])[0].text) == 2
    assert "The same with the weights `tiny` (content conv4_2, style" in page
    assert str(tmp_path) not in page.partition("The same")[2]


def test_the_gallery_keeps_the_order_of_the_experiments(options, tmp_path):
    for experiment in ("E11", "E4", "E3"):
        chosen = options(experiment, gallery=tmp_path, weights="embedded")
        runs = report.carry_out(chosen)
        report.write(chosen, runs, report.claims(chosen, runs))
    titles = re.findall(r"^## (E\d+)", (tmp_path / "README.md").read_text(), re.MULTILINE)
    assert titles == ["E3", "E4", "E11"]


def test_a_gallery_that_is_not_there_is_refused(options, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        report.check(options("E11", gallery=tmp_path / "none"))


def test_partial_weights_are_used_as_far_as_they_reach(options, tiny, tmp_path):
    import safetensors.torch

    from nstlab.method.weights import TORCHVISION

    partial = {name: t for name, t in tiny.tensors.items() if name < "conv3_5"}
    safetensors.torch.save_file(partial, tmp_path / "partial.safetensors", {"input": str(TORCHVISION)})
    base = Base.of(options("E5", weights=str(tmp_path / "partial.safetensors")))
    assert base.content == ("conv3_3",)
    assert base.style == ("conv1_1", "conv2_1", "conv3_1")
    runs = report.carry_out(options("E5", weights=str(tmp_path / "partial.safetensors")))
    assert [run.case.labels["style_layers"] for run in runs] == ["to conv2_1", "to conv3_1"]


@pytest.mark.parametrize(
    ("last", "experiments"), [("conv1_1", ("E1", "E2", "E5", "E11")), ("conv2_1", ("E5",)), ("conv3_1", ("E4",))]
)
def test_weights_that_do_not_reach_far_enough_are_refused_before_anything_runs(options, tiny, tmp_path, last, experiments):
    import safetensors.torch

    from nstlab.method.weights import TORCHVISION

    path = tmp_path / "few.safetensors"
    few = {name: t for name, t in tiny.tensors.items() if name.partition(".")[0] <= last}
    safetensors.torch.save_file(few, path, {"input": str(TORCHVISION)})
    for experiment in experiments:
        with pytest.raises(InputError, match=f"{experiment}: .* end at {last}"):
            report.check(options(experiment, weights=str(path)))


def test_size_and_steps_take_the_place_of_the_budgets(options):
    base = Base.of(options("E3", size=64, steps=40))
    assert (base.size, base.steps, base.longer) == (64, 40, 80)
    base = Base.of(options("E3"))
    assert (base.size, base.steps, base.longer) == (48, 4, 8)


@pytest.mark.parametrize(("values", "expected"), [([1, 2, 3], True), ([1, 1], False), ([3, 2], False), ([1], False)])
def test_rising_is_strict(values, expected):
    assert rises(values) is expected


def test_numbers_are_shown_with_names_and_units():
    assert claim("x", [0.12345, 1e-5], True, "px") == Claim("x", "0.123, 1e-05 px", True)
    assert claim("x", {"avg": 1.0, "max": 2.0}, False).number == "avg 1, max 2"


class Fake:
    """A run of which nothing is stored."""

    def __init__(self, case, **values):
        self.settings, self.case, self.result = case.settings, case, values.pop("result", {})
        self.values = values
        for name, value in values.items():
            setattr(self, name, value)

    def term(self, name):
        return self.values[name]


def test_the_claims_of_e3_are_refuted_by_other_numbers(options):
    base = Base.of(options("E3"))
    cases = EXPERIMENTS["E3"].sweep(base).cases

    def verdicts(content, style):
        runs = [Fake(case, content=c, style=s) for case, c, s in zip(cases, content, style, strict=True)]
        return [c.holds for c in EXPERIMENTS["E3"].claims(runs, base)]

    assert verdicts([1, 2, 3, 4], [4, 3, 2, 1]) == [True, True]
    assert verdicts([1, 2, 4, 3], [4, 3, 1, 2]) == [False, False]


def test_the_claims_of_e4_are_refuted_by_other_pictures(options, photo, painting):
    base = Base.of(options("E4"))
    cases = EXPERIMENTS["E4"].sweep(base).cases

    def verdicts(pictures, errors):
        runs = [Fake(c, photo=photo, picture=p, style=e) for c, p, e in zip(cases, pictures, errors, strict=True)]
        return [c.holds for c in EXPERIMENTS["E4"].claims(runs, base)]

    assert verdicts([photo, 1 - photo], [2, 1]) == [True, True]
    assert verdicts([1 - photo, photo], [1, 2]) == [False, False]


def test_sweeps_are_run_and_shown_on_the_command_line(options, tmp_path, capsys):
    o = options("E3")
    words = ["--photo", o.photo, "--painting", o.painting, "--weights", o.weights, "--results", str(o.results)]
    assert cli.main(["sweep", "E3", "--budget", "smoke", *words]) == 0
    out, err = capsys.readouterr()
    assert "| As α/β falls, the content error rises |" in out
    assert "E3-smoke/sheet.png" in out
    assert err.count("done in") == 4
    assert cli.main(["sweep", "E3", "--budget", "smoke", *words]) == 0
    assert capsys.readouterr().err.count("found") == 4
    assert len(index.rows(o.results)) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["E13"], "experiment: 'E13'"),
        (["E3", "--budget", "huge"], "budget: 'huge'"),
        (["E3", "--photo", "nowhere"], "no picture"),
    ],
)
def test_what_cannot_be_swept_is_refused(words, says, capsys, tmp_path):
    assert cli.main(["sweep", *words, "--results", str(tmp_path / "r")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.filterwarnings("default")  # of the cluster's own making
def test_sweeps_are_carried_out_by_a_cluster(options, cluster, capsys):
    o = options("E4")
    words = ["--photo", o.photo, "--painting", o.painting, "--weights", o.weights, "--results", str(o.results)]
    assert cli.main(["sweep", "E4", "--budget", "smoke", "--dask", cluster.scheduler_address, *words]) == 0
    assert capsys.readouterr().err.count("done in") == 2
    assert len(index.rows(o.results)) == 2


def test_ctrl_c_says_how_to_go_on(options, monkeypatch, capsys):
    from faults import raise_at

    o = options("E3")
    raise_at(monkeypatch, 3)
    words = ["--photo", o.photo, "--painting", o.painting, "--weights", o.weights, "--results", str(o.results)]
    assert cli.main(["sweep", "E3", "--budget", "smoke", *words]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_the_first_picture_of_a_run_is_known(options):
    runs = report.carry_out(options("E7"))
    by = {run.settings.init: run for run in runs if run.settings.steps == 4}
    assert float(by["grey"].start.std()) == 0
    assert bases.Seen(by["content"].done).start.sub(by["content"].photo).abs().max() < 1e-6
