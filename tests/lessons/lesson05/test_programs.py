"""What the recordings of log and inspector, trtexec and ncu hold: measured with stand-ins for GPU and programs."""

import json
import re
from collections import Counter

import pictures
import pytest

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.engine import report
from tutorial_utils.lessons.lesson05 import diff, inspector, kernel_counters, program_models, time_figures, trtexec_runs
from tutorial_utils.measure import ncu, trtexec

SUMMARY = """&&&& RUNNING TensorRT.trtexec [v100600] # trtexec --loadEngine=plan
[11/27/2026-07:00:00] [W] Using an engine plan file across different models of devices is not recommended.
[11/27/2026-07:00:00] [I] Loading engine
[11/27/2026-07:00:03] [I] === Performance summary ===
[11/27/2026-07:00:03] [I] Throughput: 2000 qps
[11/27/2026-07:00:03] [I] Enqueue Time: min = 0.3 ms, median = 0.4 ms
[11/27/2026-07:00:03] [W] * Throughput may be bound by Enqueue Time rather than GPU Compute.
[11/27/2026-07:00:03] [I] Explanations of the performance metrics are printed in the verbose logs.
[11/27/2026-07:00:03] [I]
"""
EXPORTED = {
    "exportTimes": [{"startEnqMs": 0, "endEnqMs": 0.5, "h2dMs": 0, "computeMs": 0.4, "d2hMs": 0, "latencyMs": 0.4}],
    "exportProfile": [
        {"count": 50},
        {"name": "Conv.0 + Relu.0", "timeMs": 5, "averageMs": 0.1, "medianMs": 0.1, "percentage": 100},
    ],
    "exportLayerInfo": {
        "Layers": [{"Name": "Conv.0 + Relu.0", "Metadata": "[ONNX Layer: Conv.0]\u001e[ONNX Layer: Relu.0]"}]
    },
}  # fmt: skip


def data_of(name, values):
    """As a recording of rows has them."""
    return {"stacks": [{}], "rows": {name: {"stack": 0, "date": "2026-11-27", "values": values}}}


def test_log_and_inspector_are_kept_word_by_word(monkeypatch, fp32_model):
    monkeypatch.setitem(inspector.NETWORKS, "cnn", ("small", (1, 3, 32, 32)))
    said = {"inspector": '{"Layers": []}', "in_context": "{}"}
    monkeypatch.setattr(inspector, "_inspected", lambda plan, name, shape: said)
    values = inspector.measure("tensorrt_rtx", "cnn", {"small": fp32_model})
    (told,) = inspector.read(json.loads(json.dumps(data_of("tensorrt_rtx/cnn", values))))
    assert (told.stack, told.network, told.inspector, told.in_context) == ("tensorrt_rtx", "cnn", *said.values())
    assert told.from_inspector == ()
    assert any(layer.type == "correlation" or "Corr" in layer.name for layer in told.from_log)
    with pytest.raises(BackendUnavailableError, match="measured with data-centre TensorRT"):
        inspector.measure("tensorrt", "cnn", {"small": fp32_model})


def test_every_recorded_log_says_what_the_inspector_says():
    told = inspector.EXPERIMENT.recorded("a test").result
    for one in told:
        assert one.from_log, f"{one.stack} {one.network}: the log can't be read"
        assert diff.differences(one.from_log, one.from_inspector) == []
    of_rtx = {("tensorrt_rtx", network) for network in inspector.NETWORKS}
    assert {(one.stack, one.network) for one in told} >= {*of_rtx, ("tensorrt", "cnn")}


def test_tensorrt_10_tells_formats_where_the_inspector_has_a_context():
    """Its log has types alone, and so has the inspector of an engine alone. The rest is the same with a context."""
    (told,) = (
        one for one in inspector.EXPERIMENT.recorded("a test").result
        if (one.stack, one.network) == ("tensorrt", "cnn")
    )  # fmt: skip
    assert {tensor.format for layer in told.from_log for tensor in layer.inputs + layer.outputs} == {"unknown"}
    layers = report.with_formats(told.from_log, report.layers_from_inspector(told.in_context))
    formats = Counter(tensor.format for layer in layers for tensor in layer.inputs + layer.outputs)
    assert formats.most_common(1)[0][0] == "NHWC"
    assert layers[0].outputs[0].format == "NHWC, channels padded to a multiple of 8"


@pytest.fixture
def small(monkeypatch, fp32_model):
    """Let the programs be shown on a small model."""
    monkeypatch.setattr(trtexec, "missing", lambda: "")
    return {program_models.MODEL: fp32_model}


def test_a_run_of_trtexec(small, fake_program):
    body = f"import json\nprint({SUMMARY!r})\nexported = {EXPORTED}\nfor one in sys.argv[1:]:\n"
    body += "    name, _, path = one[2:].partition('=')\n"
    body += "    if name in exported:\n        Path(path).write_text(json.dumps(exported[name]))\n"
    fake_program("trtexec", body)
    values = trtexec_runs.measure("batch 1 with a CUDA graph", small)
    (run,) = trtexec_runs.read(data_of("batch 1 with a CUDA graph", values))
    assert "--useCudaGraph" in run.command
    assert run.summary[1:3] == ["[I] === Performance summary ===", "[I] Throughput: 2000 qps"]
    assert [warning.partition(" ")[0] for warning in run.warnings] == ["Using", "*"]
    assert (run.times["compute"], run.times["enqueue"]) == (0.4, 0.5)
    assert run.profile == {"Conv.0 + Relu.0": 0.1}
    assert run.layers == {"Conv.0 + Relu.0": ["Conv.0", "Relu.0"]}
    picture = time_figures.trtexec_runs([run])
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == [0.4, 0.5]
    assert "* Throughput may be bound by Enqueue Time" in picture.text


