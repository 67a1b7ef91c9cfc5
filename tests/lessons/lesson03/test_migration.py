"""The migration card: its left-hand sides are gone and its right-hand sides work here, and are in TensorRT 10.13."""

from pathlib import Path

import numpy as np
import pytest
from engine.test_tensorrt_api import names_in_stub, public_stub  # noqa: F401 - a fixture

trt = pytest.importorskip("tensorrt_rtx")
from tutorial_utils import engine  # noqa: E402 - they need TensorRT
from tutorial_utils.authoring import notebook_form  # noqa: E402
from tutorial_utils.lessons.lesson03 import api_names, migration  # noqa: E402
from tutorial_utils.machine import capabilities  # noqa: E402

by_topic = pytest.mark.parametrize("change", migration.CARD, ids=lambda change: change.topic)
WITH_BUILDER = [change for change in migration.CARD if change.needs == "builder"]
WITH_ENGINE = [change for change in migration.CARD if change.needs == "engine"]


@by_topic
def test_old_code_is_gone_and_new_code_is_there(change):
    assert migration.missing_names(change.old)
    assert migration.missing_names(change.new) == []


def test_missing_names_looks_into_every_kind_of_name():
    assert migration.missing_names("plan = builder.no_such_call(network, trt.NoSuchClass)") == [
        "Builder.no_such_call",
        "NoSuchClass",
    ]
    assert migration.missing_names("config.set_flag(trt.BuilderFlag.FP16)") == ["BuilderFlag.FP16"]
    assert migration.missing_names("images.no_name_of_tensorrt()") == []


@pytest.mark.parametrize("change", WITH_BUILDER, ids=lambda change: change.topic)
def test_new_code_runs(change, fp32_model, tmp_path):
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    variables = migration.build_variables(fp32_model, tmp_path, images)
    assigned = migration.execute(change, variables)
    assert all(value is not None for value in assigned.values()), variables["log"].last_errors()


@by_topic
def test_columns_of_tensorrt_10(change, public_stub):  # noqa: F811 - the imported fixture
    def found(code):
        return set(api_names.used(code)) - {"float16", "int8"} <= names_in_stub(public_stub)

    assert found(change.old) == change.old_in_10
    assert found(change.new)


def test_card_is_the_table_of_the_lesson():
    lines = migration.markdown().splitlines()
    assert len(lines) == 2 + len(migration.CARD)
    assert {line.count(" | ") for line in [lines[0], *lines[2:]]} == {2}
    lesson = notebook_form.read(Path("notebooks/03d_ship_an_engine.ipynb"))
    assert any(migration.markdown() in cell.source for cell in lesson.cells)


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
        migration.execute(change, {**names, "stream": runner.stream.handle})
        runner.stream.synchronize()
        log = runner.log
    assert not [text for severity, text in log.messages if severity <= int(trt.ILogger.ERROR)]
