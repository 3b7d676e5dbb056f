"""The pages in a real headless Chromium, at a desk's and a phone's width, in light and dark."""

import json
from dataclasses import replace

import pytest
from support.browser import Browser
from support.helpers import compose

from sslcli.commands.report import run as report
from sslcli.commands.train import run

pytestmark = pytest.mark.browser
DATA = (
    "dataset=synthetic", "dataset.num_samples=300", "dataset.size=16", "train.batch_size=32", "device=cpu",
    "device.threads=1", "log.every=1", "train.steps=6",
)  # fmt: skip
SCREENS = [(1280, False), (1280, True), (390, False), (390, True)]

# Relative luminance and contrast as WCAG 2 defines them, of every piece of text against what lies behind it.
CONTRAST = """
(() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("p, h1, h2, h3, td, th, dt, dd, a, pre, figcaption, li, text")) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const [a, b] = [parse(e.namespaceURI.includes("svg") ? style.fill : style.color), behind(e)].map(luminance);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
})()
"""
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((e) => e.tagName + " " + e.className).slice(0, 5)
"""
# The contrast of each picture's frame with the card around it.
FRAMES = (
    CONTRAST.partition("const found")[0]
    + """
  return [...document.images].map((e) => {
    const style = getComputedStyle(e);
    const [a, b] = [parse(style.borderTopColor), behind(e.parentElement)].map(luminance);
    return parseFloat(style.borderTopWidth) > 0 ? (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) : 0;
  });
})()
"""
)
TOO_SMALL = """
[...document.querySelectorAll("svg text")].map((e) => [e.getBoundingClientRect().height, e.textContent])
  .filter(([height]) => height > 0 && height < 10).slice(0, 5)
"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of a contrastive run, of a masked one, and of a comparison of three."""
    folder = tmp_path_factory.mktemp("runs")
    run(compose(*DATA, "log.quality=full", "checkpoint.every=3"), folder / "0")
    run(compose(*DATA, "objective.temperature=0.5", "probe=none", "log.report=false"), folder / "1")
    run(compose(*DATA, "objective=joint", "dataset.channels=1"), folder / "2")
    report(replace(compose(name="report"), run=str(folder)))
    return {"infonce": folder / "0/report.html", "joint": folder / "2/report.html", "all": folder / "comparison.html"}


@pytest.mark.parametrize("width, dark", SCREENS)
@pytest.mark.parametrize("name", ["infonce", "joint", "all"])
def test_a_page_opens_without_a_complaint_and_fits(browser, pages, tmp_path, name, width, dark):
    browser.open(pages[name], width=width, dark=dark)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("data:", "file:"))] == []
    assert [url for url in browser.requests if url.startswith("file:")] == [pages[name].resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(OVERFLOWING) == []
    assert browser.value("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert browser.value(TOO_SMALL) == []
    assert min(browser.value(FRAMES), default=3.0) >= 2.9
    assert browser.value(CONTRAST)[0][0] >= 3.0  # WCAG's bound for large text and graphics; 4.5 for the rest, below
    red = browser.value("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 60 if dark else red > 200
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.parametrize("dark", [False, True])
def test_all_words_stand_out_from_their_ground(browser, pages, dark):
    browser.open(pages["joint"], width=1280, dark=dark)
    worst, text = browser.value(CONTRAST)[0]
    assert worst >= 4.5, text


def test_the_table_sorts_by_a_click(browser, pages):
    browser.open(pages["all"], width=1280, dark=False)
    heads = browser.value(
        "[...document.querySelector('table').querySelectorAll('th')].map((h) => h.children[0].textContent)"
    )
    column = heads.index("knn_top1")
    assert (
        browser.value("document.querySelector('table').tHead.getBoundingClientRect().height") > 0
    )  # a table, not a list
    shown = f"[...document.querySelector('tbody').rows].map((r) => r.cells[{column}].dataset.sort)"
    click = f"document.querySelectorAll('th')[{column}].querySelector('button').click()"
    given = [json.loads(value) for value in browser.value(shown) if value]
    assert len(given) == 2 and browser.value(shown)[1] == ""  # the run without a probe
    for expected in (sorted(given, reverse=True), sorted(given), sorted(given, reverse=True)):
        browser.value(click)
        found = browser.value(shown)
        assert [json.loads(value) for value in found[:2]] == expected and found[2] == ""
    assert browser.value(f"document.querySelectorAll('th')[{column}].getAttribute('aria-sort')") == "descending"
    browser.value("document.querySelectorAll('th button')[0].click()")
    assert browser.value("[...document.querySelector('tbody').rows].map((r) => r.cells[0].textContent)") == [
        "0",
        "1",
        "2",
    ]


def test_pointing_at_a_run_fades_the_others(browser, pages):
    browser.open(pages["all"], width=1280, dark=False)
    faded = "[...document.querySelectorAll('svg .faded')].map((c) => c.id.slice(-4))"
    box = "document.querySelector('tr[data-run=run1]').getBoundingClientRect().toJSON()"
    browser.value("document.querySelector('tr[data-run=run1]').scrollIntoView({block: 'start', behavior: 'instant'})")
    left, top = (browser.value(box)[key] for key in ("x", "y"))
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + 40, y=top + 10)
    assert set(browser.value(faded)) == {"run0", "run2"}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.value(faded) == []


def test_nothing_from_outside_would_be_loaded(browser, pages, tmp_path):
    """The page's own policy, tried out: a picture from a network that somebody smuggles in is refused."""
    text = pages["infonce"].read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">')
    (tmp_path / "page.html").write_text(text)
    browser.open(tmp_path / "page.html", width=1280, dark=False)
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
