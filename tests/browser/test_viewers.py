"""The viewers of lesson 05 as a person sees them."""

import json

import onnx
import pytest
from draw_lesson05 import YOUNG, open_netron, serving

from tutorial_utils import engine
from tutorial_utils.__main__ import main
from tutorial_utils.debug import polygraphy_cli


@pytest.fixture
def netron(window):
    """Return how to open a file in Netron: it gives the page."""

    def opened(path, prepare=YOUNG):
        page = window(800)
        with serving(path) as url:
            open_netron(page, url, prepare)
        return page

    return opened


def message(page) -> str:
    return page.inner_text("#message-text")


def test_netron_draws_a_model_also_with_weights_in_another_file(netron, fp32_model, tmp_path):
    onnx.save(onnx.load(fp32_model), tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    for path in (fp32_model, tmp_path / "model.onnx"):
        assert {"Conv", "Relu", "Add"} <= set(netron(path).inner_text("body").split())


def test_netron_asks_for_consent_first(window, fp32_model):
    page = window(800)
    with serving(fp32_model) as url:
        page.add_init_script(YOUNG)
        page.goto(url)
        page.get_by_text("cookies").wait_for()


def test_netron_refuses_to_work_when_it_is_older_than_180_days(netron, fp32_model):
    page = netron(fp32_model, YOUNG.replace("2999-01-01", "2020-01-01"))
    assert "update to the newest version" in message(page)


def test_netron_opens_neither_a_plan_nor_what_the_inspector_writes(netron, fp32_model, tmp_path):
    profile = engine.Profile.batch("x", (3, 32, 32), opt=8, max=8)
    plan, layers = tmp_path / "model.plan", tmp_path / "layers.json"
    plan.write_bytes(engine.build(fp32_model, engine.BuildOptions(profiles=[profile])).plan)
    assert message(netron(plan)) in (
        "Unsupported file content.",  # of TensorRT-RTX
        "Invalid file content. File contains undocumented TensorRT engine data.",
    )
    layers.write_text(json.dumps({"Layers": [], "Bindings": []}))
    assert "Unsupported JSON content" in message(netron(layers))


def test_polygraphys_page_stays_empty_without_a_network(window, fp32_model, tmp_path):
    command = f"polygraphy inspect model {fp32_model} --visual --save-visual page.html"
    assert polygraphy_cli.run(command, tmp_path).returncode == 0
    page = window(800)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.inner_text("body").strip().startswith("Loading graph")
    assert page.evaluate("typeof cytoscape") == "undefined"
    assert page.locator("canvas").count() == 0


def test_page_of_inspect_needs_no_network(window, fp32_model, screenshots):
    path = screenshots / "inspect.html"
    assert main(["inspect", str(fp32_model), "--html", str(path)]) == 0
    page = window(800)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert fp32_model.name in page.inner_text("body")
    pictures = page.evaluate("[...document.images].map(one => ({width: one.naturalWidth, alt: one.alt}))")
    assert pictures
    assert all(one["width"] > 100 and one["alt"] for one in pictures)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.screenshot(path=screenshots / "inspect.png", full_page=True)
