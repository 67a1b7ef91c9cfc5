import json
import resource
import sys
import warnings
from types import SimpleNamespace

import onnx
import pytest
from onnx import helper
from small_models import options, residual_model

from tutorial_utils.base.errors import BuildError, ModelFileError, ProfileError, UnsupportedOperatorError
from tutorial_utils.base.progress import PROGRESS_VARIABLE
from tutorial_utils.engine import BuildOptions, BuildReport, Profile, ShapeRange, build

trt = pytest.importorskip("tensorrt_rtx")

TARGETS = ["8.6", "12.0"]
int8_builds = pytest.mark.skipif(
    tuple(map(int, trt.__version__.split(".")[:2])) < (1, 7), reason="TensorRT-RTX builds INT8 from 1.7 on"
)
PRECISIONS = ["fp32", "fp16", pytest.param("int8", marks=int8_builds)]


def build_fresh(path, *, configure=None, **changes):
    wanted = options(**{"compute_capabilities": TARGETS[:1], **changes})
    return build(path, wanted, configure=configure, use_cache=False)


@pytest.fixture(scope="module")
def engines(models):
    """Build each precision and target when it is first asked for."""
    built = {}

    def get(precision, target=TARGETS[0]):
        if (precision, target) not in built:
            built[precision, target] = build_fresh(models[precision], compute_capabilities=[target])
        return built[precision, target]

    return get


# --- what a build makes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_build(precision, target, engines):
    engine = engines(precision, target)
    report = engine.report
    assert (report.flavour, report.version, report.targets) == ("TensorRT-RTX", trt.__version__, (target,))
    assert report.plan_bytes == len(engine.plan) > 10_000
    assert report.parse_seconds > 0
    assert report.build_seconds > 0
    assert not engine.from_cache
    assert engine.cache_folder is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_report_proves_the_precision(precision, engines):
    """Each kernel that holds a convolution reads and writes the data type that the ONNX file asks for."""
    report = engines(precision).report
    convolutions = [kernel for kernel in report.kernels if kernel.type == "correlation"]
    assert len(convolutions) == 2
    for kernel in convolutions:
        assert kernel.inputs[0].dtype == precision
    others = {"fp32", "fp16", "int8"} - {precision}
    if precision == "fp32":
        assert not others & set(report.kernel_dtypes)
    else:
        assert report.kernel_dtypes[precision] >= 3


def test_report_names_the_fused_onnx_nodes(engines):
    kernels = engines("fp32").report.kernels
    nodes = [set(kernel.onnx_nodes) for kernel in kernels]
    assert {"conv0", "relu0"} in nodes, "a ReLU is fused into its convolution"
    assert any({"norm", "sum", "relu1", "pool"} <= fused for fused in nodes), "what follows conv1 is one kernel"
    assert {"conv0", "conv1", "fc"} <= set().union(*nodes)
    assert len(kernels) < len(residual_model().graph.node)


def test_report_has_shapes_and_formats(engines):
    report = engines("fp32").report
    tensors = [tensor for kernel in report.kernels for tensor in (*kernel.inputs, *kernel.outputs)]
    assert {"NHWC", "NCHW"} <= {tensor.format for tensor in tensors}
    network_input = next(tensor for tensor in tensors if tensor.name == "x")
    assert (network_input.shape, network_input.dtype, network_input.format) == ((-1, 3, 32, 32), "fp32", "NCHW")
    assert next(tensor for tensor in tensors if tensor.name == "y").shape == (-1, 10)


def test_report_has_memory(engines):
    fp32, fp16 = engines("fp32").report, engines("fp16").report
    assert fp32.weights_bytes > fp16.weights_bytes > 0
    # The largest tensor is the first convolution's output, at the largest batch of the profile.
    assert fp32.activation_bytes >= 16 * 16 * 32 * 32 * 4


def test_layers_that_only_order_work_are_no_kernels(engines):
    report = engines("fp32").report
    assert set(report.kernels) < set(report.layers)
    assert all(kernel.outputs for kernel in report.kernels)


def test_report_survives_json(engines):
    report = engines("fp16").report
    copy = BuildReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert copy == report
    assert hash(copy) == hash(report), "lists must come back as tuples"


@pytest.mark.parametrize("verbosity", ["LAYER_NAMES_ONLY", "NONE"])
def test_report_has_layers_at_detailed_verbosity_only(verbosity, fp32_model, recwarn):
    def configure(network, config):
        config.profiling_verbosity = getattr(trt.ProfilingVerbosity, verbosity)

    report = build_fresh(fp32_model, configure=configure).report
    assert report.layers == ()
    assert not recwarn.list
    assert report.activation_bytes
    assert report.weights_bytes


