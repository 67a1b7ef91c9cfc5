"""With and without fusion: the chain in ONNX, what is asked of the libraries, and the pictures, of made-up times."""

import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pictures
import pytest
from matplotlib.colors import to_hex

from tutorial_utils import plotting
from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError
from tutorial_utils.lessons.lesson01 import gpu_kernels, ways
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.measure import on_stream

SHAPE = (2, 3, 4, 4)
BIAS = np.array([1, -1, 0.5], np.float16).reshape(1, 3, 1, 1)


@pytest.fixture
def fused_chain(any_tensorrt):
    from tutorial_utils.lessons.lesson01 import fused_chain

    return fused_chain


def run(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})[0]


def test_the_chain_in_onnx_is_that_of_its_operators_one_by_one(fused_chain):
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(SHAPE).astype(np.float16) for name in ("t0", "other")}
    expected = (np.maximum(feeds["t0"] + BIAS, 0) + feeds["other"]) * np.float16(fused_chain.SCALE)
    whole = fused_chain.model(BIAS, SHAPE, 0, 4)
    assert [node.op_type for node in whole.graph.node] == ["Add", "Relu", "Add", "Mul"]
    np.testing.assert_allclose(run(whole, feeds), expected, atol=2e-3)
    for number in range(4):
        single = fused_chain.model(BIAS, SHAPE, number, number + 1)
        assert len(single.graph.node) == 1
        feeds[f"t{number + 1}"] = run(single, feeds)
    np.testing.assert_allclose(feeds["t4"], expected, atol=2e-3)


def test_tensorrt_makes_one_kernel_of_the_chain(fused_chain, rtx, tmp_path):
    """TensorRT-RTX here; it shows that the file builds, and what fusion does to it."""
    import onnx

    from tutorial_utils import engine

    kernels = {}
    for first, end in ((0, 4), (1, 2)):
        onnx.save(fused_chain.model(BIAS, SHAPE, first, end), tmp_path / "chain.onnx")
        report = engine.build(tmp_path / "chain.onnx", use_cache=False, progress=False).report
        kernels[first, end] = len(report.kernels)
    assert kernels == {(0, 4): 1, (1, 2): 1}


def test_bytes_of_the_chain(fused_chain):
    assert fused_chain.bytes_moved(SHAPE) == [96 * 4, 96 * 4, 96 * 6, 96 * 4]
    assert fused_chain.bytes_moved_fused(SHAPE) == 96 * 6


def test_engines_are_run_one_after_another_on_the_stream(fused_chain, torch, monkeypatch):
    ran, timed = [], {}
    monkeypatch.setattr(on_stream, "require_torch", lambda: torch)
    monkeypatch.setattr(fused_chain.flavour, "installed_flavour", lambda: "tensorrt")
    monkeypatch.setattr(fused_chain, "tensors", lambda torch, shape: (torch.x, torch.bias, torch.other))
    monkeypatch.setattr(fused_chain, "_require_equal", lambda *_: None)
    monkeypatch.setattr(
        fused_chain, "context",
        lambda bias, shape, first, end, memory: SimpleNamespace(
            execute_async_v3=lambda stream: ran.append((first, end, stream)) or True
        ),
    )  # fmt: skip

    def remember(torch, stream, calls, graphs, no_graph, moved):
        timed.update(moved)
        ran.clear()
        for call in calls.values():
            call()
        return {"ways": []}

    monkeypatch.setattr(ways, "timed", remember)
    assert fused_chain.tensorrt("tiny", {}) == {"ways": []}
    stream = torch.cuda.Stream.return_value.cuda_stream
    assert ran == [*((number, number + 1, stream) for number in range(4)), (0, 4, stream)]
    assert [*timed.values()] == [9 * 2 * 4096, 3 * 2 * 4096]


def test_data_centre_tensorrt_alone_is_measured(fused_chain, torch, monkeypatch):
    monkeypatch.setattr(on_stream, "require_torch", lambda: torch)
    monkeypatch.setattr(fused_chain.flavour, "installed_flavour", lambda: "tensorrt_rtx")
    with pytest.raises(BackendUnavailableError, match="data-centre"):
        fused_chain.tensorrt("tiny", {})


def test_ways_that_differ_are_not_timed(fused_chain, torch):
    for error, refused in ((0.001, False), (0.5, True), (float("nan"), True)):
        torch.found.__sub__.return_value.abs.return_value.max.return_value.item.return_value = error
        if refused:
            with pytest.raises(PrecisionError, match="differ by"):
                fused_chain._require_equal(torch, torch.found, torch.expected)
        else:
            fused_chain._require_equal(torch, torch.found, torch.expected)


