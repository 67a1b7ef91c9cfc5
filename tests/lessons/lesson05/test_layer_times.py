"""Times of layers: reading ONNX Runtime's profile, measuring on the CPU, and the experiment that runs on a GPU."""

import json
import tempfile
from types import SimpleNamespace

import onnx
import pictures
import pytest
from small_models import images

from tutorial_utils.base.errors import ModelFileError
from tutorial_utils.engine import EngineLayer
from tutorial_utils.lessons.lesson05 import layer_times, time_figures
from tutorial_utils.lessons.lesson05.layer_times import LayerTime, TimedLayers


def node(name, microseconds, operation="Conv"):
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": operation}}


def run(microseconds):
    return {"cat": "Session", "name": "model_run", "dur": microseconds, "args": {}}


def test_profile_of_several_calls():
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 5000},
        node("a_fence_before", 1),  # older versions say how long a node waited
        node("a_kernel_time", 1500),
        node("b_kernel_time", 20, "Relu"),
        run(1600),
        node("a_kernel_time", 1400),
        run(1500),
    ]
    first, second = layer_times.calls_in(events)
    assert first == [LayerTime("a", "Conv", 1.5), LayerTime("b", "Relu", 0.02)]
    assert [layer.ms for layer in second] == [1.4]


def test_call_that_did_not_end_is_left_out():
    assert layer_times.calls_in([node("a_kernel_time", 1)]) == []


@pytest.fixture(scope="module")
def timed(fp32_model) -> TimedLayers:
    return layer_times.on_cpu(fp32_model, {"x": images(2)}, calls=4)


def test_nodes_of_a_model(timed):
    """ONNX Runtime fuses as it likes; the two convolutions and the matrix product remain in any case."""
    operations = [layer.operation for layer in timed.layers]
    assert sum("Conv" in operation for operation in operations) == 2
    assert operations[-1] == "Gemm"
    assert all(layer.ms >= 0 for layer in timed.layers)


def test_nodes_of_a_call_take_less_than_the_call(timed):
    assert 0 < timed.sum_ms < timed.profiled_ms
    assert timed.network_ms > 0


class Session:
    """A session whose calls take given milliseconds on a clock of the test; its node takes half of each."""

    def __init__(self, milliseconds, clock, profile_prefix=None):
        self.milliseconds, self.clock, self.profile_prefix = iter(milliseconds), clock, profile_prefix
        self.events = []

    def run(self, _outputs, _feeds):
        ms = next(self.milliseconds)
        self.clock.append(self.clock[-1] + ms / 1000)
        self.events += [node("a_kernel_time", 500 * ms), run(1000 * ms)]

    def end_profiling(self):
        path = self.profile_prefix.with_suffix(".json")
        path.write_text(json.dumps(self.events))
        return str(path)


def test_the_fastest_call_after_the_warm_up_counts(monkeypatch):
    clock = [0.0]
    sessions = iter([[1, 1, 1, 9, 5, 7], [1, 1, 1, 8, 9, 6]])  # three calls to warm up, then those that count
    monkeypatch.setattr(
        layer_times.onnx_session, "open_model", lambda _, **more: Session(next(sessions), clock, **more)
    )
    monkeypatch.setattr(layer_times.time, "perf_counter", lambda: clock[-1])
    monkeypatch.setattr(layer_times.onnx, "load", lambda *_, **__: onnx.ModelProto())
    timed = layer_times.on_cpu("model.onnx", {}, calls=3)
    assert (timed.network_ms, timed.profiled_ms) == pytest.approx((5, 6))
    assert timed.layers == (LayerTime("a", "Conv", 3.0),)
    assert timed.unit == "nodes"


def test_nodes_have_names_of_the_file():
    nodes = [("Conv", "x", "c", "Conv.7"), ("Relu", "c", "r", "Relu.3"), ("MaxPool", "r", "p", "MaxPool.0")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, [reads], [writes], name) for op, reads, writes, name in nodes], "g", [], []
    )
    ran = [("c_nchwc", "Conv"), ("r_nchwc", "Conv"), ("p_nchwc", "MaxPool"), ("ReorderOutput", "ReorderOutput")]
    named = layer_times.in_file([LayerTime(*one, 1.0) for one in ran], graph)
    assert [layer.name for layer in named] == ["Conv.7", "Conv to Relu.3", "MaxPool.0", "ReorderOutput"]


