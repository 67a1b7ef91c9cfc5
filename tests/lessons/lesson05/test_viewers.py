"""Netron's server and Polygraphy's page, without a browser; test_browser.py looks at them with one."""

import json
import re
import urllib.error
import urllib.request

import pytest
from IPython.display import IFrame, Image

from tutorial_utils import engine
from tutorial_utils.base.errors import InputError, ModelFileError
from tutorial_utils.lessons.lesson05 import netron_view, polygraphy_viewer

PROFILE = engine.Profile.batch("x", (3, 32, 32), opt=8, max=8)


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_server_is_on_localhost_serves_page_and_model_and_ends(fp32_model):
    with netron_view.serving(fp32_model) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        page = fetched(url).decode()
        assert "<title>Netron</title>" in page
        assert f'<meta name="file" content="/data/{fp32_model.name}">' in page
        assert fetched(f"{url}data/{fp32_model.name}") == fp32_model.read_bytes()
    with pytest.raises(urllib.error.URLError, match="refused"):
        fetched(url)


def test_files_beside_the_model_are_not_served(fp32_model):
    with netron_view.serving(fp32_model) as url, pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(f"{url}data/fp16.onnx")


def test_server_ends_when_the_block_raises(fp32_model):
    with pytest.raises(KeyError), netron_view.serving(fp32_model) as url:
        raise KeyError
    with pytest.raises(urllib.error.URLError, match="refused"):
        fetched(url)


def test_netron_itself_serves_the_last_model_only(models):
    with netron_view.serving(models["fp32"]) as url, netron_view.serving(models["fp16"]):
        assert fetched(f"{url}data/fp16.onnx") == models["fp16"].read_bytes()


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_no_model(damaged_models, kind):
    with pytest.raises(ModelFileError, match="missing or empty"):
        netron_view.start(damaged_models[kind])


class Shell:
    """As much of an IPython shell in a kernel as is asked for who runs the cell."""

    def __init__(self, **metadata):
        self.kernel = self
        self.metadata = metadata

    def get_parent(self):
        return {"metadata": self.metadata}


def test_frame_where_a_front_end_runs_the_cell(monkeypatch, fp32_model):
    monkeypatch.setattr("IPython.get_ipython", lambda: Shell(cellId="a"))
    frame = netron_view.show(fp32_model, Image(b""))
    try:
        assert isinstance(frame, IFrame)
        assert b"<title>Netron</title>" in fetched(frame.src)
    finally:
        netron_view.stop(frame.src)


@pytest.mark.parametrize("shell", [None, Shell(), object()])
def test_still_picture_where_nobody_looks(monkeypatch, fp32_model, shell):
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(netron_view, "start", lambda _: pytest.fail("a server was started"))
    still = Image(b"")
    assert netron_view.show(fp32_model, still) is still


def test_page_of_an_engine_has_its_kernels_tensors_and_onnx_nodes(tmp_path, fp32_model):
    report = engine.build(fp32_model, engine.BuildOptions(profiles=[PROFILE])).report
    page = polygraphy_viewer.save_engine(report, tmp_path / "engine.html", batch=8).read_text()
    reached = json.loads(re.search(r'(\{"succ": .*\});\n', page)[1])["succ"]  # from each node, along its edges
    names = {kernel.name for kernel in report.kernels}
    assert f"{len(names)} kernels" in page
    assert all(json.dumps(name)[1:-1] in page for name in names)
    assert all(node in page for kernel in report.kernels for node in kernel.onnx_nodes)
    reads = sum(len(kernel.inputs) for kernel in report.kernels)
    assert sum(map(len, reached.values())) == reads + 1  # and one edge to the output
    assert "8\\u00d73\\u00d732\\u00d732 fp32" in page


def test_page_of_a_report_without_layers(tmp_path):
    with pytest.raises(InputError, match="no layers"):
        polygraphy_viewer.save_engine(engine.BuildReport("TensorRT", "10.5"), tmp_path / "engine.html", batch=8)
    assert not list(tmp_path.iterdir())
