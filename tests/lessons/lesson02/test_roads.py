"""Lesson 02's answer: where each road comes from, what it is compared with, what is said of missing ones."""

import pictures
import pytest

from tutorial_utils.lessons.lesson02 import article, paddle_engines, roads
from tutorial_utils.lessons.lesson02.article import Predictor
from tutorial_utils.measure import deployment, experiment, recordings, rows
from tutorial_utils.measure.resnet50_matrix import cells
from tutorial_utils.measure.resnet50_matrix.matrix import EXPERIMENT
from tutorial_utils.measure.timing import Measurement

SHAPE, ONE, MANY = "64x3x32x32", "1x3x224x224", "64x3x224x224"


def row(ms, first=30.0, error=1e-3):
    return {
        "host": [ms, 0.9 * ms, 1.1 * ms, 2 * ms], "device": [0.8 * ms] * 4, "graph": None, "first_call_ms": first,
        "relative_error": error, "agreement": 1.0, "gpu_before": {}, "gpu_after": {},
    }  # fmt: skip


def matrix(**others):
    found = {
        "reference/tensorrt": row(3.0), "reference/article": row(2.0), f"tensorrt_flags/fp16/{SHAPE}": row(0.5),
        f"paddle_tensorrt/fp16/{SHAPE}": row(0.4), **others,
    }  # fmt: skip
    data = {name: {"stack": 0, "date": "", **({"reason": one} if isinstance(one, str) else {"values": one})}
            for name, one in found.items()}  # fmt: skip
    return cells.matrix(rows.read({"stacks": [{}], "rows": data}))


def named(found):
    return {one.name: one for one in found}


def test_speed_up_is_over_the_reference_row_of_the_same_stack():
    found = named(roads.roads(matrix(), [], {}))
    assert found["TensorRT 10.6 FP16"].speedup == pytest.approx(6.0)
    assert found["Paddle-TRT 2.6 FP16"].speedup == pytest.approx(5.0)
    assert list(roads.table(list(found.values())).index) == [("Paddle-TRT 2.6", "FP16"), ("TensorRT 10.6", "FP16")]


@pytest.mark.parametrize(("cache", "build_s"), [("empty", 50.0), ("rows before", None)])
def test_files_with_types_come_before_flags_and_builds_with_an_empty_cache_count(cache, build_s):
    typed = {**row(0.3), "build_s": 50.0, "build_cache": cache}
    flags = {**row(0.5), "build_s": 129.0, "build_cache": "empty"}
    found = matrix(**{f"tensorrt_typed/fp16/{SHAPE}": typed, f"tensorrt_flags/fp16/{SHAPE}": flags})
    road = named(roads.roads(found, [], {}))["TensorRT 10.6 FP16"]
    assert (road.host.median, road.build_s) == (0.3, build_s)


def test_onnx_runtime_is_shown_at_its_best_and_what_graphs_save():
    at_best = {**row(1.6), "graph": [0.5] * 4}
    cells = {f"onnxruntime_cuda/fp16/{SHAPE}": row(1.5), f"onnxruntime_nhwc/fp16/{SHAPE}": at_best}
    found = roads.roads(matrix(**cells), [], {})
    shown = roads.table(found)["GPU, as graph ms"].to_dict()
    assert shown["ONNX Runtime CUDA NHWC", "FP16"] == "0.50"
    assert shown["ONNX Runtime CUDA", "FP16"] == "n/a"
    assert "ONNX Runtime CUDA NHWC FP16: first call 30.000 ms" in roads.draw(found).text


def test_reasons_are_told_once_with_those_that_they_are_of():
    rows = {f"tensorrt_rtx/int8_qdq/{SHAPE}": "It builds none.", f"tensorrt_rtx/tf32/{SHAPE}": row(1, error=1.0)}
    found = roads.roads(matrix(**rows), [], {})
    told = roads.missing({SHAPE: found})
    assert f"n/a at {SHAPE}: TensorRT-RTX 1.6 INT8 Q/DQ\n    It builds none." in told
    assert f"n/a at {SHAPE}: TensorRT-RTX 1.6 TF32\n    Its outputs are wrong, so its time says nothing." in told
    assert told.count("not measured") == 1


