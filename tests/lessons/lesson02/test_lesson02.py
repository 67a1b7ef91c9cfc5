"""Lesson 02: its cells of Paddle-TRT against the recorded signatures, its recording of the article, its timing."""

import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import runners.paddle_signatures as recorded
from small_models import images

from tutorial_utils.authoring import notebook_form
from tutorial_utils.lessons.lesson02 import cold_calls
from tutorial_utils.measure import recordings

LESSON = notebook_form.read(Path(__file__).parents[3] / "notebooks" / "02b_paddle_tensorrt.ipynb")


# --- cells that need a GPU build of Paddle ---------------------------------------------------------------------------


def defined(name, **names):
    """Return a function that a cell of the lesson defines, with the recorded signatures in place of Paddle."""
    (source,) = (cell.source for cell in LESSON.cells if cell.cell_type == "code" and f"def {name}(" in cell.source)
    precisions = SimpleNamespace(Float32="Float32", Half="Half", Int8="Int8")
    paddle_inference = SimpleNamespace(
        Config=recorded.Config, PrecisionType=precisions, create_predictor=lambda one: one
    )
    namespace = {"pi": paddle_inference, "os": os, "Path": Path, "Counter": Counter, "usable": False, **names}
    exec(source, namespace)
    return namespace[name]


def test_the_article_s_three_predictors_fit_the_recorded_signatures():
    ranges = {name: {"x": [batch, 3, 32, 32]} for name, batch in (("SMALLEST", 1), ("BEST", 64), ("LARGEST", 64))}
    assert list(defined("no_tensorrt")().calls) == ["enable_use_gpu"]
    for name, precision in (("tensorrt_fp32", "Float32"), ("tensorrt_fp16", "Half")):
        calls = defined(name, **ranges)().calls
        assert next(iter(calls)) == "enable_use_gpu"  # Paddle refuses the other order
        assert calls["enable_use_gpu"]["memory_pool_init_size_mb"] < 10_000
        engine = calls["enable_tensorrt_engine"]
        assert (engine["precision_mode"], engine["use_static"], engine["use_calib_mode"]) == (precision, True, False)
        given = calls["set_trt_dynamic_shape_info"]
        assert [given[f"{kind}_input_shape"]["x"][0] for kind in ("min", "optim", "max")] == [1, 64, 64]
    assert calls["enable_use_gpu"]["precision_mode"] == "Half"  # what stays with Paddle: the article's third argument


def test_ranges_inspector_and_int8_fit_the_recorded_signatures(tmp_path):
    tuned = defined("tuned_config")().calls
    assert tuned["enable_tuned_tensorrt_dynamic_shape"]["shape_range_info_path"] == "ranges.pbtxt"
    assert tuned["exp_disable_tensorrt_ops"] == {"arg0": ["pool2d"]}
    int8 = defined("int8_config")(explicit=True).calls
    assert int8["enable_tensorrt_engine"]["use_calib_mode"] is False
    assert "enable_tensorrt_explicit_quantization" in int8
    assert defined("inspected")(recorded.Config("", ""), str(tmp_path)) == Counter()


def test_pir_trt_fits_the_recorded_signatures(tmp_path, monkeypatch, capsys):
    engine = SimpleNamespace(name=lambda: "pd_op.tensorrt_engine")

    def convert(path, config):
        recorded.convert(path, config)
        return SimpleNamespace(global_block=lambda: SimpleNamespace(ops=[engine]))

    export = SimpleNamespace(**{name: getattr(recorded, name) for name in ("Input", "PrecisionMode", "TensorRTConfig")})
    export.convert = convert
    monkeypatch.setitem(sys.modules, "paddle.tensorrt", SimpleNamespace(export=export))
    monkeypatch.setitem(sys.modules, "paddle.tensorrt.export", export)
    calls = defined("convert_and_open")("pir/net", str(tmp_path / "trt")).calls
    assert capsys.readouterr().out == "1 engines\n"
    assert list(calls) == ["exp_disable_mixed_precision_ops", "enable_use_gpu", "enable_memory_optim"]


# --- the article -----------------------------------------------------------------------------------------------------


def test_recording_of_the_article_is_marked_as_published_and_gives_its_table():
    article = recordings.load("article_paddle_trt")
    assert article.source == "published"
    assert article.stamp.startswith("published on RTX Ada (compute capability 8.9) on 2025-01-10 with Paddle 2.6.1")
    assert "single cold call" in article.method
    seconds = [row["call_s"] for row in article.data["rows"]]
    assert [round(seconds[0] / one, 1) for one in seconds] == [1.0, 23.6, 93.7]
    assert {row["accuracy"] * article.data["images"] for row in article.data["rows"]} == {46}


# --- measuring -------------------------------------------------------------------------------------------------------


def test_cold_calls_come_from_a_fresh_process_with_warm_ones(paddle_model):
    pytest.importorskip("paddle")
    choices = [("plain", {"onednn": False, "threads": 1}), ("oneDNN", {"threads": 1})]
    calls = cold_calls.in_fresh_process(*paddle_model, images(4), choices)
    assert [call.name for call in calls] == ["plain", "oneDNN"]
    assert all(call.first_ms > 0 for call in calls)
    assert all(call.warm.calls >= 10 and call.warm.warmup_calls > 10 for call in calls)
