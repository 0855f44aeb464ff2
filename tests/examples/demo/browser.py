"""A headless Chromium and a served page, for tests and pictures that need both."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ARGUMENTS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-proxy-server"),
    # Chromium asks for nothing but the page.
    *("disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"),
)


def browser():
    """Debian's Chromium through its own driver; the test is skipped where one of them, or selenium, is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium; pip install selenium")
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and its driver; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ARGUMENTS:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Address of a page for a model, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples/demo/app.py"), "--model", str(model), "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{port}/"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(240):
            try:
                direct.open(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


class Page:
    """What a person sees and does."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, query="", width=1280, height=1000):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.address + query)
        self.until(lambda: self.all("#answer .m-item"))

    def until(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 30, ignored_exceptions=[StaleElementReferenceException]).until(
            lambda _: condition()
        )

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def list(self):
        return [one.get_attribute("data-item") for one in self.all("#answer .m-item")]

    def answer(self):
        """The list with its reasons."""
        return self.run("return document.querySelector('#answer .m-list')?.innerText || ''")

    def text(self):
        return self.one("#answer").text

    def changed_by(self, act):
        before = self.answer()
        act()
        self.until(lambda: self.answer() not in ("", before))

    def field(self, name):
        return self.one(f"#{name} :is(input:not([type=range]), textarea)")

    def value(self, name):
        return self.field(name).get_attribute("value")

    def write(self, name, text):
        from selenium.webdriver.common.keys import Keys

        where = self.field(name)
        where.send_keys(Keys.CONTROL, "a")
        where.send_keys(Keys.DELETE)
        where.send_keys(text)

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self):
        return self.run("return document.activeElement.closest('[id]')?.id + ' ' + document.activeElement.tagName")
