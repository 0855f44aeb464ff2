"""The page in headless Chromium: typed into, clicked, by keyboard, on a narrow screen, without console errors."""

from __future__ import annotations

import json
import re

import pytest
from browser import Page, browser, served
from hostile import MARKUP, TRICKS
from saved_models import SHOWCASE, save_model, save_with_experts

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the page needs gradio; pip install gradio")

# What a screen reader would call by no name.
NAMELESS = """
return [...document.querySelectorAll('a[href], button, input, textarea, summary, img')]
  .filter(one => one.getClientRects().length && one.type !== 'hidden' && !one.closest('[aria-hidden=true], button *'))
  .filter(one => !(one.innerText || '').trim() && !one.getAttribute('aria-label') && !one.getAttribute('alt'))
  .filter(one => !(one.labels || []).length && !one.closest('label, button, a'))
  .map(one => one.outerHTML.slice(0, 200))
"""
BEYOND = "return [...document.querySelectorAll('.gradio-container *')].filter(one => one.getBoundingClientRect().right"
# Contrast of every text of the answer with what is behind it.
CONTRAST = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
    .map(one => one / 255).map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
return [...document.querySelectorAll('.m-head *, #answer *')].filter(one => [...one.childNodes]
    .some(node => node.nodeType === 3 && node.textContent.trim()))
  .map(one => [light(getComputedStyle(one).color), light(behind(one)), one.outerHTML.slice(0, 100)])
  .map(([a, b, html]) => [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), html])
  .filter(([ratio]) => ratio < 4.5);
"""


def severe(driver):
    """Errors that were logged since the last time."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def driver():
    driver = browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(driver, tmp_path_factory):
    folder = save_with_experts(tmp_path_factory.mktemp("experts"), "mender")
    (folder / "showcase.json").write_text(json.dumps(SHOWCASE))
    with served(folder) as address:
        yield Page(driver, address)


@pytest.fixture(autouse=True)
def no_console_errors(driver):
    driver.get_log("browser")
    yield
    assert severe(driver) == []


def test_it_opens_with_a_wish_and_its_answer(page):
    page.open()
    assert page.value("wish") == "find cotton" and len(page.list()) == 6
    assert "The best 6 of 16 items for “find cotton”" in page.text()


def test_the_list_changes_while_one_types(page):
    page.open()
    page.changed_by(lambda: page.write("wish", "find gentle blue glass"))
    assert "“find gentle blue glass”" in page.text()


def test_what_avoiding_kept_out_is_shown(page):
    page.open()
    page.until(lambda: page.list())
    wished = page.all("#answer .m-title")[0].text
    page.changed_by(lambda: page.write("avoid", wished))
    page.until(lambda: f"Kept out by “{wished}”" in page.text())
    assert page.one(".m-removed del").text == wished


