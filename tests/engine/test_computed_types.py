"""What an engine computes in, from layers as TensorRT describes them."""

from pathlib import Path

import pytest

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor, computed_types
from tutorial_utils.engine.computed_types import (
    ATTENTION,
    BY_NOTHING,
    BY_OPERANDS,
    BY_TACTIC,
    BY_TENSORS,
    CONVOLUTION,
    FP32_OR_TF32,
    OPAQUE,
    PRODUCT,
    UNKNOWN,
    of_layer,
)
from tutorial_utils.engine.report import layers_from_inspector

# What TensorRT 10.6's inspector said on an H100 of the quick classifier, built from its FP32 file with the flag BF16.
BF16_BY_FLAG = Path(__file__).parent / "data" / "quick_bf16_flag_inspector_trt_10.6.json"


def layer(kind, reads=(), tactic="", weights="", name="one", writes=("fp32",)):
    sides = [tuple(EngineTensor(f"{side}{i}", (1, 8), dtype, "Linear") for i, dtype in enumerate(types))
             for side, types in (("in", reads), ("out", writes))]  # fmt: skip
    return EngineLayer(name, kind, *sides, (), tactic, weights)


@pytest.mark.parametrize(
    ("tactic", "dtype"),
    [
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x32_stage5", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x64x16", "tf32"),
        ("sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x128x32", "tf32"),  # FP32 in memory
        ("sm80_xmma_fprop_implicit_gemm_indexed_f32f32_f32f32_f32_nhwckrsc_nhwc", "fp32"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "bf16"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f32_i8i32_f32_nchw_vect_c_32kcrs", "int8"),  # writes FP32
        ("sm89_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn_n_tilesize64x64x64", "fp8"),
        ("volta_int8x4_icudnn_int8x4_128x32_relu_xregs_small_c32_nn_v1", "int8"),
        ("volta_fp32_icudnn_int8x4_128x64_sliced1x2_ldg2_ldg1_relu_exp_interior_nhwc_linkable_tn_v1", "int8"),
        ("turing_fp16_i8816cudnn_int8_128x128_ldg16_relu_interior_nt_v1", "int8"),
        ("trt_volta_s884cudnn_fp16_128x128_ldg8_relu_exp_interior_nhwc2nchw_tn_v1", "fp16"),
        ("trt_volta_fp16x2_hcudnn_winograd_fp16x2_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "fp16"),
        ("ampere_fp16_s16816gemm_fp16_256x128_ldg8_f2f_gelu_nn_v1", "fp16"),
        ("sm50_xmma_conv_fprop_fused_conv_act_fp32_NCHW_fp32_NCHW_KCRS_fp32_fp32_fp32_Accfloat_1_1", "fp32"),
        ("ampere_scudnn_128x64_relu_small_nn_v1", "fp32"),
        ("trt_ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "fp32"),
        ("ampere_h16816gemm_128x64_ldg8_nn_v1", "fp16"),
        ("ampere_sgemm_int8_128x32_sliced1x4_nn_v1", "int8"),
        (
            "cutlass_80_tensorop_s1688gemm_256x64_16x4_nn_align4",
            None,
        ),  # sums of what, it leaves out
        # Read in one type and multiplied in another: what is read counts, and the layer's tensors say that.
        ("sm70_xmma_depthwise_convolution_fprop_tiling_f16f16_f32f32_f32_nhwckrsc_nhwc_tilesize1x10x10", None),
        ("__myl_FcAdd_0x19b7995d047af09959ee49bcd73df9e7", None),
        ("__myelin_CASK_STUB", None),
        ("", None),
    ],
)
def test_names_of_tactics(tactic, dtype):
    assert computed_types.of_tactic(tactic) == dtype


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        # The name of the tactic counts most: asked for BF16, the tensors hold FP32, and TF32 is what it multiplies in.
        (layer("CaskConvolution", ["fp32"], "sm80_xmma_fprop_tf32f32_tf32f32_f32_", "fp32"),
         (CONVOLUTION, "tf32", BY_TACTIC)),
        (layer("CaskConvolution", ["N/A due to dynamic shapes"], weights="int8"), (CONVOLUTION, "int8", BY_OPERANDS)),
        (layer("CudaDepthwiseConvolution", ["int8"], weights="int8"), (CONVOLUTION, "int8", BY_OPERANDS)),
        (layer("correlation", ["fp16"], "__myelin_CASK_STUB", "fp16"), (CONVOLUTION, "fp16", BY_OPERANDS)),
        (layer("correlation", ["fp32"], "__myelin_CASK_STUB", "fp32"), (CONVOLUTION, FP32_OR_TF32, BY_OPERANDS)),
        (layer("correlation", ["fp16"], weights="int8"), (CONVOLUTION, UNKNOWN, BY_NOTHING)),
        (layer("gemm", ["fp8", "fp8"]), (PRODUCT, "fp8", BY_OPERANDS)),
        (layer("gemm", ["fp16", "fp32"], weights="fp16"), (PRODUCT, "fp16", BY_OPERANDS)),  # a sum follows in it
        (layer("gemm", ["fp16", "int8"]), (PRODUCT, UNKNOWN, BY_NOTHING)),
        (layer("gemm"), (PRODUCT, UNKNOWN, BY_NOTHING)),
        (layer("kgen", ["int64", "fp16"], weights="fp16", name="__myl_FcAdd_myl0_2"), (PRODUCT, "fp16", BY_OPERANDS)),
        (layer("kgen", ["int8", "int8", "fp32", "int8"], "_gemm_mha_v2_0x1af7", name="_gemm_mha_v2_myl0_5"),
         (ATTENTION, "int8", BY_OPERANDS)),
        (layer("Myelin", ["fp16"], name="{ForeignNode[MatMul.0...Add.3]}"), (OPAQUE, UNKNOWN, BY_NOTHING)),  # 8.6
        (layer("kgen", ["fp16"], writes=["fp16"], name="__myl_MulAdd_myl0_2"), ("", "fp16", BY_TENSORS)),
        (layer("kgen", ["fp16"], writes=["fp32"], name="__myl_Cast_myl0_2"), ("", UNKNOWN, BY_TENSORS)),
        (layer("NoOp", ["int64"], writes=["bool"]), ("", UNKNOWN, BY_NOTHING)),
        (layer("signal", writes=[]), ("", UNKNOWN, BY_NOTHING)),
    ],
)  # fmt: skip
def test_layers(one, expected):
    found = of_layer(one)
    assert (found.operation, found.dtype, found.evidence) == expected