def test_a_reason_is_one_though_each_size_has_a_file_of_its_own():
    refused = "It can't load resnet50-{}-int8.onnx."
    sizes = {shape: refused.format(shape.split("x")[-1]) for shape in (SHAPE, ONE)}
    found = matrix(**{f"onnxruntime_cuda/int8_qdq/{shape}": reason for shape, reason in sizes.items()})
    told = roads.missing({SHAPE: roads.roads(found, [], {}), ONE: roads.larger(found)[ONE]})
    assert f"n/a at {SHAPE}, {ONE}: ONNX Runtime CUDA INT8 Q/DQ\n    It can't load resnet50-int8.onnx." in told


def test_a_reason_is_one_though_each_size_has_an_error_of_its_own():
    rounded = "Numbers are rounded: the relative error is {}, and FP32's is below 1e-05."
    reasons = {
        f"tensorrt_rtx/fp32/{shape}": rounded.format(error) for shape, error in ((SHAPE, 9.8e-05), (ONE, 1.7e-04))
    }
    found = matrix(**reasons, **{f"tensorrt_rtx/fp32/{MANY}": rounded.replace("1e-05", "1e-06").format(0.5)})
    told = roads.missing({SHAPE: roads.roads(found, [], {}), **roads.larger(found)})
    first, second = rounded.format("9.8e-05, 0.00017"), "the relative error is 0.5, and FP32's is below 1e-06."
    assert f"n/a at {SHAPE}, {ONE}: TensorRT-RTX 1.6 FP32\n    {first}\n" in told
    assert f"n/a at {MANY}: TensorRT-RTX 1.6 FP32\n    Numbers are rounded: {second}\n" in told


def test_what_tensorrt_8_6_alone_was_not_timed_with_says_where_to_look():
    engines = paddle_engines.read(recordings.load("lesson02_paddle_tensorrt").data).engines
    found = roads.roads(matrix(), [], engines)
    reason = "With TF32 turned off, calls were timed inside Paddle only: see Paddle-TRT 2.6 FP32."
    assert f"n/a at {SHAPE}: TensorRT 8.6 FP32\n    {reason}" in roads.missing({SHAPE: found})
    assert "Paddle-TRT 2.6 FP32" in named(found)
    for_others = roads.roads(matrix(), [], {name: one for name, one in engines.items() if name != "FP32"})
    assert named(for_others)["TensorRT 8.6 FP32"].reason == roads.NOT_MEASURED
    told = roads.missing(roads.larger(matrix()))
    where, reason = told.splitlines()[:2]
    named_there = ", ".join(f"TensorRT 8.6 {precision}" for precision in ("FP32", "TF32", "FP16", "INT8"))
    assert where == f"n/a at {ONE}, {MANY}: {named_there}"
    assert reason.startswith(
        "    Whole calls were timed at 64x3x32x32 only. Their part on the GPU is the GPU ms of Paddle-TRT"
    )


