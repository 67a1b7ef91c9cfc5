"""Lesson 04's remedies on a GPU: the rows, the constraints, and what a recording reads and draws."""

from types import SimpleNamespace

import numpy as np
import onnx
import pictures
import pytest
from onnx import TensorProto

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.lessons.lesson04 import patients
from tutorial_utils.lessons.lesson04 import remedies_on_gpu as experiment
from tutorial_utils.measure import recordings
from tutorial_utils.model import onnx_file


def test_rows_are_patients_and_remedies_and_the_plain_file_comes_first():
    assert len(experiment.ROWS) == len(experiment.NAMES) * len(experiment.VARIANTS)
    assert next(iter(experiment.ROWS)) == "detector/FP16", (
        "the others are timed beside its engine, which the cache then has"
    )
    assert not any("," in name for name in experiment.ROWS), "a comma separates rows on the command line"
    files = {f"detector-{file}.onnx" for file in experiment.VARIANTS.values()}
    assert files - set(experiment.FILES) == {"detector-autocast.onnx"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Files of a model with the transformer's input whose one product overflows, and the arrays beside them."""
    folder = tmp_path_factory.mktemp("prepared")
    graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        small (int64[batch, 17] ids) => (float[batch, 17] y) <float[1] up = {30000.0}, float[1] down = {0.001}> {
          x = Cast <to = 1> (ids)
          large = Mul (x, up)
          y = Mul (large, down)
        }""")
    onnx_file.name_nodes(graph)
    path = onnx_file.save(graph, folder / "overflowing.onnx")
    ids = np.arange(1, 35).reshape(2, 17)
    patient = patients.Patient("transformer", path, path, lambda _: {"ids": ids}, patients.predictions_agree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment.residual_stream, "scale", lambda model, factor: model)
        arrays = experiment._write(patient, ids, folder)
    np.savez(folder / "remedies.npz", **{f"transformer/{key}": values for key, values in arrays.items()})
    return folder, arrays


def test_written_files_differ_in_what_they_say(prepared):
    folder, arrays = prepared
    assert list(arrays["large"]) == ["large"]
    assert len(arrays["kept"]) == 2
    kinds = {}
    for file in ("fp32", "fp16", "bf16"):
        weights = onnx_file.load(folder / f"transformer-{file}.onnx").graph.initializer
        kinds[file] = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in weights}
    assert kinds == {"fp32": {"FLOAT"}, "fp16": {"FLOAT16"}, "bf16": {"BFLOAT16"}}
    clipped = onnx_file.load(folder / "transformer-clip.onnx").graph
    assert any(node.op_type == "Clip" for node in clipped.node)


def test_a_missing_file_of_autocast_is_no_result(prepared):
    folder, _ = prepared
    models = {"transformer-fp32": folder / "transformer-fp32.onnx", "remedies": folder / "remedies.npz"}
    with pytest.raises(BackendUnavailableError, match=r"no transformer-autocast.onnx beside"):
        experiment._build("transformer", "AutoCast", models)


def test_weakly_typed_rows_are_left_to_tensorrt_10(prepared, monkeypatch):
    monkeypatch.setattr(experiment.flavour, "installed_flavour", lambda: "tensorrt_rtx")
    with pytest.raises(BackendUnavailableError, match="measured with data-centre TensorRT"):
        experiment.measure("transformer", "constraints", {})


class Layer:
    """As much of trt.ILayer as the constraints touch."""

    def __init__(self, name, outputs):
        self.name, self.outputs, self.num_outputs, self.precision, self.types = name, outputs, len(outputs), None, {}

    def get_output(self, index):
        return SimpleNamespace(name=self.outputs[index])

    def set_output_type(self, index, dtype):
        self.types[index] = dtype


def test_constraints_are_set_on_the_named_layers_and_their_large_tensors():
    trt = pytest.importorskip("tensorrt_rtx")
    layers = [Layer("a", ["small"]), Layer("b", ["small2", "large"]), Layer("c", ["large2"])]
    network = SimpleNamespace(num_layers=3, get_layer=layers.__getitem__)
    experiment.keep_in_fp32({"a", "b"}, {"large", "large2"}, network, None)
    assert [layer.precision for layer in layers] == [trt.float32, trt.float32, None]
    assert [layer.types for layer in layers] == [{}, {1: trt.float32}, {}]
    with pytest.raises(KeyError, match="renamed"):
        experiment.keep_in_fp32({"renamed"}, set(), network, None)


def times(median):
    one = {"rounds_ms": [[median, median * 1.01]] * 12, "first_call_ms": 1.0, "warmup_calls": 11, "stable": True,
           "batch": 1, "clock": "CUDA events", "includes_copies": False}  # fmt: skip
    return {"FP16": {**one, "rounds_ms": [[1.0, 1.01]] * 12}, "keep in FP32": one}


@pytest.fixture
def recorded():
    values = {"finite": 1.0, "rel_l2": 1e-3, "task": 1.0, "plan_bytes": 2_000_000, "build_seconds": 9.0,
              "kernels": 50, "fp32_kernels": 4, "line": "all in FP16",
              "times": times(1.2), "graph_times": {}, "no_graph": "none"}  # fmt: skip
    plain = {**values, "finite": 0.0, "rel_l2": None, "task": 0.25, "times": {"FP16": times(1.0)["FP16"]}}
    rows = {
        "detector/keep in FP32": {"values": values},
        "detector/FP16": {"values": plain},
        "detector/BF16": {"reason": "No such convolution."},
    }
    stamp = {"stack": 0, "date": "2026-11-27T00:00:00+00:00"}
    return {"stacks": [{"libraries": {}}], "rows": {name: {**stamp, **row} for name, row in rows.items()}}


def test_rows_are_read_in_the_order_of_the_variants(recorded):
    found = experiment.read(recorded)
    assert list(found["detector"]) == ["FP16", "keep in FP32", "BF16"]
    assert found["detector"]["FP16"].rel_l2 == np.inf
    assert found["detector"]["BF16"] == "No such convolution."
    assert found["transformer"] == {}
    time, against = found["detector"]["keep in FP32"].of("keep in FP32")
    assert time.median_ms == pytest.approx(1.206)
    assert against.speedup == pytest.approx(1 / 1.2, rel=1e-3)


def test_picture_says_times_errors_and_answers(recorded):
    picture = experiment.draw(experiment.read(recorded))
    (axes,) = pictures.drawn(picture)
    assert [bar[2] for bar in pictures.bars(axes)] == [pytest.approx(1.005), pytest.approx(1.206)]
    assert "detector, keep in FP32: 1.206 ms" in picture.text
    assert "takes 1.20 times as long" in picture.text
    assert "detector, FP16: 1.005 ms" in picture.text
    assert "finite in 0% of the inputs, 25.0% of the answers" in picture.text
    assert "detector, BF16: No such convolution." in picture.text


def test_table_has_a_line_for_each_measured_row_and_the_reasons_below(recorded):
    *lines, empty, reason = experiment.table(experiment.read(recorded)).splitlines()
    assert lines[2] == "| detector, FP16 | 1.005 |  | 4 of 50 | not finite | 25.0% |"
    assert lines[3].startswith("| detector, keep in FP32 | 1.206 | takes 1.20 times as long")
    assert (len(lines), empty, reason) == (4, "", "detector, BF16: No such convolution.")


def test_lesson_04b_says_what_the_recording_says():
    patients = experiment.read(recordings.load("lesson04_remedies").data)
    rows, transformer = patients["detector"], patients["transformer"]
    compared = {name: row.of(name)[1] for name, row in rows.items() if not isinstance(row, str) and name != "FP16"}
    for name in ("keep in FP32", "clip", "scale back"):
        assert compared[name].is_noise, name
        assert rows[name].graph_times, "the lesson's times are those of CUDA graphs"
        assert compared[name].low > 0.985
    for name in ("FP32", "AutoCast"):
        assert round(1 / compared[name].speedup, 2) == 1.12
    assert (rows["AutoCast"].fp32_kernels, rows["keep in FP32"].fp32_kernels) == (42, 12)
    assert [rows[name].fp32_kernels for name in ("constraints", "FP16 flag")] == [13, 3]
    plain = [row.of("FP16")[0].median_ms for name, row in rows.items()]
    assert [round(edge(plain), 2) for edge in (min, max)] == [0.36, 0.39]  # "builds differ, too"
    assert {rows[name].task for name in ("keep in FP32", "clip", "scale back", "AutoCast")} == {59 / 60}
    assert rows["BF16"].task == 0
    assert "14 in FP16" in rows["BF16"].line
    assert transformer["FP16"].finite == transformer["FP16"].task == 1
    for name in transformer.keys() - {"FP16", "FP32"}:
        assert transformer[name].of(name)[1].speedup > 1 / 1.08, name


def test_constrained_detector_answers_as_if_one_tensor_went_through_fp16(tmp_path):
    """What lesson 04b concludes on the two weakly typed engines."""
    detector = patients.detector()
    views = patients.views(8, seed=0)
    model = onnx_file.load(detector.overflowing)
    for node in model.graph.node:
        node.input[:] = ["rounded" if name == "p2o.Add.271" else name for name in node.input]
    make = onnx.helper.make_node
    casts = [
        make("Cast", ["p2o.Add.271"], ["half"], to=TensorProto.FLOAT16),
        make("Cast", ["half"], ["rounded"], to=TensorProto.FLOAT),
    ]
    position = next(i for i, node in enumerate(model.graph.node) if "p2o.Add.271" in node.output)
    for cast in reversed(casts):
        model.graph.node.insert(position + 1, cast)
    expected, found = (
        onnx_session.new_session(path).run(None, {"x": views})[0]
        for path in (detector.overflowing, onnx_file.save(model, tmp_path / "one_tensor.onnx"))
    )
    recorded = experiment.read(recordings.load("lesson04_remedies").data)["detector"]
    task = patients.boxes_agree(found, expected)
    for name in ("FP16 flag", "constraints"):
        assert task == pytest.approx(recorded[name].task, abs=0.01)  # of 135 boxes, one more or less on another CPU
