"""What lesson 05a says of Netron's server and scripts, without a browser; tests/browser has its like with one."""

import re
import urllib.request
from importlib import resources

from draw_lesson05 import serving


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_netron_serves_the_folder_of_the_model_to_whoever_asks(models):
    with serving(models["fp32"]) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert "<title>Netron</title>" in fetched(url).decode()
        assert fetched(f"{url}data/fp32.onnx") == models["fp32"].read_bytes()
        assert fetched(f"{url}data/fp16.onnx") == models["fp16"].read_bytes()


def test_netron_asks_for_the_country_and_tells_an_analytics_service():
    scripts = "".join((resources.files("netron") / name).read_text() for name in ("browser.js", "base.js"))
    hosts = re.findall(r"https://((?:ipinfo|analytics)[\w.]+)", scripts)
    assert len({host.partition(".")[0] for host in hosts}) == 2
    assert re.findall(r"days > (\d+)", scripts) == ["180"]


def test_netron_reads_no_plan():
    reader = (resources.files("netron") / "tensorrt.js").read_text()
    assert "undocumented TensorRT engine data" in reader
