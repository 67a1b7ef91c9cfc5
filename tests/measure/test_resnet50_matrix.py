"""The matrix of ResNet-50: its cells, how each is measured, what the libraries are asked for, and how it is shown.

A small network stands in for ResNet-50, and ONNX Runtime on the CPU for a library. Times made up here show the figure.
"""

import contextlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pictures
import pytest
from onnx import TensorProto
from small_models import residual_model

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError, PrecisionError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.measure import gpu_state, rows, timing
from tutorial_utils.measure.resnet50_matrix import cells, figure, matrix, measuring, onnxruntime, tensorrt
from tutorial_utils.measure.resnet50_matrix.cells import Candidate, Cell, Interval, Matrix, Row
from tutorial_utils.measure.resnet50_matrix.files import Files
from tutorial_utils.model import onnx_file

SHAPE = (4, 3, 32, 32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"resnet50-fp32": onnx_file.save(residual_model(), folder / "resnet50-fp32.onnx")}


@pytest.fixture
def on_cpu(monkeypatch):
    """A library that runs the file of a cell with ONNX Runtime on the CPU, and adds to the logits what it is told."""
    library = SimpleNamespace(offset=0.0, candidate={})

    @contextlib.contextmanager
    def opened(cell, files):
        session = onnx_session.new_session(files.onnx({"int8_qdq": "int8"}.get(cell.precision, cell.precision), 32))
        yield Candidate(lambda images: session.run(None, {"x": images})[0] + library.offset, **library.candidate)

    monkeypatch.setitem(cells.LIBRARIES, "on_cpu", ("ONNX Runtime CPU", "on_cpu"))
    module = SimpleNamespace(opened=opened)
    monkeypatch.setitem(sys.modules, f"{measuring.__package__}.on_cpu", module)
    return library


def measure(precision, models):
    values = measuring.measure_cell(Cell("on_cpu", precision, SHAPE), models, seconds=0.01)
    return Row.of(json.loads(json.dumps(values)))


def test_cells_have_a_row_each_and_the_most_wanted_come_first():
    names = list(matrix.EXPERIMENT.rows)
    assert len(names) == len(set(names)) == 3 + len(cells.LIBRARIES) * len(cells.PRECISIONS) * len(cells.SHAPES)
    assert names[:4] == [
        "reference/tensorrt", "reference/tensorrt_rtx", "reference/article", "tensorrt_flags/fp32/64x3x32x32",
    ]  # fmt: skip
    assert rows.choose(names, ["tensorrt_typed/*/1x3x224x224"], "m")[0] == "tensorrt_typed/fp32/1x3x224x224"


def test_a_cell_is_measured_against_onnx_runtime_in_fp32(on_cpu, models):
    row = measure("fp32", models)
    assert row.relative_error == 0
    assert row.agreement == 1
    assert row.host.low <= row.host.median <= row.host.high <= row.host.p99
    assert row.first_call_ms > 0
    assert row.device is None
    assert row.best_ms == row.host.median
    assert 0 < measure("fp16", models).relative_error < 1e-2
    assert 0 < measure("int8_qdq", models).relative_error < 0.2


def test_times_on_the_gpu_facts_and_reasons_are_kept(on_cpu, models):
    on_cpu.candidate = {
        "device_times": lambda calls: np.full(calls, 0.5),
        "graph_times": lambda calls: np.full(calls, 0.25),
        "facts": {"build_s": 2.5, "in_type": [40, 54], "types": {"FP16": 40}},
        "reasons": {"rebuild_s": "It has no cache."},
    }
    row = measure("fp16", models)
    assert (row.device, row.graph) == (Interval(0.5, 0.5, 0.5, 0.5), Interval(0.25, 0.25, 0.25, 0.25))
    assert row.best_ms == 0.25
    assert (row.build_s, row.rebuild_s, row.in_type, row.types) == (2.5, None, (40, 54), {"FP16": 40})
    assert row.reasons == {"rebuild_s": "It has no cache."}


