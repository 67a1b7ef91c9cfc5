"""Tactics from a log, and their picture. Logs have the real form, and made-up numbers."""

import json

import onnx
import pictures
import pytest

from tutorial_utils.base.errors import BackendUnavailableError, BuildError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.lessons.lesson01 import kernels_figures
from tutorial_utils.lessons.lesson01.kernels_data import Built, Convolution, Tactic, summary

FAST = "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f16_nhwckrsc_nhwc_tilesize64x32x32_g1"
SLOW = "sm80_xmma_fprop_implicit_gemm_indexed_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_stage3_g1_ffma"
LOG = [  # in the form of TensorRT 10
    "=============== Computing reformatting costs for available format set",
    "--------------- Timing Runner: Optimizer Reformat(x -> <out>) (Reformat[0x80000006])",
    "Tactic: 0x00000000000003e8 Time: 0.001",
    "=============== Computing costs for convolution",
    "*************** Autotuning format combination: Float(1,2,3) -> Float(4,5,6) ***************",
    "--------------- Timing Runner: convolution (CaskConvolution[0x80000009])",
    f"Tactic Name: {SLOW} Tactic: 0x5deb29b7a8e275f7 Time: 0.5",
    f"Tactic Name: {FAST} Tactic: 0xd828f024626fa982 Time: 1.25e-1",
    "Tactic Name: a_kernel_that_fails Tactic: 0x1 Time: inf",
    "convolution (CaskConvolution[0x80000009]) profiling completed in 0.08 seconds. Fastest Tactic: 0xd8 Time: 0.125",
    ">>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0xd828f024626fa982",
    "*************** Autotuning format combination: Half(1:4,2) -> Half(1:4,2) ***************",
    "--------------- Timing Runner: convolution (CudaDepthwiseConvolution[0x80000007])",
    "Tactic: 0xffffffffffffffff Time: 0.25",
    "--------------- Timing Runner: Reformatting CopyNode for Output Tensor 0 to convolution (Reformat[0x80000006])",
    "Tactic: 0x0 Time: 0.002",
]


@pytest.fixture
def kernels(any_tensorrt):
    from tutorial_utils.lessons.lesson01 import kernels

    return kernels


def test_tactics_of_a_log(kernels):
    slow, fast, unnamed = kernels.tactics_in(LOG)
    assert (slow.name, slow.ms, slow.computes_in) == (SLOW, 0.5, "fp32")
    assert (fast.name, fast.ms, fast.computes_in) == (FAST, 0.125, "fp16")
    assert slow.formats == "Float(1,2,3) -> Float(4,5,6)"
    assert unnamed == Tactic("CudaDepthwiseConvolution 0xffffffffffffffff", "Half(1:4,2) -> Half(1:4,2)", 0.25)
    assert unnamed.computes_in == ""
    assert kernels.tactics_in(LOG, "another layer") == []


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_convolutions_have_the_shapes_that_they_say(kernels, precision):
    for one in kernels.CONVOLUTIONS:
        model = kernels.model(one, precision)
        onnx.checker.check_model(model, full_check=True)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        (output,) = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
        assert tuple(dim.dim_value for dim in output.type.tensor_type.shape.dim) == one.output
        assert (output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16) == (precision == "fp16")
        assert onnx.numpy_helper.to_array(model.graph.initializer[0]).shape == one.weights


def test_multiply_adds():
    assert Convolution("", 2, 8, 16, 10, 3, stride=2).multiply_adds == 2 * 16 * 25 * 8 * 9
    assert Convolution("", 2, 8, 8, 10, 3, groups=8).multiply_adds == 2 * 8 * 100 * 9


def test_another_tensorrt_has_no_tactics_in_its_log(kernels):
    if installed_flavour() == "tensorrt":
        pytest.skip("data-centre TensorRT is installed")
    with pytest.raises(BackendUnavailableError, match="data-centre"):
        kernels.build(kernels.CONVOLUTIONS[0], "fp16")


SMALL = Convolution("small", 1, 8, 8, 16, 3)


def built(kernels, monkeypatch, messages):
    """Let a build be TensorRT-RTX's of a small convolution, with another log."""
    from dataclasses import replace

    monkeypatch.setattr(kernels.flavour, "require", lambda stack: None)
    monkeypatch.setattr(kernels, "require_gpu", lambda: None)
    monkeypatch.setattr(kernels, "LEVEL", None)
    real, asked = kernels.engine.build, []

    def build(path, options, **named):
        asked.append((options, named))
        options = replace(options, without_flags=())  # TensorRT-RTX refuses to clear TF32
        return replace(real(path, options, **named), messages=tuple(messages))

    monkeypatch.setattr(kernels.engine, "build", build)
    return asked