def test_ways_take_turns_and_are_read_back(torch, monkeypatch):
    order = []
    ms = {"slow": 2.0, "slow graph": 1.0, "fast": 0.5}

    def event_times(torch, stream, call, calls):
        order.append(call)
        return np.full(calls, ms[call])

    monkeypatch.setattr(on_stream, "event_times", event_times)
    monkeypatch.setattr(
        gpu_kernels, "launched", lambda torch, call: [gpu_kernels.Kernel("k", 0.25)] * (4 if call == "slow" else 1)
    )
    values = ways.timed(
        torch, None, {"a": "slow", "b": "fast"}, {"a": "slow graph"}, {"b": "It can't."}, {"a": 4_000_000}
    )
    first, second = ways.from_plain(json.loads(json.dumps(values)))
    assert first == Way("a", (2, 2, 2), (1, 1, 1), "", 4, 1.0, 4_000_000)
    assert second == Way("b", (0.5, 0.5, 0.5), None, "It can't.", 1, 0.25)
    assert (first.best_ms, first.bandwidth) == (1, 4e9)
    rounds = [sorted(order[-6:-3]), sorted(order[-3:])]  # in an order drawn anew for each
    assert rounds == [["fast", "slow", "slow graph"]] * 2


def test_a_call_that_cannot_be_captured_keeps_its_reason(torch):
    def fail():
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs, reasons = ways.captured(torch, torch.cuda.Stream(), {"good": lambda: None, "bad": fail})
    assert list(graphs) == ["good"]
    assert reasons == {"bad": "operation not permitted when stream is capturing."}


# --- reading and drawing, of numbers that nobody measured -----------------------------------------------------------


def way(name, ms, kernels, graph=None, moved=0):
    return Way(name, (ms, ms, ms), graph and (graph,) * 3, "" if graph else "No.", kernels, 0.9 * ms, moved)


MEASURED = {
    "chain/pytorch/large": (way("PyTorch eager", 0.4, 4, 0.375, moved=800_000_000),
                            way("torch.compile", 0.125, 1, 0.125, moved=300_000_000)),
    "chain/tensorrt/large": "It failed.",
    "chain/pytorch/tiny": (way("PyTorch eager", 0.02, 4, 0.008, 1000), way("torch.compile", 0.03, 1)),
}  # fmt: skip


def test_picture_of_the_chain(fused_chain):
    picture = fused_chain.draw(MEASURED)
    large, tiny = pictures.drawn(picture)
    assert pictures.widths(large)[:2] == pictures.near([0.4, 0.125])
    assert [to_hex(bar.get_facecolor()).upper() for bar in large.patches[:2]] == [plotting.ORANGE, plotting.BLUE]
    assert [text.get_text() for text in large.texts] == ["4 kernels, 2.13 TB/s", "1 kernel, 2.40 TB/s"]
    assert [text.get_text() for text in tiny.texts] == ["4 kernels", "1 kernel"]
    assert "large tensor: PyTorch eager takes 3.2 times as long as torch.compile" in picture.alt
    assert "large tensor, PyTorch eager: 0.4000 ms, as a CUDA graph 0.3750 ms" in picture.text
    assert "no CUDA graph: No." in picture.text
    assert picture.text.endswith("chain/tensorrt/large: not measured. It failed.")


def test_rows_are_read(fused_chain):
    row = {"stack": 0, "date": "2026"}
    one = {"name": "all", "plain": [1, 1, 1], "graph": None, "no_graph": "", "kernels": 1, "kernels_ms": 1, "moved": 0}
    data = {"stacks": [{}], "rows": {
        "chain/tensorrt/tiny": {**row, "reason": "It failed."},
        "chain/pytorch/tiny": {**row, "values": {"ways": [one]}},
    }}  # fmt: skip
    found = fused_chain.EXPERIMENT.read(data)
    assert list(found) == ["chain/pytorch/tiny", "chain/tensorrt/tiny"]
    assert found["chain/pytorch/tiny"] == (Way("all", (1, 1, 1), None, "", 1, 1),)
    assert found["chain/tensorrt/tiny"] == "It failed."


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["pytorch", "tensorrt"])
def test_the_tiny_chain_on_a_gpu(fused_chain, library):
    pytest.importorskip("torchvision")
    try:
        slow, fast = ways.from_plain(getattr(fused_chain, library)("tiny", {}))
    except BackendUnavailableError as error:
        pytest.skip(error.cause)
    assert slow.kernels == 4 > fast.kernels  # TensorRT 10.6 left two
    assert slow.graph
    assert slow.graph[0] < slow.plain[0]
