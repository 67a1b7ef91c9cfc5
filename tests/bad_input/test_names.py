"""Names that must work: of files with spaces and Chinese characters, and whatever characters names in a model have."""

import json
import re

import numpy as np
import onnx
import pytest
from bad_input.table import IMAGES, At, command, linked_as_in_a_cache, one_node, temporary_files_in
from small_models import options

from tutorial_utils.__main__ import main
from tutorial_utils.debug import diagnosis
from tutorial_utils.engine import build
from tutorial_utils.inspection import page
from tutorial_utils.measure import recordings
from tutorial_utils.model import half_precision, onnx_file, quantization
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

FOLDERS = ["with a space", "模型 文件夹", "é", "a'b\"c", "$HOME;true", "-x"]
NAMES = [
    "空 格",
    "a\x1b]0;renamed\x07",
    "a\nb",
    "layers[0]/mm",
    "a,b",
    "<script>alert(1)</script>",
    "a\\b",
    "\u202eabc",
    " ",
]
MOVES_A_CURSOR = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.fixture
def at(tmp_path):
    return At(tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_any_name(name, tmp_path):
    (tmp_path / name).mkdir()
    at = At(tmp_path / name)
    with temporary_files_in(at.temporary):
        model = at.model.rename(at.given / f"{name}.onnx")
        half = half_precision.to_fp16(model, at.out / f"{name}-16.onnx")
        eighth = quantization.to_int8(model, at.out / f"{name}-8.onnx", IMAGES)
        assert OnnxRuntimeRunner(half).infer({"x": IMAGES})["y"].shape == (2, 10)
        assert OnnxRuntimeRunner(eighth).infer({"x": IMAGES})["y"].shape == (2, 10)
        for from_cache in (False, True):
            assert build(model, options(), cache_folder=at.out / "engines").from_cache is from_cache
        recording = recordings.new("t", "m", {"cpu": "c"}, {})
        assert recordings.load(recordings.save(recording, at.out / f"{name}.json")) == recording
        np.savez(at.given / f"{name}.npz", x=IMAGES)
        target = at.out / "mended.onnx"
        found = diagnosis.diagnose(model, "fp16", at.given / f"{name}.npz", 0, target, write_healthy=True)
        assert (found.verdict, target.exists()) == ("healthy", True)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_in_a_model(name, at):
    """They reach no terminal as they are, and no page as HTML; in JSON, in reports and in files they stay."""
    path = at.write("names.onnx", one_node(name))
    text = command(main, "inspect", path)
    assert not MOVES_A_CURSOR.search(text)
    found = json.loads(command(main, "inspect", path, "--json"))
    assert found["report"]["layers"][0]["onnx_nodes"] == [f"{name}_relu"]
    command(main, "inspect", path, "--html", at.out / "a.html")
    assert "<script" not in (at.out / "a.html").read_text(encoding="utf-8")
    assert onnx_file.load(half_precision.to_fp16(path, at.out / "half.onnx")).graph.input[0].name == name
    assert OnnxRuntimeRunner(path).infer({name: np.ones((2, 8), np.float32)})[f"{name}_out"].all()


def test_an_unprintable_name_is_escaped_in_what_debug_prints(at):
    """The command runs in a process of its own: once is enough."""
    path = at.write("names.onnx", one_node("a\x1b]0;renamed\x07"))
    text = command(main, "debug", path, "--seed", 0)
    assert not MOVES_A_CURSOR.search(text)
    assert r"\u001b]0;renamed\u0007" in text


def test_a_model_that_is_a_link_into_a_cache(at):
    """As caches of downloaded models hold them: model and weights are links to files beside each other elsewhere."""
    path = linked_as_in_a_cache(at)
    assert onnx_file.load(path).graph.initializer[0].raw_data
    assert OnnxRuntimeRunner(path).infer({"x": IMAGES})["y"].shape == (2, 10)
    assert build(path, options(), cache_folder=at.out).plan


def test_a_link_as_a_target_stays_a_link(at):
    """What it leads to is replaced; so a page written to /dev/stdout replaces nothing in /dev."""
    target = at.write("old.onnx", b"old")
    half_precision.to_fp16(at.model, at.link("link.onnx", "old.onnx"))
    assert (at.given / "link.onnx").is_symlink()
    assert onnx.load(target).graph.node


def test_a_page_about_a_file_whose_name_is_no_utf8(at):
    """The model's name can't be so, that of its inputs can."""
    page.write_html("title", "from \udcff.npz", at.out / "a.html")
    assert r"from \udcff.npz" in (at.out / "a.html").read_text(encoding="utf-8")
