"""Pages in a real browser: headless Chromium opens them, measures them and takes their picture.

Needs Chromium (`apt-get install chromium`); tests marked with `needs_browser` are skipped without.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.image
import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: apt-get install chromium"
)

PHONE, DESK, HEIGHT = 380, 1280, 900
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


def look(html: str, folder: Path, width: int, dark: bool, read: Sequence[str]) -> Seen:
    """Open a page in a frame of some width: windows of browsers are never as narrow as a phone.

    `read`: selectors; the first element of each tells its colour and what is behind it.
    """
    script = MEASURE.replace("SELECTORS", json.dumps(list(read)))
    (folder / "page.html").write_text(html.replace("</body>", script), encoding="utf-8")
    frame = FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(HEIGHT))
    (folder / "frame.html").write_text(frame, encoding="utf-8")
    address = f"file://{folder}/frame.html"
    options = [f"--window-size={width},{HEIGHT}", *(["--force-dark-mode"] if dark else [])]
    picture = folder / "page.png"
    said = browse(address, folder, *options, "--dump-dom")
    browse(address, folder, *options, f"--screenshot={picture}")
    [told] = re.findall(r'<pre id="told">(.*?)</pre>', said, re.DOTALL)
    pixels = matplotlib.image.imread(picture)
    return Seen(json.loads(told.replace("&amp;", "&")), float(pixels[:, :width, :3].mean()))


def browse(address: str, folder: Path, *options: str) -> str:
    """What Chromium prints about a page; it reaches no other host."""
    assert BROWSER is not None
    plain = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
    own = (f"--user-data-dir={folder}/profile", "--virtual-time-budget=3000")
    command = [BROWSER, *plain, *own, "--host-resolver-rules=MAP * ~NOTFOUND", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def unreadable(seen: Seen, least: float = 4.5) -> set[str]:
    """Selectors whose text stands out too little from what is behind it."""
    return {name for name, ink, paper in seen.told["pairs"] if contrast(ink, paper) < least}


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