def test_larger_images_have_the_one_reference_of_their_shape():
    graph = {**row(0.5), "host_graph": [0.4] * 4}
    found = roads.larger(matrix(**{
        f"onnxruntime_cuda/fp32/{ONE}": row(2.0),
        f"tensorrt_flags/fp16/{ONE}": graph, f"tensorrt_flags/fp16/{MANY}": row(10.0),
        f"tensorrt_rtx/fp16/{ONE}": row(0.8), f"tensorrt_rtx/fp16/{MANY}": "It builds none.",
    }))  # fmt: skip
    assert list(found) == [ONE, MANY]
    table = roads.table_of_shapes(found)
    lines = {name: list(line) for name, line in zip(table.index, table.to_numpy(), strict=True)}
    to = "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"
    assert lines == {
        (ONE, "ONNX Runtime CUDA", "FP32"): ["2.00", f"1.80{to}2.20", "1", "n/a", "1.60"],
        (ONE, "TensorRT 10.6", "FP16"): ["0.50", f"0.45{to}0.55", "4", "0.40", "0.40"],
        (ONE, "TensorRT-RTX 1.6", "FP16"): ["0.80", f"0.72{to}0.88", "2.5", "n/a", "0.64"],
        (MANY, "TensorRT 10.6", "FP16"): ["10.0", f"9.00{to}11.0", "n/a", "n/a", "8.00"],
    }
    told = roads.missing(found)
    assert f"n/a at {MANY}: TensorRT-RTX 1.6 FP16\n    It builds none." in told
    assert f"\nnot measured at {MANY}: ONNX Runtime CUDA FP32" in told
    assert f"not measured at {ONE}, {MANY}: ONNX Runtime CUDA TF32, ONNX Runtime CUDA FP16," in told


def test_a_column_without_any_value_is_left_out():
    table = roads.table_of_shapes(roads.larger(matrix(**{f"tensorrt_typed/fp16/{ONE}": row(0.5)})))
    assert list(table.columns) == ["ms", "95 % interval", "GPU ms"]


def test_a_matrix_without_larger_images_has_an_empty_table():
    assert roads.table_of_shapes(roads.larger(matrix())).empty


def test_what_the_other_two_recordings_add():
    warm = Measurement(((40.0, 40.0),) * 10, 60.0, 11, True, 64)
    article = [
        Predictor("gpu", ending="SIGABRT", reason="CUDA error(209)"), Predictor("cpu", 1.0, 60.0, warm, 1.0, 0.0)
    ]  # fmt: skip
    engines = paddle_engines.read(recordings.load("lesson02_paddle_tensorrt").data).engines
    found = named(roads.roads(matrix(), article, engines))
    assert found["Paddle 2.6, CPU FP32"].speedup == pytest.approx(0.05)
    assert "the process ends with SIGABRT: CUDA error(209)" in found["Paddle 2.6, GPU FP32"].reason
    wrong = Predictor("gpu", 1.0, 428.0, warm, 0.1, 1.0)
    on_gpu = named(roads.roads(matrix(), [wrong], {}))["Paddle 2.6, GPU FP32"]
    assert (on_gpu.host, on_gpu.first_ms) == (None, 428.0)
    assert on_gpu.reason == "In the article's program, wrong outputs: relative error 1."
    raw = engines["FP32"].times[paddle_engines.SAME_COPIES].median_ms
    assert found["TensorRT 8.6 TF32"].host.median == raw  # what it is called FP32, its engine computes in TF32
    assert "TF32" in engines["FP32"].computes_in


def test_figure_has_the_article_s_first_calls_also_where_there_is_nothing_of_ours():
    picture = roads.draw(roads.roads(matrix(), [], {}))
    assert "Paddle 2.6, GPU FP32: published call (RTX Ada) 401.216 ms; n/a" in picture.text
    assert "Paddle-TRT 2.6 FP16: published call (RTX Ada) 4.283 ms; first call 30.000 ms" in picture.text
    (axes,) = pictures.drawn(picture)
    assert (pytest.approx(401.21603), 0) in pictures.marks(axes)


def test_names_are_those_of_the_recordings():
    matrix_machine = recordings.load("resnet50_matrix").machine["libraries"]
    assert all(version in matrix_machine["tensorrt"] for version in ("10.6", "8.6"))
    assert matrix_machine["tensorrt_rtx"].startswith("1.6")
    assert matrix_machine["paddle"].startswith("2.6")


