"""What the layers of an engine are, where ONNX nodes went, and the pictures of both."""

import onnx
import pytest
from onnx import TensorProto, helper
from small_models import options

from tutorial_utils.engine import EngineLayer, EngineTensor
from tutorial_utils.inspection import drawings, engine_layers

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine import build


def tensor(name, dtype="fp16", layout="NHWC", shape=(1, 8, 4, 4)):
    return EngineTensor(name, shape, dtype, layout)


def layer(name, layer_type="kgen", reads=(), writes=(), nodes=()):
    return EngineLayer(name, layer_type, tuple(reads), tuple(writes), tuple(nodes))


X = tensor("x", "fp32", "Linear")
LAYERS = (
    layer("__myl_Cast_myl0_0", reads=[X], writes=[tensor("a")], nodes=["cast", "conv"]),
    layer("__mye12_myl0_1", "signal"),
    layer("__myl_CorrMulAddRelu_myl0_2", "runtime_fusion", [tensor("a")], [tensor("b")], ["conv", "norm"]),
    layer("pool_myl0_3", "maxpool", [tensor("a")], [tensor("c")], ["pool"]),
    layer("__myl_AddMean_myl0_4", "kgen", [tensor("b"), tensor("c")], [tensor("y", "fp32", "Linear")], ["add"]),
)


def test_kinds():
    kinds = [engine_layers.kind(one) for one in LAYERS]
    assert kinds == [
        engine_layers.MOVE, engine_layers.CONTROL, engine_layers.MATRIX, engine_layers.POOLING, engine_layers.POINTWISE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layer_type", "kind"),
    [
        ("Conv.7_myl0_14", "correlation", engine_layers.MATRIX),
        ("fc_myl0_1", "gemm", engine_layers.MATRIX),
        ("__myl_FcMulAdd_myl0_3", "runtime_fusion", engine_layers.MATRIX),
        ("up_myl0_3", "deconv", engine_layers.MATRIX),
        ("conv0 + relu0", "CaskConvolution", engine_layers.MATRIX),  # TensorRT 10
        ("Reformatting CopyNode for Input Tensor 0", "Reformat", engine_layers.MOVE),  # TensorRT 10
        ("PWN(relu)", "PointWiseV2", engine_layers.POINTWISE),  # TensorRT 10
        ("__myl_MulMinMaxRounCastReplConc_myl0_1", "kgen", engine_layers.POINTWISE),
        ("__myl_TranMove_myl0_1", "kgen", engine_layers.MOVE),
        ("shapes", "shape_call", engine_layers.CONTROL),
    ],
)
def test_kind_of_other_layers(name, layer_type, kind):
    assert engine_layers.kind(layer(name, layer_type)) == kind


def test_names():
    assert engine_layers.operations(LAYERS[2]) == ("Corr", "Mul", "Add", "Relu")
    assert engine_layers.operations(LAYERS[3]) == ()
    assert [engine_layers.short_name(one) for one in LAYERS[2:4]] == ["CorrMulAddRelu", "pool"]


def test_conversion():
    assert engine_layers.conversion(LAYERS[0]) == "fp32 to fp16, Linear to NHWC"
    assert engine_layers.conversion(LAYERS[2]) == "same type and format"
    assert engine_layers.conversion(LAYERS[1]) == "nothing to convert"


def test_edges_lead_from_the_last_layer_that_wrote_a_tensor():
    ends = [(edge.source, edge.target, edge.tensor.name) for edge in engine_layers.edges(LAYERS)]
    assert ends == [(None, 0, "x"), (0, 2, "a"), (0, 3, "a"), (2, 4, "b"), (3, 4, "c")]


