"""Chromium for the tests of what a person sees. `make test-browser` runs them, `make test` doesn't."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium

from tutorial_utils.authoring import course, notebook_form
from tutorial_utils.base.paths import ROOT

SCREENSHOTS = ROOT / "build" / "browser"
PAGES_VARIABLE = "COURSE_PAGES"  # a folder that `make course` wrote, to be looked at instead of the committed outputs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests."""
    pytest.importorskip("playwright.sync_api")
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def window(browser) -> Iterator:
    """Return how to open a window: ``window(390, "dark")`` is one page, of that width and in that theme."""
    contexts = []

    def opened(width: int = 1280, scheme: str = "light", height: int = 900):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        return contexts[-1].new_page()

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Return the folder for screenshots, which stay for a person to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Path:
    """Return the folder of the HTML edition: as the lessons are committed, none is executed."""
    if given := os.environ.get(PAGES_VARIABLE):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "execute", lambda path: (notebook_form.read(path), 1.0))
        course.write_course(sorted((ROOT / "notebooks").glob("*.ipynb")), folder)
    return folder
