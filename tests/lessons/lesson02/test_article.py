"""Lesson 02's run of the article's program: what goes on after a process that ends, its logs, reading and drawing."""

import pictures
import pytest

from tutorial_utils import plotting
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.lessons.lesson02 import article
from tutorial_utils.measure import recordings
from tutorial_utils.measure.experiment import Measured
from tutorial_utils.measure.timing import Measurement


def test_log_is_split_at_the_program_s_own_lines():
    log = "before\n######## gpu\none\ntwo\n######## trt_fp32\n######## cpu\nthree"
    assert article.by_predictor(log) == {"gpu": "one\ntwo\n", "trt_fp32": "", "cpu": "three"}


def test_without_its_libraries_the_experiment_says_so():
    with pytest.raises(BackendUnavailableError, match=r"No NVIDIA driver|needs Paddle 2\.6"):
        article.predictors({})


def test_the_program_makes_the_article_s_calls():
    """Its arguments are the article's, to the letter."""
    text = article._PROGRAM.read_text()
    for call in (
        "enable_use_gpu(1 << 32, 0, precision)",
        "workspace_size=1 << 32, max_batch_size=64, min_subgraph_size=3, precision_mode=precision",
        'smallest, largest, usual = ({"x": [batch, 3, 32, 32]} for batch in (1, 64, 1))',
        "set_trt_dynamic_shape_info(smallest, largest, usual)",
        "opset_version=15",
    ):
        assert call in text


STAND_IN = """
import json, os, sys
from pathlib import Path
import numpy as np
step, folder, *names = sys.argv[1:]
if step == "save":
    sys.exit()
if step == "export":
    import onnx
    nodes = [onnx.helper.make_node(kind, ["x"], ["y"]) for kind in ("Relu", "Conv", "Relu")]
    graph = onnx.helper.make_graph(nodes, "stand_in", [], [])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 15)]), f"{folder}/model.onnx")
    print("I1127 14:55:12.883430  8169 interpreter.cc:212] before", file=sys.stderr)
    print("######## export", file=sys.stderr)
    print("W1127 14:55:12.883430  8169 pass.cc:302] a warning", file=sys.stderr)
    print(f"\\n2026-11-27 14:55:14 [INFO]\\t\\x1b[32mProgram saved in {folder}/temporary.\\x1b[0m", file=sys.stderr)
    print(json.dumps({"seconds": 1.5}))
    sys.exit()
rounds = {"rounds_ms": [[1.0, 1.1]] * 10, "first_call_ms": 1.5, "warmup_calls": 11, "stable": True, "batch": 64}
for name in names:
    print("########", name, file=sys.stderr, flush=True)
    if name == "gpu":
        print("\\nExternalError: CUDA error(209)", file=sys.stderr, flush=True)
        os.abort()
    if name != "cpu":
        print("I0110 09:48:54.5 1 pass.cc:302] --- detect a sub-graph with 99 nodes", file=sys.stderr, flush=True)
    np.save(Path(folder) / f"{name}.npy", np.eye(64, 10, dtype=np.float32) * (1.001 if name == "trt_fp16" else 1))
    print(json.dumps({"name": name, "create_s": 2.0, "first_ms": 20.0}), flush=True)
print(json.dumps({"warm": {name: rounds for name in names}}))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Stands in for the article's program, which needs its libraries: it answers alike, and its first part dies."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(article, "_PROGRAM", path)
        patched.setattr(article, "_require_stack", lambda: None)
        yield path


def read_back():
    """Return what is read of the stand-in's answers."""
    values = {name: measure({}) for name, measure in article.EXPERIMENT.rows.items()}
    recorded = {name: {"stack": 0, "date": "2026-01-01", "values": one} for name, one in values.items()}
    return article.read({"stacks": [{}], "rows": recorded})


@pytest.fixture(scope="module")
def measured(program):
    """What is read of the stand-in's answers: no measurement, and not kept."""
    return Measured(read_back(), recordings.live("stand-in"), article.METHOD, {})


