"""Claims, in a real browser: the report runs without an error or a request, its controls work by mouse and keyboard, it
fits phone, tablet and desktop, and every text can be read in light and dark.

Needs chromium. Without one the tests skip; with REQUIRE_BROWSER=1 they fail instead.
"""

import os
from pathlib import Path

import pytest
from browser import Browser, find_browser
from report_runs import complete_run
from test_html import hostile_fixture

from replicate.report.pages.html import make_report

WIDTHS = (375, 820, 1400)  # pixels: phone, tablet, desktop
CONTRAST = 4.5  # WCAG 2, level AA, for text of the usual size

VISIBLE_TABLES = "[...document.querySelectorAll('#table1-body table')].filter(e => e.checkVisibility()).length"
FIRST_CELL = "document.querySelector('#table1-body [data-metric]:not([hidden]) tbody td:not([hidden])').innerText"
PAUSE = "new Promise((done) => setTimeout(done, 50))"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
# Texts whose contrast with the nearest background is too low: [ratio, text] of each.
FAINT = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || element.closest('svg, script') || !element.checkVisibility()) continue;
    let behind = element;
    while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < CONTRAST) faint.push([ratio.toFixed(2), element.textContent.trim().slice(0, 40)]);
  }
  return faint;
})()""".replace("CONTRAST", str(CONTRAST))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A running browser."""
    executable = find_browser()
    if executable is None:
        reason = "no chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip(reason)
    with Browser(executable, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return make_report(complete_run(tmp_path_factory))


@pytest.fixture
def page(browser, report):
    """The report, freshly opened at desktop width: `page(expression)` evaluates JavaScript in it."""
    browser.run(browser.page.look(1400))
    browser.run(browser.page.open(report))
    yield lambda expression: browser.run(browser.page.evaluate(expression))
    browser.run(browser.page.evaluate(PAUSE))  # what the page did last is reported a little later
    assert browser.page.errors == [] and browser.page.requests == []


def choose(browser, form: str, name: str, value: str) -> None:
    """Click on one choice of a form."""
    browser.run(browser.page.click(f"form[data-controls='{form}'] input[name='{name}'][value='{value}'] + span"))


def visible(selector: str) -> str:
    """JavaScript: how many elements of a selector can be seen."""
    return f"[...document.querySelectorAll({selector!r})].filter(e => e.checkVisibility()).length"


def test_the_page_opens_without_an_error_or_a_request(browser, page):
    assert page("document.title").endswith("replication report")
    assert page(VISIBLE_TABLES) == 1
    assert page("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0


def test_the_test_sees_errors_and_requests(browser, report, tmp_path):
    """The two claims above can fail."""
    broken = tmp_path / "broken.html"
    broken.write_text("<script>missing()</script><script>console.error('x')</script><img src='missing.png'>")
    browser.run(browser.page.open(broken))
    assert len(browser.page.errors) >= 2 and any(url.endswith("missing.png") for url in browser.page.requests)
    browser.page.errors.clear()
    browser.page.requests.clear()


def test_the_metric_switch_changes_the_cells(browser, page):
    before = page(FIRST_CELL)
    choose(browser, "table1-body", "metric", "Hit@1")
    assert page(VISIBLE_TABLES) == 1 and page(FIRST_CELL) != before
    assert page("document.querySelector('#table1-body [data-metric]:not([hidden])').dataset.metric") == "Hit@1"
    choose(browser, "table1-body", "metric", "all")
    assert page(VISIBLE_TABLES) == 7


def test_the_keyboard_switches_the_metric(browser, page):
    page("document.querySelector('form[data-controls=table1-body] input').focus({focusVisible: true})")
    ring = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert page(ring) == "solid", "the focus cannot be seen"
    browser.run(browser.page.press("ArrowRight", 39))
    assert page("document.activeElement.value") == "MAP"
    assert page("document.querySelector('#table1-body [data-metric]:not([hidden])').dataset.metric") == "MAP"


def test_level_and_value_choose_columns_and_numbers(browser, page):
    choose(browser, "table1-body", "level", "2")
    header = "[...document.querySelectorAll('#table1-body [data-metric]:not([hidden]) th[data-level]')]"
    assert page(f"{header}.filter(e => e.checkVisibility()).map(e => e.innerText)") == ["Level 2"]
    choose(browser, "table1-body", "value", "paper")
    assert page(FIRST_CELL).split() == ["89.5"]  # DNN, GAP at level 2, as the paper prints it
    choose(browser, "table1-body", "value", "all")
    assert [line.split()[0] for line in page(FIRST_CELL).splitlines() if line[:1].isalpha()] == [
        "ours", "paper", "ours", "increment"
    ]  # fmt: skip


def test_claims_are_filtered_by_verdict(browser, page):
    everything = page(visible("#claim-list > li"))
    counted = "document.querySelector('form[data-controls=claim-list] output').value"
    assert page(counted) == f"{everything} of {everything} shown"
    choose(browser, "claim-list", "verdict", "refuted")
    shown = page("[...document.querySelectorAll('#claim-list > li:not([hidden])')].map(e => e.dataset.verdict)")
    assert 0 < len(shown) < everything and set(shown) == {"refuted"}
    assert page(counted) == f"{len(shown)} of {everything} shown"


def test_errata_are_searched_and_enter_leads_nowhere(browser, page):
    browser.run(browser.page.click("#errata-search"))
    browser.run(browser.page.send("Input.insertText", text="NetVLAD  softmax"))
    shown = "[...document.querySelectorAll('#errata-list > li:not([hidden])')]"
    found = page(f"{shown}.map(e => e.textContent.toLowerCase())")
    assert 0 < len(found) < 46 and all("netvlad" in text and "softmax" in text for text in found)
    page("window.addEventListener('submit', (event) => { window.prevented = event.defaultPrevented; })")
    browser.run(browser.page.press("Enter", 13, "\r"))
    assert page("window.prevented") is True
    assert page("document.querySelector('#errata-search').value") == "NetVLAD  softmax"
    page("document.querySelector('#errata-search').select()")
    browser.run(browser.page.send("Input.insertText", text="no such word"))
    assert page(visible("#errata-list > li")) == 0


def test_search_filters_the_tree(browser, page):
    assert page(visible("#taxonomy-tree > li")) == 18
    browser.run(browser.page.click("#taxonomy-word"))
    browser.run(browser.page.send("Input.insertText", text="swimming"))
    paths = page("[...document.querySelectorAll('#taxonomy-tree li:not([hidden]) > details[open]')].length")
    assert 0 < page(visible("#taxonomy-tree > li")) < 18 and paths > 0
    assert "found" in page("document.querySelector('.tree-search output').value")


def test_search_filters_the_nodes_of_a_dataset_with_its_own_hierarchy(browser, tmp_path_factory):
    browser.run(browser.page.open(make_report(complete_run(tmp_path_factory, "real", (0, 1, 2)))))
    browser.run(browser.page.evaluate("document.querySelector('#nodes').closest('details').open = true"))
    browser.run(browser.page.click("#node-search"))
    browser.run(browser.page.send("Input.insertText", text="swimming"))
    shown = "[...document.querySelectorAll('#nodes tr[data-item]:not([hidden])')].map(e => e.cells[0].textContent)"
    assert browser.run(browser.page.evaluate(shown)) == ["Sports:Water:Swimming"]
    assert browser.page.errors == [] and browser.page.requests == []


def test_links_from_verdicts_lead_to_their_claims(browser, page):
    browser.run(browser.page.click(".card tbody a"))
    assert page("location.hash").startswith("#claim-")
    assert page("Math.abs(document.querySelector(location.hash).getBoundingClientRect().top) < 200")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_can_be_read(browser, page, width, dark):
    browser.run(browser.page.look(width, dark))
    assert page("document.documentElement.scrollWidth") == width, "the page is wider than the window"
    assert page(BACKGROUND) == ("rgb(23, 23, 28)" if dark else "rgb(255, 255, 254)")
    for details in ("section > details", ".claims details"):
        page(f"document.querySelectorAll({details!r}).forEach(e => {{ e.open = true; }})")
    assert page(FAINT) == []


def test_the_contrast_test_sees_faint_text(browser, page):
    page("document.querySelector('h1').style.color = '#999'")
    assert len(page(FAINT)) == 1


def test_print_shows_all_four_metrics_and_no_controls(browser, page):
    browser.run(browser.page.look(700, dark=True, media="print"))
    assert page(VISIBLE_TABLES) == 4
    assert page(visible("form, nav")) == 0
    assert page(BACKGROUND) == "rgb(255, 255, 255)", "dark paper"
    assert page(FAINT) == [], "inks of dark mode"
    assert page("document.documentElement.scrollWidth") == 700


def test_hostile_texts_do_nothing(browser, tmp_path):
    path = make_report(hostile_fixture(tmp_path / "run"))
    browser.run(browser.page.look(1400))
    browser.run(browser.page.open(path))
    assert browser.run(browser.page.evaluate("document.title")) != "hacked"
    assert browser.run(browser.page.evaluate("document.images.length")) == 0
    assert browser.page.errors == [] and browser.page.requests == []
