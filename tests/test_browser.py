"""The report in a real browser: it fits a phone, follows dark and light, and fetches nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.image
import pytest
from minirun import minirun

from pipeline import report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: apt-get install chromium"
)

PHONE, DESK, HEIGHT = 380, 1280, 900
READ = (".lead", ".soft", "td", "td b", "th", "caption", ".elsewhere td", "aside li", "figcaption")
MEASURE = """<script>addEventListener("load", () => {
  const page = document.documentElement, colour = (e, what) => getComputedStyle(e)[what];
  const behind = e => { for (; e; e = e.parentElement) { const c = colour(e, "backgroundColor");
    if (!c.endsWith(", 0)")) return c; } return "rgb(255, 255, 255)"; };
  const seen = SELECTORS.map(s => [s, document.querySelector(s)]).filter(([s, e]) => e);
  parent.postMessage({inner: innerWidth, scroll: page.scrollWidth,
    fetched: performance.getEntriesByType("resource").map(e => e.name),
    images: [...document.images].map(i => i.naturalWidth),
    pairs: seen.map(([s, e]) => [s, colour(e, "color"), behind(e)])}, "*");
})</script></body>"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="page.html" width="WIDTH" height="HEIGHT" style="border:0;display:block">
</iframe><pre id="told"></pre>
<script>onmessage = e => document.getElementById("told").textContent = JSON.stringify(e.data)
</script></body>"""


class Seen(NamedTuple):
    """What the browser says about a page, and its picture."""

    told: dict[str, Any]
    brightness: float
    """Mean over the screenshot, 0 to 1."""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = minirun(tmp_path_factory.mktemp("run"))
    run.stage("report").mkdir(parents=True, exist_ok=True)
    report.run(run, run.stage("report"))
    return (run.folder / "report.html").read_text(encoding="utf-8")


def look(html: str, folder: Path, width: int, dark: bool = False) -> Seen:
    """Open a page in a frame of some width: windows of browsers are never as narrow as a phone."""
    script = MEASURE.replace("SELECTORS", json.dumps(READ))
    (folder / "page.html").write_text(html.replace("</body>", script), encoding="utf-8")
    frame = FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(HEIGHT))
    (folder / "frame.html").write_text(frame, encoding="utf-8")
    address = f"file://{folder}/frame.html"
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile"),
        *(f"--window-size={width},{HEIGHT}", "--virtual-time-budget=3000"),
        *(["--force-dark-mode"] if dark else []),
    ]
    picture = folder / "page.png"
    said = _browse([*options, "--dump-dom", address])
    _browse([*options, f"--screenshot={picture}", address])
    [told] = re.findall(r'<pre id="told">(.*?)</pre>', said, re.DOTALL)
    pixels = matplotlib.image.imread(picture)
    return Seen(json.loads(told.replace("&amp;", "&")), float(pixels[:, :width, :3].mean()))


def _browse(options: list[str]) -> str:
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *options], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    parts = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_fits_is_legible_and_fetches_nothing(
    html: str, tmp_path: Path, width: int, dark: bool
) -> None:
    seen = look(html, tmp_path, width, dark)
    assert seen.told["inner"] == width
    assert seen.told["scroll"] <= width
    assert seen.told["fetched"] == []
    assert len(seen.told["images"]) > 4
    assert all(seen.told["images"])
    faint = {name: contrast(ink, paper) for name, ink, paper in seen.told["pairs"]}
    assert {name for name, value in faint.items() if value < 4.5} == set()
    assert (seen.brightness < 0.4) == dark
    assert (seen.brightness > 0.75) == (not dark)


def test_the_browser_would_see_what_is_wrong(tmp_path: Path) -> None:
    page = (
        '<!doctype html><body><p class="lead" style="color:#ccc">faint</p>'
        '<div style="width:600px">wide</div><img src="http://pictures.example/a.png"></body>'
    )
    seen = look(page, tmp_path, PHONE)
    assert seen.told["scroll"] >= 600
    assert seen.told["fetched"] == ["http://pictures.example/a.png"]
    assert seen.told["images"] == [0]
    [[_, ink, paper]] = seen.told["pairs"]
    assert contrast(ink, paper) == pytest.approx(1.6, abs=0.05)
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
