"""Debian's Chromium, driven by selenium: a page as people see it, and what the browser complains about."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

#: Seconds that anything may take on a busy machine.
PATIENCE = 30.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A machine with a small /dev/shm.
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
#: Widths and heights in CSS pixels.
DESK, PHONE = (1280, 900), (390, 844)


class Chromium:
    """``directory`` is empty, and for this one alone. ``scripts``: whether pages may have any."""

    def __init__(self, directory: Path, *, scripts: bool = True) -> None:
        driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
        assert driver, "Chromium's driver is missing: apt-get install chromium-driver (script/test does)"
        assert browser, "Chromium is missing: apt-get install chromium (script/test does)"
        options = Options()
        options.binary_location = browser
        for flag in (*_FLAGS, f"--user-data-dir={directory}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        # selenium's own way to find a driver would ask the network.
        self.driver = webdriver.Chrome(options=options, service=Service(executable_path=driver))
        self.driver.set_page_load_timeout(PATIENCE)

    def close(self) -> None:
        """It, and its driver."""
        self.driver.quit()

    def look(self, *, size: tuple[int, int] = DESK, dark: bool = False, scale: float = 1.0) -> None:
        """From now on through a window of this size, on a screen that is light or dark."""
        width, height = size
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def command(self, name: str, **given: Any) -> Any:
        """One of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, given)

    def open(self, url: str) -> None:
        """Load this."""
        self.driver.get(url)

    def all(self, selector: str) -> list[WebElement]:
        """Every element there is."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first one; it is waited for."""
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        """What stands in it, as it is seen."""
        return self.one(selector).text

    def click(self, selector: str) -> None:
        """As somebody does with a mouse; again where the page put something fresh in its place at that moment."""

        def clicked() -> bool:
            element = self.one(selector)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.until(clicked, f"a click on {selector}")

    def until(self, condition: Any, what: str = "") -> None:
        """Wait for it; what the page changes meanwhile does not matter."""
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1, ignored_exceptions=[Exception]).until(
            lambda _: condition(), what
        )

    def script(self, text: str) -> Any:
        """What this piece of JavaScript gives."""
        return self.driver.execute_script(text)

    def complaints(self) -> list[str]:
        """What stands in its console since the last question: errors, warnings, and broken policies."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        found: int = self.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is in the window, or of the whole page."""
        given: dict[str, Any] = {"format": "png"}
        if whole:
            box = self.command("Page.getLayoutMetrics")["cssContentSize"]
            given |= {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1},
            }
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", **given)["data"]))