def test_a_predictor_that_ends_its_process_costs_only_itself(measured):
    gpu, fp32, fp16, cpu = measured.result.predictors
    assert (gpu.name, gpu.ending, gpu.reason) == ("gpu", "SIGABRT", "ExternalError: CUDA error(209)")
    assert gpu.first_ms is gpu.warm is gpu.relative_error is gpu.log is None
    assert fp16.log.subgraphs == (99,)
    assert [one.name for one in (fp32, fp16, cpu)] == ["trt_fp32", "trt_fp16", "cpu"]
    assert all(one.agreement == 1 and one.first_ms == 20 and isinstance(one.warm, Measurement) for one in (fp32, cpu))
    assert fp16.relative_error == pytest.approx(1e-3, rel=1e-3)
    assert fp32.relative_error == cpu.relative_error == 0


def test_export_is_told_without_moments_and_places(measured):
    export = measured.result.export
    assert (export.seconds, export.opset, export.nodes) == (1.5, 15, {"Conv": 1, "Relu": 2})
    assert export.log == ["W pass.cc:302] a warning", "[INFO] Program saved in temporary."]
    assert article.told_of_export(export).splitlines() == [
        "Export to ONNX in 1.5 s: opset 15, 3 nodes (1 Conv, 2 Relu)",
        "  W pass.cc:302] a warning",
        "  [INFO] Program saved in temporary.",
    ]


def test_rows_that_were_not_measured_are_empty():
    assert article.read({"stacks": [], "rows": {}}) == article.Article([], None)
    assert "not recorded yet" in article.told_of_export(None)


def test_drawing(measured):
    picture = article.draw(measured)
    assert picture.text.splitlines()[:2] == [
        "GPU, no TensorRT: published first call 401.216 ms; "
        "the process ends with SIGABRT: ExternalError: CUDA error(209)",
        "Paddle-TRT FP32: published first call 16.992 ms; first call 20.000 ms; median of warm calls 1.050 ms",
    ]
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes)[:3] == [(pytest.approx(401.21603), 0), (pytest.approx(16.99209), 1),
                                        (pytest.approx(4.28343), 2)]  # fmt: skip
    assert pictures.marks(axes)[3:6] == [(20, 1), (20, 2), (20, 3)]


def test_log_table(measured):
    """The article's columns hold what its log says."""
    table = article.log_table(measured)
    assert len(table) == 4
    assert list(table.loc["Paddle-TRT FP16", "article"]) == ["123", "yes", "68", "40"]
    assert list(table.loc["Paddle-TRT FP32", "article"]) == ["123", "yes", "", ""]
    assert list(table.loc["Paddle-TRT FP32", "here"]) == ["99", "no", "", ""]


@pytest.mark.parametrize(("value", "error"), [("0", 1), ("float('nan')", None)])
def test_wrong_outputs_are_told(program, value, error):
    """A kernel that Paddle launches and the wheel doesn't hold may leave its output as it was, without an error."""
    program.write_text(STAND_IN.replace("1.001", value))
    (fp16,) = (one for one in read_back().predictors if one.name == "trt_fp16")
    assert fp16.relative_error == error
    assert fp16.trouble == f"wrong outputs: relative error {error or 'NaN'}"


def test_a_missing_library_is_no_finding(program):
    program.write_text(STAND_IN.replace("ExternalError: CUDA error(209)", "Could not load library libx.so.8."))
    with pytest.raises(BackendUnavailableError, match=r"^Could not load library libx\.so\.8\. Remedy: Put all"):
        article.predictors({})


def test_a_row_without_any_time_shows_its_trouble():
    """A first predictor that ends the process, where the article names no time."""
    calls = [plotting.Calls("ended", None, None, None, "SIGABRT: why"), plotting.Calls("ran", 17.0, 20.0, 0.5)]
    (axes,) = pictures.drawn(plotting.cold_and_warm(calls, "milliseconds"))
    assert [one.get_text() for one in axes.texts] == ["SIGABRT"]