def test_log_in_an_unknown_form_gives_a_warning_each_time(fp32_model, monkeypatch, recwarn):
    monkeypatch.setattr("tutorial_utils.engine.report.layers_from_log", lambda messages: ())
    warnings.simplefilter("default")  # which shows a warning once for each place
    for count in (1, 2):
        assert build_fresh(fp32_model).report.layers == ()
        texts = [str(one.message) for one in recwarn if "no layers: the log of" in str(one.message)]
        assert len(texts) == count


def test_several_profiles_and_targets(fp32_model):
    profiles = [Profile.batch("x", (3, 32, 32), opt=1, max=1), Profile.batch("x", (3, 32, 32), min=8, opt=16, max=32)]
    report = build_fresh(fp32_model, profiles=profiles, compute_capabilities=TARGETS).report
    assert report.targets == tuple(TARGETS)
    assert report.layers


def test_static_model_needs_no_profile(tmp_path):
    model = residual_model()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "static.onnx")
    assert build_fresh(tmp_path / "static.onnx", profiles=[]).report.layers


def test_external_weights_are_read(tmp_path):
    onnx.save(residual_model(), tmp_path / "model.onnx", save_as_external_data=True, location="w", size_threshold=0)
    assert build_fresh(tmp_path / "model.onnx").report.layers


def test_progress_bar_for_a_person(fp32_model, monkeypatch, capfd):
    monkeypatch.setenv(PROGRESS_VARIABLE, "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    build_fresh(fp32_model)
    shown = capfd.readouterr().err
    assert shown.startswith("\rBuilding fp32.onnx:   0%")
    assert shown.endswith("\r"), "the bar should leave nothing behind"


def test_progress_bar_is_silent_in_a_headless_run(fp32_model, monkeypatch, capfd):
    monkeypatch.setenv(PROGRESS_VARIABLE, "0")
    build_fresh(fp32_model)
    assert capfd.readouterr().err == ""


def test_no_progress_bar_where_none_is_wanted(fp32_model, monkeypatch):
    made = []
    monkeypatch.setattr("tutorial_utils.base.progress.bar", lambda **named: made.append(named))
    build(fp32_model, options(), use_cache=False, progress=False)
    assert made == []


# --- options and profiles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (Profile.batch("z", (3, 32, 32), opt=1, max=2), "ranges for z, but the dynamic inputs are x"),
        (Profile.from_mapping({}), "ranges for nothing, but the dynamic inputs are x"),
        (Profile.batch("x", (3, 16, 16), opt=1, max=2), r"doesn't fit the input x of shape \(-1, 3, 32, 32\)"),
        (Profile.of(x=((1, 3, 32, 32), (2, 3, 32, 32), (2, 3, 64, 32))), "doesn't fit the input x"),
        (Profile.of(x=((1, 3, 16, 32), (2, 3, 32, 32), (2, 3, 32, 32))), "doesn't fit the input x"),
        (Profile.batch("x", (3, 32), opt=1, max=2), "doesn't fit the input x"),
        (None, r"x has the dynamic shape \(-1, 3, 32, 32\), and there is no profile"),
    ],
    ids=[
        "unknown name",
        "missing input",
        "static dimension changed",
        "static dimension varies",
        "static dimension begins lower",
        "rank",
        "none",
    ],
)
def test_profile_that_does_not_fit_the_model(profile, message, fp32_model):
    with pytest.raises(ProfileError, match=message):
        build_fresh(fp32_model, profiles=[profile] if profile else [])


def test_profile_gives_its_ranges_by_name():
    profile = Profile.of(b=([1], [2], [3]), a=ShapeRange((4,), (5,), (6,)))
    assert profile["a"] == ShapeRange((4,), (5,), (6,))
    assert profile["b"].max == (3,)


# --- the hook --------------------------------------------------------------------------------------------------------


def test_the_hook_is_called_once_with_network_and_configuration(fp32_model):
    calls = []

    def configure(network, config):
        calls.append((type(network), type(config), network.num_inputs, config.num_optimization_profiles))

    built = build_fresh(fp32_model, configure=configure)
    assert calls == [(trt.INetworkDefinition, trt.IBuilderConfig, 1, 1)], "both are ready, profiles included"
    assert built.configure is configure


