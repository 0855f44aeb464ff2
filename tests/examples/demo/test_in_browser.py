"""The page in headless Chromium: typed into, clicked, by keyboard, on a narrow screen, without console errors."""

from __future__ import annotations

import re

import pytest
from browser import browser, served

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")

LABELLED = """
return [...document.querySelectorAll('a[href], button, input, textarea, summary')]
  .filter(one => one.offsetParent !== null && one.type !== 'hidden')
  .filter(one => !(one.innerText || '').trim() && !one.getAttribute('aria-label') && !(one.labels || []).length)
  .map(one => one.outerHTML.slice(0, 200))
"""


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

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        self.until(lambda: self.all(selector))
        return self.all(selector)[0]

    def list(self, side="m-after"):
        return [one.get_attribute("data-item") for one in self.all(f"#answer .{side} .m-item")]

    def answer(self):
        """Both lists with their scores."""
        return self.driver.execute_script("return document.querySelector('#answer .m-lists')?.innerText || ''")

    def text(self):
        return self.one("#answer").text

    def changed_by(self, act):
        before = self.answer()
        act()
        self.until(lambda: self.answer() not in ("", before))

    def write(self, field, text):
        from selenium.webdriver.common.keys import Keys

        where = self.one(f"#{field} textarea")
        where.send_keys(Keys.CONTROL, "a")
        where.send_keys(Keys.DELETE)
        where.send_keys(text)

    def history(self):
        return [one.text for one in self.all("#history label") if one.text.strip()]

    def ticked(self):
        return sum(one.is_selected() for one in self.all("#history input"))

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self):
        script = "return document.activeElement.closest('[id]')?.id + ' ' + document.activeElement.tagName"
        return self.driver.execute_script(script)


@pytest.fixture(scope="module")
def page(saved):
    driver = browser()
    try:
        with served(saved) as address:
            yield Page(driver, address)
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def no_console_errors(page):
    page.driver.get_log("browser")
    yield
    assert [entry["message"] for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_lists_change_while_one_types(page):
    page.open()
    assert page.list() and page.list("m-before")
    page.changed_by(lambda: page.write("wish", "find cotton"))
    alone = page.list("m-before")
    page.changed_by(lambda: page.write("wish", "find gentle blue glass"))
    assert page.list("m-before") == alone, "the history alone does not depend on the wish"
    assert "lists in" in page.text()


def test_what_should_stay_out_is_compared_with_the_wish_alone(page):
    page.open()
    page.changed_by(lambda: page.write("wish", "find rose"))
    wished = page.list()
    page.changed_by(lambda: page.write("avoid", "blue glaze"))
    page.until(lambda: "3 lists" in page.text())
    page.changed_by(lambda: page.all("#against input")[1].click())
    assert "the wish without" in page.one(".m-before h2").text and page.list("m-before") == wished


def test_a_title_is_found_and_added(page):
    page.open()
    count = len(page.history())
    page.write("search", "co")
    page.until(lambda: [one.text for one in page.all(".m-found") if one.is_displayed()] == ["+ cotton"])
    page.changed_by(lambda: page.one("#found-0").click())
    page.until(lambda: len(page.history()) == count + 1)
    assert page.history()[-1] == "cotton" and "item-cotton" not in page.list()
    page.write("search", "zzz")
    page.until(lambda: "No other title" in page.driver.page_source)


def test_items_of_the_history_are_unticked(page):
    page.open()
    ticked = page.ticked()
    page.changed_by(lambda: page.all("#history input")[0].click())
    assert page.ticked() == ticked - 1


def test_sliders_say_how_many_items(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    number = page.one("#k input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("3", Keys.TAB)
    page.until(lambda: len(page.list()) == len(page.list("m-before")) == 3)
    beams = page.one("#beams input[type=number]")
    beams.send_keys(Keys.CONTROL, "a")
    beams.send_keys("7", Keys.TAB)
    page.until(lambda: "7 beams" in page.text())


def test_a_sentence_is_tried_and_a_shopper_chosen(page):
    page.open()
    page.changed_by(lambda: page.one("#try-1").click())
    assert page.one("#wish textarea").get_attribute("value") == "find mint"
    assert page.one("#avoid textarea").get_attribute("value") == "avoid blue glaze"
    before = page.history()
    page.one("#shopper input").click()
    page.until(lambda: len(page.all("#shopper [role=option], [role=listbox] [role=option]")) == 3)
    page.changed_by(lambda: page.all("[role=listbox] [role=option]")[0].click())
    assert page.history() != before
    page.changed_by(lambda: page.one("#own").click())
    assert page.one("#wish textarea").get_attribute("value") == "find rose"


def test_everything_from_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.one("#wish textarea").click()
    page.changed_by(lambda: page.press(Keys.END, " green tea", Keys.ENTER))
    assert page.one("#wish textarea").get_attribute("value").endswith(" green tea"), "Enter ranks, it writes no line"
    page.press(Keys.TAB)
    assert page.focused().startswith("avoid") or "TEXTAREA" in page.focused()
    page.press(Keys.TAB)
    assert page.focused() == "try-0 BUTTON"
    page.changed_by(lambda: page.press(Keys.ENTER))
    page.one("#search textarea").click()
    count = len(page.history())
    page.press("stro")
    page.until(lambda: any(one.is_displayed() for one in page.all(".m-found")))
    page.press(Keys.ENTER)
    page.until(lambda: len(page.history()) == count + 1)
    page.until(lambda: page.driver.execute_script("return !!document.activeElement.closest('#search')"))
    assert page.one("#search textarea").get_attribute("value") == ""
    assert page.driver.execute_script(LABELLED) == []


def test_a_narrow_screen_shows_what_was_asked_for_first(page):
    page.open(width=390, height=844)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    place = {side: page.one(f".{side}").location["y"] for side in ("m-after", "m-before")}
    wish, history = page.one("#wish").location["y"], page.one("#history").location["y"]
    assert wish < place["m-after"] < place["m-before"] < history
    assert not page.one(".m-lists svg").is_displayed()
    for one in page.all("#answer .m-title"):
        assert one.size["width"] > 150


def test_lines_join_the_same_items(page):
    page.open()
    before, after = page.list("m-before"), page.list()
    lines = page.all("#answer line")
    assert len(lines) == len(set(before) & set(after)) > 0
    box = page.one("#answer svg").rect
    row = box["height"] / len(after)
    for line in lines:
        start, end = (float(line.get_attribute(name)) for name in ("y1", "y2"))
        assert before[int(start)] == after[int(end)]
    tops = [one.rect["y"] for one in page.all("#answer .m-after .m-item")]
    assert all(abs(top - (box["y"] + place * row)) < 4 for place, top in enumerate(tops))


def test_programs_are_answered(page, recommender):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(page.address, verbose=False)
    found = client.predict(["item-tea"], "find rose", "", 3, api_name="/recommend")
    answer = recommender.answer(["item-tea"], "find rose", k=3)
    assert [item["item_id"] for item in found] == [item.item_id for item in answer.full]
    with pytest.raises(AppError, match="The request is empty"):
        client.predict([], "", "", 3, api_name="/recommend")


def test_a_link_opens_the_same_result(page):
    page.open("?item=item-tea&item=item-mug&wish=find+rose&k=4")
    assert page.history() == ["tea", "mug"] and len(page.list()) == 4
    link = page.one("#answer a").get_attribute("href")
    shown = page.list()
    page.open(re.sub(r"^.*\?", "?", link))
    assert page.list() == shown and page.one("#wish textarea").get_attribute("value") == "find rose"
