"""The report in a real browser: it fits a phone, follows dark and light, and fetches nothing."""

from pathlib import Path

import pytest
from browser import DESK, PHONE, contrast, look, needs_browser, unreadable
from minirun import minirun

from pipeline import report

pytestmark = needs_browser

READ = (".lead", ".soft", "td", "td b", "th", "caption", ".elsewhere td", "aside li", "figcaption")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = minirun(tmp_path_factory.mktemp("run"))
    run.stage("report").mkdir(parents=True, exist_ok=True)
    report.run(run, run.stage("report"))
    return (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_fits_is_legible_and_fetches_nothing(
    html: str, tmp_path: Path, width: int, dark: bool
) -> None:
    seen = look(html, tmp_path, width, dark, READ)
    assert seen.told["inner"] == width
    assert seen.told["scroll"] <= width
    assert seen.told["fetched"] == []
    assert len(seen.told["images"]) > 4
    assert all(seen.told["images"])
    assert {name for name, *_ in seen.told["pairs"]} == set(READ)
    assert unreadable(seen) == set()
    assert (seen.brightness < 0.4) == dark
    assert (seen.brightness > 0.75) == (not dark)


def test_the_browser_would_see_what_is_wrong(tmp_path: Path) -> None:
    page = (
        '<!doctype html><body><p class="lead" style="color:#ccc">faint</p>'
        '<div style="width:600px">wide</div><img src="http://pictures.example/a.png"></body>'
    )
    seen = look(page, tmp_path, PHONE, False, [".lead"])
    assert seen.told["scroll"] >= 600
    assert seen.told["fetched"] == ["http://pictures.example/a.png"]
    assert seen.told["images"] == [0]
    [[_, ink, paper]] = seen.told["pairs"]
    assert contrast(ink, paper) == pytest.approx(1.6, abs=0.05)
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
