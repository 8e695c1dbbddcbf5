"""The page of `python -m rudolph_jax app` in a process of its own, used by headless Chromium.

    with served([...]) as server, browser(folder) as driver:
        page = Page(driver, server.url)
        page.write("prompt", "рукописная цифра семь")
        page.press("draw")
        page.wait_for("drawn", "best first")

For tests, and for images of the page; needs the extra `browser`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clip_jax.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1280, 900
PATIENCE = 180.0  # seconds that anything may take
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--hide-scrollbars", "--lang=en",
    f"--window-size={WIDTH},{HEIGHT}",
    # Names are looked up nowhere, so that what a page asks of others cannot be had.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def served(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The page on a free port; ended with the context. What it prints goes to this stderr."""
    command = [sys.executable, "-m", "rudolph_jax", "app", *arguments, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            printed = process.stdout.readline()
            found = re.search(r"http://\S+", printed)
            if found is None:
                raise InputError(f"the page did not start: {' '.join(command)}")
            yield Server(found[0], process)
        finally:
            process.terminate()


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """Selenium's driver of a fresh Chromium. folder: for its profile, and for `downloads`."""
    from selenium import webdriver

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        raise InputError(
            "chromium and chromedriver are needed and not both there; on Debian: "
            "apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder / "downloads")}
    )
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chromium
    finally:
        chromium.quit()


class Page:
    """Parts are named by their ids (`elem_id`); everything is waited for."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        driver.get(url)
        self.wait(lambda: self.find("prompt"))

    def find(self, part: str, within: str = "") -> list[Any]:
        """What is seen of a part, or the elements within it by a CSS selector."""
        found = self.driver.find_elements("css selector", f"#{part} {within}")
        return [each for each in found if each.is_displayed()]

    def wait(self, what: Any, patience: float = PATIENCE) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.driver, patience, 0.1, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: what())

    def text(self, part: str) -> str:
        return " ".join(each.text for each in self.find(part))

    def wait_for(self, part: str, words: str) -> str:
        """Until these words are read there; all of the part's text."""
        return self.wait(lambda: words in self.text(part) and self.text(part))

    def write(self, part: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        field = self.wait(lambda: self.find(part, ":is(textarea, input)"))[0]
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def press(self, part: str) -> None:
        self.wait(lambda: self.find(part)[0].is_enabled())
        self.find(part)[0].click()

    def turn_to(self, tab: str) -> None:
        tabs = self.driver.find_elements("css selector", "button[role=tab]")
        next(each for each in tabs if each.text == tab).click()

    def upload(self, part: str, file: Path) -> None:
        """Once the image is seen on the page."""
        self.wait(lambda: self.driver.find_elements("css selector", f"#{part} input[type=file]"))
        self.driver.find_element("css selector", f"#{part} input[type=file]").send_keys(str(file))
        self.wait(lambda: self.find(part, "img"))

    def leave_alone(self) -> None:
        """Neither the pointer nor the cursor is at any part."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).move_to_element(self.find("title")[0]).perform()
        self.driver.execute_script("document.activeElement.blur()")

    def error(self) -> str:
        """The line of an error that is shown, which is then put away."""
        seen = self.driver.find_elements
        line = "[data-testid=toast-text]"
        told = self.wait(lambda: " ".join(each.text for each in seen("css selector", line)))
        seen("css selector", "[data-testid=toast-close]")[0].click()
        self.wait(lambda: not seen("css selector", "[data-testid=toast-body]"))
        return told


def asked_elsewhere(driver: Any) -> list[str]:
    """Addresses beyond this machine that pages have asked for since the last call."""
    asked = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            asked.append(message["params"]["url"])
    return [url for url in asked if _by_network(url) and not _here(url)]


def _by_network(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https", "ws", "wss")


def _here(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False
