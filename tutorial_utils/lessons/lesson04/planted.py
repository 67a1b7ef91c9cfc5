"""Models with one fault each, of kinds that deployed models have, made from a seed: the fault laboratory of lesson 04.

The networks are small and their weights random: what an answer means doesn't matter where two computations of it are
compared. A seed decides weights and inputs, and where a fault may be in several places, which it is. Nodes are named as
the tensor that they write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.model import export

Feeds = dict[str, np.ndarray]

BATCH = 64
CLASSES = 10
TOKENS, WIDTH = 16, 32  # of the attention
HIDDEN = 64  # of the normalization
_OUTLIER = 7  # which channel
_EPSILON = 1e-12  # below FP16's smallest number, 6e-8
_FLOAT, _BOOL = TensorProto.FLOAT, TensorProto.BOOL


@dataclass(frozen=True)
class Faulty:
    """A model with a fault, and what shows it."""

    model: onnx.ModelProto  # FP32
    feeds: Feeds
    culprit: str | None  # the tensor at which the fault was planted, if one was


class _Graph:
    """An ONNX graph in the making."""

    def __init__(self, seed: int, name: str):
        self.random = np.random.default_rng([seed, *name.encode()])
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, *others: str, **attributes: object) -> str:
        self._nodes.append(helper.make_node(operator, list(inputs), [output, *others], output, **attributes))
        return output

    def constant(self, name: str, values: np.ndarray | float, dtype: type = np.float32) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def linear(self, source: str, output: str, rows: int, columns: int, gain: float = 1.0) -> str:
        """Add a matrix product with weights that keep the spread of values, times the gain."""
        values = self.random.standard_normal((rows, columns)) * gain / np.sqrt(rows)
        return self.add("MatMul", [source, self.constant(f"{output}.weight", values)], output)

    def conv(self, source: str, output: str, channels_in: int, channels: int, stride: int = 1) -> str:
        """Add a 3x3 convolution with weights that keep the spread of values."""
        shape = (channels, channels_in, 3, 3)
        values = self.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        weight = self.constant(f"{output}.weight", values)
        return self.add("Conv", [source, weight], output, pads=[1] * 4, strides=[stride] * 2)

    def finished(
        self, inputs: Mapping[str, tuple[int, Sequence[int | str]]], outputs: Mapping[str, tuple]
    ) -> onnx.ModelProto:
        """Return the model. Inputs come with data type and dimensions, as do outputs."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(name, *declared) for name, declared in inputs.items()],
            [helper.make_tensor_value_info(name, *declared) for name, declared in outputs.items()],
            self._weights,
        )
        opset = helper.make_opsetid("", export.OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)


_SCORES = {"scores": (_FLOAT, ["batch", CLASSES])}


def attention(seed: int, large: bool = True, minus: float = -np.inf) -> Faulty:
    """Return an attention block: its mask is ``minus`` at padding, and in FP16 ``logits`` overflow if they are large.

    Its inputs are tokens, float32 ``[N, 16, 32]``, and which of them are valid, bool ``[N, 1, 16]``. Softmax makes 0
    of padding: an infinite mask does no harm. Divided by the root of the width, the logits would fit into FP16.
    """
    graph = _Graph(seed, "attention")
    normed = _attended(graph, "tokens", large, minus)
    model = _classified(graph, normed, WIDTH, {"tokens": (_FLOAT, ["batch", TOKENS, WIDTH]), **_VALID})
    return Faulty(model, _tokens(graph.random), "logits" if large else None)


def layernorm(seed: int) -> Faulty:
    """Return a layer whose LayerNorm is made of several nodes, after an activation with an outlier.

    Its input is float32 ``[N, 32]``. The square of the outlier overflows in FP16, the mean of the squares doesn't.
    """
    graph = _Graph(seed, "layernorm")
    hidden = graph.linear("features", "hidden", WIDTH, HIDDEN, 10)
    shifted = graph.add("Add", [hidden, _outlier(graph, "outlier", HIDDEN)], "biased")
    normed = _normalized(graph, shifted, HIDDEN)
    model = _classified(graph, normed, HIDDEN, {"features": (_FLOAT, ["batch", WIDTH])}, has_tokens=False)
    return Faulty(model, {"features": _normal(graph.random, BATCH, WIDTH)}, "square")