def test_a_flag_of_the_hook_reaches_the_build(fp32_model):
    built = build_fresh(fp32_model, configure=lambda network, config: config.clear_flag(trt.BuilderFlag.TF32))
    assert b"tf32=0" in built.plan
    assert b"tf32=0" not in build_fresh(fp32_model).plan


def test_a_network_that_the_hook_changes_is_built(fp32_model):
    def configure(network, config):
        network.get_output(0).name = "logits"

    layers = build_fresh(fp32_model, configure=configure).report.layers
    assert "logits" in {tensor.name for layer in layers for tensor in layer.outputs}


def test_an_error_in_the_hook_comes_through(fp32_model):
    def configure(network, config):
        raise LookupError("no such flag")

    with pytest.raises(LookupError, match="no such flag"):
        build_fresh(fp32_model, configure=configure)


def test_what_tensorrt_answers_to_the_hook_is_checked(fp32_model):
    def configure(network, config):
        profile = network.builder.create_optimization_profile()
        profile.set_shape("x", (16, 3, 32, 32), (8, 3, 32, 32), (1, 3, 32, 32))
        return config.add_optimization_profile(profile)  # -1: its shapes are in the wrong order

    with pytest.raises(BuildError, match=r"TensorRT refuses what configure asks for: .*profile"):
        build_fresh(fp32_model, configure=configure)
    build_fresh(fp32_model, configure=lambda network, config: config.num_optimization_profiles)  # 1 is no failure


def test_an_engine_has_the_messages_of_its_build(fp32_model, tmp_path):
    first, second = (build(fp32_model, options(), cache_folder=tmp_path) for _ in range(2))
    assert any(text.startswith("Layers:") for text in first.messages)
    assert second.messages == ()


# --- refused builds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operator", "domain"), [("NonZero", ""), ("Frobnicate", "my.domain")])
def test_unsupported_operator_is_named(operator, domain, tmp_path):
    kind = onnx.TensorProto.INT64 if operator == "NonZero" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)],
        "odd",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "odd.onnx")
    with pytest.raises(UnsupportedOperatorError, match=rf"can't convert {operator} in odd\.onnx"):
        build_fresh(tmp_path / "odd.onnx", profiles=[])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_damaged_model(damage, use_cache, damaged_models, tmp_path):
    with pytest.raises(ModelFileError, match=damage):
        build(damaged_models[damage], options(), cache_folder=tmp_path, use_cache=use_cache)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_missing_external_weights(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match=r"weights\.bin"):
        build(path, options(), cache_folder=tmp_path / "cache")
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        build_fresh(path)


def test_one_target_may_be_given_as_a_string():
    assert BuildOptions(compute_capabilities="8.6").compute_capabilities == ("8.6",)


@pytest.mark.parametrize(
    ("refused", "shapes"), [("", {"x": (4, 3, 32, 32)}), ("shape tensor", {}), ("memory", {}), ("shape", {})]
)
def test_formats_are_asked_for_at_the_shapes_that_the_profile_is_best_at(refused, shapes):
    """As data-centre TensorRT needs it; without a context, formats stay unknown."""
    from tutorial_utils.engine import builder

    given = {}
    context = SimpleNamespace(
        set_input_shape=lambda name, shape: refused != "shape" and not given.update({name: shape})
    )
    modes = {"x": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}
    loaded = SimpleNamespace(
        num_io_tensors=2, get_tensor_name=["x", "y"].__getitem__, get_tensor_mode=modes.__getitem__,
        is_shape_inference_io=lambda name: refused == "shape tensor",
        create_execution_context=lambda: None if refused == "memory" else context,
        get_tensor_profile_shape=lambda name, profile: [(1, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32)],
    )  # fmt: skip
    assert builder._context_at_best_shapes(loaded) is (None if refused else context)
    assert given == shapes


def test_a_build_may_go_deep_and_leaves_the_limit_as_it_was(fp32_model, monkeypatch):
    """A chain of 5,000 operators ends TensorRT-RTX 1.7.1 on the usual stack; such a build takes half a minute."""
    seen = []
    before = resource.getrlimit(resource.RLIMIT_STACK)

    class Deep(trt.Builder):
        def build_serialized_network(self, network, config):
            seen.append(resource.getrlimit(resource.RLIMIT_STACK)[0])
            return super().build_serialized_network(network, config)

    monkeypatch.setattr(trt, "Builder", Deep)
    build(fp32_model, options(), use_cache=False, progress=False)
    assert seen[0] in (before[1], resource.RLIM_INFINITY) or seen[0] >= 100 << 20
    assert resource.getrlimit(resource.RLIMIT_STACK) == before
