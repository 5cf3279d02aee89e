"""The page in headless Chromium: no error, no request, and its controls do what they say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import HOSTILE, example_report
from sd_compress.report import render_page

pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="no Chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets that selenium leaves to the collector
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
PHONE, DESKTOP = 360, 1280


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get("about:blank")
    driver.get_log("performance")  # what the browser's own first page asked for
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(example_report(hostile=True)), encoding="utf-8")
    return path


def opened(browser: Any, page: Path, width: int = DESKTOP, scheme: str = "light") -> Any:
    """The page, anew, in a window of that width."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # what scrolls smoothly is not yet there
    features = [{"name": "prefers-color-scheme", "value": scheme}, still]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    return browser


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def names(browser: Any) -> list[str]:
    """The weights that are shown, from the top."""
    rows = "[...document.querySelectorAll('.layers tbody tr:not([hidden])')]"
    shown: list[str] = browser.execute_script(f"return {rows}.map(row => row.cells[0].dataset.value)")
    return shown


def press(browser: Any, *keys: str) -> None:
    browser.switch_to.active_element.send_keys(*keys)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_error_no_request_no_sideways_scroll(browser: Any, page: Path, width: int, scheme: str) -> None:
    opened(browser, page, width, scheme)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked
    assert all(url == page.as_uri() or url.startswith("data:") for url in asked)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink = find(browser, "body").value_of_css_property("color")
    assert sum(map(int, ink[ink.index("(") + 1 :].split(",")[:3])) > 380 or scheme == "light"
    assert browser.execute_script("return [...document.images].every(i => i.naturalWidth > 0)")


def test_headings_sort(browser: Any, page: Path) -> None:
    opened(browser, page)
    rows = example_report(hostile=True).layers
    by_size = sorted(rows, key=lambda row: -row.elements)
    assert names(browser) == [row.weight for row in by_size]
    heading = find(browser, ".layers th:last-child")
    find(browser, ".layers th:last-child button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert names(browser) == [row.weight for row in sorted(by_size, key=lambda row: -row.sensitivity["2"])]
    press(browser, " ")  # the heading still has the focus
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names(browser) == [row.weight for row in sorted(by_size, key=lambda row: row.sensitivity["2"])]
    assert find(browser, ".layers th:nth-child(4)").get_attribute("aria-sort") is None


def test_words_and_component_filter(browser: Any, page: Path) -> None:
    opened(browser, page)
    find(browser, ".filter").send_keys("BLOCKS_2 linear")
    rows = [row for row in example_report().layers if "blocks_2" in row.weight and row.op == "linear"]
    assert sorted(names(browser)) == sorted(row.weight for row in rows)
    find(browser, ".component option:nth-child(2)").click()
    rows = [row for row in rows if row.component == "unet"]
    assert sorted(names(browser)) == sorted(row.weight for row in rows)
    size = sum(row.stored["plan"] for row in rows) / 1e6
    assert find(browser, ".count").text == f"{len(rows)} of 40 weights, {size:.2f} MB as stored by plan"


def test_the_table_shows_the_candidate_that_is_chosen(browser: Any, page: Path) -> None:
    opened(browser, page)
    bits = ".layers tbody tr:first-child .bits"
    assert find(browser, bits).text == "3.40"
    find(browser, ".dot[data-candidate='8 bits']").send_keys("\n")
    assert find(browser, bits).text == "8.00"
    assert find(browser, ".badge.right").get_attribute("textContent") == "8 bits"


def split(browser: Any) -> str:
    """The part of the picture at the left that is to be seen, as the browser lays it out."""
    script = "return getComputedStyle(document.querySelector('.before')).clipPath"
    clip: str = browser.execute_script(script)
    return clip


def test_the_slider_uncovers_the_other_picture(browser: Any, page: Path) -> None:
    from selenium.webdriver import ActionChains

    opened(browser, page)
    slider = find(browser, ".split")
    middle = split(browser)
    slider.send_keys("\ue012")  # arrow left
    assert slider.get_attribute("value") == "49"
    assert split(browser) != middle
    width = slider.size["width"]
    ActionChains(browser).move_to_element(slider).click_and_hold().move_by_offset(
        width // 4, 0
    ).release().perform()
    assert abs(int(slider.get_attribute("value")) - 75) <= 2
    assert slider.get_attribute("aria-valuetext").endswith("% original, the rest plan")


def test_a_picture_that_is_touched_is_compared(browser: Any, page: Path) -> None:
    opened(browser, page, PHONE)
    thumb = find(browser, ".thumb[data-prompt='1'][data-candidate='2 bits']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", thumb)
    thumb.click()
    picture = find(browser, ".after")
    assert picture.get_attribute("src") == thumb.find_element("tag name", "img").get_attribute("src")
    assert picture.get_attribute("alt") == f"{HOSTILE}, 2 bits"
    assert find(browser, ".prompt").get_attribute("value") == "1"


def test_a_dot_says_its_numbers_when_it_has_the_focus(browser: Any, page: Path) -> None:
    opened(browser, page)
    dot, tip = ".dot[data-candidate='4 bits']", ".dot[data-candidate='4 bits'] .tip"
    assert not find(browser, tip).is_displayed()
    browser.execute_script("document.querySelector(arguments[0]).focus({focusVisible: true})", dot)
    assert find(browser, tip).is_displayed()
    assert "2.05 MB · 4.00 bits" in find(browser, tip).text
    label = find(browser, dot).get_attribute("aria-label")
    assert label == "4 bits, k-means: 2.05 MB, 4.00 bits a weight, 16.9 dB"


def test_printing_shows_all_layers_and_no_controls(browser: Any, page: Path) -> None:
    opened(browser, page)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not find(browser, ".controls").is_displayed()
    tall = find(browser, ".tall")
    assert tall.size["height"] >= find(browser, ".layers").size["height"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