def block(seed: int, minus: float = -1e9) -> Faulty:
    """Return a layer of a transformer with both faults: large logits of `attention`, and the outlier of `layernorm`."""
    graph = _Graph(seed, "block")
    attended = _attended(graph, "tokens", large=True, minus=minus)
    hidden = graph.linear(attended, "hidden", WIDTH, HIDDEN, 10)
    shifted = graph.add("Add", [hidden, _outlier(graph, "outlier", HIDDEN)], "biased")
    normed = _normalized(graph, shifted, HIDDEN)
    model = _classified(graph, normed, HIDDEN, {"tokens": (_FLOAT, ["batch", TOKENS, WIDTH]), **_VALID})
    return Faulty(model, _tokens(graph.random), "logits")


def underflow(seed: int) -> Faulty:
    """Return a network that divides products of small probabilities by their sum. In FP16, all products are 0.

    Its input is float32 ``[N, 16, 32]``: 16 places with two probabilities each, whose product says how much they count.
    An epsilon of 1e-12 guards the division, and so guards nothing in FP16.
    """
    graph = _Graph(seed, "underflow")
    small = []
    for name in ("left", "right"):
        raw = graph.linear("places", f"{name}.raw", WIDTH, 1, 0.4)
        low = graph.add("Sub", [raw, graph.constant(f"{name}.offset", 10.5)], f"{name}.low")
        small.append(graph.add("Sigmoid", [low], name))
    joint = graph.add("Mul", small, "joint")
    axis = graph.constant("places.axis", [1], np.int64)
    total = graph.add("ReduceSum", [joint, axis], "total")
    safe = graph.add("Add", [total, graph.constant("epsilon", _EPSILON)], "safe")
    share = graph.add("Div", [joint, safe], "share")
    weighted = graph.add("Mul", ["places", share], "weighted")
    pooled = graph.add("ReduceSum", [weighted, axis], "pooled", keepdims=0)
    graph.linear(pooled, "scores", WIDTH, CLASSES)
    model = graph.finished({"places": (_FLOAT, ["batch", TOKENS, WIDTH])}, _SCORES)
    return Faulty(model, {"places": _normal(graph.random, BATCH, TOKENS, WIDTH)}, "joint")


def detector(seed: int, k: int = 5000) -> onnx.ModelProto:
    """Return a small detector whose last part takes the best ``k`` of 8,192 candidates, for 1x3x64x64 images.

    Above 3,840, ONNX Runtime runs it, and TensorRT reads it and can't build it.
    """
    graph = _Graph(seed, "detector")
    source, channels = "image", 3
    for i in range(4):
        conv = graph.conv(source, f"conv{i}", channels, 8)
        source, channels = graph.add("Relu", [conv], f"relu{i}"), 8
    raw = graph.conv(source, "raw", channels, 2)
    flat = graph.constant("flat.shape", [1, -1], np.int64)
    scores = graph.add("Sigmoid", [graph.add("Reshape", [raw, flat], "flat")], "candidates")
    offsets = graph.conv(source, "offsets", channels, 2)
    places = graph.add("Reshape", [offsets, flat], "places")
    graph.add("TopK", [scores, graph.constant("k", [k], np.int64)], "best", "which")
    graph.add("GatherElements", [places, "which"], "chosen", axis=1)
    graph.add("Concat", ["best", "chosen"], "detections", axis=0)
    return graph.finished({"image": (_FLOAT, [1, 3, 64, 64])}, {"detections": (_FLOAT, [2, k])})


