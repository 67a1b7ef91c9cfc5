"""The pictures of an engine show what their text says."""

import warnings
from collections import Counter

import pictures
import pytest
from inspection.test_engine_layers import FLAT, IMAGE, LAYERS, X, layer, moved, tensor
from matplotlib.colors import to_hex

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.inspection import dataflow, drawings, engine_layers, maps
from tutorial_utils.inspection.engine_layers import NodeHome


def written(axes):
    """Return what is written in axes."""
    return [text.get_text() for text in axes.texts]


# --- overview and block ----------------------------------------------------------------------------------------------


def test_overview_names_every_layer():
    picture = drawings.overview(LAYERS, "an engine")
    assert "row 0-4: Cast (signal) CorrMulAddRelu pool AddMean" in picture.text
    assert "The 5 layers of an engine in 1 rows" in picture.alt
    assert f"1 {engine_layers.MOVE}" in picture.alt
    (axes,) = pictures.drawn(picture)
    boxes = [left for left, _, _, height in pictures.bars(axes) if height > 0.5]
    assert boxes == pytest.approx([0.08, 1.4, 2.4, 3.4])  # the signal stands between the first two
    assert [text for text in written(axes) if text.isdecimal()] == ["0", "2", "3", "4"]
    assert len(pictures.marks(axes)) == 1
    assert [top > 0.4 for top in pictures.arrows(axes)] == [False, True, True, False]  # arcs go past a kernel


def test_overview_breaks_rows_where_the_resolution_changes_and_where_one_is_full():
    def chain(count, size):
        return [layer(f"k{size}_{i}", writes=[tensor("t", shape=(1, 8, size, size))]) for i in range(count)]

    picture = drawings.overview(chain(4, 8) + chain(20, 4), "it")
    assert [line.split(":")[0] for line in picture.text.split("\n")][1:] == ["row 0-3", "row 4-13", "row 14-23"]
    (axes,) = pictures.drawn(picture)
    rows = Counter(round(bottom, 2) for _, bottom, _, height in pictures.bars(axes) if height > 0.5)
    assert list(rows.values()) == [4, 10, 10]
    assert [text for text in written(axes) if "-" in text] == ["0-3\n8x8", "4-13\n4x4", "14-23\n4x4"]


def test_a_row_is_labelled_by_the_first_and_the_last_resolution_in_it():
    sizes = [layer(f"k{size}", writes=[tensor("t", shape=(1, 8, size, size))]) for size in (16, 8, 4)]
    assert "0-2\n16x16 to\n4x4" in written(*pictures.drawn(drawings.overview(sizes, "it")))


def test_block_shows_tensors_and_nodes():
    picture = drawings.block(LAYERS, 2, 4)
    lines = picture.text.splitlines()
    assert lines[0] == "2 runtime_fusion CorrMulAddRelu"
    assert lines[1] == "  nodes: conv, norm"
    assert lines[2] == "  reads: fp16 NHWC 1x8x4x4 from layer 0"
    assert lines[-2] == "  reads: fp16 NHWC 1x8x4x4 from layer 2; fp16 NHWC 1x8x4x4 from layer 3"
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes).count(0.92) == 3
    assert len(pictures.arrows(axes)) == 2
    assert written(axes).count("from layer 0: fp16 NHWC 1x8x4x4") == 2
    heads = {"2  convolution", "3  pooling", "4  pointwise"}
    assert heads | {"conv, norm", "runtime_fusion __myl_CorrMulAddRelu_myl0_2"} <= set(written(axes))


def test_block_shows_strides_and_what_a_copy_does():
    picture = drawings.block([moved("__myl_Resh_myl0_0", FLAT, IMAGE), moved("__myl_Resh_myl0_1", IMAGE, FLAT)], 0, 1)
    assert "0 kgen Resh: copy, same bytes" in picture.text
    assert "reads: fp16 NHWC 1x1024x196, strides 200704, 1, 1024 from" in picture.text


def test_block_with_a_tensor_that_skips_a_layer():
    skip = (
        layer("a", reads=[X], writes=[tensor("a")]),
        layer("b", reads=[tensor("a")], writes=[tensor("b")]),
        layer("c", reads=[tensor("b"), tensor("a")], writes=[tensor("c")]),
    )
    picture = drawings.block(skip, 0, 2)
    assert "reads: fp16 NHWC 1x8x4x4 from layer 1; fp16 NHWC 1x8x4x4 from layer 0" in picture.text
    (axes,) = pictures.drawn(picture)
    assert len(pictures.arrows(axes)) == 3