INT8 = layer("CaskConvolution", ["int8"], "sm80_xmma_fprop_i8i8_i8i32_f32_nhwc", "int8")
HALF = layer("CaskConvolution", ["fp16"], "sm80_xmma_fprop_f16f16_f16f16_f16_nhwc", "fp16")
STRANGE = layer("gemm", ["fp16", "int8"])
OTHER = layer("kgen", ["fp16"], name="__myl_MulAdd_myl0_2")


def test_line():
    report = BuildReport("TensorRT", "10.6.0", layers=(INT8, HALF, INT8, OTHER, STRANGE))
    assert report.precision_line == (
        "2 of 3 convolutions compute in INT8, 1 in FP16; 1 of 1 matrix products compute in an unknown type "
        "(by tactic name: 3, nothing: 1)"
    )
    assert computed_types.totals(report.layers) == {"int8": 2, "fp16": 1, "unknown": 1}
    assert computed_types.counted(report.layers)[CONVOLUTION] == {"int8": 2, "fp16": 1}


def test_line_of_what_is_not_known():
    assert computed_types.line(()) == "not known: the report has no layers"
    assert computed_types.line([OTHER]) == "no convolution, matrix product or attention"
    assert not computed_types.totals([OTHER])


def test_table_names_the_evidence():
    lines = computed_types.table([INT8, OTHER, layer("correlation", ["fp32"], "__myelin_CASK_STUB", "fp32")])
    assert lines.splitlines() == [
        "convolution  int8          tactic name    one: sm80_xmma_fprop_i8i8_i8i32_f32_nhwc",
        "convolution  fp32 or tf32  operand types  one: fp32 and fp32",
    ]


def test_an_engine_asked_for_bf16_that_is_none():
    layers = layers_from_inspector(BF16_BY_FLAG.read_text())
    assert BuildReport("TensorRT", "10.6.0", layers=layers).precision_line == (
        "9 of 9 convolutions compute in TF32; 1 of 1 matrix products compute in TF32 (by tactic name: 10)"
    )
    first = next(one for one in layers if one.type == "CaskConvolution")
    assert first.tactic.startswith("sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f32f32_tf32f32_f32_nhwckrsc_nhwc_")
    assert (first.weights, first.dtypes) == ("fp32", ("fp32",))
    assert first.onnx_nodes == ("Conv.0", "BatchNormalization.0", "Relu.0")
