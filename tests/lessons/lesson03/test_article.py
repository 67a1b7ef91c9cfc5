"""Lesson 03's run of the article's build_engine and infer: names of its API, logs, and reading."""

import onnx
import pytest
from engine.test_tensorrt_api import names_in_stub, public_stub  # noqa: F401 - a fixture
from small_models import residual_model

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.lessons.lesson03 import api_names, article
from tutorial_utils.measure import programs, recordings

GONE_IN_10 = {"Builder.build_engine", "Builder.max_batch_size", "IBuilderConfig.max_workspace_size"}
WARM = {"rounds_ms": [[7.0, 7.2]] * 10, "first_call_ms": 8.0, "warmup_calls": 11, "stable": True, "batch": 64}


def test_the_article_s_program_has_three_names_that_10_lacks(public_stub):  # noqa: F811 - the imported fixture
    used = set(api_names.used(article._PRINTED.read_text()))
    assert used - names_in_stub(public_stub) == GONE_IN_10
    assert {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "IExecutionContext.execute_async_v3"} <= used


def test_today_s_program_has_none(public_stub):  # noqa: F811 - the imported fixture
    used = set(api_names.used(article._TODAY.read_text()))
    assert used <= names_in_stub(public_stub)
    assert "Builder.build_serialized_network" in used


def test_names_of_what_a_call_returned_are_left_out():
    assert api_names.used("trt.Runtime(trt.Logger()).no_name(); builder.create_network(0).num_layers") == [
        "Builder.create_network", "Logger", "Runtime",
    ]  # fmt: skip


def test_warnings_are_kept_once():
    log = """Traceback (most recent call last):
/course/article_engine.py:44: DeprecationWarning: Use set_memory_pool_limit instead.
  config.max_workspace_size = max_workspace_size
AttributeError: 'Builder' object has no attribute 'max_batch_size'
"""
    printed = """
[01/10/2025-09:52:23] [TRT] [W] - 68 weights are affected by this issue: Detected subnormal FP16 values.
[01/10/2025-09:52:24] [TRT] [W] - 68 weights are affected by this issue: Detected subnormal FP16 values.
[01/10/2025-09:52:24] [TRT] [I] something else"""
    assert article.telling(programs.Ended([], 1, log, printed)) == [
        "[TRT] [W] - 68 weights are affected by this issue: Detected subnormal FP16 values.",
        "DeprecationWarning: Use set_memory_pool_limit instead.",
        "AttributeError: 'Builder' object has no attribute 'max_batch_size'",
    ]
    published = recordings.load("article_tensorrt").data["log"]
    assert article.telling(programs.Ended([], 0, "\n".join(published), "")) == published


def test_tensorrt_s_own_logger_writes_where_it_is_read(tmp_path):
    """To stdout: what only stderr is searched for would lack the reason why INT8 can't be built."""
    trt = pytest.importorskip("tensorrt_rtx")
    program = tmp_path / "program.py"
    program.write_text(
        f"import {trt.__name__} as trt\ntrt.Logger().log(trt.Logger.ERROR, 'no scaling factors detected')"
    )
    assert article.telling(programs.run(program)) == ["[TRT] [E] no scaling factors detected"]


def test_a_network_for_any_size_is_declared_for_one():
    model = residual_model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    model = article.with_image_size(model, 48)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]] == [3, 48, 48]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def test_reading():
    call = {"first_ms": 20.0, "warm": WARM, "agreement": 1.0, "relative_error": 1e-3}
    build = {"built": True, "seconds": 60.0, "log": ["a warning"]}
    whole = {"build": build, "engine_bytes": 1, "printed": call, "today": call, "prepare_ms": 1.0, "engine": WARM}
    failed = {"build": {**build, "built": False, "seconds": None}}
    values = {
        "tensorrt_8/fp16": {"tensorrt": "8.6.1", "precision": "fp16", **whole},
        "tensorrt_8/int8": {"tensorrt": "8.6.1", "precision": "int8", **failed},
        "tensorrt_8/names": {"tensorrt": "8.6.1", "names": {"Builder.build_engine": True, "Runtime": True}},
        "tensorrt_10/fp16": {"tensorrt": "10.6.0", "precision": "fp16", **whole},
        "tensorrt_10/names": {
            "tensorrt": "10.6.0",
            "names": {"Builder.build_engine": False, "Runtime": True},
            "stops": "an error",
        },
    }
    rows = {name: {"stack": 0, "date": "2026-01-01", "values": one} for name, one in values.items()}
    found = article.read({"stacks": [{}], "rows": rows})
    first, failed, other = found.rows
    assert (first.tensorrt, first.precision, other.tensorrt) == ("8.6.1", "fp16", "10.6.0")
    assert first.printed.warm.median_ms == pytest.approx(7.1)
    assert first.build.log == ("a warning",)
    assert found.stops == {"10.6.0": "an error"}
    assert failed.printed is failed.today is failed.engine_bytes is None


@pytest.mark.parametrize("row", ["tensorrt_8/fp32", "tensorrt_10/names"])
def test_without_a_gpu_or_its_tensorrt_a_row_says_so(row):
    with pytest.raises(BackendUnavailableError, match=r"No NVIDIA driver|TensorRT|pycuda"):
        article.EXPERIMENT.rows[row]({})