# --- maps ------------------------------------------------------------------------------------------------------------


def test_precision_map_lists_runs_of_kernels():
    picture = maps.precision_map({"it": LAYERS})
    assert picture.text.splitlines() == [
        "it, kernels by the type that they write: fp16 3, fp32 1",
        "  types: 0 fp32 to fp16; 2-3 fp16 to fp16; 4 fp16 to fp32",
        "  formats: 0-3 NHWC; 4 NCHW",
    ]
    assert "fp16 3, fp32 1" in picture.alt
    (axes,) = pictures.drawn(picture)
    fills = [one for one in axes.patches if one.get_linewidth() == 0]
    format_band, writes, reads = (
        [to_hex(one.get_facecolor()) for one in fills if one.get_y() == band + 0.08] for band in range(3)
    )
    colours = {name: to_hex(style[0]) for name, style in (maps._DTYPES | maps._FORMATS).items()}
    assert reads == [colours[dtype] for dtype in ("fp32", "fp16", "fp16", "fp16")]
    assert writes == [colours[dtype] for dtype in ("fp16", "fp16", "fp16", "fp32")]
    assert format_band == [colours[name] for name in ("NHWC", "NHWC", "NHWC", "NCHW")]
    assert [x for x, _ in pictures.marks(axes)] == pytest.approx([0.47, 3.47])  # the kernels that change the type


def test_precision_map_of_a_type_that_has_no_colour():
    kernel = layer("k", reads=[tensor("a", "fp4")], writes=[tensor("b", "fp4")])
    picture = maps.precision_map({"it": [kernel]})
    assert "0 fp4 to fp4" in picture.text
    pictures.drawn(picture)


def test_fusion_map_of_a_small_engine_has_a_box_for_each_node():
    homes = (
        NodeHome("conv", "Conv", (0, 2)),
        NodeHome("block/norm", "BatchNormalization", (2,)),
        NodeHome("relu", "Relu", (), engine_layers.UNNAMED, 2),
        NodeHome("same", "Identity", (), engine_layers.VIEW),
    )
    picture = maps.fusion_map(homes, LAYERS)
    assert "4 ONNX nodes, of which 2 are named by 4 kernels; the others: 1 not named, 1 changes no bytes" in picture.alt
    assert picture.text.splitlines()[1:] == [
        "  0 Cast: conv",
        "  2 CorrMulAddRelu: conv, block/norm",
        "  3 pool: no ONNX node",
        "  4 AddMean: no ONNX node",
        "not named; the node before it is in layer 2: relu",
        "changes no bytes: same",
    ]
    (axes,) = pictures.drawn(picture)
    assert [(left, round(bottom + 0.4)) for left, bottom, _, _ in pictures.bars(axes)] == [(0, 0), (0, 1), (1, 1)]
    notes = ["no ONNX node: same type and format", "no ONNX node: fp16 to fp32, NHWC to NCHW"]
    assert written(axes) == ["conv", "conv", "norm", *notes]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer 0", "layer 2", "layer 3", "layer 4"]
    assert axes.get_xlabel() == "named by no layer: relu, same"


def test_fusion_map_of_a_large_engine_is_a_matrix():
    chain = [layer(f"__myl_CorrMulAddRelu_myl0_{i}", nodes=[f"conv{i}"], writes=[X]) for i in range(75)]
    homes = [NodeHome(f"conv{i}", "Conv", (i,)) for i in range(75)]
    homes += [NodeHome("relu", "Relu", (70,)), NodeHome("relu2", "Relu", (70,)), NodeHome("relu3", "Relu", (), "gone")]
    picture = maps.fusion_map(homes, chain)
    assert " 70 CorrMulAddRelu: conv70, relu, relu2" in picture.text.splitlines()
    upper, lower = pictures.drawn(picture)  # 38 and 37 columns
    cells = [(round(left), round(bottom)) for left, bottom, *_ in pictures.bars(upper)]
    assert cells == [(column, 0) for column in range(38)]
    cells = [(round(left), round(bottom)) for left, bottom, *_ in pictures.bars(lower)]
    assert cells == [*((column, 0) for column in range(37)), (70 - 38, 1)]
    assert written(lower) == ["2", "1 unnamed"]