def test_three_kernels_of_ncu(small, fake_program):
    metrics = (kernel_counters.DURATION, kernel_counters.COMPUTE, kernel_counters.MEMORY, kernel_counters.DRAM)
    rows = [
        ("conv", 900, 80, 40, 20),
        ("other conv", 1000, 75, 50, 50),
        ("add", 500, 10, 90, 30),
        ("tiny", 2, 1, 5, 5),
        ("no", 3, "n/a", 1, 1),
    ]
    table = ['"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"']
    for number, (name, *counts) in enumerate(rows):
        table += [f'"{number}","{name}","{what}","{unit}","{count}"'
                  for what, unit, count in zip(metrics, ("us", "%", "%", "%"), counts, strict=True)]  # fmt: skip
    fake_program("ncu", f"print({chr(10).join(table)!r})")
    kernels = kernel_counters.read(data_of("batch 64", kernel_counters.measure(small)))
    assert [(one.name, one.microseconds, one.bound) for one in kernels] == [
        ("conv", 900, "compute"), ("other conv", 1000, "compute"), ("add", 500, "memory"), ("tiny", 2, "neither"),
    ]  # fmt: skip
    assert [one.name for one in kernel_counters.three(kernels)] == ["other conv", "add", "tiny"]
    assert [one.name for one in kernel_counters.three(kernels[:2])] == ["other conv", "conv"]
    picture = time_figures.bounds(kernel_counters.three(kernels))
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == [75, 10, 1, 50, 90, 5]
    told = picture.text.splitlines()[1]
    assert told == "add: 500.0 µs, compute 10 %, memory 90 %, device memory 30 %: bound by memory"


def test_nothing_is_measured_without_the_programs(monkeypatch, fp32_model):
    for module in (trtexec, ncu):
        monkeypatch.setattr(module.shutil, "which", lambda name: None)
    for measure in (trtexec_runs.measure, lambda name, models: kernel_counters.measure(models)):
        with pytest.raises(BackendUnavailableError):
            measure("batch 64", {program_models.MODEL: fp32_model})


def test_the_recordings_hold_what_lesson_05b_says():
    one, graph, many = trtexec_runs.EXPERIMENT.recorded("no GPU here").result
    assert [round(run.times["compute"], 2) for run in (one, graph)] == [0.43, 0.31]
    assert "bound by Enqueue Time" in " ".join(one.warnings)
    assert not any("Enqueue" in warning for run in (graph, many) for warning in run.warnings)
    assert all("unstable" in " ".join(run.warnings) for run in (one, graph, many))
    assert (round(many.times["enqueue"], 1), round(many.times["compute"], 1)) == (0.6, 2.5)
    kernels = kernel_counters.EXPERIMENT.recorded("no GPU here").result
    pooling, first_convolution, neither = kernel_counters.three(kernels)
    assert "pooling" in pooling.name
    assert "first_layer" in first_convolution.name
    assert "r7s7_stride2x2" in first_convolution.name
    assert (round(first_convolution.memory), round(first_convolution.device_memory)) == (71, 21)
    assert round(neither.memory) == round(neither.device_memory) == 58
    bound = [kernel for kernel in kernels if kernel.bound == "memory"]
    assert [kernel for kernel in bound if kernel.device_memory < kernel.memory] == [first_convolution]


def test_why_lesson_05b_says_that_trtexec_calls_times_unstable():
    """For one image the GPU waits for the host: as a graph, the same engine varies much less."""
    runs = trtexec_runs.EXPERIMENT.recorded("no GPU here").result
    found = [re.search(r"coefficient of variance = ([\d.]+)%", " ".join(run.warnings)) for run in runs]
    assert [round(float(one[1])) for one in found if one] == [15, 2, 8]
    longest = {}
    for run in runs:
        for line in run.summary:
            if one := re.match(r"\[I\] (Enqueue|GPU Compute) Time: .* max = ([\d.]+) ms", line):
                longest[run.name, one[1]] = round(float(one[2]), 1)
    assert longest["batch 1", "Enqueue"] == longest["batch 1", "GPU Compute"] == 1.9
    assert (longest["batch 64", "Enqueue"], longest["batch 64", "GPU Compute"]) == (5.9, 5.6)


def test_names_of_kernels_are_broken_where_their_words_end():
    name = "sm90_xmma_fprop_image_first_layer_f16f16_f32_f16_nhwckrsc_nhwc_hmma_k64c4r7s7_stride2x2_tile16x64x64"
    first, second = time_figures._first_lines(name)
    assert first.endswith("_")
    assert second.endswith("…")
    assert name.startswith(first + second[:-1])
    assert time_figures._first_lines("__myl_CasMaxCas_0x6f") == ["__myl_CasMaxCas_0x6f"]
