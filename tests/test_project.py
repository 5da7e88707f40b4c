"""What stands around the package: the environment for conda and Binder, the course's table, the
links of its pages."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nstlab.course.experiment import available

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / name / "README.md"
        for name in ("notebooks", "benchmarks", "results/gallery", "data/style")
    ),
]


def parted(requirements):
    """[(name of a package, its bounds)]"""
    return [re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", text).groups() for text in requirements]


PACKAGES = {  # that have other names than what one imports
    "IPython": "ipython", "PIL": "pillow", "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
}  # fmt: skip
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = {  # what the package asks for, for each purpose
    "build": parted(FILE["build-system"]["requires"]),
    "dependencies": parted(FILE["project"]["dependencies"]),
    **{extra: parted(each) for extra, each in FILE["project"]["optional-dependencies"].items()},
}


def test_the_conda_environment_has_what_the_package_asks_for():
    listed = re.findall(
        r"^  - ([\w-]+) ?(.*)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), re.M
    )
    asked = {
        f"{'pytorch' if name == 'torch' else name}{bound}"
        for name, bound in PROJECT["dependencies"]
    }
    missing = asked - {name + bound for name, bound in listed}
    # which pip brings, with the package itself
    assert {re.split(">", text)[0] for text in missing} <= {"lazy-loader"}


def test_every_dependency_has_a_lower_bound_and_every_import_is_of_a_dependency():
    named = [each for group in PROJECT.values() for each in group if each[0] != "nstlab"]
    assert [name for name, bound in named if not bound.startswith(">=")] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "nstlab").rglob("*.py"))
    pairs = re.findall(
        r"^ *(?:import (\w+)[\w.]*(?: as \w+)?$|from (\w+)[\w.]* import )", code, re.M
    )
    others = {one or other for one, other in pairs} - sys.stdlib_module_names - {"nstlab"}
    assert {"torch", "PIL", "av"} <= others
    missing = {PACKAGES.get(name, name.replace("_", "-")) for name in others} - {
        name for name, _ in named
    }
    assert missing == set()


def test_every_file_that_is_named_to_contributors_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = [ROOT, ROOT / "nstlab", ROOT / "nstlab" / "terms" / "statistics"]
    paths = {
        name
        for name in re.findall(r"`([\w./]+)`", text)
        if "/" in name or re.search(r"\.(py|toml|md|yml)$", name)
    }
    examples = {"notebooks/18_name.ipynb"}
    missing = {
        name for name in paths - examples if not any((place / name).exists() for place in places)
    }
    assert missing == set()


def test_the_map_for_contributors_has_every_room_and_every_file_of_the_package():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(nstlab/\w+/)` \|(.*)\|$", text, re.M))
    rooms = {path.parent for path in (ROOT / "nstlab").glob("*/__init__.py")}
    assert set(told) == {f"nstlab/{room.name}/" for room in rooms}
    for room in rooms:
        paths = [path for path in room.iterdir() if path.name[0] != "_"]
        names = {path.stem for path in paths if path.suffix == ".py" or path.is_dir()}
        named = set(re.findall(r"`(\w+)`", told[f"nstlab/{room.name}/"]))
        recipes = {"transfer", "texture", "reconstruct", "sketch", "photoreal"}
        assert named == names - recipes


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script, for Binder")
def test_binders_script_runs(tmp_path):
    script = (
        (ROOT / "postBuild").read_text(encoding="utf-8").replace("python ", f"{sys.executable} ")
    )
    (tmp_path / "postBuild").write_text(script, encoding="utf-8")
    subprocess.run(
        ["bash", str(tmp_path / "postBuild")], check=True, capture_output=True, cwd=tmp_path
    )


def test_the_course_lists_every_notebook_in_order():
    listed = re.findall(
        r"\]\((\d\d_\w+)\.ipynb\)", (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    )
    assert listed == list(available())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
