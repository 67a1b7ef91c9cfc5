"""The viewers of lesson 05 as a person sees them."""

import io
import json

import numpy as np
import onnx
import pytest
from draw_lesson05 import YOUNG, open_netron, serving
from PIL import Image

from tutorial_utils import engine
from tutorial_utils.__main__ import main
from tutorial_utils.debug import polygraphy_cli

MESSAGE = "#message-text"


@pytest.fixture
def page(window):
    return window(800)


def colours(png) -> int:
    """How many colours a screenshot has: a blank page has one, and an error page few."""
    return len(np.unique(np.asarray(Image.open(io.BytesIO(png))).reshape(-1, 3), axis=0))


def open_model(page, path, prepare=YOUNG):
    with serving(path) as url:
        open_netron(page, url, prepare)


def test_netron_draws_the_model(page, fp32_model, tmp_path):
    open_model(page, fp32_model)
    shown = page.inner_text("body")
    assert {"Conv", "Relu", "Add"} <= set(shown.split())
    assert colours(page.screenshot()) > 50


def test_netron_draws_a_model_whose_weights_are_in_another_file(page, fp32_model, tmp_path):
    onnx.save(onnx.load(fp32_model), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    open_model(page, tmp_path / "model.onnx")
    assert {"Conv", "Relu"} <= set(page.inner_text("body").split())


def test_netron_asks_for_consent_first(page, fp32_model):
    with serving(fp32_model) as url:
        page.add_init_script(YOUNG)
        page.goto(url)
        page.locator(MESSAGE).filter(has_text="cookies").wait_for()


def test_netron_refuses_to_work_when_it_is_older_than_180_days(page, fp32_model):
    open_model(page, fp32_model, YOUNG.replace("2999-01-01", "2020-01-01"))
    assert "update to the newest version" in page.inner_text(MESSAGE)


def test_netron_opens_neither_a_plan_nor_what_the_inspector_writes(page, fp32_model, tmp_path):
    built = engine.build(
        fp32_model, engine.BuildOptions(profiles=[engine.Profile.batch("x", (3, 32, 32), opt=8, max=8)])
    )
    plan = tmp_path / "model.plan"
    plan.write_bytes(built.plan)
    open_model(page, plan)
    assert page.inner_text(MESSAGE) in (
        "Unsupported file content.",  # of TensorRT-RTX
        "Invalid file content. File contains undocumented TensorRT engine data.",
    )
    layers = tmp_path / "layers.json"
    layers.write_text(json.dumps({"Layers": [], "Bindings": []}))
    open_model(page, layers)
    assert "Unsupported JSON content" in page.inner_text(MESSAGE)


def test_polygraphys_page_stays_empty_without_a_network(page, fp32_model, tmp_path):
    file = tmp_path / "page.html"
    command = f"polygraphy inspect model {fp32_model} --visual --save-visual page.html"
    assert polygraphy_cli.run(command, tmp_path).returncode == 0
    page.goto(file.as_uri())
    assert page.inner_text("body").strip().startswith("Loading graph")
    assert page.evaluate("typeof cytoscape") == "undefined"
    assert page.evaluate("document.querySelectorAll('canvas').length") == 0
    assert colours(page.screenshot()) > 5


def test_page_of_inspect_needs_no_network(page, fp32_model, tmp_path):
    file = tmp_path / "inspect.html"
    assert main(["inspect", str(fp32_model), "--html", str(file)]) == 0
    page.goto(file.as_uri())
    assert fp32_model.name in page.inner_text("body")
    pictures = page.evaluate("[...document.images].map(one => ({width: one.naturalWidth, alt: one.alt}))")
    assert pictures
    assert all(one["width"] > 100 and one["alt"] for one in pictures)
    assert page.evaluate("performance.getEntriesByType('resource').filter(one => one.name.includes('//')).length") == 0
    assert colours(page.screenshot()) > 50
