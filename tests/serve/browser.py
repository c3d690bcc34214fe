"""Chromium of the system, driven by Selenium: headless, new each time, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--proxy-server=direct://", "--lang=en-GB",
)  # fmt: skip


@contextmanager
def chromium(profile: Path, width: int, height: int, *more: str) -> Iterator[webdriver.Chrome]:
    """Start a browser with a window of this size.

    Without one the test is skipped; where PERDURE_BROWSER is set, as in CI, it fails.
    """
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        missing = "needs Debian's packages chromium and chromium-driver"
        (pytest.fail if os.environ.get("PERDURE_BROWSER") else pytest.skip)(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = str(binary)
    for argument in (
        *ARGUMENTS,
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        *more,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(driver)))
    try:
        # A headless window is not smaller than 500 pixels: the page is told its size itself.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield browser
    finally:
        browser.quit()