def test_weights_are_sliders(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    for part in ("words", "meaning", "history", "popularity", "generator"):
        assert page.one(f"#weight-{part} input[type=range]").get_attribute("aria-label")
    number = page.field("weight-words")
    number.send_keys(Keys.CONTROL, "a")
    page.changed_by(lambda: number.send_keys("0", Keys.TAB))
    page.until(lambda: not [one for one in page.all(".m-why li") if one.text.startswith("words")])
    page.changed_by(lambda: page.one("#weight-meaning input[type=range]").send_keys(Keys.ARROW_RIGHT * 5))


def test_an_added_item_is_found_at_once_and_only_by_who_added_it(page, driver):
    page.open("?wish=find+cotton&k=20")  # all there are
    page.write("own-title", "Brooch of silver")
    page.write("own-text", "find cotton")
    page.changed_by(lambda: page.one("#own-add").click())
    page.until(lambda: "Yours is number" in page.text())
    assert "Brooch of silver" in page.one(".m-mine").text and "nobody else sees it" in page.one("#added").text
    mine = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        page.open("?wish=brooch+of+silver&k=20")
        page.until(lambda: "“brooch of silver”" in page.text())
        assert not page.all(".m-mine") and "of 16 items" in page.text()
    finally:
        driver.close()
        driver.switch_to.window(mine)
    page.changed_by(lambda: page.write("wish", "brooch of silver"))
    assert "of 17 items" in page.text() and page.all(".m-mine")


def test_a_shopper_and_a_history(page):
    page.open()
    page.one("#shopper input").click()
    page.until(lambda: len(page.all("[role=listbox] [role=option]")) == 3)
    page.changed_by(lambda: page.all("[role=listbox] [role=option]")[1].click())
    page.changed_by(lambda: page.one("#next-wish").click())
    assert page.value("wish") == "find rose"
    count = len(page.all("#history input"))
    page.write("search", "co")
    page.until(lambda: [one.text for one in page.all(".m-found") if one.is_displayed()] == ["+ cotton"])
    page.changed_by(lambda: page.one("#found-0").click())
    page.until(lambda: len(page.all("#history input")) == count + 1)
    assert "item-cotton" not in page.list()
    page.changed_by(lambda: page.all("#history input")[-1].click())
    page.write("search", "zzz")
    page.until(lambda: "No other title" in page.driver.page_source)


def test_everything_from_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.field("wish").click()
    page.changed_by(lambda: page.press(Keys.END, " green tea", Keys.ENTER))
    assert page.value("wish").endswith(" green tea"), "Enter ranks, it writes no line"
    order = []
    for _ in range(60):
        page.press(Keys.TAB)
        order.append(page.focused().split()[0])
        style = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid" or order[-1] == "shopper", f"{order[-1]} does not show that it has the focus"
        if order[-1] == "own-add":
            break
    reached = list(dict.fromkeys(order))
    names = ["avoid", "strict", "try-0", "try-1", "weight-words", "weight-generator", "dial", "k", "own-title"]
    assert [name for name in reached if name in names] == names and reached[-1] == "own-add"
    page.press(Keys.ENTER)
    page.until(lambda: "Yours" in page.text())


def test_a_screen_reader_hears_names_and_the_answer(page):
    page.open()
    assert page.run("return document.documentElement.lang") == "en"
    assert page.run(NAMELESS) == []
    assert page.one("#announced").get_attribute("role") == "status" and page.one("#added [role=status]")
    page.changed_by(lambda: page.write("wish", "find glass"))
    page.until(lambda: "“find glass”" in page.run("return document.querySelector('#announced').textContent"))
    headings = page.run("return [...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName)")
    assert headings[0] == "H1" and headings.count("H1") == 1 and headings.count("H2") == 4


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(page, theme):
    page.open(f"?__theme={theme}&wish=find+rose&avoid=glass")
    page.until(lambda: page.all(".m-removed"))
    assert page.run(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_narrow_screen(page, width):
    page.open(width=width, height=844)
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run(f"{BEYOND} > {width + 1}).map(one => one.outerHTML.slice(0, 120))") == []
    places = [page.one(name).location["y"] for name in ("#wish", "#answer", "#k", "#own-title", "#shopper")]
    assert places == sorted(places)


def test_programs_are_answered(page):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(page.address, verbose=False)
    assert len(client.predict(["item-tea"], "find rose", "", 3, api_name="/recommend")) == 3
    with pytest.raises(AppError, match="There is nothing to go by"):
        client.predict([], "", "", 3, api_name="/recommend")


def test_a_link_opens_the_same_list(page):
    page.open("?item=item-tea&item=item-mug&wish=find+rose&k=4&words=0.5")
    page.until(lambda: len(page.list()) == 4 and "“find rose”" in page.text())
    link, shown = page.one("#answer .m-note a").get_attribute("href"), page.answer()
    assert "words=0.5" in link
    page.open(re.sub(r"^.*\?", "?", link))
    page.until(lambda: page.answer() == shown)


def test_nothing_from_outside_becomes_markup(driver, tmp_path):
    evil = [*MARKUP, " ".join(TRICKS)[:400]]
    titles = [evil[place % len(evil)] + f" {place}" for place in range(16)]
    history = ["item-tea", "item-mug", "item-soap"]
    showcase = {
        "attributes": {"item-tea": evil, "item-mug": evil},
        "shoppers": [{"history": history, "preference": evil[0]}],
        "sentences": [{"preference": text, "avoid": text[::-1]} for text in evil],
    }
    folder = save_model(tmp_path / "model", showcase, titles=titles)
    with served(folder) as address:
        page = Page(driver, address)
        page.open()
        shown = {one.text for one in page.all("#answer .m-title")}
        assert shown <= {" ".join(title.split()) for title in titles}
        for place in range(len(evil)):
            page.one(f"#try-{place}").click()
            page.one("#shopper input").click()
        page.until(lambda: page.all("[role=listbox] [role=option]"))
        page.all("[role=listbox] [role=option]")[1].click()
        page.until(lambda: page.all("#history label"))
        page.write("search", "img")
        page.until(lambda: any(one.is_displayed() for one in page.all(".m-found")))
        page.one("#found-0").click()
        for text in evil:
            page.write("own-title", text[:110].replace("\n", " "))
            page.one("#own-add").click()
            page.until(lambda: page.one("#added").text)
        page.write("wish", evil[0])
        page.write("avoid", evil[0])
        page.until(lambda: "onerror" in page.text())
        assert page.run("return window.hit") is None
        assert page.all("#answer :is(img, script, svg, b), #added :is(img, svg, b), button img[src=x], label img") == []
        assert severe(driver) == []
        driver.get("about:blank")  # requests under way are given up, which is logged
        severe(driver)
