"""What the layers of an engine are, and where ONNX nodes went."""

from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper
from small_models import options

from tutorial_utils.engine import EngineLayer, EngineTensor, memory_format
from tutorial_utils.inspection import engine_layers

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine import build


def tensor(name, dtype="fp16", layout="NHWC", shape=(1, 8, 4, 4)):
    return EngineTensor(name, shape, dtype, layout)


def layer(name, layer_type="kgen", reads=(), writes=(), nodes=()):
    return EngineLayer(name, layer_type, tuple(reads), tuple(writes), tuple(nodes))


X = tensor("x", "fp32", "NCHW")
LAYERS = (
    layer("__myl_Cast_myl0_0", reads=[X], writes=[tensor("a")], nodes=["cast", "conv"]),
    layer("__mye12_myl0_1", "signal"),
    layer("__myl_CorrMulAddRelu_myl0_2", "runtime_fusion", [tensor("a")], [tensor("b")], ["conv", "norm"]),
    layer("pool_myl0_3", "maxpool", [tensor("a")], [tensor("c")], ["pool"]),
    layer("__myl_AddMean_myl0_4", "kgen", [tensor("b"), tensor("c")], [tensor("y", "fp32", "NCHW")], ["add"]),
)


def test_kinds():
    kinds = [engine_layers.kind(one) for one in LAYERS]
    assert kinds == [
        engine_layers.MOVE, engine_layers.CONTROL, engine_layers.CONVOLUTION, engine_layers.POOLING,
        engine_layers.POINTWISE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layer_type", "kind"),
    [
        ("Conv.7_myl0_14", "correlation", engine_layers.CONVOLUTION),
        ("fc_myl0_1", "gemm", engine_layers.PRODUCT),
        ("__myl_FcMulAdd_myl0_3", "runtime_fusion", engine_layers.PRODUCT),
        ("up_myl0_3", "deconv", engine_layers.CONVOLUTION),
        ("conv0 + relu0", "CaskConvolution", engine_layers.CONVOLUTION),  # TensorRT 10
        ("Reformatting CopyNode for Input Tensor 0", "Reformat", engine_layers.MOVE),  # TensorRT 10
        ("PWN(relu)", "PointWiseV2", engine_layers.POINTWISE),  # TensorRT 10
        ("_gemm_mha_v2_myl0_5", "kgen", engine_layers.ATTENTION),
        ("{ForeignNode[a...b]}", "Myelin", engine_layers.OPAQUE),  # TensorRT 8
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
    assert engine_layers.conversion(LAYERS[0]) == "fp32 to fp16, NCHW to NHWC"
    assert engine_layers.conversion(LAYERS[2]) == "same type and format"
    assert engine_layers.conversion(LAYERS[1]) == "nothing to convert"


def test_a_product_that_is_written_out():
    """Of one image, TensorRT-RTX multiplies and adds in a kernel of its own: the last of ResNet-50."""
    one = layer("__myl_ReshMulSumAddCast_myl0_72", reads=[X], writes=[X], nodes=["MatMul.0"])
    assert engine_layers.kind(one) == engine_layers.POINTWISE, "a reduction, where it has no weights"
    assert engine_layers.kind(replace(one, weights="fp16")) == engine_layers.PRODUCT


def moved(name, source, target, layer_type="kgen"):
    """Return a layer that reads and writes one tensor each, given as type, shape and strides."""
    sides = [EngineTensor(one, shape, dtype, memory_format.of_strides(shape, strides), strides)
             for one, (dtype, shape, strides) in zip("ab", (source, target), strict=True)]  # fmt: skip
    return layer(name, layer_type, sides[:1], sides[1:])


# Kernel 37 of ResNet-50 FP16, and the first: what TensorRT-RTX says of both.
FLAT = "fp16", (1, 1024, 196), (200704, 1, 1024)
IMAGE = "fp16", (1, 1024, 14, 14), (200704, 1, 14336, 1024)
NCHW = "fp32", (1, 3, 224, 224), (150528, 50176, 224, 1)
PADDED = "fp16", (1, 4, 224, 224), (200704, 1, 896, 4)


@pytest.mark.parametrize(
    ("name", "source", "target", "word", "says"),
    [
        ("__myl_Resh_myl0_37", FLAT, IMAGE, "copy", "copy, same bytes"),
        ("__myl_Resh_myl0_37", IMAGE, FLAT, "copy", "copy, same bytes"),
        ("__myl_Resh_myl0_1", FLAT, ("fp16", (1, 1024, 14, 14), (200704, 196, 14, 1)), "reformat", "NHWC to NCHW"),
        # A transpose that moves nothing can't be told from one that does, whose sizes are alike.
        ("__myl_Tran_myl0_1", FLAT, IMAGE, "copy", "transposes"),
        ("__myl_Cast_myl0_1", FLAT, ("fp32", *FLAT[1:]), "cast", "fp16 to fp32"),
        ("__myl_CastConc_myl0_0", NCHW, PADDED, "reformat", "fp32 to fp16, NCHW to NHWC, 3 channels padded to 4"),
    ],
)
def test_a_copy_of_the_same_bytes_is_no_reformat(name, source, target, word, says):
    one = moved(name, source, target)
    assert (engine_layers.kind_word(one), engine_layers.conversion(one)) == (word, says)
    assert engine_layers.copies_only(one) == (says == engine_layers.SAME_BYTES)


def test_without_strides_nothing_says_that_a_copy_keeps_its_bytes():
    """As reports of TensorRT 10 are: a reformat is called one by its type."""
    unknown = EngineTensor("x", (1, 8, 4, 4), "fp16", memory_format.UNKNOWN)
    one = layer("Reformatting CopyNode for Input Tensor 0", "Reformat", [unknown], [unknown])
    assert (engine_layers.copies_only(one), engine_layers.kind_word(one)) == (False, "reformat")
    nothing = layer("Identity.7", "NoOp", [unknown], [unknown])
    assert (engine_layers.kind(nothing), engine_layers.conversion(nothing)) == (
        engine_layers.MOVE, "nothing: TensorRT's NoOp",
    )  # fmt: skip


def test_edges_lead_from_the_last_layer_that_wrote_a_tensor():
    ends = [(edge.source, edge.target, edge.tensor.name) for edge in engine_layers.edges(LAYERS)]
    assert ends == [(None, 0, "x"), (0, 2, "a"), (0, 3, "a"), (2, 4, "b"), (3, 4, "c")]


def test_node_homes():
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
    homes = engine_layers.node_homes(graph, named)
    found = {home.node: (home.layers, home.reason) for home in homes}
    assert found == {
        "cast": ((0,), ""),
        "weight": ((), engine_layers.FOLDED),
        "same": ((), engine_layers.FOLDED),
        "shape": ((), engine_layers.FOLDED),
        "conv": ((0, 2), ""),
        "relu": ((), engine_layers.UNNAMED),
        "view": ((), engine_layers.VIEW),
        "dead": ((), engine_layers.UNUSED),
        "node_of_y": ((4,), ""),
    }
    assert {home.node: home.layer_before for home in homes if home.layer_before is not None} == {"relu": 2}
    assert engine_layers.unnamed(homes) == {
        engine_layers.FOLDED: ["weight", "same", "shape"],
        "not named; the node before it is in layer 2": ["relu"],
        engine_layers.VIEW: ["view"],
        engine_layers.UNUSED: ["dead"],
    }


def test_node_that_nothing_named_stands_before():
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")], "g", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    (home,) = engine_layers.node_homes(graph, LAYERS)
    assert (home.reason, home.layer_before, home.explanation) == ("not named", None, "not named")


def test_a_layer_is_named_by_its_nodes():
    assert engine_layers.nodes_in(LAYERS[2]) == "conv + norm"
    assert engine_layers.nodes_in(LAYERS[1]) == "a signal kernel of no ONNX node"


def test_every_node_of_a_real_engine_has_a_home(models):
    graph = onnx.load(models["fp16"]).graph
    layers = build(models["fp16"], options()).report.layers
    homes = engine_layers.node_homes(graph, layers)
    assert [home.node for home in homes] == [node.name for node in graph.node]
    assert all(bool(home.layers) != bool(home.reason) for home in homes)
    assert all(home.node in layers[position].onnx_nodes for home in homes for position in home.layers)
    assert {home.node for home in homes if home.layers} >= {"conv0", "relu0", "conv1", "sum", "fc"}
