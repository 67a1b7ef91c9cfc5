"""The work for a large model grows with its nodes, and not with their square: counted in instructions, not in seconds.

What TensorRT and ONNX Runtime do inside isn't counted.
"""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base.paths import ROOT
from tutorial_utils.debug import diagnosis_page, faults, rounding, tensor_errors
from tutorial_utils.debug.diagnosis import Diagnosis, Point
from tutorial_utils.debug.faults import Fault
from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.inspection import dataflow, engine_layers, maps, page
from tutorial_utils.model import onnx_file, quantization

COUNTED = (str(ROOT / "tutorial_utils"), __file__)
NODES = 40


class Name(str):
    """A name whose comparisons count as work, also those that Python makes inside `in` and `index`."""

    __slots__ = ()

    def __eq__(self, other):
        return str(self) == str(other)

    def __hash__(self):
        return hash(str(self))


def work(function, *arguments):
    """Return how many instructions the package executed in a call, those of `Name` included."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(COUNTED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def assert_linear(function, made, nodes=NODES):
    """Assert that a function works for a model of twice the nodes twice as much; `made` makes one of so many nodes."""
    function(made(nodes))  # imports, and what is made once
    few, many = (work(function, made(count)) for count in (nodes, 2 * nodes))
    assert 0 < many < 2.3 * few


def model(nodes, weights=()):
    """Return a model of some nodes, from x to y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual_chain(count, scale=0.1):
    """Return a model whose stream, from x to y, a layer adds to over and over."""
    nodes, last = [], "x"
    for i in range(count // 3):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"p{i}"], f"block{i}/matmul"))
        nodes.append(helper.make_node("Relu", [f"p{i}"], [f"r{i}"], f"block{i}/relu"))
        nodes.append(helper.make_node("Add", [last, f"r{i}"], [f"a{i}"], f"block{i}/add"))
        last = f"a{i}"
    nodes[-1].output[0] = "y"
    return model(nodes, [numpy_helper.from_array(np.eye(4, dtype=np.float32) * np.float32(scale), "w")])


def layers(count):
    """Return as many kernels, each of which reads what the one before it writes."""
    tensors = [EngineTensor(Name(f"t{i}"), (1, 4), "fp32", "row major", (4, 1)) for i in range(count + 1)]
    return tuple(
        EngineLayer(f"__myl_FcAdd_myl0_{i}", "kgen", (tensors[i],), (tensors[i + 1],), (f"block{i}/add",))
        for i in range(count)
    )


@pytest.fixture
def inspection_of():
    """Return how to make an inspection of an engine with so many kernels."""

    def made(count):
        found = layers(count)
        chain = residual_chain(3 * count)
        homes = engine_layers.node_homes(chain.graph, found)
        report = BuildReport("TensorRT-RTX", "1.7", layers=found)
        nodes = {"MatMul": count, "Relu": count, "Add": count}
        return page.Inspection("m.onnx", {"x": (1, 4)}, {}, (), nodes, report, homes, page._largest(report))

    return made


def of_one_name(count):
    return model([helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], "relu") for i in range(count)])


def test_names_for_nodes_of_one_name():
    assert_linear(onnx_file.name_nodes, of_one_name)


def test_nodes_of_one_name_get_numbers():
    found = of_one_name(4)
    found.graph.node[3].name = "relu_3"
    onnx_file.name_nodes(found)
    assert [node.name for node in found.graph.node] == ["relu", "relu_2", "relu_4", "relu_3"]


def test_dataflow_of_an_engine():
    assert_linear(
        lambda found: dataflow.from_report(found, 1).lifetimes(),
        lambda count: BuildReport("TensorRT-RTX", "1.7", layers=layers(count)),
    )


@pytest.mark.parametrize("view", [page.as_text, page.as_json])
def test_views_of_an_engine(inspection_of, view):
    assert_linear(view, inspection_of)


def test_page_of_an_engine(inspection_of, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_DRAWN", 4)
    assert_linear(lambda one: page.write_page(one, tmp_path / "page.html"), inspection_of)
    assert "(the first 4 of 40; all of them: --json)" in (
        page.write_page(inspection_of(NODES), tmp_path / "page.html").read_text(encoding="utf-8")
    )


def test_fusion_map(inspection_of):
    assert_linear(lambda one: maps.fusion_map(one.node_homes, one.report.layers), inspection_of)


def test_reading_a_file(tmp_path):
    assert_linear(onnx_file.load, lambda count: onnx_file.save(residual_chain(count), tmp_path / f"{count}.onnx"))


def test_ranges_for_int8(tmp_path, monkeypatch):
    """Of ONNX Runtime, its code for calibration is counted here."""
    from onnxruntime.quantization import calibrate

    monkeypatch.setattr(sys.modules[__name__], "COUNTED", (*COUNTED, calibrate.__file__))
    rows = np.ones((2, 4), np.float32)
    assert_linear(
        lambda path: quantization.to_int8(path, tmp_path / "int8.onnx", rows),
        lambda count: onnx_file.save(residual_chain(count), tmp_path / f"{count}.onnx"),
    )


def test_homes_of_nodes():
    assert_linear(
        lambda count: engine_layers.node_homes(residual_chain(3 * count).graph, layers(count)), lambda count: count
    )


def test_search_for_faults():
    """In a stream that overflows early, so that most tensors belong to one group."""

    def search(count):
        overflowing = residual_chain(count, scale=20 / count)
        names = tensor_errors.tensor_names(overflowing)
        feeds = {"x": np.full((1, 4), 60_000, np.float32)}
        exact = onnx.ModelProto()
        exact.CopyFrom(overflowing)
        values = feeds | tensor_errors.run(exact, feeds, "m.onnx", names)
        return faults.Search(overflowing, values, rounding.with_rounding(overflowing, "fp16"), "fp16")

    assert len(search(NODES).faults().faults[0].nodes) > NODES // 3
    assert_linear(lambda one: one.faults(), search)
    assert_linear(lambda one: one._groups(set(one._bad)), search, nodes=6 * NODES)


def test_tensors_that_are_joined_twice():
    def joined_twice(count):
        nodes = [helper.make_node("Relu", ["x"], ["t0"])]
        nodes += [helper.make_node("Concat", [f"t{i}", f"t{i}"], [f"t{i + 1}"], axis=0) for i in range(count // 4)]
        nodes[-1].output[0] = "y"
        return model(nodes)

    assert tensor_errors.joined(joined_twice(8), "y") == ["t0"]
    assert_linear(lambda one: tensor_errors.joined(one, "y"), joined_twice)


def test_figure_of_many_faults():
    def diagnosis(count):
        names = [Name(f"t{i}") for i in range(count)]
        found = tuple(Fault("overflow", Name(name), "node", "Add", np.inf, 0.1, "what") for name in names)
        curve = tuple(Point(name, 0.2, 0.1, None) for name in names)
        return Diagnosis("m", "fp16", "", "not mended", (), None, found, (), {}, count, None, (), curve, 0.0)

    assert_linear(diagnosis_page.figure, diagnosis)
