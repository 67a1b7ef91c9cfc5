"""What differs between engines: the same engine with other serial numbers, and one model in several precisions."""

from dataclasses import replace

import pictures
import pytest
from inspection.test_engine_layers import layer, tensor
from small_models import options

from tutorial_utils.engine import BuildReport, build
from tutorial_utils.lessons.lesson05 import diff

pytest.importorskip("tensorrt_rtx")


def engine_with_serials(first, second):
    return (
        layer(f"__mye{first}_myl0_0", "signal"),
        layer("__myl_Move_myl0_1", writes=[tensor(f"__mye{second}_q8")]),
        layer("fc_myl0_2", "gemm", reads=[tensor(f"__mye{second}_q8")]),
    )


def test_serial_numbers_are_no_difference():
    assert diff.differences(engine_with_serials(5088, 7), engine_with_serials(5476, 8)) == []


def test_serial_numbers_that_name_other_tensors_are_one():
    one, other = engine_with_serials(1, 2), engine_with_serials(1, 2)
    crossed = (*other[:2], replace(other[2], inputs=(tensor("__mye3_q8"),)))
    (line,) = diff.differences(one, crossed)
    assert line.startswith("layer 2: inputs ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "kgen"),
        ("name", "other"),
        ("onnx_nodes", ("fc",)),
        ("inputs", (tensor("__mye2_q8", "fp32"),)),
        ("inputs", (tensor("__mye2_q8", layout="NCHW"),)),
        ("inputs", (tensor("__mye2_q8", shape=(1,)),)),
    ],
)
def test_every_property_is_compared(field, value):
    one = engine_with_serials(1, 2)
    other = (*one[:2], replace(one[2], **{field: value}))
    (line,) = diff.differences(one, other)
    assert line.startswith(f"layer 2: {field} ")


def test_another_number_of_layers():
    assert diff.differences(engine_with_serials(1, 2), ()) == ["3 layers against 0"]


def report(*layers):
    return BuildReport("TensorRT-RTX", "1.7", layers=layers, activation_bytes=2**20, weights_bytes=2**19)


FUSED = report(
    layer("__myl_Move_myl0_0", writes=[tensor("m", "fp32")]),
    layer("__myl_CorrRelu_myl0_1", "runtime_fusion", writes=[tensor("a", "fp32")], nodes=["conv", "relu"]),
    layer("fc_myl0_2", "gemm", writes=[tensor("y", "fp32")], nodes=["fc"]),
)
SPLIT = report(
    layer("conv_myl0_0", "correlation", writes=[tensor("c", "fp32")], nodes=["conv", "q"]),
    layer("wait", "wait"),
    layer("__myl_ReluMulMinMaxRounCast_myl0_1", writes=[tensor("a", "int8")], nodes=["q", "relu"]),
    layer("fc_myl0_2", "gemm", writes=[tensor("y", "fp32")], nodes=["fc", "q"]),
)


def test_aligned_by_the_nodes_that_the_first_model_has_too():
    groups = diff.align_kernels([FUSED, SPLIT])
    assert [group.nodes for group in groups] == [("conv", "relu"), ("fc",), ()]
    assert [len(side) for group in groups for side in group.kernels] == [1, 2, 1, 1, 1, 0]


def test_strides_are_compared_where_both_have_them():
    first, second, unknown = (
        (layer("k", reads=[replace(tensor("x"), strides=strides)]),)
        for strides in ((128, 1, 32, 8), (256, 1, 64, 16), ())
    )
    assert len(diff.differences(first, second)) == 1
    assert diff.differences(first, unknown) == diff.differences(unknown, second) == []


def test_aligned_of_real_engines_has_every_kernel_once(models):
    reports = [build(models[name], options()).report for name in ("fp32", "fp16")]
    groups = diff.align_kernels(reports)
    for index, one in enumerate(reports):
        found = [kernel.name for group in groups for kernel in group.kernels[index]]
        assert sorted(found) == sorted(kernel.name for kernel in one.kernels)


def test_summary_draws_kernels_and_memory():
    picture = diff.summary({"fused": FUSED, "split": SPLIT})
    assert picture.text.splitlines()[1].startswith(
        "split: 3 kernels (1 convolution, 1 matrix product, 1 pointwise/reduction)"
    )
    assert "activations 1.00 MiB, weights 0.50 MiB" in picture.text
    left, *memory = pictures.drawn(picture)
    ends = [(start, round(bottom + 0.35), width) for start, bottom, width, _ in pictures.bars(left)]
    assert ends == [(0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    for axes, pattern in zip(memory, (r"activations ([\d.]+)", r"weights ([\d.]+)"), strict=True):
        assert pictures.widths(axes) == pictures.near(pictures.numbers(picture.text, pattern))


def test_side_by_side_has_every_kernel_with_those_of_the_same_nodes():
    table = diff.side_by_side(diff.align_kernels([FUSED, SPLIT]), {"fused": FUSED, "split": SPLIT})
    assert list(table.itertuples(name=None)) == [
        (("conv, relu", 1), "1 CorrRelu → fp32", "0 conv → fp32"),
        (("conv, relu", 2), "", "2 Relu·Q → int8"),
        (("fc", 1), "2 fc → fp32", "3 fc → fp32"),
        (("no node of the first model", 1), "0 Move → fp32", ""),
    ]
