"""The matrix of ResNet-50: its cells, how each is measured, and what the libraries are asked for.

A small network stands in for ResNet-50, and ONNX Runtime on the CPU for a library.
"""

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto
from small_models import residual_model

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError, PrecisionError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.measure import gpu_state, recordings, rows, timing
from tutorial_utils.measure.resnet50_matrix import cells, matrix, measuring, onnxruntime, tensorrt
from tutorial_utils.measure.resnet50_matrix.cells import Candidate, Cell, Interval, Row
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

    monkeypatch.setitem(cells.LIBRARIES, "on_cpu", "on_cpu")
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


def test_the_provider_of_tensorrt_gets_the_calibration_table_beside_its_engine(models, monkeypatch):
    files, cell, asked = Files(models["resnet50-fp32"]), Cell("onnxruntime_tensorrt", "int8_calibrated", SHAPE), {}
    monkeypatch.setattr(onnxruntime, "_session", lambda path, provider, options, stream: asked.update(options))
    with pytest.raises(BackendUnavailableError, match="no calibration table"):
        onnxruntime._tensorrt(cell, files, None, False)
    files.calibration_cache(SHAPE).write_text("TRT-100600-EntropyCalibration2")
    onnxruntime._tensorrt(cell, files, None, False)
    table = Path(asked["trt_engine_cache_path"]) / asked["trt_int8_calibration_table_name"]
    assert table.read_text() == "TRT-100600-EntropyCalibration2"


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_provider_that_is_missing_is_no_reason_of_the_model(provider, models):
    """A row whose provider is missing isn't recorded; the model's own refusal is, as a reason."""
    if provider in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("This ONNX Runtime has it")
    with pytest.raises(BackendUnavailableError, match=f"has no {provider} here, or can't load it"):
        onnxruntime._session(models["resnet50-fp32"], provider, {}, SimpleNamespace(cuda_stream=0))


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


@pytest.mark.parametrize(("visible", "asked"), [("", "0"), ("1", "1"), ("GPU-5e1a,0", "GPU-5e1a")])
def test_gpu_state_of_the_gpu_in_use(visible, asked, tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"  # which stands before NVIDIA's in PATH and tells what it was asked for
    fake.write_text(f'#!/bin/sh\n[ "$2" = {asked} ] && echo "1980, [N/A], 120.52, 34"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_state.read() == {"sm_mhz": 1980, "watts": 120.52, "celsius": 34}
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_state.read() == {}


def test_interval_of_a_median():
    measurement = timing.Measurement(((1.0, 1.0), (3.0, 3.0)), 9.0, 11, True, 1)
    assert timing.median_interval(measurement) == (1.0, 3.0)
    assert timing.median_interval(replace(measurement, rounds_ms=((2.0,), (2.0,)))) == (2.0, 2.0)


def test_the_recording_says_how_each_of_its_times_was_taken():
    recording = recordings.load("resnet50_matrix")
    for name in ("host", "device", "graph", "host_graph"):
        assert f"{name}: " in measuring.METHOD
        assert f"{name}: " in recording.method, "record a row: it brings the method of today"


def test_the_recording_reaches_the_times_and_errors_that_were_set_for_tensorrt():
    """Milliseconds on an H100: TensorRT 10.6 in FP16, with and without a CUDA graph; and FP32 that is FP32."""
    found = matrix.EXPERIMENT.recorded("a test").result.cells
    fp16 = [found[Cell(library, "fp16", cells.SHAPES[0])] for library in ("tensorrt_flags", "tensorrt_typed")]
    assert max(one.device.median for one in fp16) <= 0.45
    assert max(one.graph.median for one in fp16) <= 0.37
    in_fp32 = [one for cell, one in found.items() if cell.precision == "fp32" and isinstance(one, Row)]
    assert len(in_fp32) > 2
    assert max(one.relative_error for one in in_fp32) <= 1e-5


def test_what_is_recorded_is_read():
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
