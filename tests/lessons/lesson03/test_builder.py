"""Lesson 03's experiment on the builder: its models, its rows without a GPU, and how a recording is read."""

import functools

import numpy as np
import onnx
import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.lessons.lesson03 import builder, snake_plugin
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

WARM = {"rounds_ms": [[0.1, 0.2]] * 10, "first_call_ms": 8.0, "warmup_calls": 11, "stable": True, "batch": 64}


def test_models_with_snake_differ_in_nothing_else(tmp_path):
    standard, custom = snake_plugin.save_models(tmp_path)
    onnx.checker.check_model(str(standard), full_check=True)
    operators = [node.op_type for node in onnx.load(custom).graph.node]
    assert operators == ["Conv", "Snake", "Conv"]
    model = onnx.load(standard)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("a", "s"))
    onnx.save(model, standard)
    images = np.random.default_rng(0).standard_normal((64, 3, 32, 32), np.float32)
    with OnnxRuntimeRunner(standard) as runner:
        found = runner.infer({"x": images})
    expected = found["a"] + np.sin(snake_plugin.ALPHA * found["a"]) ** 2 / snake_plugin.ALPHA
    np.testing.assert_allclose(found["s"], expected, rtol=1e-4, atol=1e-5)


def test_attribute_of_the_node_reaches_the_plugin():
    trt = pytest.importorskip("tensorrt_rtx")
    field = trt.PluginField("alpha", np.array([0.25], np.float32), trt.PluginFieldType.FLOAT32)
    made = snake_plugin.registered()["SnakeCreator"]().create_plugin("node", trt.PluginFieldCollection([field]), None)
    for one in (made, made.clone(), made.attach_to_context(None)):
        (kept,) = one.get_fields_to_serialize()
        assert (kept.name, kept.data.tolist()) == ("alpha", [0.25])
    assert made.get_output_data_types([trt.float32]) == [trt.float32]


def test_retrained_classifier_gives_another_answer(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 10] y) { y = Gemm(x, w, b) }'
    )
    weights = {"w": np.ones((4, 10), np.float32), "b": np.zeros(10, np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.save(builder.other_bias(model), tmp_path / "other.onnx")
    with OnnxRuntimeRunner(tmp_path / "other.onnx") as runner:
        (logits,) = runner.infer({"x": np.ones((8, 4), np.float32)}).values()
    assert (logits.argmax(axis=1) == 7).all()


@pytest.mark.parametrize("row", ["refused", "typing/weak_fp16", "plugin/snake", "memory", "level/3", "again"])
def test_without_data_centre_tensorrt_a_row_says_so(row):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendUnavailableError):
        builder.ROWS[row]({})


def test_rows_are_functions_of_the_module():
    """Another process imports them."""
    for measure in builder.ROWS.values():
        function = measure.func if isinstance(measure, functools.partial) else measure
        assert getattr(builder, function.__name__) is function


def test_reading():
    layer = {
        "name": "conv",
        "operation": "convolution",
        "dtype": "fp16",
        "evidence": "tactic name",
        "nodes": ["a", "b"],
    }
    built = {"build_s": 2.5, "plan_bytes": 7, "line": "1 of 1", "layers": [layer], "times": {"64": WARM}}
    values = {
        "level/3": {"values": built},
        "plugin/snake": {"values": {**built, "relative_error": 1e-6}},
        "memory": {"values": {"size": 5}},
        "compatible/version": {"reason": "no library"},
    }
    rows = {name: {"stack": 0, "date": "2026-01-01", **one} for name, one in values.items()}
    result = builder.read({"stacks": [{}], "rows": rows})
    assert result.engines["level/3"].layers[0].nodes == ("a", "b")
    assert result.engines["level/3"].times[64].median_ms == pytest.approx(0.15)
    assert result.facts == {"memory": {"size": 5}, "plugin/snake": values["plugin/snake"]["values"]}
    assert result.reasons == {"compatible/version": "no library"}


# --- what lesson 03a says of the recording ---------------------------------------------------------------------------


@pytest.fixture
def engines():
    return builder.EXPERIMENT.recorded("").result.engines


def test_builds_take_longer_from_level_to_level(engines):
    seconds = [engines[f"level/{level}"].build_s for level in builder.LEVELS]
    assert seconds == sorted(seconds)


def test_one_image_takes_as_long_as_64_in_each_engine_with_profiles(engines):
    for name in ("profile/opt_1", "profile/opt_64", "profile/both"):
        one, many = (engines[name].times[batch].median_ms for batch in (1, builder.BATCH))
        assert one == pytest.approx(many, rel=0.05)


def test_the_same_options_in_another_session_differ_by_more_than_levels_and_profiles(engines):
    assert [f"{engines[f'typing/strong_{one}'].times[64].median_ms:.3f}" for one in ("fp16", "fp32")] == [
        "0.115",
        "0.124",
    ]
    assert [f"{engines[one].times[64].median_ms:.3f}" for one in ("profile/opt_64", "level/3")] == ["0.077", "0.078"]


def test_with_fp16_allowed_the_first_convolution_stays_in_fp32_asked_for_or_not(engines):
    for name in ("typing/weak_fp16", "typing/weak_fp16_one_in_fp32"):
        found = [layer.dtype for layer in engines[name].layers if layer.operation == "convolution"]
        assert found == ["fp32"] + 8 * ["fp16"]


def test_table_has_a_line_for_each_engine_that_a_name_stands_for(engines):
    result = builder.EXPERIMENT.recorded("").result
    table = builder.table(result, "profile/", "level/3")
    assert list(table.index) == ["profile/opt_1", "profile/opt_64", "profile/both", "level/3"]
    assert list(table.columns) == ["build s", "1 image, ms", "64 images, ms"]
    assert list(table.loc["level/3"]) == ["19.9", "", "0.078 (0.077 to 0.079)"]


def test_a_build_with_the_times_of_another_makes_its_plan_and_one_without_another():
    again = builder.EXPERIMENT.recorded("").result.facts["again"]
    assert again["with its times"]["same_bytes"]
    assert again["with its times"]["build_s"] == pytest.approx(0.4, abs=0.05)
    assert not again["without again"]["same_kernels"]
