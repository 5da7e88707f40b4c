"""What stands around the package: the environment for conda and Binder, the course's table, the links of its pages."""

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
    *(ROOT / name / "README.md" for name in ("notebooks", "benchmarks", "results/gallery", "data/style")),
]


def names(requirements):
    """Of packages, without versions, as conda calls them."""
    found = {re.split(r"[<>=\s\[]", text)[0].lower() for text in requirements}
    return {"pytorch" if name == "torch" else name for name in found}


def test_the_conda_environment_has_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = names(re.findall(r"^  - ([\w-]+.*)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), re.M))
    missing = names(project["dependencies"]) - listed
    assert missing <= {"lazy-loader"}  # which pip brings, with the package itself


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script, for Binder")
def test_binders_script_runs(tmp_path):
    script = (ROOT / "postBuild").read_text(encoding="utf-8").replace("python ", f"{sys.executable} ")
    (tmp_path / "postBuild").write_text(script, encoding="utf-8")
    subprocess.run(["bash", str(tmp_path / "postBuild")], check=True, capture_output=True, cwd=tmp_path)


def test_the_course_lists_every_notebook_in_order():
    listed = re.findall(r"\]\((\d\d_\w+)\.ipynb\)", (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8"))
    assert listed == list(available())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
