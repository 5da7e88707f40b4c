"""The studio in a real browser, in a real JupyterLab: the notebook is opened and run, and used as a
person would.

Needs Chromium, found by name or named by NSTLAB_CHROMIUM; without one this is skipped. Screenshots
are left in results/screenshots."""

import json
import re
import time
from pathlib import Path

import pytest
from helpers import CHROMIUM
from making import make_clip
from serving import TOKEN, serving

import nstlab as nst
from nstlab.live.audience import AWAY
from nstlab.live.studio import first_settings
from nstlab.pictures import images as im

HERE = Path(__file__).parents[2]
SCREENSHOTS = HERE / "results" / "screenshots"
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
LONG = 90_000  # ms
PHASES = (
    "import gc; print(sorted(str(o.session.phase) for o in gc.get_objects() if type(o) is "
    "nst.Studio))"
)
SLOW = """
import time
from nstlab.feedforward.model import StyleModel
from nstlab.method.fast.evaluation import FastBound
evaluate, paint = FastBound.evaluate, StyleModel.__call__
FastBound.evaluate = lambda self, image: time.sleep(0.1) or evaluate(self, image)
StyleModel.__call__ = lambda self, *given, **named: time.sleep(0.1) or paint(self, *given, **named)
"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (or set NSTLAB_CHROMIUM to one)"
)


class Person:
    """Somebody in front of the studio."""

    def __init__(self, page, url: str):
        self.page, self.url = page, url

    def open(self) -> None:
        self.page.goto(f"{self.url}/notebooks/00_studio.ipynb?token={TOKEN}")
        self.page.wait_for_selector(".jp-Notebook", timeout=LONG)
        self.sees_idle()

    def chooses(self, menu: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()

    def press(self, button: str) -> None:
        self.page.locator(".nst-studio").get_by_role("button", name=button, exact=True).click()

    @property
    def status(self) -> str:
        return self.page.inner_text(".nst-status")

    @property
    def picture(self) -> str:
        return self.page.get_attribute(".nst-after", "src")

    @property
    def style_loss(self) -> float:
        return self.loss("style")

    def loss(self, term: str) -> float:
        """A term's, as the legend of the curves has it."""
        return float(re.search(rf"{term} ([\d.e+-]+)", self.page.inner_text(".nst-legend"))[1])

    @property
    def restarts(self) -> int:
        """Of how many runs there are snapshots."""
        return len(set(re.findall(r"run \d+", self.page.inner_text(".nst-snapshots"))))

    def regions(self, which: int) -> list[int]:
        """The colours of the regions of the photo (0) or the painting (1)."""
        return (
            self.page.locator(".nst-regions canvas")
            .nth(which)
            .evaluate(
                """canvas => [...new Set(new Uint32Array(
                canvas.getContext("2d").getImageData(0, 0, canvas.width,
                canvas.height).data.buffer))]"""
            )
        )

    def strokes(self, which: int, height: float) -> None:
        """Draws across the photo (0) or the painting (1) with the brush, at this part of its
        height."""
        canvas = self.page.locator(".nst-regions canvas").nth(which)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        self.page.mouse.move(box["x"] + 20, box["y"] + box["height"] * height)
        self.page.mouse.down()
        self.page.mouse.move(
            box["x"] + box["width"] - 20, box["y"] + box["height"] * height + 10, steps=5
        )
        self.page.mouse.up()

    def sees(self, what: str, text: str) -> None:
        self.page.locator(what).filter(has_text=re.compile(text)).wait_for(timeout=LONG)

    def sees_idle(self) -> None:
        self.page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=LONG)

    def waits(self, wanted) -> None:
        end = time.monotonic() + LONG / 1000
        while not wanted():
            assert time.monotonic() < end, self.status
            self.page.wait_for_timeout(50)

    def ask(self, code: str) -> str:
        """What the kernel prints, asked in a cell of its own below the studio."""
        self.page.locator(".jp-Notebook-footer").click()
        cell = self.page.locator(".jp-Notebook .jp-Cell").last
        cell.locator(".cm-content").fill(code)
        self.page.keyboard.press("Control+Enter")
        output = cell.locator(".jp-OutputArea-output pre")
        output.wait_for(timeout=LONG)
        return output.inner_text().strip()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab and a browser: (its address, its folder, the folder of its settings, a context
    of the browser)."""
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(news))
    options = [
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={folder / 'work'}",
    ]
    with (
        playwright.sync_playwright() as running,
        serving(folder, "jupyterlab", *options) as (url, _),
    ):
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_CAMERA]
        )
        yield (
            url,
            folder / "work",
            settings,
            browser.new_context(viewport={"width": 1280, "height": 800}),
        )
        browser.close()


# widgets' messages have a thread in the kernel, or wait for its main one
@pytest.fixture(params=["perCommTarget", "disabled"])
def person(lab, request):
    """In front of the lab with a workspace and settings of its own, and a studio that does not
    paint at full speed."""
    url, work, settings, context = lab
    folder = work / request.param / "notebooks"
    folder.mkdir(parents=True)
    small = (
        "nst.Studio(nst.TransferSettings('coffee', 'swirl_strokes', size=96, steps=100_000, "
        "levels=1), "
    )
    notebook = (HERE / "notebooks" / "00_studio.ipynb").read_text().replace("nst.Studio(", small)
    (folder / "00_studio.ipynb").write_text(
        notebook.replace("import nstlab", "import slow, nstlab")
    )
    (folder / "slow.py").write_text(SLOW)
    (settings / "kernels-settings.jupyterlab-settings").write_text(
        json.dumps({"commsOverSubshells": request.param})
    )
    errors = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield Person(page, f"{url}lab/workspaces/{request.param}/tree/{request.param}")
    page.close()
    assert errors == []


def test_a_person_uses_the_studio_and_nothing_is_left_running(person, lab, tmp_path, request):
    page, way = person.page, request.node.callspec.params["person"]
    work = lab[1] / way
    person.open()
    person.chooses("Run", "Run All Cells")
    person.sees(".nst-status", r"painting · step \d+ of")
    person.waits(lambda: person.picture)

    # All of it is on the screen at once.
    box = page.locator(".nst-studio").bounding_box()
    assert box["y"] + box["height"] <= 800
    assert box["x"] + box["width"] <= 1280
    assert page.evaluate(
        "(({scrollWidth, clientWidth}) => scrollWidth <= "
        "clientWidth)(document.querySelector('.nst-studio'))"
    )

    # Frames change.
    first = person.picture
    person.waits(lambda: person.picture != first)

    # A slider is moved by keyboard, and the kernel takes its value; the style's loss falls below
    # what it could be before.
    assert page.locator(".noUi-handle:not([aria-label])").count() == 0
    person.waits(lambda: int(re.search(r"step (\d+)", person.status)[1]) > 30)
    before = person.style_loss
    slider = page.get_by_role("slider", name="α/β").first
    slider.focus()
    for _ in range(40):
        slider.press("ArrowLeft")
    person.waits(lambda: page.locator(".nst-mark").count() > 0)
    person.waits(lambda: person.style_loss < 0.7 * before)
    # the notebook took none of the keys for itself
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2

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
    (run,) = nst.runs(root=work / "results").itertuples()
    _, change = nst.Store(work / "results").stored("transfer", run.id).manifest["changes"][-1]
    assert change["style"] == pytest.approx(100 * first_settings().beta, rel=0.1)

    if way == "disabled":
        paints_a_film_and_plays_it(person, work)
        paints_what_the_camera_sees(person, work / "results")
        mixes_paintings_and_brushes_regions(person, work / "results")
        return  # neither this nor what follows depends on who handles messages

    # A file that is no picture is refused with the reason; one that is a picture is taken, in more
    # than one piece.
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"no picture")
    page.get_by_label("Upload a photo").set_input_files(bad)
    person.sees(".nst-message", r"broken\.png: is not a picture")
    page.get_by_label("Close this message").click()
    page.locator(".nst-message").wait_for(state="hidden")
    large = im.save(nst.load("coffee", size=1400), tmp_path / "large.png")
    assert large.stat().st_size > 1 << 20
    page.get_by_label("Upload a painting").set_input_files(large)
    person.sees(".nst-inputs", "large-")

    # The code is shown, and a snapshot brings the first picture back.
    person.press("Copy as code")
    assert "nstlab transfer coffee" in page.locator(".nst-code pre").last.inner_text()
    page.keyboard.press("Escape")
    person.press("Pause")
    page.locator(".nst-snapshots button").first.press("Enter")
    person.sees(".nst-status", "paused · step 0 of")
    page.get_by_role("slider", name="Before and after").fill("50")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "studio.png")

    # The cell is run again: the first studio's page is gone, and it paints no more.
    person.press("Resume")
    assert person.ask(PHASES) == "['running']"
    page.locator(".jp-Notebook .jp-CodeCell").first.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    person.waits(lambda: person.ask(PHASES) == "['paused', 'running']")

    # The page is closed: after a while nothing is painted any more.
    page.goto("about:blank")
    time.sleep(AWAY + 2)
    person.open()
    assert person.ask(PHASES) == "['paused', 'paused']"

    # The kernel is restarted: the studio can be opened anew.
    person.chooses("Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    person.sees_idle()
    person.chooses("Run", "Run All Cells")
    person.waits(lambda: person.ask(PHASES) == "['running']")


def paints_a_film_and_plays_it(person, folder):
    page = person.page
    wide = nst.load("coffee", size=160)
    clip = make_clip(
        folder / "clip.mp4", [wide[..., 4 : 4 + 64, 5 * i : 5 * i + 96] for i in range(6)]
    )
    page.get_by_role("tab", name="Film").click()
    for name, value in (
        ("clip", str(clip)),
        ("out", str(folder / "film.mp4")),
        ("steps", "3"),
        ("size (px)", "96"),
    ):
        field = page.get_by_label(name, exact=True).locator("visible=true")
        field.fill(value)
        field.press("Enter")
    place = page.get_by_role("slider", name="Frame", exact=True)
    page.get_by_role("button", name="Paint film").click()
    person.sees(".nst-status", "paused")

    # What there is so far is there to see, and can be stopped; the film then goes on.
    person.waits(lambda: place.is_enabled())
    page.locator(".nst-player").get_by_role("button", name="Stop").click()
    person.sees(".nst-player .nst-status-line", "^stopped; .*film.mp4 holds what is painted so far")
    page.get_by_role("button", name="Paint film").click()
    person.sees(".nst-player .nst-status-line", r"film\.mp4: 0\.60 s, frames: 6")
    person.waits(lambda: place.get_attribute("max") == "5" and place.input_value() == "5")

    # Another frame is chosen; then it plays, from the first to the last and again.
    shown = "document.querySelector('.nst-player canvas').toDataURL()"
    last = page.evaluate(shown)
    place.fill("0")
    person.waits(lambda: page.evaluate(shown) != last)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.get_by_role("button", name="Play").click()
    person.waits(lambda: place.input_value() == "4")
    person.waits(lambda: place.input_value() == "1")
    page.get_by_role("tab", name="Film").scroll_into_view_if_needed()
    page.screenshot(path=SCREENSHOTS / "film.png")
    page.locator(".nst-player").get_by_role("button", name="Pause").click()
    page.get_by_role("tab", name="Live").click()
    person.press("Resume")
    person.sees(".nst-status", "painting")


def paints_what_the_camera_sees(person, results):
    page = person.page
    shown = page.locator(".nst-camera img")
    frame = lambda: shown.get_attribute("src")  # noqa: E731
    stream = "document.querySelector('.nst-camera video').srcObject"
    page.get_by_role("tab", name="Camera").click()
    assert page.evaluate(stream) is None  # nothing is asked for before the button is pressed
    page.get_by_role("button", name="Start the camera").click()
    person.waits(frame)
    first = frame()
    person.waits(lambda: frame() != first)
    person.sees(".nst-camera .nst-rate", r"\d+\.\d pictures a second")
    person.sees(".nst-status", "paused")  # the painting has left the processor to it

    # Without strength, the picture is the camera's: the fake one's is green.
    def green():
        return page.evaluate("""() => {
            const img = document.querySelector('.nst-camera img');
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [1, 1];
            canvas.getContext('2d').drawImage(img, 40, 40, 60, 60, 0, 0, 1, 1);
            const [r, g, b] = canvas.getContext('2d').getImageData(0, 0, 1, 1).data;
            return g > 1.5 * Math.max(r, b);
        }""")

    page.get_by_role("slider", name="strength").fill("0")
    person.waits(green)
    page.get_by_role("slider", name="strength").fill("1")
    person.waits(lambda: not green())

    # Out of sight, the camera is let go of; it comes back with the tab.
    assert not (results / "camera").exists()
    page.get_by_role("button", name="Save picture").click()
    person.sees(".nst-status-line", "Saved as")
    assert len(list((results / "camera").iterdir())) == 1
    page.get_by_role("tab", name="Live").click()
    person.waits(lambda: page.evaluate(stream) is None)
    page.get_by_role("tab", name="Camera").click()
    person.waits(lambda: page.evaluate(f"{stream} !== null"))
    last = frame()
    person.waits(lambda: frame() != last)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "camera.png")
    page.locator(".nst-camera").get_by_role("button", name="Stop").click()
    assert page.evaluate(stream) is None
    page.get_by_role("tab", name="Live").click()
    person.press("Resume")
    person.sees(".nst-status", "painting")


def mixes_paintings_and_brushes_regions(person, results):
    page = person.page

    # A second painting is mixed in; its share is moved while it paints, and its loss falls.
    page.get_by_role("tab", name="Pictures").click()
    page.get_by_label("more paintings").fill("mosaic")
    page.get_by_label("more paintings").press("Enter")
    person.sees(".nst-legend", "style_2")
    page.get_by_role("tab", name="Live").click()
    runs, before = person.restarts, person.loss("style_2")
    slider = page.get_by_role("slider", name="mosaic")
    slider.focus()
    for _ in range(10):
        slider.press("PageUp")
    person.waits(
        lambda: page.locator(".nst-mark").count() > 0 and person.loss("style_2") < 0.7 * before
    )
    assert person.restarts == runs
    page.get_by_role("tab", name="Pictures").click()
    page.get_by_label("more paintings").fill("")
    page.get_by_label("more paintings").press("Enter")
    person.waits(lambda: "style_2" not in page.inner_text(".nst-legend"))

    # Regions are found, shown over both pictures and accepted.
    page.get_by_role("tab", name="Regions").click()
    page.get_by_role("slider", name="regions").first.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    person.waits(lambda: all(len(person.regions(i)) == 3 for i in (0, 1)))
    page.get_by_role("button", name="Use these regions").click()
    person.waits(lambda: len(list((results / "uploads").glob("*.png"))) == 2)
    person.sees(".nst-legend", "style_3")

    # Without them, a stroke of the brush on each makes two, and both take effect.
    page.get_by_role("button", name="No regions").click()
    person.waits(
        lambda: "style_2" not in page.inner_text(".nst-legend") and len(person.regions(0)) == 1
    )
    for i in (0, 1):
        person.strokes(i, 0.5)
    page.get_by_role("button", name="Region 2", exact=True).click()
    person.strokes(1, 0.2)
    assert [len(person.regions(i)) for i in (0, 1)] == [2, 3]
    page.get_by_role("button", name="Undo").click()
    assert [len(person.regions(i)) for i in (0, 1)] == [2, 2]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "regions.png")
    page.get_by_role("button", name="Use these regions").click()
    person.sees(".nst-legend", "style_2")
    assert len(list((results / "uploads").glob("*.png"))) == 4