# --- lifetimes -------------------------------------------------------------------------------------------------------


def kernel(name, reads, writes, *nodes):
    sides = [tuple(EngineTensor(one, (-1, 2**18), "fp32", "NHWC") for one in side) for side in (reads, writes)]
    return EngineLayer(name, "kgen", *sides, nodes)


def test_lifetimes():
    layers = (
        kernel("before", "x", "z", "Cast.0"),
        kernel("k0", "z", "a"),
        kernel("k1", "a", "b", "Conv.0", "Relu.0"),
        EngineLayer("wait", "wait", (), (), ()),
        kernel("k2", "ab", "c", "Conv.1", "Add.0"),
        kernel("k3", "c", "y", "Gemm.0"),
    )
    report = BuildReport("TensorRT-RTX", "1", layers=layers)
    names = [engine_layers.nodes_in(one) for one in report.kernels]
    picture = maps.lifetimes(dataflow.from_report(report, batch=1), names)
    alive, steps = picture.text.splitlines()[:3], "\n".join(picture.text.splitlines()[3:])
    assert alive == [
        "alive at the fullest: 1.00 MiB, written by a kgen kernel of no ONNX node",
        "alive at the fullest: 1.00 MiB, written by Conv.0 + Relu.0",
        "alive at the fullest: 1.00 MiB, written by Conv.1 + Add.0",
    ]
    assert steps.splitlines() == [
        "Cast.0: 1.00 MiB alive",
        "a kgen kernel of no ONNX node: 2.00 MiB alive",
        "Conv.0 + Relu.0: 2.00 MiB alive",
        "Conv.1 + Add.0: 3.00 MiB alive",
        "Gemm.0: 1.00 MiB alive",
    ]
    assert "Lifetimes of 4 tensors over 5 steps" in picture.alt
    assert "Most is alive at 1 of the steps, first at Conv.1 + Add.0: 3.00 MiB" in picture.alt
    upper, lower = pictures.drawn(picture)
    lives = [(left, width) for left, _, width, _ in pictures.bars(upper)]
    first_to_last = [(0, 1), (1, 3), (2, 3), (3, 4)]
    assert lives == [pytest.approx((first - 0.45, last - first + 0.9)) for first, last in first_to_last]
    assert pictures.heights(lower) == pictures.near(pictures.numbers(steps, r": ([\d.]+) MiB alive$"))
    listed = [line.removeprefix("alive at the fullest: ") for line in alive]
    assert written(upper) == [
        "a", "b", "c",
        "\n".join(["alive at step 3:", *(f"{one}  {label}" for one, label in zip("abc", listed, strict=True))]),
    ]  # fmt: skip


def test_lifetimes_of_onnx_nodes(fp32_model):
    flow = dataflow.from_onnx(fp32_model, 8)
    picture = maps.lifetimes(flow)
    assert f"{flow.largest_live_set / 2**20:.2f} MiB" in picture.alt
    upper, lower = pictures.drawn(picture)
    assert len(pictures.bars(upper)) == len(flow.lifetimes())
    assert pictures.heights(lower) == pytest.approx(flow.live_bytes() / 2**20)
    assert [label.get_text() for label in lower.get_xticklabels()] == [step.name for step in flow.steps]


def test_names_are_drawn_as_they_are():
    odd = "$^{$ 模型"
    one = layer(odd, "kgen", [X], [tensor("y")], [odd])
    homes = [NodeHome(odd, odd, (0,))]
    flow = dataflow.Dataflow(
        (dataflow.Step(odd, "", ("x",), ("t",)), dataflow.Step(odd, "", ("t",), ("y",))), {"t": 4}, ("x",), ("y",)
    )
    drawn = [
        drawings.overview([one], odd), drawings.block([one], 0, 0), maps.precision_map({odd: [one]}),
        maps.fusion_map(homes, [one]), maps.lifetimes(flow), maps.fusion_map(homes * 20, [one]),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in drawn:
            assert picture._repr_mimebundle_()[0]["image/png"]
    assert plotting.literal(odd) == plotting.literal(plotting.literal(odd)) == r"\$^{\$ \u6a21\u578b"
    assert odd in drawn[1].text, "the text needs no escape"