def test_fp32_that_is_rounded_is_no_fp32(on_cpu, models):
    on_cpu.offset = 1e-3
    with pytest.raises(PrecisionError, match=r"TF32 was turned off, and still numbers are rounded: the relative error"):
        measure("fp32", models)
    assert measure("fp16", models).relative_error > 1e-4


def test_logits_that_are_no_numbers_are_no_row(on_cpu, models):
    on_cpu.offset = np.nan
    with pytest.raises(InputError, match="NaN"):
        measure("fp16", models)


def test_tensor_cores_are_taken_from_fp32_alone(models, monkeypatch):
    """ONNX Runtime's use_tf32=0 would take them from FP16, too."""
    asked = []

    def session(path, provider, options, stream, optimized_path):
        asked.append(options["use_tf32"])
        optimized_path.write_bytes(path.read_bytes())

    monkeypatch.setattr(onnxruntime, "_session", session)
    for precision in ("fp32", "tf32", "fp16"):
        onnxruntime._cuda(Cell("onnxruntime_cuda", precision, SHAPE), Files(models["resnet50-fp32"]), None, False)
    assert asked == ["0", "1", "1"]


def test_files_are_made_once_and_calibrated_for_the_image_size(models):
    files = Files(models["resnet50-fp32"])
    declared = onnx_file.inputs(onnx_file.load(files.onnx("fp32", 32)).graph)[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in declared] == [0, 3, 0, 0]  # images of any size
    made = files.onnx("int8", 32)
    assert made.name == "resnet50-32-int8.onnx"
    before = made.stat().st_mtime_ns
    assert Files(models["resnet50-fp32"]).onnx("int8", 32).stat().st_mtime_ns == before
    np.testing.assert_array_equal(files.reference(SHAPE), Files(models["resnet50-fp32"]).reference(SHAPE))
    assert not np.array_equal(files.images(SHAPE), files.calibration_images(32)[:4])


def test_the_reference_row_belongs_to_its_stack(models):
    others = {"tensorrt", "tensorrt_rtx"} - {installed_flavour()}
    with pytest.raises(BackendUnavailableError, match="not of"):
        measuring.measure_reference(others.pop(), models)


def options(library, precision):
    return tensorrt.options(Cell(library, precision, SHAPE))


def test_what_tensorrt_is_asked_for():
    assert options("tensorrt_flags", "fp32").without_flags == ("tf32",)
    assert options("tensorrt_flags", "tf32").without_flags == ()
    assert (options("tensorrt_flags", "fp16").flags, options("tensorrt_typed", "fp16").flags) == (("fp16",), ())
    assert options("tensorrt_flags", "int8_qdq").flags == ("fp16", "int8")
    assert not options("tensorrt_flags", "bf16").strongly_typed
    assert options("tensorrt_typed", "fp8").strongly_typed
    assert options("tensorrt_rtx", "int8_calibrated").flags  # so that its refusal is what is recorded
    shapes = options("tensorrt_rtx", "fp16").profiles[0]["x"]
    assert shapes.min == shapes.opt == shapes.max == SHAPE


def test_what_tensorrt_rtx_does_not_have_is_said_in_its_row(models):
    if installed_flavour() != "tensorrt_rtx":
        pytest.skip("another TensorRT is installed")
    with pytest.raises(PrecisionError, match="strongly typed networks only"):
        tensorrt._build(Cell("tensorrt_rtx", "int8_calibrated", SHAPE), Files(models["resnet50-fp32"]))


def test_tensorrt_rtx_builds_a_typed_cell(models):
    if installed_flavour() != "tensorrt_rtx":
        pytest.skip("another TensorRT is installed")
    built, facts, reasons = tensorrt._build(Cell("tensorrt_rtx", "fp16", SHAPE), Files(models["resnet50-fp32"]))
    assert facts["plan_bytes"] == len(built.plan)
    assert facts["in_type"][0] == facts["in_type"][1] == facts["types"]["FP16"] > 0
    assert "no timing cache" in reasons["rebuild_s"]