def exports(seed: int, fault: str | None = "drawn") -> tuple[onnx.ModelProto, onnx.ModelProto, Feeds, str | None]:
    """Return two exports of one image classifier, the input of both, and the first tensor that is wrong in the second.

    The second export has its batch norms folded into the convolutions. Its fault is one of these, None, or drawn:

    - ``"mean"``: the means of the three channels in the order of BGR,
    - ``"axis"``: a softmax along another axis,
    - ``"fold"``: one batch norm folded with an epsilon of 1e-3 in place of 1e-5.

    The input, ``pixels``, is float32 ``[N, 3, 16, 16]`` from 0 to 255.
    """
    layers = 5
    culprits = {"mean": "centred", "axis": "weights", "fold": "", None: None}
    random = np.random.default_rng(seed)
    wrong, drawn = int(random.integers(1, layers - 1)), list(culprits)[random.integers(len(culprits))]
    fault = drawn if fault == "drawn" else fault
    culprits["fold"] = f"norm{wrong}"
    models = []
    for is_second in (False, True):
        graph = _Graph(seed, "exports")
        planted = fault if is_second else None
        mean = np.float32([123.7, 116.3, 103.5])[:: -1 if planted == "mean" else 1].reshape(3, 1, 1)
        centred = graph.add("Sub", ["pixels", graph.constant("mean", mean)], "centred")
        scaled = graph.add("Div", [centred, graph.constant("deviation", 58.0)], "scaled")
        source, channels = scaled, 3
        for i in range(layers):
            epsilon = 1e-3 if planted == "fold" and i == wrong else 1e-5
            source, channels = _conv_and_norm(graph, source, i, channels, is_second, epsilon), 16
        tokens = graph.add("Reshape", [source, graph.constant("tokens.shape", [0, 16, -1], np.int64)], "tokens")
        alike = graph.linear(tokens, "alike", 64, 16)
        weights = graph.add("Softmax", [alike], "weights", axis=1 if planted == "axis" else 2)
        mixed = graph.add("MatMul", [weights, tokens], "mixed")
        pooled = graph.add("ReduceMean", [mixed], "pooled", axes=[2], keepdims=0)
        graph.linear(pooled, "scores", 16, CLASSES)
        models.append(graph.finished({"pixels": (_FLOAT, ["batch", 3, 16, 16])}, _SCORES))
    colours = graph.random.uniform(0, 256, (16, 3, 1, 1))  # of each image its own
    pixels = np.clip(colours + 40 * graph.random.standard_normal((16, 3, 16, 16)), 0, 255)
    return *models, {"pixels": np.float32(np.rint(pixels))}, culprits[fault]


def convolutions(seed: int) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """Return a network of four convolutions, its images, and images as a wrong calibration gets them.

    Images are float32 ``[64, 3, 16, 16]``, about from -2 to 2; the others are pixels from 0 to 1, without the
    normalization that the network was trained with.
    """
    graph = _Graph(seed, "convolutions")
    source, channels = "x", 3
    for i in range(4):
        conv = graph.conv(source, f"conv{i}", channels, 16, stride=1 + i % 2)
        source, channels = graph.add("Relu", [conv], f"relu{i}"), 16
    pooled = graph.add("GlobalAveragePool", [source], "pooled")
    flat = graph.add("Flatten", [pooled], "flat")
    graph.linear(flat, "scores", 16, CLASSES)
    pixels = np.float32(graph.random.uniform(0, 1, (BATCH, 3, 16, 16)))
    model = graph.finished({"x": (_FLOAT, ["batch", 3, 16, 16])}, _SCORES)
    return model, (pixels - np.float32(0.45)) / np.float32(0.225), pixels


# --- parts -----------------------------------------------------------------------------------------------------------

_VALID = {"valid": (_BOOL, ["batch", 1, TOKENS])}


def _attended(graph: _Graph, source: str, large: bool, minus: float) -> str:
    """Add an attention in which each token looks at itself above all, as those do whose logits have grown large."""
    bounds = [graph.constant("zero", 0.0), graph.constant("minus", minus)]
    mask = graph.add("Where", ["valid", *bounds], "mask")
    # The squared length of a token is about WIDTH, and so is its logit for itself, before this gain.
    gain = graph.random.uniform(2600, 3000) if large else 1.0
    turned = np.linalg.qr(graph.random.standard_normal((WIDTH, WIDTH)))[0]
    for name in ("query", "key"):
        weight = graph.constant(f"{name}.weight", turned * np.sqrt(gain))
        graph.add("MatMul", [source, weight], name)
    value = graph.linear(source, "value", WIDTH, WIDTH)
    keys = graph.add("Transpose", ["key"], "keys", perm=[0, 2, 1])
    logits = graph.add("MatMul", ["query", keys], "logits")
    scaled = graph.add("Mul", [logits, graph.constant("scale", WIDTH**-0.5)], "scaled")
    masked = graph.add("Add", [scaled, mask], "masked")
    weights = graph.add("Softmax", [masked], "weights", axis=-1)
    mixed = graph.add("MatMul", [weights, value], "mixed")
    return graph.add("Add", [source, mixed], "attended")


