"""Paddle-TRT without a GPU: calls fit the signatures of Paddle 2.6.2 and 3.3.1, and what can't run is said."""

import inspect
import re

import numpy as np
import pytest
import runners.paddle_signatures as recorded
from small_models import answers, images

from tutorial_utils.base.errors import BackendUnavailableError, ModelFileError, PrecisionError, ProfileError

paddle = pytest.importorskip("paddle")
from tutorial_utils.model import paddle_program  # noqa: E402 - they need Paddle
from tutorial_utils.runners import (  # noqa: E402
    legacy_program,
    paddle_kernels,
    paddle_tensorrt,
    paddle_tensorrt_build,
)
from tutorial_utils.runners.paddle import PaddleRunner  # noqa: E402

SHAPES = {"x": ((1, 3, 32, 32), (8, 3, 32, 32), (64, 3, 32, 32))}
TUNED = "ranges.pbtxt"

without_tensorrt = pytest.mark.skipif(
    paddle.inference.get_trt_compile_version() != (0, 0, 0), reason="this Paddle has TensorRT"
)


@pytest.fixture(scope="module")
def legacy():
    """The untrained quick network as .pdmodel, and the network itself."""
    from tutorial_utils.model import classifier

    return legacy_program.untrained("quick"), classifier.build("quick")


@pytest.fixture
def gpu_paddle(monkeypatch):
    """A Paddle whose Config has the recorded signatures and builds nothing."""
    monkeypatch.setattr(paddle.inference, "Config", recorded.Config)
    monkeypatch.setattr(paddle.inference, "get_trt_compile_version", lambda: (10, 5, 0))
    monkeypatch.setattr(paddle.inference, "get_trt_runtime_version", lambda: (10, 5, 0))
    monkeypatch.setattr(paddle_kernels, "require_gpu", lambda: None)


# --- the contract ----------------------------------------------------------------------------------------------------


def test_recorded_signatures_are_those_of_the_installed_config():
    """The CPU build has every method of Config, if only to say that it can't."""
    methods = [name for name in vars(recorded.Config) if not name.startswith("_")]
    assert len(methods) >= 10
    for name in methods:
        first_line = getattr(paddle.inference.Config, name).__doc__.strip().splitlines()[0]
        installed = re.findall(r"(\w+): [^=,]*?(?:\[[^=]*?\])?(?: = [^,]*)?(?=, \w+: |\) ->)", first_line)
        assert installed == list(inspect.signature(getattr(recorded.Config, name)).parameters), first_line


def test_recorded_signatures_are_those_of_the_articles_paddle():
    for name, line in recorded.CONFIG_OF_2_6_2.items():
        expected = ["self", *re.findall(r"(\w+): ", line.replace("<Float32: 0>", ""))]
        assert list(inspect.signature(getattr(recorded.Config, name)).parameters) == expected
    assert {name for name in vars(recorded.Config) if not name.startswith("_")} == set(recorded.CONFIG_OF_2_6_2)


def test_defaults_that_the_code_must_not_rely_on():
    """use_calib_mode is True unless told otherwise, also for FP32 and FP16."""
    assert "use_calib_mode: bool = True" in paddle.inference.Config.enable_tensorrt_engine.__doc__


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_legacy_calls(precision, gpu_paddle, monkeypatch):
    monkeypatch.setattr(paddle_tensorrt, "is_quantized", lambda _: True)
    config = paddle_tensorrt.legacy_config("n.pdmodel", "n.pdiparams", "cache", shapes=SHAPES, precision=precision)
    asked = config.calls["enable_tensorrt_engine"]
    types = paddle.inference.PrecisionType
    assert asked["precision_mode"] == {"fp32": types.Float32, "fp16": types.Half, "int8": types.Int8}[precision]
    assert asked["use_calib_mode"] is False
    assert asked["use_static"] is True
    assert asked["workspace_size"] == 2**30
    assert config.calls["enable_use_gpu"]["memory_pool_init_size_mb"] == 256
    assert config.calls["set_trt_dynamic_shape_info"] == {
        "min_input_shape": {"x": [1, 3, 32, 32]},
        "max_input_shape": {"x": [64, 3, 32, 32]},
        "optim_input_shape": {"x": [8, 3, 32, 32]},
        "disable_trt_plugin_fp16": False,
    }
    assert list(config.calls).index("set_optim_cache_dir") < list(config.calls).index("enable_tensorrt_engine")


