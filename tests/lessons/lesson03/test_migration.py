"""The migration card: its left-hand sides are gone and its right-hand sides work here, and are in TensorRT 10.13."""

from pathlib import Path

import numpy as np
import pytest
from engine.test_tensorrt_api import names_in_stub, public_stub  # noqa: F401 - a fixture

trt = pytest.importorskip("tensorrt_rtx")
from lessons.lesson03 import migration_card  # noqa: E402

from tutorial_utils import engine  # noqa: E402 - they need TensorRT
from tutorial_utils.authoring import notebook_form  # noqa: E402
from tutorial_utils.engine.tensorrt import MessageLog, require_gpu  # noqa: E402
from tutorial_utils.lessons.lesson03 import api_names  # noqa: E402
from tutorial_utils.machine import capabilities  # noqa: E402
from tutorial_utils.model import half_precision, quantization  # noqa: E402

by_topic = pytest.mark.parametrize("change", migration_card.CARD, ids=lambda change: change.topic)
WITH_BUILDER = [change for change in migration_card.CARD if change.needs == "builder"]
WITH_ENGINE = [change for change in migration_card.CARD if change.needs == "engine"]


@by_topic
def test_old_code_is_gone_and_new_code_is_there(change):
    assert migration_card.missing_names(change.old)
    assert migration_card.missing_names(change.new) == []


def test_missing_names_looks_into_every_kind_of_name():
    assert migration_card.missing_names("plan = builder.no_such_call(network, trt.NoSuchClass)") == [
        "Builder.no_such_call",
        "NoSuchClass",
    ]
    assert migration_card.missing_names("config.set_flag(trt.BuilderFlag.FP16)") == ["BuilderFlag.FP16"]
    assert migration_card.missing_names("images.no_name_of_tensorrt()") == []


def build_variables(onnx_path, folder, images):
    """Return the variables that the card's code for builders uses: a small network, a profile, a configuration."""
    require_gpu()
    log = MessageLog()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    tensor = network.add_input("x", trt.float32, (8, 3, 32, 32))
    scale = network.add_constant((), trt.Weights(np.ones((), np.float32))).get_output(0)
    layer = network.add_identity(tensor)
    network.mark_output(layer.get_output(0))
    return {
        "trt": trt, "log": log, "builder": builder, "network": network, "tensor": tensor, "layer": layer,
        "scale": scale, "config": builder.create_builder_config(), "profile": builder.create_optimization_profile(),
        "onnx_path": onnx_path, "fp16_path": folder / "card-fp16.onnx", "int8_path": folder / "card-int8.onnx",
        "images": images, "to_fp16": half_precision.to_fp16, "to_int8": quantization.to_int8,
    }  # fmt: skip


def execute(change, variables):
    """Run the right-hand side of a line with the variables that it uses, and return those that it assigned.

    What the code raises comes through.
    """
    assigned = {}
    exec(change.new, dict(variables), assigned)
    return assigned


@pytest.mark.parametrize("change", WITH_BUILDER, ids=lambda change: change.topic)
def test_new_code_runs(change, fp32_model, tmp_path):
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    variables = build_variables(fp32_model, tmp_path, images)
    assigned = execute(change, variables)
    assert all(value is not None for value in assigned.values()), variables["log"].last_errors()


@by_topic
def test_columns_of_tensorrt_10(change, public_stub):  # noqa: F811 - the imported fixture
    def found(code):
        return set(api_names.used(code)) - {"float16", "int8"} <= names_in_stub(public_stub)

    assert found(change.old) == change.old_in_10
    assert found(change.new)


def test_card_is_the_table_of_the_lesson():
    lines = migration_card.markdown().splitlines()
    assert len(lines) == 2 + len(migration_card.CARD)
    assert {line.count(" | ") for line in [lines[0], *lines[2:]]} == {2}
    lesson = notebook_form.read(Path("notebooks/03d_ship_an_engine.ipynb"))
    assert any(migration_card.markdown() in cell.source for cell in lesson.cells)


@pytest.mark.gpu
@pytest.mark.parametrize("change", WITH_ENGINE, ids=lambda change: change.topic)
def test_new_code_runs_with_an_engine(change, fp32_model):
    machine = capabilities.probe()
    if not machine.tensorrt_run.available:
        pytest.skip(machine.tensorrt_run.reason)
    profile = engine.Profile.batch("x", (3, 32, 32), opt=8, max=16)
    built = engine.build(fp32_model, engine.BuildOptions(profiles=[profile]), use_cache=False)
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    with primary_context(), TensorRTRunner(built) as runner:
        runner.infer({"x": np.zeros((8, 3, 32, 32), np.float32)})
        addresses = {name: runner.context.get_tensor_address(name) for name in (*runner.inputs, *runner.outputs)}
        names = {"trt": trt, "engine": runner.engine, "context": runner.context, "addresses": addresses}
        execute(change, {**names, "stream": runner.stream.handle})
        runner.stream.synchronize()
        log = runner.log
    assert not [text for severity, text in log.messages if severity <= int(trt.ILogger.ERROR)]