def test_in_fp16_no_answer_changes_and_in_int8_one_or_two_as_lesson_02c_says():
    quick = {(row.backend, row.precision): row.agreement for row in deployment.EXPERIMENT.recorded("").result.rows}
    by_calibrator = experiment.find("lesson01_calibration").recorded("").result
    tensorrt = {name: by_calibrator[f"precision/{name}"].agreement for name in ("fp16", "int8_qdq", "int8_calibrated")}
    changed = {name: round(600 * (1 - share)) for name, share in {**quick, **tensorrt}.items()}
    assert {changed["ONNX Runtime CUDA", "fp16"], changed["TensorRT-RTX", "fp16"], changed["fp16"]} == {0}
    assert (changed["ONNX Runtime CUDA", "int8"], changed["int8_qdq"], changed["int8_calibrated"]) == (2, 1, 1)


def test_what_lesson_02c_says_of_images_of_224x224():
    result = EXPERIMENT.recorded("").result
    found = {shape: named(of_shape) for shape, of_shape in roads.larger(result).items()}
    for name, one, of_64 in (
        ("TensorRT 10.6 FP16", 0.48, 2.5),
        ("Paddle-TRT 2.6 FP16", 0.57, 2.1),
        ("ONNX Runtime CUDA NHWC FP16", 1.46, 6.2),
    ):
        assert found[ONE][name].host.median == pytest.approx(one, abs=5e-3)
        assert found[MANY][name].device_ms == pytest.approx(of_64, abs=0.05)
    assert found[MANY]["ONNX Runtime TensorRT FP16"].device_ms == pytest.approx(2.0, abs=0.05)
    for precision, host, on_gpu in (("FP16", 6.9, 2.5), ("INT8 Q/DQ", 8.9, 2.2)):
        assert found[MANY][f"TensorRT 10.6 {precision}"].host.median == pytest.approx(host, abs=0.05)
        assert found[MANY][f"TensorRT 10.6 {precision}"].device_ms == pytest.approx(on_gpu, abs=0.05)


def what_lesson_02c_shows():
    shown = (EXPERIMENT, article.EXPERIMENT, paddle_engines.EXPERIMENT)
    matrix, program, engines = (one.recorded("").result for one in shown)
    return matrix, program.predictors, engines.engines


def test_what_lesson_02c_says_of_builds():
    found = named(roads.roads(*what_lesson_02c_shows()))
    seconds = {name: one.build_s for name, one in found.items() if one.build_s}
    quick = [one for name, one in seconds.items() if "RTX" in name]
    timed = [one for name, one in seconds.items() if "RTX" not in name]
    assert [round(one, 1) for one in quick] == [0.7, 0.7]
    assert (round(min(timed)), round(max(timed))) == (19, 199)
    assert {name for name in found if "TensorRT 10.6" in name or "ONNX Runtime TensorRT" in name} <= seconds.keys()


def test_neither_tensorrt_is_clearly_ahead_as_lesson_02c_says():
    found = named(roads.roads(*what_lesson_02c_shows()))
    calls = {"TensorRT 10.6": 0.53, "TensorRT 8.6": 0.48, "Paddle-TRT 2.6": 0.51, "ONNX Runtime TensorRT": 0.55}
    assert {name: round(found[f"{name} FP16"].host.median, 2) for name in calls} == calls
    as_graphs = {"TensorRT 10.6": 0.33, "ONNX Runtime TensorRT": 0.41}
    assert {name: round(found[f"{name} FP16"].device_graph_ms, 2) for name in as_graphs} == as_graphs


def test_what_lesson_02c_says_of_int8():
    found = named(roads.roads(*what_lesson_02c_shows()))
    int8 = {"TensorRT 10.6 INT8 Q/DQ": 0.51, "TensorRT 8.6 INT8": 0.41, "ONNX Runtime TensorRT INT8": 0.41}
    assert {name: round(found[name].host.median, 2) for name in int8} == int8
    assert {round(1 - found[name].agreement, 2) for name in int8} == {0.03, 0.05}
