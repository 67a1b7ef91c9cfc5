"""The viewers of lesson 05 as a person sees them, in headless Chromium."""

import io
import json

import chromium
import numpy as np
import onnx
import pytest
from draw_lesson05 import YOUNG, open_netron, serving
from PIL import Image

from tutorial_utils import engine
from tutorial_utils.__main__ import main
from tutorial_utils.debug import polygraphy_cli

pytestmark = pytest.mark.skipif(chromium.EXECUTABLE is None, reason=chromium.NOT_INSTALLED)

MESSAGE = "document.getElementById('message-text').innerText"


@pytest.fixture
def browser():
    with chromium.Chromium(800, 900) as one:
        yield one


def colours(png) -> int:
    """How many colours a screenshot has: a blank page has one, and an error page few."""
    return len(np.unique(np.asarray(Image.open(io.BytesIO(png))).reshape(-1, 3), axis=0))


def open_model(browser, path, prepare=YOUNG):
    with serving(path) as url:
        open_netron(browser, url, prepare)


def test_netron_draws_the_model(browser, fp32_model, tmp_path):
    open_model(browser, fp32_model)
    shown = browser.text()
    assert {"Conv", "Relu", "Add"} <= set(shown.split())
    assert colours(browser.screenshot(tmp_path / "netron.png").read_bytes()) > 50


def test_netron_draws_a_model_whose_weights_are_in_another_file(browser, fp32_model, tmp_path):
    onnx.save(onnx.load(fp32_model), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    open_model(browser, tmp_path / "model.onnx")
    assert {"Conv", "Relu"} <= set(browser.text().split())


def test_netron_asks_for_consent_first(browser, fp32_model):
    with serving(fp32_model) as url:
        browser.run_in_every_page(YOUNG)
        browser.open(url)
        assert "cookies" in browser.wait_for(MESSAGE)


def test_netron_refuses_to_work_when_it_is_older_than_180_days(browser, fp32_model):
    open_model(browser, fp32_model, YOUNG.replace("2999-01-01", "2020-01-01"))
    assert "update to the newest version" in browser.evaluate(MESSAGE)


def test_netron_opens_neither_a_plan_nor_what_the_inspector_writes(browser, fp32_model, tmp_path):
    built = engine.build(
        fp32_model, engine.BuildOptions(profiles=[engine.Profile.batch("x", (3, 32, 32), opt=8, max=8)])
    )
    plan = tmp_path / "model.plan"
    plan.write_bytes(built.plan)
    open_model(browser, plan)
    assert browser.evaluate(MESSAGE) in (
        "Unsupported file content.",  # of TensorRT-RTX
        "Invalid file content. File contains undocumented TensorRT engine data.",
    )
    layers = tmp_path / "layers.json"
    layers.write_text(json.dumps({"Layers": [], "Bindings": []}))
    open_model(browser, layers)
    assert "Unsupported JSON content" in browser.evaluate(MESSAGE)


def test_polygraphys_page_stays_empty_without_a_network(browser, fp32_model, tmp_path):
    page = tmp_path / "page.html"
    command = f"polygraphy inspect model {fp32_model} --visual --save-visual page.html"
    assert polygraphy_cli.run(command, tmp_path).returncode == 0
    browser.open(page.as_uri())
    assert browser.text().strip().startswith("Loading graph")
    assert browser.evaluate("typeof cytoscape") == "undefined"
    assert browser.evaluate("document.querySelectorAll('canvas').length") == 0
    assert colours(browser.screenshot(tmp_path / "page.png").read_bytes()) > 5


def test_page_of_inspect_needs_no_network(browser, fp32_model, tmp_path):
    page = tmp_path / "inspect.html"
    assert main(["inspect", str(fp32_model), "--html", str(page)]) == 0
    browser.open(page.as_uri())
    assert fp32_model.name in browser.text()
    pictures = browser.evaluate("[...document.images].map(one => ({width: one.naturalWidth, alt: one.alt}))")
    assert pictures
    assert all(one["width"] > 100 and one["alt"] for one in pictures)
    assert (
        browser.evaluate("performance.getEntriesByType('resource').filter(one => one.name.includes('//')).length") == 0
    )
    assert colours(browser.screenshot(tmp_path / "inspect.png").read_bytes()) > 50
