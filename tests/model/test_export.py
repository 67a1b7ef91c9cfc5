"""Static Paddle models to ONNX: what comes out, what is refused, and why."""

import shutil
import subprocess
from unittest import mock

import numpy as np
import onnx
import pytest
from small_models import images, residual_model, save_paddle

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import (
    ExportError,
    InputError,
    ModelFileError,
    UnsupportedOperatorError,
)
from tutorial_utils.model import export


@pytest.fixture(scope="module")
def exported(paddle_model, tmp_path_factory):
    return export.to_onnx(*paddle_model, tmp_path_factory.mktemp("exported") / "new" / "net.onnx")


def run(path, batch):
    return onnx_session.new_session(path).run(None, {"x": batch})[0]


def shape_of(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_export_keeps_names_and_the_dynamic_batch(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(value.name, shape_of(value)) for value in model.graph.input] == [("x", ["batch", 3, 32, 32])]
    assert [shape_of(value) for value in model.graph.output] == [["batch", 10]]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not any(node.op_type == "Constant" for node in model.graph.node), "constants should be folded"
    assert not model.graph.value_info, "they would be wrong for who gives the input another size"


def test_export_equals_paddle(exported, paddle_model):
    import paddle

    net = paddle.jit.load(str(paddle_model[0].with_suffix("")))
    for batch in (images(1), images(5)):
        np.testing.assert_allclose(run(exported, batch), net(paddle.to_tensor(batch)).numpy(), atol=1e-5)


def test_paddle2onnx_is_kept_from_installing_packages(monkeypatch, paddle_model, tmp_path):
    """Its default optimizer runs pip: the worker's one call of paddle2onnx must switch it off."""
    paddle2onnx = pytest.importorskip("paddle2onnx")
    paddle = pytest.importorskip("paddle")
    from tutorial_utils.model.exporting import paddle2onnx_worker

    calls = []
    monkeypatch.setattr(
        paddle2onnx, "export", lambda *args, **named: calls.append(named) or residual_model().SerializeToString()
    )
    monkeypatch.setattr(paddle.inference, "Config", mock.Mock())
    monkeypatch.setattr(paddle.inference, "create_predictor", lambda config: None)
    paddle2onnx_worker.main(*map(str, paddle_model), str(tmp_path / "out.onnx"), "17")
    assert [call["optimize_tool"] for call in calls] == ["None"]


def test_unsupported_operator_aborts_only_the_worker(tmp_path, target):
    paddle = pytest.importorskip("paddle")

    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.fc = paddle.nn.Linear(4, 4)

        def forward(self, x):
            return paddle.linalg.svd(self.fc(x))[1]

    files = save_paddle(Net(), [4, 4], tmp_path / "svd")
    with pytest.raises(UnsupportedOperatorError, match=r"can't convert pd_op\.svd of svd\.json"):
        export.to_onnx(*files, target)


def test_weights_that_are_missing(paddle_model, tmp_path, target):
    with pytest.raises(ModelFileError, match=r"no\.pdiparams is missing or empty"):
        export.to_onnx(paddle_model[0], tmp_path / "no.pdiparams", target)


def test_damaged_program(paddle_model, tmp_path, target):
    bad = tmp_path / "bad.json"
    bad.write_text("{ not a program")
    with pytest.raises(ModelFileError, match="Paddle can't load"):
        export.to_onnx(bad, paddle_model[1], target, verify=False)


@pytest.mark.parametrize("cut", [1, 4, 1000])
def test_weights_cut_short(cut, paddle_model, tmp_path, target):
    """Paddle computes on with other numbers where only the last tensor is cut, and the comparison would agree."""
    bad = tmp_path / "bad.pdiparams"
    bad.write_bytes(paddle_model[1].read_bytes()[:-cut])
    with pytest.raises(ModelFileError, match="aren't whole tensors"):
        export.to_onnx(paddle_model[0], bad, target, verify=False)


@pytest.mark.parametrize(
    ("sample", "cause"),
    [
        (images(1) * np.nan, "The sample x holds NaN"),
        (np.array([None, "a"], object), "array of object"),
    ],
    ids=["nan", "no numbers"],
)
def test_samples_that_show_nothing(sample, cause, paddle_model, target):
    with pytest.raises(InputError, match=cause):
        export.to_onnx(*paddle_model, target, samples={"x": sample})


def test_the_target_is_not_the_model_itself(paddle_model, tmp_path):
    for name, file in zip(("net.json", "net.pdiparams"), paddle_model, strict=True):
        shutil.copy(file, tmp_path / name)
    files = tmp_path / "net.json", tmp_path / "net.pdiparams"
    before = [file.read_bytes() for file in files]
    for target in files:
        with pytest.raises(ExportError, match="a file of the Paddle model itself"):
            export.to_onnx(*files, target)
    assert [file.read_bytes() for file in files] == before


def test_any_other_failure_of_the_worker(paddle_model, target, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="first line\nIt broke.\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: failed)
    with pytest.raises(ExportError, match=r"exit status 1\): It broke\. Remedy"):
        export.to_onnx(*paddle_model, target)


@pytest.mark.parametrize(
    ("status", "log", "message"),
    [
        (-11, "", r"net\.json \(ended by SIGSEGV\): no message\. Remedy: Save the model again"),
        (-6, "\x1b[31m[ERROR][Paddle2ONNX] [OP: pd_op.a] Only b.\x1b[0m\nEnd", r"SIGABRT\): \[OP: pd_op\.a\] Only b\."),
        (255, "[ERROR] Failed to convert PaddlePaddle model: (A) Too new.\n--- Running", r": \(A\) Too new\. R"),
        (-6, "[ERROR][Paddle2ONNX] Due to the unsupported operators, the c", "can't convert an operator of net"),
    ],
    ids=["killed", "one operator", "reason before other lines", "unnamed operator"],
)  # fmt: skip
def test_the_reason_is_what_paddle2onnx_says(status, log, message, paddle_model, target, monkeypatch):
    failed = subprocess.CompletedProcess([], status, stdout=log, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: failed)
    with pytest.raises((ExportError, UnsupportedOperatorError), match=message):
        export.to_onnx(*paddle_model, target)


def test_paddle_dies_of_the_samples(paddle_model, target, monkeypatch):
    def run_worker(command, **_):
        onnx.save(residual_model(), command[-3])
        return subprocess.CompletedProcess(command, -11, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run_worker)
    with pytest.raises(ExportError, match=r"ended while it ran net\.json on the samples \(exit status -11\).*samples="):
        export.to_onnx(*paddle_model, target)


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """A model of ids and rows, whose numbers may differ."""
    from model.zoo import Entry, Input, nn

    from tutorial_utils.model.quiet_paddle import paddle

    entry = Entry(
        lambda: [nn.Embedding(50, 4), nn.Linear(8, 4)],
        lambda table, layer, ids, x: table(ids).sum(0) + layer(x).sum(0),
        {"ids": Input((None,), "int64", 50), "x": Input((None, 8))},
    )
    specs = [paddle.static.InputSpec(list(one.shape), one.dtype, name) for name, one in entry.inputs.items()]
    prefix = tmp_path_factory.mktemp("two_inputs") / "net"
    paddle.jit.save(entry.build(), str(prefix), input_spec=specs)
    return prefix.with_suffix(".json"), prefix.with_suffix(".pdiparams")


def test_several_inputs_differ_in_size(two_inputs, tmp_path):
    """TensorRT takes dimensions of one name for equal."""
    engine = pytest.importorskip("tutorial_utils.engine")
    samples = {"ids": np.arange(3), "x": np.ones((5, 8), np.float32)}
    path = export.to_onnx(*two_inputs, tmp_path / "net.onnx", samples=samples)
    assert len({shape_of(value)[0] for value in onnx.load(path).graph.input}) == 2
    profile = engine.Profile.of(ids=((1,), (3,), (4,)), x=((1, 8), (5, 8), (100, 8)))
    assert engine.build(path, engine.BuildOptions([profile]), use_cache=False, progress=False).plan


def test_samples_outside_the_vocabulary(two_inputs, target):
    samples = {"ids": np.array([49, 99]), "x": np.ones((2, 8), np.float32)}
    with pytest.raises(
        ExportError, match=r"Paddle itself refuses the samples: .*expected >= 0 and < 50, but got 99"
    ) as caught:
        export.to_onnx(*two_inputs, target, samples=samples)
    assert "\n" not in str(caught.value)


def fake_worker(samples_changed_by):
    """Stand in for paddle2onnx: write the residual model, and what it computes as if Paddle had."""

    def run_worker(command, **_):
        onnx_path, samples_path = command[-3], command[-1]
        onnx.save(residual_model(), onnx_path)
        batch = images(2)
        outputs = run(onnx_path, batch)
        np.savez(samples_path, **{"in:x": batch, "out:0": samples_changed_by(outputs)})
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    return run_worker


def test_verify_refuses_a_model_that_differs_from_paddle(paddle_model, target, monkeypatch):
    monkeypatch.setattr(subprocess, "run", fake_worker(lambda out: out + 1e-3 * np.abs(out).max()))
    with pytest.raises(ExportError, match="differs from Paddle's"):
        export.to_onnx(*paddle_model, target)


def test_verify_accepts_rounding(paddle_model, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", fake_worker(lambda out: out + 1e-6))
    assert export.to_onnx(*paddle_model, tmp_path / "model.onnx").is_file()