def test_fates():
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Constant", [], ["w"], "weight", value_float=1.0),
        helper.make_node("Identity", ["w"], ["w2"], "same"),
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Conv", ["half", "w2"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "shape"], ["v"], "view"),
        helper.make_node("Relu", ["c"], ["nobody reads this"], "dead"),
        helper.make_node("Add", ["v", "v"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    named = (*LAYERS[:4], layer("last", nodes=["node_of_y"]))
    found = {fate.node: (fate.layers, fate.reason) for fate in engine_layers.fates(graph, named)}
    assert found == {
        "cast": ((0,), ""),
        "weight": ((), engine_layers.FOLDED),
        "same": ((), engine_layers.FOLDED),
        "shape": ((), engine_layers.FOLDED),
        "conv": ((0, 2), ""),
        "relu": ((), "not named; the node before it is in layer 2"),
        "view": ((), engine_layers.VIEW),
        "dead": ((), engine_layers.UNUSED),
        "node_of_y": ((4,), ""),
    }


def test_every_node_of_a_real_engine_has_a_fate(models):
    graph = onnx.load(models["fp16"]).graph
    layers = build(models["fp16"], options()).report.layers
    fates = engine_layers.fates(graph, layers)
    assert [fate.node for fate in fates] == [node.name for node in graph.node]
    assert all(bool(fate.layers) != bool(fate.reason) for fate in fates)
    assert all(fate.node in layers[position].onnx_nodes for fate in fates for position in fate.layers)
    assert {fate.node for fate in fates if fate.layers} >= {"conv0", "relu0", "conv1", "sum", "fc"}


# --- pictures --------------------------------------------------------------------------------------------------------


def drawn(picture):
    """Return the text of a picture, after making sure that it can be drawn."""
    assert picture._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
    return picture.text


def test_overview_names_every_layer():
    picture = drawings.overview(LAYERS, "an engine")
    assert "row 0-4: Cast (signal) CorrMulAddRelu pool AddMean" in drawn(picture)
    assert "The 5 layers of an engine in 1 rows" in picture.alt
    assert f"1 {engine_layers.MOVE}" in picture.alt


def test_overview_breaks_rows_where_the_resolution_changes_and_where_one_is_full():
    def chain(count, size):
        return [layer(f"k{size}_{i}", writes=[tensor("t", shape=(1, 8, size, size))]) for i in range(count)]

    rows = [line.split(":")[0] for line in drawn(drawings.overview(chain(4, 8) + chain(20, 4), "it")).split("\n")]
    assert rows[1:] == ["row 0-3", "row 4-18", "row 19-23"]


def test_block_shows_tensors_and_nodes():
    lines = drawn(drawings.block(LAYERS, 2, 4)).splitlines()
    assert lines[0] == "2 runtime_fusion CorrMulAddRelu"
    assert lines[1] == "  nodes: conv, norm"
    assert lines[2] == "  reads: fp16 NHWC 1x8x4x4 from layer 0"
    assert lines[-2] == "  reads: fp16 NHWC 1x8x4x4 from layer 2; fp16 NHWC 1x8x4x4 from layer 3"


def test_block_with_a_tensor_that_skips_a_layer():
    skip = (
        layer("a", reads=[X], writes=[tensor("a")]),
        layer("b", reads=[tensor("a")], writes=[tensor("b")]),
        layer("c", reads=[tensor("b"), tensor("a")], writes=[tensor("c")]),
    )
    assert "reads: fp16 NHWC 1x8x4x4 from layer 1; fp16 NHWC 1x8x4x4 from layer 0" in drawn(drawings.block(skip, 0, 2))


def test_precision_map_lists_runs_of_kernels():
    picture = drawings.precision_map({"it": LAYERS})
    assert drawn(picture).splitlines() == [
        "it, kernels by the type that they write: fp16 3, fp32 1",
        "  types: 0 fp32 to fp16; 2-3 fp16 to fp16; 4 fp16 to fp32",
        "  formats: 0-3 NHWC; 4 Linear",
    ]
    assert "fp16 3, fp32 1" in picture.alt


def test_precision_map_of_a_type_that_has_no_colour():
    kernel = layer("k", reads=[tensor("a", "fp4")], writes=[tensor("b", "fp4")])
    assert "0 fp4 to fp4" in drawn(drawings.precision_map({"it": [kernel]}))


def test_fusion_map_counts_what_no_layer_names():
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("Relu", ["c"], ["r"], "relu"),
            helper.make_node("Add", ["r", "r"], ["y"], "add"),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    picture = drawings.fusion_map(engine_layers.fates(graph, LAYERS), LAYERS)
    assert "3 ONNX nodes, of which 2 are named by 4 kernels; the others: 1 not named" in picture.alt
    lines = drawn(picture).splitlines()
    assert "  2 CorrMulAddRelu: conv" in lines
    assert lines[-1] == "not named; the node before it is in layer 2: relu"
