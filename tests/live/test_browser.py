"""The studio in a real browser, in a real JupyterLab: the notebook is opened and run, and used as a person would.

Needs Chromium, found by name or named by NSTLAB_CHROMIUM; without one these tests are skipped. Screenshots are left in
results/screenshots."""

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from serving import TOKEN, serving

import nstlab as nst
from nstlab import images as im
from nstlab.live.audience import AWAY
from nstlab.live.studio import first_settings

HERE = Path(__file__).parents[2]
CHROMIUM = os.environ.get("NSTLAB_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = HERE / "results" / "screenshots"
LONG = 90_000  # ms

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (or set NSTLAB_CHROMIUM to one)")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@contextlib.contextmanager
def lab(folder: Path, subshells: str):
    """A JupyterLab with a workspace and settings of its own; yields its address. subshells: whether widgets' messages go to a
    thread of their own in the kernel ("perCommTarget") or wait for its main one ("disabled")."""
    notebooks, settings = folder / "work" / "notebooks", folder / "settings"
    notebooks.mkdir(parents=True)
    shutil.copy(HERE / "notebooks" / "00_studio.ipynb", notebooks)
    for name, value in {
        "apputils-extension/kernels-settings": {"commsOverSubshells": subshells},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    environment = {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")}
    options = ["--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder / 'work'}"]
    with serving(folder, "jupyterlab", *options, **environment) as (url, _):
        yield url


class Person:
    """Somebody in front of the studio."""

    def __init__(self, page, folder: Path, name: str):
        self.page, self.folder, self.name, self.count = page, folder, name, 0

    def open(self, url: str) -> None:
        self.url = url
        self.page.goto(f"{url}lab/tree/notebooks/00_studio.ipynb?token={TOKEN}")
        self.page.wait_for_selector(".jp-Notebook", timeout=LONG)
        self.page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=LONG)

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self.page.wait_for_selector(".nst-status", timeout=LONG)

    def press(self, button: str) -> None:
        self.page.locator(".nst-studio").get_by_role("button", name=button, exact=True).click()

    @property
    def status(self) -> str:
        return self.page.inner_text(".nst-status")

    @property
    def picture(self) -> str:
        return self.page.get_attribute(".nst-after", "src")

    def sees(self, what: str, text: str) -> None:
        self.page.locator(what).filter(has_text=re.compile(text)).wait_for(timeout=LONG)

    def waits(self, wanted) -> None:
        end = time.monotonic() + LONG / 1000
        while not wanted():
            assert time.monotonic() < end, self.status
            self.page.wait_for_timeout(50)

    def looks(self) -> None:
        """Keep a picture of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.count += 1
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{self.count}.png")

    def ask(self, code: str) -> str:
        """What the kernel prints, asked in a cell of its own below the studio."""
        self.page.locator(".jp-Notebook-footer").click()
        self.page.locator(".jp-Notebook .jp-Cell").last.locator(".cm-content").fill(code)
        self.page.keyboard.press("Control+Enter")
        output = self.page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea-output pre")
        output.wait_for(timeout=LONG)
        return output.inner_text().strip()


@pytest.fixture(params=["perCommTarget", "disabled"])
def person(browser, tmp_path, request):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    with lab(tmp_path, request.param) as url:
        person = Person(page, tmp_path, request.param)
        person.open(url)
        yield person
        page.close()
    assert errors == []


def test_a_person_uses_the_studio(person, tmp_path):
    page = person.page
    person.run_all()
    person.sees(".nst-status", r"painting · step \d+ of")
    person.waits(lambda: person.picture)

    # All of it is on the screen at once.
    box = page.locator(".nst-studio").bounding_box()
    assert box["y"] + box["height"] <= 800
    assert box["x"] + box["width"] <= 1280
    assert page.evaluate(
        "document.querySelector('.nst-studio').scrollWidth <= document.querySelector('.nst-studio').clientWidth"
    )

    # Frames change.
    first = person.picture
    person.waits(lambda: person.picture != first)

    # A slider is moved by keyboard, and the kernel takes its value; the style's loss falls below what it could be before.
    assert page.locator(".noUi-handle:not([aria-label])").count() == 0
    person.waits(lambda: int(re.search(r"step (\d+)", person.status)[1]) > 60)
    before = style_loss(page)
    slider = page.get_by_role("slider", name="α/β").first
    slider.focus()
    for _ in range(40):
        slider.press("ArrowLeft")
    person.waits(lambda: page.locator(".nst-mark").count() > 0)
    person.waits(lambda: style_loss(page) < 0.7 * before)
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2  # the notebook took none of the keys for itself

    # Pause: frames stop. Resume: they go on.
    person.press("Pause")
    person.sees(".nst-status", "paused · step")
    still = person.picture, person.status
    page.wait_for_timeout(1000)
    assert (person.picture, person.status) == still
    person.press("Step")
    person.waits(lambda: person.status != still[1] and person.status.startswith("paused"))
    person.press("Resume")
    person.sees(".nst-status", "painting")
    person.waits(lambda: person.picture != still[0])

    # Save: a run is in the store, with the changes of its slider.
    person.press("Save run")
    person.sees(".nst-message", "Saved as")
    person.looks()
    (run,) = nst.runs(root=tmp_path / "work" / "results").itertuples()
    stored = nst.Store(tmp_path / "work" / "results").stored("transfer", run.id)
    changes = [change for _, change in stored.manifest["changes"]]
    assert changes[-1]["style"] == pytest.approx(100 * first_settings().beta, rel=0.1)

    # The picture moved towards the style: as the settings' own start and end are judged by the same objective.
    plan = nst.prepare(nst.TransferSettings.from_dict(stored.manifest["settings"]))
    bound = plan.objective.bind(plan.net, plan.start.shape[-2:])
    began, ended = (float(bound(picture)[1]["style"]) for picture in (plan.start, im.load(stored.picture)))
    assert ended < 0.01 * began

    # A file that is no picture is refused with the reason.
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"no picture")
    page.get_by_label("Upload a photo").set_input_files(bad)
    person.sees(".nst-message", r"broken\.png: is not a picture")
    page.get_by_label("Close this message").click()
    page.locator(".nst-message").wait_for(state="hidden")

    # One that is a picture is taken, in more than one piece.
    large = im.save(nst.load("coffee", size=1400), tmp_path / "large.png")
    assert large.stat().st_size > 1 << 20
    page.get_by_label("Upload a painting").set_input_files(large)
    person.sees(".nst-inputs", "large-")

    # The code is shown, and a snapshot brings the first picture back.
    person.press("Copy as code")
    assert "nstlab transfer coffee" in page.locator(".nst-code pre").last.inner_text()
    page.keyboard.press("Escape")
    person.press("Pause")
    page.locator(".nst-film button").first.press("Enter")
    person.sees(".nst-status", "paused · step 0 of")
    page.get_by_role("slider", name="Before and after").fill("50")
    person.looks()


@pytest.mark.parametrize("person", ["perCommTarget"], indirect=True)  # messages play no part in what ends
def test_nothing_is_left_running(person):
    page = person.page
    person.run_all()
    person.sees(".nst-status", r"painting · step \d+ of")
    # The cell is run again: the first studio's page is gone, and it paints no more.
    assert person.ask("import threading; print(sum(t.name == 'nstlab session' for t in threading.enumerate()))") == "1"
    page.locator(".jp-Notebook .jp-CodeCell").first.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    person.waits(lambda: page.locator(".nst-status").count() == 1)
    person.sees(".nst-status", r"painting · step \d+ of")
    states = "import gc; print(sorted(str(o.session.phase) for o in gc.get_objects() if type(o) is nst.Studio))"
    person.waits(lambda: person.ask(states) == "['paused', 'running']")

    # The page is closed: after a while nothing is painted any more.
    page.goto("about:blank")
    time.sleep(AWAY + 2)
    person.open(person.url)
    assert person.ask(states) == "['paused', 'paused']"

    # The kernel is restarted: no thread is left, and the studio can be opened anew.
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=LONG)
    assert person.ask("import threading; print(sum(t.name == 'nstlab session' for t in threading.enumerate()))") == "0"


def style_loss(page) -> float:
    """As the legend of the curves has it."""
    return float(re.search(r"style ([\d.e+-]+)", page.inner_text(".nst-legend"))[1])
