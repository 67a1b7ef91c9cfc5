"""The roofline: work of layers, what is asked of the GPU, how a call is split. All times and rates here are made up."""

import json
import math
from pathlib import Path

import numpy as np
import pictures
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import residual_model

from tutorial_utils.__main__ import main
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.engine import EngineLayer, EngineTensor
from tutorial_utils.lessons.lesson01 import chip, gpu_kernels, layer_work, roofline_data, roofline_figures
from tutorial_utils.lessons.lesson01.layer_work import Work
from tutorial_utils.lessons.lesson01.roofline_data import Call, Chip, Layer, Roofline
from tutorial_utils.model import onnx_file

BATCH = 4
PIXELS = BATCH * 32 * 32


@pytest.fixture
def static(tmp_path):
    path = onnx_file.save(residual_model(), tmp_path / "model.onnx")
    return layer_work.at_shape(path, (BATCH, 3, 32, 32), tmp_path / "static.onnx")


def layer(kind, *nodes, inputs=(), outputs=(), name="layer"):
    return EngineLayer(name, kind, tuple(inputs), tuple(outputs), nodes)


def test_a_model_at_one_shape(static, tmp_path):
    """Also one whose image has another size: ResNet-50 is exported for 224x224."""
    larger = layer_work.at_shape(static, (2, 3, 64, 64), tmp_path / "larger.onnx")
    for path, batch, size in ((static, BATCH, 32), (larger, 2, 64)):
        graph = onnx_file.load(path).graph
        assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [batch, 3, size, size]
        shapes = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in graph.value_info}
        assert shapes["relu0"] == [batch, 16, size, size]
        assert [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == [batch, 10]


def test_work_of_fused_layers(static):
    """Each tensor that goes in or out counts once, batch norm's statistics are in the weights of the convolution."""
    layers = [
        layer("CaskConvolution", "conv0", "relu0"),
        layer("CaskConvolution", "conv1", "norm", "sum", "relu1"),
        layer("CaskPooling", "pool"),
        layer("NoOp", "flat"),
        layer("gemm", "fc"),
    ]
    found = layer_work.of_layers(onnx_file.load(static).graph, layers)
    assert [one.multiply_adds for one in found] == [PIXELS * 16 * 27, PIXELS * 16 * 144, 0, 0, BATCH * 160]
    tensor = PIXELS * 16
    assert [one.bytes for one in found] == [
        4 * (PIXELS * 3 + 16 * 27 + tensor),
        4 * (tensor + 16 * 144 + tensor),  # the input of the convolution is that of the sum, too
        4 * (tensor + BATCH * 16),
        0,
        4 * (BATCH * 16 + 160 + BATCH * 10),
    ]


def test_work_of_a_node_that_several_layers_name(static):
    """The one that multiplies does it, and each moves its own bytes."""
    moves, multiplies = layer("Reformat", "conv0"), layer("CaskConvolution", "conv0")
    found = layer_work.of_layers(onnx_file.load(static).graph, [moves, multiplies])
    assert [one.multiply_adds for one in found] == [0, PIXELS * 16 * 27]


def test_work_of_layers_without_nodes(static):
    before, after = (EngineTensor(name, (2, 8), "fp16", "Linear") for name in ("a", "b"))
    unknown = EngineTensor("c", (-1, 8), "fp16", "Linear")
    layers = [
        layer("Reformat", inputs=[before], outputs=[after]),
        layer("Reformat", inputs=[unknown], outputs=[after]),
        layer("wait", inputs=[before], outputs=[after]),
    ]
    assert layer_work.of_layers(onnx_file.load(static).graph, layers) == [Work(0, 64), Work(0, 32), Work(0, 0)]


def test_a_convolution_that_skips_pixels_reads_fewer_bytes(tmp_path):
    weights = numpy_helper.from_array(np.zeros((8, 4, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", strides=[2, 2], kernel_shape=[1, 1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", [1, 4, 8, 8]), ("y", [1, 8, 4, 4])))  # fmt: skip
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    (found,) = layer_work.of_layers(graph, [layer("CaskConvolution", "conv")])
    assert found == Work(8 * 16 * 4, 4 * (4 * 64 // 4 + 32 + 8 * 16))


def test_matrix_products():
    tensors = {"a": ((5, 7), 4), "b": ((7, 3), 4), "y": ((5, 3), 4)}
    for operator in ("MatMul", "Gemm"):
        assert layer_work.multiply_adds(helper.make_node(operator, ["a", "b"], ["y"]), tensors) == 5 * 3 * 7
    assert layer_work.multiply_adds(helper.make_node("Relu", ["a"], ["a"]), tensors) == 0


# --- what is asked of the GPU -----------------------------------------------------------------------------------------

TRACE = [  # in the form of a Chrome trace, microseconds
    {"ph": "X", "cat": "kernel", "name": "second", "ts": 20.0, "dur": 3.0},
    {"ph": "X", "cat": "kernel", "name": "first", "ts": 10.0, "dur": 5.0},
    {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 5.0, "dur": 1.0},
    {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1.0, "dur": 2.0},
    {"ph": "M", "name": "process_name", "args": {}},
]


def test_kernels_of_a_call(torch):
    profiler = torch.profiler.profile.return_value.__enter__.return_value
    profiler.export_chrome_trace.side_effect = lambda path: Path(path).write_text(json.dumps({"traceEvents": TRACE}))
    calls = []
    found = gpu_kernels.launched(torch, lambda: calls.append("call"))
    assert found == [gpu_kernels.Kernel("first", 0.005), gpu_kernels.Kernel("second", 0.003)]
    assert len(calls) == 2
    assert torch.cuda.synchronize.call_count == 2


def test_a_profiler_that_sees_nothing_is_no_call_without_kernels(torch):
    profiler = torch.profiler.profile.return_value.__enter__.return_value
    profiler.export_chrome_trace.side_effect = lambda path: Path(path).write_text('{"traceEvents": []}')
    with pytest.raises(BackendUnavailableError, match="sees no kernels"):
        gpu_kernels.launched(torch, lambda: None)


def test_rates_count_what_is_read_and_written_and_two_operations_for_a_pair(torch, monkeypatch):
    monkeypatch.setattr(chip, "_median_ms", lambda *_: 2.0)
    assert chip.copy_rates(torch, [1000]) == {1000: 1000 * 2 * 20 / 2e-3}
    assert torch.empty_like.return_value.copy_.call_count == 20
    monkeypatch.setattr(chip.gpu_state, "read", lambda: {"watts": 700.0})
    found = chip.product_rates(torch, size=100, load_seconds=0.01)
    assert found["fp16"] == {"flops": 2e6 / 2e-3, "first_flops": 2e6 / 2e-3, "state": {"watts": 700.0}}
    assert [call.args for call in torch.set_float32_matmul_precision.call_args_list] == [
        ("highest",), ("high",), ("highest",),
    ]  # fmt: skip
    assert torch.matmul.call_count == 3 * 5  # under load: 10 ms of 2 ms each


def test_launches(runner, any_tensorrt, monkeypatch):
    graphs = []

    class Graph:
        def __init__(self, enqueue, stream):
            graphs.append(self)
            enqueue()

        def launch(self):
            runner.cuda.launches.append(("graph",))

        def close(self):
            graphs.remove(self)

    from tutorial_utils.runners import cuda_graph

    monkeypatch.setattr(cuda_graph, "CudaGraph", Graph)
    found = chip.launch_times(launches=10, rounds=3)
    assert found.keys() == {"host", "one by one", "queued", "graph"}
    assert found["queued"] == 100  # 1 ms for 10 launches
    kinds = [name for name, *_ in runner.cuda.launches]
    assert (kinds.count("empty"), kinds.count("spin"), kinds.count("graph")) == (10 * (2 + 3 * 3), 3, 3)
    assert kinds[kinds.index("spin") + 1 :][:10] == ["empty"] * 10  # the GPU is busy while they are enqueued
    assert graphs == []


@pytest.fixture
def roofline(any_tensorrt):
    from tutorial_utils.lessons.lesson01 import roofline

    return roofline


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_call_is_measured(roofline, rtx, runner, torch, monkeypatch, tmp_path, precision, refused):
    """On a real engine of a small network; the runner is a stand-in."""
    from tutorial_utils import engine

    monkeypatch.setattr(roofline, "LEVEL", None)  # TensorRT-RTX has none
    monkeypatch.setattr(roofline.on_stream, "require_torch", lambda: torch)
    monkeypatch.setattr(roofline.flavour, "require", lambda stack: None)
    monkeypatch.setattr(gpu_kernels, "launched", lambda torch, call: [gpu_kernels.Kernel("k", 0.5)] * 7)
    monkeypatch.setattr(runner.TensorRTRunner, "refuse_graph", refused)
    built, build = [], engine.build

    def remembered(path, options, **named):
        built.append(build(path, options, **named))
        runner.TensorRTRunner.layers = (*(layer.name for layer in built[0].report.kernels), "not in the report")
        return built[0]

    monkeypatch.setattr(roofline.engine, "build", remembered)
    models = {"resnet50-fp32": onnx_file.save(residual_model(), tmp_path / "resnet50-fp32.onnx")}
    values = json.loads(json.dumps(roofline.measure_call(precision, (BATCH, 3, 32, 32), models)))
    assert (values["plain"], values["graph"]) == ([2, 2, 2], None if refused else [1, 1, 1])
    assert values["no_graph"] == "It can't be captured." * refused
    assert (values["kernels"], values["kernels_ms"]) == (7, 3.5)
    call = roofline._call(values)
    assert sum(one.multiply_adds for one in call.layers) == PIXELS * 16 * (27 + 144) + BATCH * 160
    assert all(one.bytes > 0 for one in call.layers if one.multiply_adds)
    assert {one.ms for one in call.layers} == {0.25}
    assert call.layers[-1] == Layer("not in the report", "", 0.25, 0, 0)
    halves = {tensor.dtype for layer in built[0].report.kernels for tensor in layer.outputs}
    assert ("fp16" in halves) == (precision == "fp16")


@pytest.mark.parametrize("name", ["roofline", "fusion_baseline", "kernels", "copies"])
def test_without_a_gpu_it_is_refused_in_a_sentence(name, any_tensorrt, tmp_path, capsys):
    gpu, found = find_gpu()
    if gpu:
        pytest.skip("there is a GPU")
    models = tmp_path / "models"
    assert main(["record", f"lesson01_{name}", "--models", str(models), "--add", str(tmp_path / "new.json")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(found.reason)
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- reading and drawing, of numbers that nobody measured -----------------------------------------------------------

CHIP = Chip({2**20: 4e12, 2**31: 2e12}, {"fp32": 5e13, "tf32": 4e14, "fp16": 8e14}, {"host": 3.0, "graph": 1.0})
MAKES_IT = Layer("multiplies", "convolution", 0.02, 4_000_000_000, 2_000_000)  # 0.01 and 0.001 ms
MOVES_IT = Layer("moves", "pointwise/reduction", 0.02, 1000, 8_000_000)  # 0.004 ms


def call(precision="fp16", shape=(64, 3, 32, 32), plain=0.1, graph=0.05, layers=(MAKES_IT, MOVES_IT)):
    interval = graph and (graph, 0.9 * graph, 1.1 * graph)
    no_graph = "" if graph else "It can't be captured."
    return Call(precision, shape, (plain, 0.9 * plain, 1.1 * plain), interval, no_graph, 60, 0.03, layers, 20.0, {})


def test_a_call_is_split_and_nothing_is_lost():
    parts = roofline_data.split(call(), CHIP)
    assert parts == pytest.approx({"arithmetic": 0.01, "bytes": 0.004, "rest": 0.036, "launches": 0.05})
    assert math.fsum(parts.values()) == pytest.approx(0.1)
    assert roofline_data.split(call("tf32"), CHIP)["arithmetic"] == pytest.approx(0.02)


def test_splits_at_the_edge():
    """Without a graph nothing is known of launches; and a layer in the cache is faster than its bytes from memory."""
    assert roofline_data.split(call(graph=None), CHIP)["launches"] == 0
    assert roofline_data.split(call(graph=0.2), CHIP)["launches"] == 0  # a graph that isn't faster
    assert roofline_data.split(call(plain=0.008, graph=0.007), CHIP)["rest"] == 0


def test_picture_of_the_split():
    calls = (call("tf32", (1, 3, 224, 224)), call(), call("tf32", graph=None))
    picture = roofline_figures.draw_split(Roofline(CHIP, calls, {"fp16/1x3x32x32": "It failed."}))
    (axes,) = pictures.drawn(picture)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["FP16, 64x3x32x32", "TF32, 64x3x32x32", "TF32, 1x3x224x224"]
    widths = pictures.widths(axes)
    assert widths[:4] == pictures.near([10, 4, 36, 50])
    assert "FP16, 64x3x32x32: 0.100 ms, as a CUDA graph 0.050 ms, 60 kernels of together 0.030 ms;" in picture.alt
    assert "(It can't be captured.)" in picture.text
    assert picture.text.endswith("fp16/1x3x32x32: not measured. It failed.")


def test_picture_without_roofs_has_no_bars():
    picture = roofline_figures.draw_split(Roofline(Chip({}, {}, {}), (call(),), {"chip/copies": "No memory."}))
    assert picture.text == "chip/copies: not measured. No memory."


def test_picture_of_the_roofline():
    picture = roofline_figures.draw_roofline(Roofline(CHIP, (call(), call("tf32")), {}), "fp16")
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes)[0] == pytest.approx((4000.0, 400.0))
    assert axes.get_xscale() == axes.get_yscale() == "log"
    roof = max(y for _, ys in pictures.lines(axes) for y in ys)
    assert roof == pytest.approx(800)
    assert "2 layers that multiply reach" in picture.text  # the second with a thousand multiply-adds
    assert "to 50 % of the roof" in picture.text


def test_rows_are_read(roofline):
    row = {"stack": 0, "date": "2026"}
    values = {"precision": "tf32", "shape": [1, 3, 32, 32], "plain": [1, 1, 1], "graph": None, "no_graph": "No.",
              "kernels": 3, "kernels_ms": 0.5, "layers": [["a", "k", 0.1, 5, 6, "t"]], "build_s": 1,
              "state": {}}  # fmt: skip
    data = {"stacks": [{}], "rows": {
        "tf32/1x3x32x32": {**row, "values": values},
        "fp16/1x3x32x32": {**row, "reason": "It failed."},
        "chip/copies": {**row, "values": {"1024": 1e12, "4096": 2e12}},
        "chip/products": {**row, "values": {"fp16": {"flops": 5e14, "first_flops": 6e14, "state": {"watts": 700}}}},
    }}  # fmt: skip
    found = roofline.EXPERIMENT.read(data)
    assert (found.chip.bandwidth, found.chip.flops, found.chip.launch_us) == (2e12, {"fp16": 5e14}, {})
    (one,) = found.calls
    assert (one.label, one.layers) == ("TF32, 1x3x32x32", (Layer("a", "k", 0.1, 5, 6, "t"),))
    assert found.reasons == {"fp16/1x3x32x32": "It failed."}


@pytest.mark.gpu
def test_roofs_on_a_gpu():
    torch = pytest.importorskip("torch")
    assert 1e11 < chip.copy_rates(torch, [2**26])[2**26] < 1e14
    rates = {name: one["flops"] for name, one in chip.product_rates(torch, 4096, 0.1).items()}
    assert rates["fp32"] < rates["tf32"] < rates["fp16"]


@pytest.mark.gpu
def test_launches_on_a_gpu():
    pytest.importorskip("cuda.bindings")
    found = chip.launch_times(launches=100, rounds=3)
    assert 0 < found["graph"] <= found["one by one"] * 1.1
