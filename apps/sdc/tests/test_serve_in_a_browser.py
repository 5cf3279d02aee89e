"""The page in headless Chromium: it draws, shows, cancels, starts from a picture, and asks nobody else."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sdc.commands.serve import open_studio
from sdc.serve.app import App
from sdc.serve.gallery import Gallery
from sdc.serve.guard import hosts
from sdc.serve.http import Server

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
def address(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    gallery = Gallery(tmp_path_factory.mktemp("gallery"))
    studio = open_studio(converted, engine="portable")
    server = Server(0, lambda port: App(studio, gallery, hosts(port)))
    running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    running.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    running.join()
    server.server_close()
    studio.close()


def opened(browser: Any, address: str, width: int = DESKTOP, scheme: str = "light") -> Any:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)
    until(browser, lambda _: find(browser, "#model").text == "checkpoint")
    return browser


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def until(browser: Any, condition: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60, poll_frequency=0.05).until(condition)


def draw(browser: Any, prompt: str, steps: int) -> None:
    for name, value in (("prompt", prompt), ("steps", str(steps)), ("seed", "7")):
        field = find(browser, f"[name={name}]")
        field.clear()
        field.send_keys(value)
    find(browser, "#draw").click()


def test_a_picture_is_drawn_and_in_the_gallery(browser: Any, address: str) -> None:
    opened(browser, address)
    draw(browser, "a red circle on a blue background", 2)
    until(browser, lambda _: find(browser, "#said").text.startswith("done in"))
    until(browser, lambda _: browser.find_elements("css selector", "#gallery img"))
    shown = "return [...document.querySelectorAll('#preview, #gallery img')].map(i => i.naturalWidth)"
    until(browser, lambda _: browser.execute_script(shown) == [128, 128])
    assert "seed 7" in find(browser, "#gallery p").text
    find(browser, "[name=prompt]").clear()
    find(browser, "#gallery button").click()
    assert find(browser, "[name=prompt]").get_attribute("value") == "a red circle on a blue background"
    assert find(browser, "[name=sampler_name]").get_attribute("value") != ""


def test_a_picture_is_cancelled_after_a_preview(browser: Any, address: str) -> None:
    opened(browser, address)
    draw(browser, "a green star on a white background", 900)
    until(
        browser, lambda _: find(browser, "#preview").is_displayed() and "left" in find(browser, "#said").text
    )
    find(browser, "#cancel").click()
    until(browser, lambda _: find(browser, "#said").text.startswith("cancelled"))
    assert find(browser, "#draw").is_enabled()


def test_a_picture_that_is_dropped_is_started_from(browser: Any, address: str, tmp_path: Path) -> None:
    opened(browser, address)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    find(browser, "#file").send_keys(str(tmp_path / "red.png"))
    until(browser, lambda _: find(browser, "#given").is_displayed())
    find(browser, "#forget").click()
    browser.execute_script(
        "const bytes = Uint8Array.from(atob(arguments[0]), one => one.charCodeAt(0));"
        "const data = new DataTransfer(); data.items.add(new File([bytes], 'x.png', {type: 'image/png'}));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}));",
        base64.b64encode((tmp_path / "red.png").read_bytes()).decode(),
    )
    until(browser, lambda _: find(browser, "#given").is_displayed())
    find(browser, "[name=denoising_strength]").send_keys("0.5")
    draw(browser, "a red square on a white background", 4)
    until(browser, lambda _: find(browser, "#said").text.startswith("done in"))


def test_what_is_refused_is_said(browser: Any, address: str) -> None:
    opened(browser, address)
    find(browser, "[name=sampler_name]").send_keys("DDIM")
    find(browser, "[name=scheduler]").send_keys("Karras")
    draw(browser, "a red circle", 2)
    until(browser, lambda _: "wrong" in find(browser, "#said").get_attribute("class"))
    assert "karras" in find(browser, "#said").text
    browser.get_log("browser")  # the answer's status is an error to the console, and here the point


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_error_nobody_else_no_sideways_scroll(browser: Any, address: str, width: int, scheme: str) -> None:
    opened(browser, address, width, scheme)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"
    ]
    assert address in asked
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink = find(browser, "body").value_of_css_property("color")
    assert sum(map(int, ink[ink.index("(") + 1 :].split(",")[:3])) > 380 or scheme == "light"
