"""The HTML edition in a browser: links, themes, a phone, paper, and what axe-core finds."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser.looks import AXE, lightness

PHONE, TABLET, LAPTOP, DESK = 390, 800, 1280, 1600  # widths in CSS pixels
PAPER = 718  # A4 at 96 pixels an inch, less nbconvert's margins

ON_PAGE = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(one => one.href),
    anchors: [...document.querySelectorAll('[id]')].map(one => one.id),
    titles: [...document.querySelectorAll('h1')].map(one => one.innerText),
    broken: [...document.images].filter(one => !one.naturalWidth).map(one => one.src.slice(0, 80)),
})"""

# What a reader can't reach: it is wider than the box that it is in, and that box neither shows it nor scrolls.
CUT_OFF = """(canScroll) => [...document.querySelectorAll('main *, main')].filter(one => {
    const style = getComputedStyle(one), ends = ['hidden', 'clip', ...(canScroll ? [] : ['auto', 'scroll'])];
    return ends.includes(style.overflowX) && one.scrollWidth > one.clientWidth + 1 && one.getClientRects().length;
}).map(one => `${one.className}: ${one.innerText.slice(0, 60)}`)"""
PAGE_SCROLLS_SIDEWAYS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


def names(pages):
    """Return the pages as they are called in a folder, the front page first."""
    found = sorted(str(path.relative_to(pages)) for path in pages.rglob("*.html"))
    return sorted(found, key=lambda name: name != "index.html")


def lessons(pages):
    return [name for name in names(pages) if name[:2].isdigit()]


def address(pages, name):
    return (pages / name).as_uri()


@pytest.fixture(scope="module")
def seen(pages, browser):
    """What each page holds, asked for, and complained about, by its address."""
    found = {}
    context = browser.new_context()
    for name in names(pages):
        page = context.new_page()
        requests, complaints = [], []
        page.on("request", lambda request, to=requests: to.append(request.url))
        page.on("requestfailed", lambda request, to=complaints: to.append(f"failed: {request.url}"))
        page.on("console", lambda said, to=complaints: said.type in ("error", "warning") and to.append(said.text))
        page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        page.goto(address(pages, name))
        found[address(pages, name)] = {**page.evaluate(ON_PAGE), "requests": requests, "complaints": complaints}
        page.close()
    context.close()
    return found


def test_pages_ask_no_other_host(seen):
    others = {
        page: [url for url in one["requests"] if urlsplit(url).scheme not in ("file", "data")]
        for page, one in seen.items()
    }
    assert not {page: urls for page, urls in others.items() if urls}


def test_pages_have_no_errors_and_one_title(seen):
    faults = {page: [*one["complaints"], *one["broken"]] for page, one in seen.items()}
    assert not {page: found for page, found in faults.items() if found}
    assert not {page: one["titles"] for page, one in seen.items() if len(one["titles"]) != 1}


def test_every_link_leads_somewhere(seen):
    dead = []
    for page, one in seen.items():
        for link in one["links"]:
            target, _, anchor = link.partition("#")
            if urlsplit(link).scheme == "file":
                known = seen.get(target)
                exists = known is not None or Path(unquote(urlsplit(target).path)).is_file()
                if not exists or (anchor and unquote(anchor) not in map(unquote, known["anchors"])):
                    dead.append(f"{Path(page).name}: {link}")
    assert not dead


def test_next_and_previous_lead_through_all_lessons(pages, window):
    page = window()

    def click(link):
        with page.expect_navigation():
            link.click()
        return Path(page.url).name

    page.goto(address(pages, "index.html"))
    way = [click(page.locator("ol h2 a").first)]
    while page.locator(".course-neighbours .next").count():
        way.append(click(page.locator(".course-neighbours .next")))
    assert way == lessons(pages)
    assert click(page.locator(".course-ways .previous")) == way[-2]
    assert click(page.get_by_role("link", name="All lessons")) == "index.html"


def test_contents_lead_to_a_heading(pages, window):
    name = lessons(pages)[0]
    for width in (PHONE, DESK):
        page = window(width)
        page.goto(address(pages, name))
        contents = page.get_by_role("navigation", name="On this page")
        entry = contents.get_by_role("link").last
        assert entry.is_visible() == (width == DESK)
        if width == PHONE:
            contents.get_by_text("On this page").click()
        entry.click()
        assert unquote(urlsplit(page.url).fragment) == unquote(entry.get_attribute("href")[1:])
        heading = page.locator("main").get_by_role("heading").filter(has_text=entry.inner_text()).last
        assert -1 < heading.bounding_box()["y"] < 900