def test_profile_leaves_no_files(fp32_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    layer_times.on_cpu(fp32_model, {"x": images(1)}, calls=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_model_that_cannot_be_loaded(damaged_models, damage):
    with pytest.raises(ModelFileError, match=f"{damage}.onnx"):
        layer_times.on_cpu(damaged_models[damage], {"x": images(1)}, calls=1)


PROFILE = SimpleNamespace(layers={"k0": 0.3, "k1": 0.1, "wait": 0.2}, profiled_ms=0.7, engine_ms=0.4)
LAYERS = (EngineLayer("k0", "correlation", (), (), ("Conv.0", "Relu.0")), EngineLayer("k1", "kgen", (), (), ()))


def test_engine_profile_under_the_names_of_onnx_nodes():
    timed = layer_times.of_engine(PROFILE, LAYERS)
    assert timed.layers == (
        LayerTime("Conv.0, Relu.0", "correlation", 0.3), LayerTime("k1", "kgen", 0.1), LayerTime("wait", "", 0.2),
    )  # fmt: skip
    assert (timed.sum_ms, timed.profiled_ms, timed.network_ms) == (pytest.approx(0.6), 0.7, 0.4)
    assert [layer.name for layer in timed.slowest(2)] == ["Conv.0, Relu.0", "wait"]


def test_waterfall_groups_what_lies_between_the_slowest():
    times = (3.0, 20.0, 1.0, 1.0, 30.0, 2.0, 3.0)
    layers = tuple(LayerTime(f"layer{i}", "", ms) for i, ms in enumerate(times))
    picture = time_figures.waterfall(TimedLayers(layers, 61.0, 50.0), "a network", labelled=2)
    rows = [line.split(maxsplit=6) for line in picture.text.splitlines()]
    assert [row[-1] for row in rows[:-1]] == ["layer0", "layer1", "2 layers", "layer4", "2 layers"]
    (axes,) = picture.figure.axes
    hatched = [patch.get_hatch() is not None for patch in axes.patches]
    assert hatched == [False, False, True, False, True, False, False], "only what stands for several is hatched"
    assert [float(row[1]) for row in rows[:-1]] == [0, 3, 23, 25, 55]  # each begins where the one before it ends
    assert "sum of the layers 60.0000 ms, the network without profiler 50.0000 ms" in picture.text
    assert "7 layers, 60 ms end to end; the network alone takes 50 ms. Slowest: layer4 with 50%" in picture.alt
    (axes,) = pictures.drawn(picture)
    bars = [(left, round(bottom + 0.36), width) for left, bottom, width, _ in pictures.bars(axes)]
    assert bars[:-2] == [(float(begin), row, float(ms)) for row, (_, begin, _, ms, *_) in enumerate(rows[:-1])]
    assert bars[-2:] == [(0, 5, 60), (0, 6, 50)]  # the sum, and the network


def test_waterfall_of_equal_layers():
    """Only as many get a bar of their own as were asked for, also where all are alike."""
    timed = TimedLayers(tuple(LayerTime("same", "", 1.0) for _ in range(6)), 6.0, 6.0)
    rows = time_figures.waterfall(timed, "a network", labelled=2).text.splitlines()[:-1]
    assert len(rows) == 3
    assert rows[-1].endswith("4 layers")


def test_layer_times_are_collected_by_name():
    pytest.importorskip("tensorrt_rtx")
    from tutorial_utils.engine.tensorrt import LayerTimes

    times = LayerTimes()
    for ms in (1.0, 2.0):
        times.report_layer_time("first", ms)
        times.report_layer_time("second", 3 * ms)
    assert times.milliseconds == {"first": [1.0, 2.0], "second": [3.0, 6.0]}


def test_experiment_builds_for_one_batch():
    pytest.importorskip("tensorrt_rtx")
    from tutorial_utils.lessons.lesson05 import profile

    (shapes,) = profile.options((3, 32, 32), 64).profiles
    assert shapes["x"].opt == shapes["x"].max == (64, 3, 32, 32)
    assert profile.INSPECTED in [name for name, *_ in profile.CASES]