def _outlier(graph: _Graph, name: str, width: int) -> str:
    """Return a constant in which one channel is far from all others."""
    values = np.zeros(width)
    values[_OUTLIER] = graph.random.uniform(700, 900)
    return graph.constant(name, values)


def _normalized(graph: _Graph, source: str, width: int) -> str:
    """Add a LayerNorm as exporters write it that don't know the operator."""
    mean = graph.add("ReduceMean", [source], "mean", axes=[-1])
    centred = graph.add("Sub", [source, mean], "centred")
    square = graph.add("Pow", [centred, graph.constant("two", 2.0)], "square")
    variance = graph.add("ReduceMean", [square], "variance", axes=[-1])
    safe = graph.add("Add", [variance, graph.constant("norm.epsilon", 1e-5)], "safe")
    deviation = graph.add("Sqrt", [safe], "deviation")
    normal = graph.add("Div", [centred, deviation], "normal")
    gamma = graph.random.uniform(2, 6, width)
    gamma[_OUTLIER] = 0.01  # as training does with an outlier: the answer doesn't depend on it
    return graph.add("Mul", [normal, graph.constant("gamma", gamma)], "normed")


def _classified(
    graph: _Graph, source: str, width: int, inputs: Mapping[str, tuple], has_tokens: bool = True
) -> onnx.ModelProto:
    if has_tokens:  # the first one answers for all
        source = graph.add("Gather", [source, graph.constant("first", 0, np.int64)], "token", axis=1)
    graph.linear(source, "scores", width, CLASSES)
    return graph.finished(inputs, _SCORES)


def _conv_and_norm(graph: _Graph, source: str, i: int, channels: int, folded: bool, epsilon: float) -> str:
    """Add a convolution with its batch norm and a ReLU; folded, the two first are one node with the norm's name."""
    shape = (16, channels, 3, 3)
    weight = graph.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    gamma, beta = graph.random.uniform(0.8, 1.2, 16), graph.random.normal(0, 0.1, 16)
    # Some channels vary little: theirs is the spread that an epsilon matters for.
    variance = np.where(np.arange(16) % 4, graph.random.uniform(0.5, 1.5, 16), 2e-3)
    weight *= np.sqrt(variance).reshape(-1, 1, 1, 1)
    strides = [2 if i == 0 else 1] * 2
    options = {"pads": [1] * 4, "strides": strides}
    if folded:
        factor = gamma / np.sqrt(variance + epsilon)
        weight = graph.constant(f"norm{i}.weight", weight * factor.reshape(-1, 1, 1, 1))
        norm = graph.add("Conv", [source, weight, graph.constant(f"norm{i}.bias", beta)], f"norm{i}", **options)
    else:
        conv = graph.add("Conv", [source, graph.constant(f"conv{i}.weight", weight)], f"conv{i}", **options)
        values = {"gamma": gamma, "beta": beta, "mean": np.zeros(16), "variance": variance}
        statistics = [graph.constant(f"norm{i}.{name}", one) for name, one in values.items()]
        norm = graph.add("BatchNormalization", [conv, *statistics], f"norm{i}", epsilon=epsilon)
    return graph.add("Relu", [norm], f"relu{i}")


def _tokens(random: np.random.Generator) -> Feeds:
    lengths = random.integers(TOKENS // 2, TOKENS + 1, BATCH)
    valid = np.arange(TOKENS) < lengths.reshape(-1, 1)
    return {"tokens": _normal(random, BATCH, TOKENS, WIDTH), "valid": valid.reshape(BATCH, 1, TOKENS)}


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return np.float32(random.standard_normal(shape))