def test_another_tensorrt_is_not_measured(models):
    other = "tensorrt_typed" if installed_flavour() == "tensorrt_rtx" else "tensorrt_rtx"
    with (
        pytest.raises(BackendUnavailableError),
        tensorrt.opened(Cell(other, "fp16", SHAPE), Files(models["resnet50-fp32"])),
    ):
        pass


def test_types_of_weights_in_a_file_that_onnx_runtime_optimized(models, tmp_path):
    files = Files(models["resnet50-fp32"])
    onnx_session.new_session(files.onnx("fp32", 32), optimized_path=tmp_path / "fp32.onnx")
    assert onnxruntime.weight_types(tmp_path / "fp32.onnx") == ["fp32"] * 3
    assert set(onnxruntime.weight_types(files.onnx("fp16", 32))) == {"fp16"}
    # INT8 weights behind a DequantizeLinear are multiplied in FP32.
    assert onnxruntime.weight_types(files.onnx("int8", 32)) == ["fp32"] * 3
    assert onnxruntime._TYPES[TensorProto.BFLOAT16] == "bf16"


def test_without_pytorch_its_rows_and_those_of_onnx_runtime_are_not_measured(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for library in ("pytorch_eager", "onnxruntime_cuda"):
        with pytest.raises(BackendUnavailableError, match="PyTorch"):
            measuring.measure_cell(Cell(library, "fp16", SHAPE), models)


def test_pytorch_takes_no_other_network(models):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from tutorial_utils.measure.resnet50_matrix import pytorch

    with pytest.raises(ModelFileError, match="isn't the ResNet-50 of the course"):
        pytorch.with_weights(torch, models["resnet50-fp32"])


def test_gpu_state():
    state = gpu_state.parse("1980, 2619, 120.52, 34\n")
    assert state == {"sm_mhz": 1980, "memory_mhz": 2619, "watts": 120.52, "celsius": 34}
    assert gpu_state.parse("1980, [N/A], 120.52, 34") == {"sm_mhz": 1980, "watts": 120.52, "celsius": 34}
    assert gpu_state.parse("") == {}


@pytest.mark.parametrize(("visible", "asked"), [("", "0"), ("1", "1"), ("GPU-5e1a,0", "GPU-5e1a")])
def test_gpu_state_of_the_gpu_in_use(visible, asked, tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"  # which stands before NVIDIA's in PATH and tells what it was asked for
    fake.write_text(f'#!/bin/sh\n[ "$2" = {asked} ] && echo "1980, 2619, 120.52, 34"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_state.read()["sm_mhz"] == 1980


def test_interval_of_a_median():
    measurement = timing.Measurement(((1.0, 1.0), (3.0, 3.0)), 9.0, 11, True, 1)
    assert timing.median_interval(measurement) == (1.0, 3.0)
    assert timing.median_interval(replace(measurement, rounds_ms=((2.0,), (2.0,)))) == (2.0, 2.0)


# --- how it is shown, with times that nobody measured ----------------------------------------------------------------


def made_up(device, graph=None, **facts):
    times = {
        name: ms and Interval(ms, 0.9 * ms, 1.1 * ms, 2 * ms) for name, ms in (("device", device), ("graph", graph))
    }
    return Row(Interval(4.0, 3.9, 4.1, 5.0), **times, first_call_ms=20.0, relative_error=1e-3, agreement=0.95,
               gpu_before={}, gpu_after={}, **facts)  # fmt: skip


@pytest.fixture
def shown():
    first, second = cells.SHAPES[:2]
    return Matrix(
        {
            Cell("tensorrt_flags", "fp32", first): made_up(1.5, 1.25, build_s=22.0, build_cache="rows before"),
            Cell("tensorrt_flags", "fp16", first): made_up(0.5, plan_bytes=24 * 2**20, in_type=(40, 54)),
            Cell("tensorrt_rtx", "fp32", first): "It is TF32.",
            Cell("paddle_tensorrt", "fp32", first): made_up(None),
            Cell("tensorrt_rtx", "fp8", first): replace(made_up(0.125), relative_error=2.5),
            Cell("tensorrt_flags", "fp32", second): made_up(0.75),
        },
        {},
        [],
    )


def test_picture_has_a_cell_for_everything_and_a_reason_for_what_is_missing(shown):
    picture = figure.draw(shown)
    first, second = pictures.drawn(picture)
    assert len(pictures.bars(first)) == 3 * len(cells.PRECISIONS)
    texts = [text.get_text() for text in first.texts]
    assert texts[:3] == ["1.5\ngraph 1.25", "n/a 1", "0.5"]
    assert "4*" in texts
    assert "0.125†" in texts  # and it isn't called the fastest
    assert [label.get_text() for label in second.get_yticklabels()] == [
        "TensorRT, builder flags", "TensorRT-RTX", "Paddle-TRT",
    ]  # fmt: skip
    assert "at 64x3x32x32 TensorRT, builder flags FP16, 0.5 ms; at 1x3x224x224" in picture.alt
    lines = picture.text.splitlines()
    assert (
        lines[1].split()[-9:] == ["1.5", "/", "1.25", "n/a", "1", "0.5", "n/a", "1", "n/a"] or "1.5 / 1.25" in lines[1]
    )
    assert "n/a 1: It was not measured." in lines
    assert "n/a 2: It is TF32." in lines


def test_text_on_a_cell_stands_out_from_its_colour(shown):
    """WCAG asks for a contrast of 4.5 between text and background."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    from matplotlib import colormaps

    for level in np.linspace(figure._SLOW, figure._FAST, 50):
        ink = (0, 0, 0) if level > figure._BRIGHT else (1, 1, 1)
        light, dark = sorted((luminance(colormaps["cividis"](level)), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_what_is_recorded_is_read(shown):
    values = {"host": [1, 1, 1, 2], "device": None, "graph": None, "first_call_ms": 3, "relative_error": 0.1,
              "agreement": 1.0, "gpu_before": {}, "gpu_after": {}, "reasons": {}}  # fmt: skip
    data = {
        "stacks": [{"gpu": "G", "libraries": {}}],
        "rows": {
            "reference/tensorrt": {"stack": 0, "date": "2026", "values": values},
            "pytorch_eager/fp8/64x3x32x32": {"stack": 0, "date": "2026", "reason": "PyTorch has none."},
        },
    }
    found = matrix.EXPERIMENT.read(data)
    assert found.references["tensorrt"].host.p99 == 2
    assert found.cells == {Cell("pytorch_eager", "fp8", (64, 3, 32, 32)): "PyTorch has none."}
    assert [row.machine["gpu"] for row in found.rows] == ["G", "G"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_cell_of_tensorrt_on_a_gpu(models, precision):
    library = "tensorrt_rtx" if installed_flavour() == "tensorrt_rtx" else "tensorrt_typed"
    row = Row.of(measuring.measure_cell(Cell(library, precision, SHAPE), models, seconds=0.02))
    assert row.relative_error < 2e-2
    assert row.device
    assert row.graph
    assert row.gpu_before["sm_mhz"] > 0


@pytest.mark.gpu
def test_a_cell_of_onnx_runtime_on_a_gpu(models):
    pytest.importorskip("torchvision")
    if "CUDAExecutionProvider" not in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("ONNX Runtime was built without CUDA")
    exact = Row.of(measuring.measure_cell(Cell("onnxruntime_cuda", "fp32", SHAPE), models, seconds=0.02))
    assert exact.relative_error < 1e-5
    assert exact.in_type == (3, 3)
    assert exact.device
    with pytest.raises(PrecisionError, match="calibrates when it writes"):
        measuring.measure_cell(Cell("onnxruntime_cuda", "int8_calibrated", SHAPE), models)