@pytest.mark.parametrize("width", [PHONE, TABLET, LAPTOP])
def test_nothing_is_cut_off(pages, window, width):
    page = window(width)
    faults = []
    for name in names(pages):
        page.goto(address(pages, name))
        faults += [f"{name}: the page scrolls sideways"] if page.evaluate(PAGE_SCROLLS_SIDEWAYS) else []
        faults += [f"{name}: {found}" for found in page.evaluate(CUT_OFF, True)]
    assert not faults


def test_long_code_scrolls_on_a_phone(pages, window):
    page = window(PHONE)
    page.goto(address(pages, lessons(pages)[0]))
    moved = page.evaluate(
        """() => [...document.querySelectorAll('.jp-InputArea-editor')].filter(one => one.scrollWidth > one.clientWidth)
            .map(one => { one.scrollLeft = 1000; return one.scrollLeft; })"""
    )
    assert moved
    assert all(moved)


def test_paper_holds_everything(pages, window, screenshots):
    page = window(PAPER)
    page.emulate_media(media="print")
    faults = []
    for name in names(pages):
        page.goto(address(pages, name))
        faults += [f"{name}: {found}" for found in page.evaluate(CUT_OFF, False)]
        faults += [f"{name}: wider than the paper"] if page.evaluate(PAGE_SCROLLS_SIDEWAYS) else []
    assert not faults
    page.goto(address(pages, lessons(pages)[0]))
    page.emulate_media(media="print", color_scheme="dark")
    assert background(page) > 0.9  # white paper, whatever the screen's theme
    page.pdf(path=screenshots / f"{Path(lessons(pages)[0]).stem}.pdf", format="A4")


def background(page) -> float:
    """Return how light the page's ground is, from 0 to 1, as its bottom left corner shows it."""
    return lightness(page.screenshot(clip={"x": 2, "y": page.viewport_size["height"] - 4, "width": 2, "height": 2}))


def test_all_pages_follow_the_theme(pages, window):
    grounds = {}
    for scheme in ("light", "dark"):
        page = window(DESK, scheme)
        for name in names(pages):
            page.goto(address(pages, name))
            grounds.setdefault(scheme, {})[name] = round(background(page), 2)
    assert len(set(grounds["light"].values())) == len(set(grounds["dark"].values())) == 1
    assert grounds["light"]["index.html"] > 0.9
    assert grounds["dark"]["index.html"] < 0.15


def test_pictures_keep_a_light_ground_in_the_dark(pages, window):
    """Their lines and words are dark."""
    page = window(LAPTOP, "dark")
    dark = []
    for name in names(pages):
        page.goto(address(pages, name))
        for picture in page.locator("main img").all():
            if lightness(picture.screenshot(), rim=6) < 0.75:
                dark.append(f"{name}: {picture.get_attribute('alt')[:60]}")
    assert not dark


# axe-core needs seconds for a long page. So: all rules once, then for lessons what a theme and a width can change; and
# code, whose colours are always the same few, in the first cells of a page only.
MOST_CODE = ".jp-CodeCell:nth-of-type(n + 8) .jp-InputArea-editor"


@pytest.mark.parametrize(
    ("width", "scheme", "rules"),
    [
        (LAPTOP, "light", None),
        (LAPTOP, "dark", ["color-contrast", "link-in-text-block"]),
        (PHONE, "light", ["scrollable-region-focusable", "target-size"]),
    ],
)
def test_axe_finds_nothing_serious(pages, window, width, scheme, rules):
    page = window(width, scheme)
    script, options = AXE.read_text(), {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = []
    for name in names(pages) if rules is None else ["index.html", *lessons(pages)]:
        page.goto(address(pages, name))
        page.evaluate(script)
        result = page.evaluate("([code, options]) => axe.run({exclude: [[code]]}, options)", [MOST_CODE, options])
        for fault in result["violations"]:
            if fault["impact"] in ("serious", "critical"):
                nodes = fault["nodes"]
                found.append(f"{name}: {fault['id']}, {len(nodes)} times: {nodes[0]['html'][:120]}")
    assert not found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_for_a_person_to_look_at(pages, window, screenshots, scheme):
    for width in (PHONE, TABLET, LAPTOP, DESK):
        page = window(width, scheme)
        for name in ("index.html", lessons(pages)[0]):
            page.goto(address(pages, name))
            page.screenshot(path=screenshots / f"{Path(name).stem}-{scheme}-{width}.png")