def test_legacy_calls_with_tuned_shapes_and_operators_kept_out(gpu_paddle):
    config = paddle_tensorrt.legacy_config(
        "n.pdmodel", "n.pdiparams", "c", shape_ranges=TUNED, exp_disable_tensorrt_ops=("softmax",), min_subgraph_size=1
    )
    assert config.calls["enable_tensorrt_engine"]["min_subgraph_size"] == 1
    tuned = config.calls["enable_tuned_tensorrt_dynamic_shape"]
    assert tuned == {"shape_range_info_path": TUNED, "allow_build_at_runtime": True}
    assert config.calls["exp_disable_tensorrt_ops"] == {"arg0": ["softmax"]}
    assert "set_trt_dynamic_shape_info" not in config.calls


def test_config_calls_of_the_installed_paddle(legacy, tmp_path, monkeypatch):
    """All that the CPU build can execute of the legacy way is executed: everything but enable_tensorrt_engine."""
    monkeypatch.setattr(paddle_tensorrt, "require_tensorrt", lambda: None)
    monkeypatch.setattr(paddle.inference, "get_trt_compile_version", lambda: (10, 5, 0))
    monkeypatch.setattr(paddle.inference.Config, "enable_tensorrt_engine", lambda self, **_: None)
    for ways in ({"shapes": SHAPES}, {"shape_ranges": tmp_path / TUNED}):
        config = paddle_tensorrt.legacy_config(
            legacy[0].model_path,
            legacy[0].params_path,
            tmp_path,
            exp_disable_tensorrt_ops=("softmax",),
            explicit_quantization=True,
            inspector=True,
            **ways,
        )
        assert config.tensorrt_dynamic_shape_enabled() is ("shapes" in ways)
        assert config.tuned_tensorrt_dynamic_shape() is ("shape_ranges" in ways)
        assert config.tensorrt_explicit_quantization_enabled()
        assert config.tensorrt_inspector_enabled()


# --- what explains itself --------------------------------------------------------------------------------------------


@without_tensorrt
@pytest.mark.parametrize("way", ["legacy", "runner"])
def test_cpu_build_explains_itself(way, tmp_path):
    calls = {
        "legacy": lambda: paddle_tensorrt.legacy_config("net.pdmodel", "net.pdiparams", tmp_path, shapes=SHAPES),
        "runner": lambda: paddle_tensorrt_build.open_runner("net.pdmodel", "net.pdiparams", shapes=SHAPES),
    }
    with pytest.raises(BackendUnavailableError, match=r"built without TensorRT.*environment\.yml") as caught:
        calls[way]()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_missing_library(gpu_paddle, monkeypatch):
    def fail():
        raise RuntimeError("Load tensorrt api getInferLibVersion failed")

    monkeypatch.setattr(paddle.inference, "get_trt_runtime_version", fail)
    with pytest.raises(BackendUnavailableError, match=r"can't load TensorRT's library.*LD_LIBRARY_PATH"):
        paddle_tensorrt.require_tensorrt()


def test_library_of_another_major_version(gpu_paddle, monkeypatch):
    monkeypatch.setattr(paddle.inference, "get_trt_runtime_version", lambda: (11, 4, 0))
    with pytest.raises(BackendUnavailableError, match=r"compiled for TensorRT 10\.5\.0, but 11\.4\.0 is loaded"):
        paddle_tensorrt.require_tensorrt()