def test_a_convolution_is_measured(kernels, rtx, runner, monkeypatch):
    asked = built(kernels, monkeypatch, LOG)
    values = json.loads(json.dumps(kernels.measure(SMALL, {})))
    assert [options.without_flags for options, _ in asked] == [("tf32",), (), ()]
    assert all(not named["timing_cache"] and not named["use_cache"] for _, named in asked)
    found = {precision: Built.of(SMALL, one) for precision, one in values.items()}
    assert list(found) == ["fp32", "tf32", "fp16"]
    one = found["fp16"]
    assert (one.fastest.name, one.spread, one.engine_ms) == (FAST, 4, 2)
    assert one.computed == ("fp16",)


def test_a_log_in_another_form_is_no_result(kernels, rtx, runner, monkeypatch):
    built(kernels, monkeypatch, ["Tactic conv: 5 ms"])
    with pytest.raises(BuildError, match="tells of no tactic"):
        kernels.measure(SMALL, {})


# --- reading and drawing, of numbers that nobody measured -----------------------------------------------------------


def one(*tactics, chosen=FAST, computed="fp16"):
    timed = [Tactic(name, "Half -> Half", ms) for name, ms in tactics]
    values = {"chosen": [chosen], "computed": [computed], "engine_ms": 0.5}
    return Built.of(SMALL, {**summary(timed, [chosen]), **values})


def test_of_many_tactics_the_times_and_three_names_are_kept():
    timed = [Tactic(name, "f", ms) for name, ms in (("?", 0.5), (SLOW, 0.75), (FAST, 0.125), ("??", 0.25), ("???", 2))]
    found = summary(timed, [SLOW])
    assert found["times"] == {"": [0.5, 0.25, 2], "fp32": [0.75], "fp16": [0.125]}
    assert found["named"] == [[FAST, "f", 0.125], [SLOW, "f", 0.75], ["???", "f", 2]]
    built = one(("?", 0.5), (SLOW, 0.75), (FAST, 0.125), chosen=SLOW)
    assert (built.count, built.fastest.name, built.spread) == (3, FAST, 6)


def test_picture_of_tactics():
    found = {"small": {"fp32": one((SLOW, 0.5), chosen=SLOW, computed="fp32"), "fp16": one((FAST, 0.125), ("?", 0.5))},
             "large": "It failed."}  # fmt: skip
    picture = kernels_figures.draw_tactics(found)
    (axes,) = pictures.drawn(picture)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["small, FP32", "small, FP16"]
    assert [text.get_text() for text in axes.texts] == ["one timed, 1.0 x", "2 timed, 4.0 x"]
    places = pictures.marks(axes)
    assert places.count((0.125, 1)) == 2  # the tactic, and that the engine has it
    assert places.count((0.5, 1)) == 1
    assert (
        f"small, 8 to 8 channels, 1 x 16x16, FP16: 2 tactics from 0.1250 to 0.5000 ms; the fastest, {FAST}"
        in picture.text
    )
    assert picture.text.endswith("large: not measured. It failed.")


def test_rows_are_read(kernels):
    row = {"stack": 0, "date": "2026"}
    values = {"times": {"fp16": [0.1]}, "named": [[FAST, "f", 0.1]], "chosen": [FAST], "computed": ["fp16"],
              "engine_ms": 0.2}  # fmt: skip
    data = {"stacks": [{}], "rows": {
        "tactics/3x3": {**row, "values": {"fp16": values}},
        "tactics/1x1": {**row, "reason": "It failed."},
    }}  # fmt: skip
    found = kernels.EXPERIMENT.read(data)
    assert found["1x1"] == "It failed."
    built = found["3x3"]["fp16"]
    assert built.is_chosen(built.fastest)
    assert not built.is_chosen(Tactic(SLOW, "f", 0.2))
    assert built.convolution is kernels.CONVOLUTIONS[0]
    assert built.flops == pytest.approx(2000 * built.convolution.multiply_adds / 0.1)


@pytest.mark.gpu
def test_a_small_convolution_on_a_gpu(kernels):
    if installed_flavour() != "tensorrt":
        pytest.skip("of data-centre TensorRT")
    found = {precision: Built.of(SMALL, values) for precision, values in kernels.measure(SMALL, {}).items()}
    assert found["fp32"].computed == ("fp32",)
    assert found["fp16"].computed == ("fp16",)
    for built in found.values():
        assert any(map(built.is_chosen, built.named))