def test_json_is_refused_where_paddle_would_ignore_the_engine(gpu_paddle, tmp_path):
    with pytest.raises(ModelFileError, match=r"net\.json is no \.pdmodel.*ignores.*FLAGS_enable_pir_api=0"):
        paddle_tensorrt.legacy_config("net.json", "net.pdiparams", tmp_path, shapes=SHAPES)
    with pytest.raises(ModelFileError, match=r"no \.pdmodel"):
        paddle_tensorrt.collect_shape_ranges("net.json", "net.pdiparams", [], tmp_path / TUNED)


BAD = {
    "both": ({"shapes": SHAPES, "shape_ranges": TUNED}, ProfileError, "given once"),
    "none": ({}, ProfileError, "given once"),
    "order": ({"shapes": {"x": ((8,), (4,), (16,))}}, ProfileError, "min <= opt <= max"),
    "rank": ({"shapes": {"x": ((1, 3), (4, 3), (8,))}}, ProfileError, "differ in rank"),
    "bf16": ({"shapes": SHAPES, "precision": "bf16"}, PrecisionError, "no precision 'bf16'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case, gpu_paddle):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        paddle_tensorrt.legacy_config("net.pdmodel", "net.pdiparams", "cache", **options)


def test_calibration_that_would_end_the_process(legacy, gpu_paddle, monkeypatch):
    """INT8 of a program without ranges of its own: for hand-set shapes, and on a GPU without kernels."""
    files = legacy[0].model_path, legacy[0].params_path
    with pytest.raises(PrecisionError, match=r"collected file alone.*ends the process.*paddle_quantization"):
        paddle_tensorrt.legacy_config(*files, "cache", shapes=SHAPES, precision="int8")
    calls = paddle_tensorrt.legacy_config(*files, "cache", shape_ranges=TUNED, precision="int8").calls
    assert calls["enable_tensorrt_engine"]["use_calib_mode"] is True
    assert calls["enable_tensorrt_engine"]["use_static"] is False
    with monkeypatch.context() as older:
        older.setattr(paddle, "__version__", "2.6.2")
        with pytest.raises(PrecisionError, match=r"Paddle 2\.6\.2 can't calibrate a program with a matrix product"):
            paddle_tensorrt.legacy_config(*files, "cache", shape_ranges=TUNED, precision="int8")
    monkeypatch.setattr(paddle_kernels, "missing", lambda: "None for 9.0")
    with pytest.raises(PrecisionError, match=r"None for 9\.0: INT8 calibration runs the program in them"):
        paddle_tensorrt.legacy_config(*files, "cache", shape_ranges=TUNED, precision="int8")


def test_explicit_quantization_of_a_paddle_that_leaves_convolutions_outside(gpu_paddle, monkeypatch):
    ways = {"shapes": SHAPES, "precision": "int8", "explicit_quantization": True}
    monkeypatch.setattr(paddle_tensorrt, "is_quantized", lambda _: True)
    calls = paddle_tensorrt.legacy_config("n.pdmodel", "n.pdiparams", "cache", **ways).calls
    assert "enable_tensorrt_explicit_quantization" in calls
    monkeypatch.setattr(paddle.inference, "get_trt_compile_version", lambda: (8, 5, 3))
    monkeypatch.setattr(paddle.inference, "get_trt_runtime_version", lambda: (8, 6, 1))
    with pytest.raises(PrecisionError, match=r"compiled with TensorRT 8\.5\.3, and takes those .* from 8\.6 on"):
        paddle_tensorrt.legacy_config("n.pdmodel", "n.pdiparams", "cache", **ways)


# --- what runs on any machine ----------------------------------------------------------------------------------------


def test_shape_ranges_are_collected(legacy, tmp_path):
    files, _ = legacy
    batches = [{"x": images(count)} for count in (1, 8, 8, 5)]
    text = paddle_tensorrt.collect_shape_ranges(
        files.model_path, files.params_path, batches, tmp_path / TUNED
    ).read_text()
    entry = re.search(r'name: "x"(.*?)\n}', text, re.DOTALL)[1]
    numbers = {key: re.findall(rf"{key}_shape: (\d+)", entry) for key in ("min", "opt", "max")}
    assert numbers == {
        "min": ["1", "3", "32", "32"],
        "opt": ["8", "3", "32", "32"],
        "max": ["8", "3", "32", "32"],
    }


def test_shape_ranges_of_nothing(legacy, tmp_path):
    (files, _), output = legacy, tmp_path / TUNED
    output.write_text("of an earlier run")
    with pytest.raises(ModelFileError, match="wrote no ranges"):
        paddle_tensorrt.collect_shape_ranges(files.model_path, files.params_path, [], output)
    assert not output.exists()


def test_legacy_program_computes_the_same(legacy):
    files, model = legacy
    with PaddleRunner(files.model_path, files.params_path) as runner:
        assert runner.inputs["x"].shape == (-1, 3, -1, -1)
        (actual,) = runner.infer({"x": images(5)}).values()
    np.testing.assert_allclose(actual, answers(model, images(5)), atol=1e-4)
    assert not list(files.model_path.parent.glob(".save-*"))


def test_runner_of_a_config_checks_the_range(legacy):
    from tutorial_utils.base.errors import InputError

    files, _ = legacy
    config = paddle.inference.Config(str(files.model_path), str(files.params_path))
    config.disable_glog_info()
    with PaddleRunner.from_config(
        config, "Paddle-TRT", {"x": ((2, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32))}
    ) as runner:
        assert runner.backend == "Paddle-TRT"
        runner.infer({"x": images(8)})
        with pytest.raises(InputError, match=r"\(9, 3, 32, 32\), but the model takes \(2, 3, 32, 32\) to"):
            runner.infer({"x": images(9)})


# --- programs --------------------------------------------------------------------------------------------------------


def test_operators_are_those_that_paddle_reads(paddle_model):
    program = paddle.jit.load(str(paddle_model[0].with_suffix(""))).program()
    loaded = [operation.name() for operation in program.global_block().ops]
    written = paddle_program.operators(paddle_model[0])
    # jit.load gives outputs a name where the file has a fetch
    assert [name for name in written if name != "pd_op.fetch"] == [n for n in loaded if n != "builtin.shadow_output"]


def test_both_forms_hold_the_same_network(legacy, tmp_path):
    from tutorial_utils.model import classifier

    files, model = legacy
    old = paddle_program.tensorrt_use(paddle_program.operators(files.model_path))
    new = paddle_program.tensorrt_use(paddle_program.operators(classifier.save(model, tmp_path / "net").model_path))
    assert old.engines == new.engines == 0
    assert sum(old.fell_back.values()) == sum(new.fell_back.values()) == 32
    assert old.fell_back["conv2d"] == new.fell_back["pd_op.conv2d"] == 9


@pytest.mark.parametrize("engine", paddle_program.ENGINES)
def test_engines_are_counted_and_what_fell_back_is_listed(engine):
    names = ["builtin.parameter", "pd_op.data", "feed", engine, "pd_op.flip", engine, "pd_op.flip", "pd_op.fetch"]
    use = paddle_program.tensorrt_use(names)
    assert (use.engines, use.fell_back) == (2, {"pd_op.flip": 2})
    assert str(use) == "2 TensorRT engines; left to Paddle: 2 pd_op.flip"
    assert str(paddle_program.tensorrt_use([engine])) == "1 TensorRT engine; left to Paddle: nothing"


@pytest.mark.parametrize("ending", [".json", ".pdmodel"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage"])
def test_damaged_programs(ending, damage, legacy, paddle_model, tmp_path):
    """A damaged .pdmodel that reaches Paddle ends the process."""
    whole = (legacy[0].model_path if ending == ".pdmodel" else paddle_model[0]).read_bytes()
    path = tmp_path / f"net{ending}"
    if damage != "missing":
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "garbage": b"garbage " * 100}[damage])
    with pytest.raises(ModelFileError, match=r"can't be read|can't load") as caught:
        paddle_program.operators(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError):
        PaddleRunner(path, legacy[0].params_path)
