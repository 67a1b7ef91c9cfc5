"""The zoo: small Paddle networks that hold the common layers, one or two each. `benchmarks/zoo.md` tabulates them.

A network is added with one entry of `NETWORKS`. Where it can't be exported, the entry says how the refusal reads, and
which network follows the advice that the refusal gives.
"""

import importlib
import os
import pickle
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from tutorial_utils.base import child_process, onnx_session
from tutorial_utils.base.errors import CourseError
from tutorial_utils.model import export
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners.paddle import PaddleRunner

nn, F = paddle.nn, paddle.nn.functional
BATCH, LENGTH = 3, 48  # of the zoo's own samples; an export is verified with other sizes and values


class Input(NamedTuple):
    """An input as it is declared, None for a size that may vary, and how its values are drawn."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int = 2  # integers lie below it
    batch: int = BATCH

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        sizes = [size or (LENGTH if axis else self.batch) for axis, size in enumerate(self.shape)]
        if self.dtype == "float32":
            return rng.standard_normal(sizes).astype(np.float32)
        return rng.integers(0, self.high, sizes).astype(self.dtype)


class Network(nn.Layer):
    """Layers, and a function of them and the inputs."""

    def __init__(self, function: Callable, layers: list[nn.Layer]):
        super().__init__()
        self.function = function
        self.layers = nn.LayerList(layers)

    def forward(self, first, second=None, third=None):  # Paddle's tracer takes no *inputs
        inputs = [value for value in (first, second, third) if value is not None]
        return self.function(*self.layers, *inputs)


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes:
        layers: Makes its layers.
        function: Called with the layers, then the inputs.
        inputs: Its inputs by name.
        refused: What the error of its export says, as a pattern; None where it is exported.
        remedied: The network that follows the advice of the refusal.
        opset: The opset that its export needs.
    """

    layers: Callable[[], list[nn.Layer]]
    function: Callable
    inputs: dict[str, Input]
    refused: str | None = None
    remedied: str | None = None
    opset: int = export.OPSET

    def build(self) -> Network:
        paddle.seed(0)
        network = Network(self.function, self.layers())
        for layer in network.sublayers():  # statistics and scales that do something
            if isinstance(layer, nn.BatchNorm2D):
                layer._mean.set_value(paddle.linspace(-0.5, 0.5, layer._mean.shape[0]))
                layer._variance.set_value(paddle.linspace(0.5, 2.0, layer._variance.shape[0]))
        network.eval()
        return network

    def samples(self, seed: int = 7) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: given.draw(rng) for name, given in self.inputs.items()}


@dataclass(frozen=True)
class Saved:
    """A network of the zoo as files, and what it computes as a dynamic graph, the truth for all else."""

    program: Path
    weights: Path
    samples: dict[str, np.ndarray]
    outputs: list[np.ndarray]


def save(name: str, folder: Path) -> Saved:
    entry = NETWORKS[name]
    network = entry.build()
    samples = entry.samples()
    with paddle.no_grad():
        outputs = network(*map(paddle.to_tensor, samples.values()))
    outputs = [output.numpy() for output in (outputs if isinstance(outputs, list | tuple) else [outputs])]
    specs = [paddle.static.InputSpec(list(given.shape), given.dtype, key) for key, given in entry.inputs.items()]
    paddle.jit.save(network, str(folder / name), input_spec=specs)
    return Saved(folder / f"{name}.json", folder / f"{name}.pdiparams", samples, outputs)


def save_all(folder: Path) -> dict[str, Saved]:
    return {name: save(name, folder) for name in NETWORKS}


def run_in_paddle(networks: dict[str, Saved]) -> dict[str, float]:
    """Run every network in PaddleRunner as it is by default; return the differences from the dynamic graph."""
    found = {}
    for name, saved in networks.items():
        with PaddleRunner(saved.program, saved.weights) as runner:
            found[name] = differences(list(runner.infer(saved.samples).values()), saved.outputs)
    return found


def export_all(networks: dict[str, Saved], folder: Path) -> dict[str, float | CourseError]:
    """Export every network; return for each how it differs from Paddle, or why it was refused.

    Each export has a process of its own, and so has its worker, which may die. They are forks of this one, which has
    loaded what all of them load and run none of it: a second for each network that goes into starting Python otherwise.
    """
    importlib.import_module("paddle2onnx")
    importlib.import_module("polygraphy.backend.onnx.loader")
    importlib.import_module("onnxruntime")
    with mock.patch.object(subprocess, "run", worker_in_a_fork):
        return {name: in_a_fork(export_one, name, saved, folder) for name, saved in networks.items()}


def export_one(name: str, saved: Saved, folder: Path) -> float | CourseError:
    """Export a network; return how it differs from Paddle, or why it was refused."""
    try:
        path = export.to_onnx(saved.program, saved.weights, folder / f"{name}.onnx", opset=NETWORKS[name].opset)
    except CourseError as error:
        return error
    return differences(onnx_session.new_session(path).run(None, saved.samples), saved.outputs)


def in_a_fork(function: Callable, *args):
    """Call a function in a fork of this process; return its result."""
    with tempfile.TemporaryFile() as answer:
        if not (child := os.fork()):
            try:
                pickle.dump(function(*args), answer)
                answer.flush()
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"{args[0]} ended its process: {child_process.ending(status)}"
        answer.seek(0)
        return pickle.load(answer)


def worker_in_a_fork(command: list[str], **_) -> subprocess.CompletedProcess[str]:
    """Stand in for `subprocess.run` where `export` starts its worker: run that module in a fork of this process."""
    module, *arguments = command[command.index("-m") + 1 :]
    with tempfile.TemporaryFile() as log:
        if not (child := os.fork()):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.argv = [module, *arguments]
            status = 1
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as ended:
                status = ended.code
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        return subprocess.CompletedProcess(command, status, "", log.read().decode(errors="replace"))


def differences(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(map(difference, actual, expected)) if len(actual) == len(expected) else np.inf


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest value; infinite for another shape or data type."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return np.inf
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(actual, expected) else np.inf
    if not np.array_equal(np.isnan(actual), np.isnan(expected)):
        return np.inf
    largest = np.nanmax(np.abs(expected), initial=np.finfo(np.float32).tiny)
    return float(np.nanmax(np.abs(actual - expected), initial=0) / largest)


IMAGE = {"x": Input((None, 3, 32, 32))}
ROWS = {"x": Input((None, 16))}
SEQUENCE = {"x": Input((None, None, 16))}
IDS = {"ids": Input((None, None), "int64", 50)}


def conv(channels: int = 8) -> nn.Layer:
    return nn.Conv2D(3, channels, 3, padding=1)


def after_conv(function: Callable | nn.Layer, **named) -> Entry:
    """A convolution, then the function."""
    return Entry(lambda: [conv()], lambda layer, x: function(layer(x)), IMAGE, **named)


def conv_and(layer: Callable[[], nn.Layer], **named) -> Entry:
    """A convolution, then the layer."""
    return Entry(lambda: [conv(), layer()], lambda first, then, x: then(first(x)), IMAGE, **named)


def after_linear(function: Callable, **named) -> Entry:
    return Entry(lambda: [nn.Linear(16, 12)], lambda layer, x: function(layer(x)), ROWS, **named)


def without_weights(function: Callable, inputs: dict[str, Input], **named) -> Entry:
    return Entry(list, function, inputs, **named)


def attention_by_hand(queries, keys, values, x, mask):
    scores = paddle.matmul(queries(x), keys(x), transpose_y=True) / 4.0
    scores = paddle.where(mask.unsqueeze(1), scores, paddle.full_like(scores, -1e9))
    return paddle.matmul(F.softmax(scores), values(x))


def scaled_dot_product(project, x):
    queries, keys, values = project(x).reshape([0, 0, 3, 2, 8]).unbind(2)
    return F.scaled_dot_product_attention(queries, keys, values).flatten(2)


def detector(layer, image, im_shape, scale_factor):
    boxes = layer(image).flatten(2).transpose([0, 2, 1])[:, :, :2] * scale_factor.unsqueeze(1)
    return paddle.minimum(boxes, im_shape.unsqueeze(1)), boxes.argmax(1)


def sine_and_cosine(layer, x):
    """Positions by angles: both read one value."""
    angles = layer(x)
    return paddle.concat([angles.sin(), angles.cos(), angles * 2], -1)


def windows(embed, norm, project, x):
    """Swin's windows of 2 by 2, shifted, of patches of 4 by 4."""
    shifted = paddle.roll(norm(embed(x).transpose([0, 2, 3, 1])), (-1, -1), (1, 2))
    return project(shifted.reshape([-1, 4, 2, 4, 2, 8]).transpose([0, 1, 3, 2, 4, 5]).reshape([-1, 4, 8]))


def causal_mask(project, x):
    """Attention to what came before, by a mask of infinities."""
    length = paddle.shape(x)[1]
    scores = paddle.matmul(project(x), x, transpose_y=True)
    return F.softmax(scores + paddle.triu(paddle.full([length, length], float("-inf")), 1))


def two_heads(body, classes, boxes, x):
    features = F.relu(body(x)).mean([2, 3])
    return F.softmax(classes(features)), F.sigmoid(boxes(features)), features.argmax(-1)


NETWORKS: dict[str, Entry] = {
    # after a convolution: normalization
    "batch_norm": conv_and(lambda: nn.BatchNorm2D(8)),
    "group_norm": conv_and(lambda: nn.GroupNorm(4, 8)),
    "instance_norm": conv_and(lambda: nn.InstanceNorm2D(8)),
    "batch_norm_without_scale": Entry(
        lambda: [conv(), nn.BatchNorm2D(8, weight_attr=False, bias_attr=False)],
        lambda c, norm, x: norm(F.relu(c(x))),
        IMAGE,
    ),
    "layer_norm_channels": Entry(
        lambda: [conv(), nn.LayerNorm(8)], lambda c, norm, x: norm(c(x).transpose([0, 2, 3, 1])), IMAGE
    ),
    "layer_norm_two_dims": conv_and(lambda: nn.LayerNorm([32, 32])),
    "local_response_norm": conv_and(lambda: nn.LocalResponseNorm(3)),
    # after a convolution: activations
    "leaky_relu": after_conv(lambda x: F.leaky_relu(x, 0.2)),
    "batch_norm_leaky_relu": conv_and(lambda: nn.Sequential(nn.BatchNorm2D(8), nn.LeakyReLU(0.1))),
    "leaky_relu_default": conv_and(nn.LeakyReLU),
    "prelu": conv_and(lambda: nn.PReLU(8, 0.3)),
    "relu6_hardswish": after_conv(lambda x: F.relu6(x) + F.hardswish(x)),
    "hardsigmoid": after_conv(lambda x: F.hardsigmoid(x)),
    "swish_mish": after_conv(lambda x: F.swish(x) + F.mish(x)),
    "gelu": after_conv(lambda x: F.gelu(x) + F.gelu(x, approximate=True)),
    "elu": after_conv(lambda x: F.elu(x, 0.5)),
    "celu": after_conv(lambda x: F.celu(x, 0.5), refused=r"pd_op\.celu", remedied="celu_by_elu"),
    "celu_by_elu": after_conv(lambda x: F.elu(x / 0.5) * 0.5),
    "selu": after_conv(F.selu),
    "softplus": after_conv(F.softplus),
    "softplus_beta": after_conv(lambda x: F.softplus(x, beta=2)),
    "softplus_threshold": after_conv(
        lambda x: F.softplus(x, threshold=5), refused=r"Only support softplus with beta == 1\.0", remedied="softplus"
    ),
    "hardtanh": after_conv(lambda x: F.hardtanh(x, -0.5, 0.5)),
    "softsign_tanh": after_conv(lambda x: F.softsign(x) + paddle.tanh(x)),
    "shrinks": after_conv(lambda x: F.hardshrink(x, 0.3) + F.softshrink(x, 0.2)),
    "thresholded_relu": after_conv(lambda x: F.thresholded_relu(x, 0.4)),
    "log_softmax": after_conv(lambda x: F.log_softmax(x, axis=1)),
    "glu": after_conv(lambda x: F.glu(x, axis=1)),
    "clip_scale": after_conv(lambda x: (x * 1.5 + 0.25).clip(-0.5, 0.75)),
    # after a convolution: sizes
    "upsample_nearest_scale": after_conv(lambda x: F.interpolate(x, scale_factor=2)),
    "upsample_bilinear_scale": after_conv(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "upsample_align_corners": conv_and(lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "upsample_size": after_conv(lambda x: F.interpolate(x, size=[64, 64], mode="bilinear")),
    "upsample_bicubic": after_conv(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    "upsample_odd_size": after_conv(
        lambda x: F.interpolate(x[:, :, :30, :30], size=[64, 64]),
        refused="differs.*nearest pixel.*whole factor",
        remedied="upsample_nearest_scale",
    ),
    "pad_value": after_conv(lambda x: F.pad(x, [1, 2, 1, 2], value=0.5)),
    "pad_reflect": after_conv(lambda x: F.pad(x, [1, 2, 1, 2], mode="reflect")),
    "pad_replicate": after_conv(lambda x: F.pad(x, [1, 2, 1, 2], mode="replicate")),
    "pad_circular": after_conv(
        lambda x: F.pad(x, [1, 2, 1, 2], mode="circular"), refused="opset=19", remedied="pad_circular_opset_19"
    ),
    "pad_circular_opset_19": after_conv(lambda x: F.pad(x, [1, 2, 1, 2], mode="circular"), opset=19),
    "max_avg_pool": after_conv(lambda x: F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1)),
    "max_pool_with_mask": after_conv(
        lambda x: F.max_pool2d(x, 2, return_mask=True), refused="return_mask=True gets lost", remedied="max_avg_pool"
    ),
    "adaptive_avg_pool_1": conv_and(lambda: nn.AdaptiveAvgPool2D(1)),
    "adaptive_avg_pool_divides": conv_and(lambda: nn.AdaptiveAvgPool2D(8)),
    "adaptive_avg_pool_uneven": conv_and(
        lambda: nn.AdaptiveAvgPool2D((5, 7)),
        refused="differs.*divides the input size",
        remedied="adaptive_avg_pool_divides",
    ),
    "adaptive_avg_pool_dynamic": Entry(
        lambda: [conv()],
        lambda layer, x: F.adaptive_avg_pool2d(layer(x), (1, 4)),
        {"x": Input((None, 3, None, None))},
        refused="Adaptive only support static input shape",
        remedied="adaptive_avg_pool_static",
    ),
    "adaptive_avg_pool_static": after_conv(lambda x: F.adaptive_avg_pool2d(x, (1, 4))),
    "adaptive_max_pool": conv_and(lambda: nn.AdaptiveMaxPool2D(4)),
    "pixel_shuffle": conv_and(lambda: nn.PixelShuffle(2)),
    "conv_transpose": conv_and(lambda: nn.Conv2DTranspose(8, 4, 3, 2, 1, output_padding=1)),
    "depthwise": conv_and(lambda: nn.Conv2D(8, 8, 3, groups=8, dilation=2)),
    "conv_same_dilated": conv_and(
        lambda: nn.Conv2D(8, 4, 3, padding="SAME", dilation=2),
        refused="dilations != 1, cannot support padding.*as a number",
        remedied="conv_number_dilated",
    ),
    "conv_number_dilated": conv_and(lambda: nn.Conv2D(8, 4, 3, padding=2, dilation=2)),
    "conv_channels_last": Entry(
        lambda: [nn.Conv2D(3, 4, 3, data_format="NHWC")],
        lambda c, x: c(x.transpose([0, 2, 3, 1])),
        IMAGE,
        refused="NHWC format.*data_format='NCHW'",
        remedied="layer_norm_channels",
    ),
    "avg_pool_ceil": after_conv(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, exclusive=False)),
    "matmul_of_images": after_conv(lambda x: paddle.matmul(x, x, transpose_y=True)),
    "windows": Entry(lambda: [nn.Conv2D(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 24)], windows, IMAGE),
    "conv1d": Entry(lambda: [nn.Conv1D(4, 6, 3)], lambda layer, x: F.relu(layer(x)), {"x": Input((None, 4, 32))}),
    "conv3d": Entry(lambda: [nn.Conv3D(2, 4, 3)], lambda layer, x: F.relu(layer(x)), {"x": Input((None, 2, 8, 8, 8))}),
    "deformable_conv": Entry(
        lambda: [conv(), nn.Conv2D(3, 18, 3, padding=1), nn.Conv2D(8, 4, 3)],
        lambda c, offset, weight, x: paddle.vision.ops.deform_conv2d(c(x), offset(x), weight.weight, padding=1),
        IMAGE,
        refused="impl_ pointer is null.*mask",
        remedied="deformable_conv_mask",
        opset=19,
    ),
    "deformable_conv_mask": Entry(
        lambda: [conv(), nn.Conv2D(3, 18, 3, padding=1), nn.Conv2D(3, 9, 3, padding=1), nn.Conv2D(8, 4, 3)],
        lambda c, offset, mask, weight, x: paddle.vision.ops.deform_conv2d(
            c(x), offset(x), weight.weight, padding=1, mask=F.sigmoid(mask(x))
        ),
        IMAGE,
        opset=19,
    ),
    "grid_sample": Entry(
        lambda: [conv()],
        lambda c, x, grid: F.grid_sample(c(x), paddle.tanh(grid)),
        {**IMAGE, "grid": Input((None, 16, 16, 2))},
    ),
    "dynamic_image": Entry(
        lambda: [nn.Conv2D(3, 8, 3, 2, 1), nn.Conv2D(8, 4, 1)],
        lambda down, head, x: head(F.interpolate(F.relu(down(x)), scale_factor=2)),
        {"x": Input((None, 3, None, None))},
    ),
    "skip_to_size_of_other": Entry(
        lambda: [conv(), nn.Conv2D(3, 8, 3, 2, 1)],
        lambda top, down, x: top(x) + F.interpolate(down(x), size=paddle.shape(x)[2:]),
        {"x": Input((None, 3, None, None))},
    ),
    # after a linear layer
    "linear_leaky_relu": after_linear(lambda x: F.leaky_relu(x, 0.1)),
    "linear_layer_norm": Entry(lambda: [nn.Linear(16, 12), nn.LayerNorm(12)], lambda a, b, x: b(a(x)), ROWS),
    "linear_dropout": Entry(lambda: [nn.Linear(16, 12), nn.Dropout(0.3)], lambda a, b, x: b(F.relu(a(x))), ROWS),
    "normalize": after_linear(lambda x: F.normalize(x)),
    "statistics": after_linear(lambda x: paddle.concat([x.std(-1, keepdim=True), x.var(-1, keepdim=True)], -1)),
    "logsumexp_norm": after_linear(lambda x: paddle.stack([paddle.logsumexp(x, -1), paddle.norm(x, 2, -1)], -1)),
    "topk": after_linear(lambda x: paddle.topk(x, 3)),
    "argsort": after_linear(lambda x: (paddle.sort(x), paddle.argsort(x, descending=True))),
    "split": after_linear(lambda x: tuple(paddle.split(x, [3, 4, 5], -1))),
    "sine_and_cosine": Entry(lambda: [nn.Linear(16, 12)], sine_and_cosine, ROWS),
    "over_all_axes": after_linear(lambda x: (x.mean(), x.sum(), x.max(), x - x.min(keepdim=True), paddle.logsumexp(x))),
    "any_all": after_linear(lambda x: ((x > 0).any(), (x > -9).all())),
    "norm_over_all": after_linear(lambda x: x.norm(), refused="Identity|Pow.*as in \\(x", remedied="norm_by_sum"),
    "norm_by_sum": after_linear(lambda x: (x * x).sum().sqrt()),
    "number_over_tensor": after_linear(lambda x: 1 / (1 + paddle.exp(-x))),
    "cumsum": after_linear(lambda x: paddle.cumsum(x, -1)),
    "einsum": after_linear(lambda x: paddle.einsum("bi,bj->bij", x, x)),
    "where": after_linear(lambda x: paddle.where(x > 0, x, x * 0.1)),
    "bool_output": after_linear(lambda x: x.mean(-1) > 0),
    "argmax": after_linear(lambda x: x.argmax(-1)),
    "large_integers": after_linear(
        lambda x: (
            x.argmax(-1) + paddle.full([1], 2**24 + 1, "int64"),
            x.argmax(-1, True) + paddle.to_tensor([2**24 + 3]),
        )
    ),
    "nan_for_some": after_linear(lambda x: paddle.sqrt(x)),
    "empty_output": after_linear(lambda x: paddle.masked_select(x, x > 1e6)),
    "masked_select": after_linear(lambda x: paddle.masked_select(x, x > 0)),
    "gather": after_linear(lambda x: paddle.gather(x, paddle.to_tensor([3, 1, 1]), axis=1)),
    "roll_flip_tril": after_linear(lambda x: paddle.roll(x, 2, -1) + paddle.flip(x, [-1]) + paddle.tril(x)),
    "svd": after_linear(lambda x: paddle.linalg.svd(x)[1], refused=r"pd_op\.svd"),
    "fft": after_linear(lambda x: paddle.abs(paddle.fft.rfft(x))),
    # sequences
    "embedding": Entry(
        lambda: [nn.Embedding(50, 16), nn.Linear(16, 4)],
        lambda table, head, ids: head(table(ids).mean(1)),
        IDS,
    ),
    "embedding_positions": Entry(
        lambda: [nn.Embedding(50, 16), nn.Embedding(64, 16)],
        lambda words, places, ids: words(ids) + places(paddle.arange(paddle.shape(ids)[1])),
        IDS,
    ),
    "lstm": Entry(lambda: [nn.LSTM(16, 8)], lambda layer, x: layer(x)[0], SEQUENCE),
    "lstm_two_ways": Entry(lambda: [nn.LSTM(16, 8, direction="bidirect")], lambda layer, x: layer(x)[0], SEQUENCE),
    "simple_rnn": Entry(
        lambda: [nn.SimpleRNN(16, 8)],
        lambda layer, x: layer(x)[0],
        SEQUENCE,
        refused="SimpleRNN gets lost",
        remedied="gru",
    ),
    "gru": Entry(lambda: [nn.GRU(16, 8)], lambda layer, x: layer(x)[0], SEQUENCE),
    "gru_last_states": Entry(
        lambda: [nn.GRU(16, 8, 2)],
        lambda layer, x: layer(x)[1],
        {"x": Input((None, 12, 16))},
        refused="last states of a recurrent layer with num_layers > 1",
        remedied="gru_last_states_of_one_each",
    ),
    "gru_last_states_of_one_each": Entry(
        lambda: [nn.GRU(16, 8), nn.GRU(8, 8)],
        lambda first, second, x: second(first(x)[0])[1],
        {"x": Input((None, 12, 16))},
    ),
    "attention_by_hand": Entry(
        lambda: [nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)],
        attention_by_hand,
        {**SEQUENCE, "mask": Input((None, None), "bool")},
    ),
    "scaled_dot_product": Entry(lambda: [nn.Linear(16, 48)], scaled_dot_product, SEQUENCE),
    "causal_mask": Entry(lambda: [nn.Linear(16, 16)], causal_mask, SEQUENCE),
    "multi_head_attention": Entry(lambda: [nn.MultiHeadAttention(16, 2)], lambda layer, x: layer(x, x, x), SEQUENCE),
    "transformer_encoder": Entry(
        lambda: [nn.TransformerEncoderLayer(16, 2, 32, activation="gelu")], lambda layer, x: layer(x), SEQUENCE
    ),
    "bert_like": Entry(
        lambda: [nn.Embedding(50, 16), nn.Embedding(2, 16), nn.LayerNorm(16), nn.TransformerEncoderLayer(16, 2, 32)],
        lambda words, kinds, norm, block, ids, types: block(norm(words(ids) + kinds(types)))[:, 0],
        {**IDS, "types": Input((None, None), "int64")},
    ),
    # several inputs and outputs, no weights
    "two_batches": Entry(
        lambda: [nn.Linear(8, 4), nn.Linear(4, 4)],
        lambda a, b, x, z: a(x).sum(0) + b(z).sum(0),
        {"x": Input((None, 8)), "z": Input((None, 4), batch=5)},
    ),
    "two_inputs": Entry(
        lambda: [conv(), nn.Linear(16, 8)],
        lambda c, fc, x, z: c(x).mean([2, 3]) + fc(z),
        {**IMAGE, "z": Input((None, 16))},
    ),
    "detector": Entry(
        lambda: [conv()],
        detector,
        {"image": IMAGE["x"], "im_shape": Input((None, 2)), "scale_factor": Input((None, 2))},
    ),
    "two_heads": Entry(lambda: [conv(), nn.Linear(8, 4), nn.Linear(8, 2)], two_heads, IMAGE),
    "scale_only": without_weights(lambda x: x * 2 - 1, ROWS),
    "normalize_image": without_weights(
        lambda x: (x.astype("float32") / 255).transpose([0, 3, 1, 2]), {"x": Input((None, None, None, 3), "uint8", 256)}
    ),
    "cosine_similarity": without_weights(
        lambda x, z: F.cosine_similarity(x, z, axis=-1), {**ROWS, "z": Input((None, 16))}
    ),
    "one_hot_int32": without_weights(lambda ids: F.one_hot(ids, 5), {"ids": Input((None,), "int32", 5)}),
    "expand_tile": without_weights(
        lambda x: paddle.concat([x.unsqueeze(1).tile([1, 3, 1]), x.unsqueeze(1).expand([-1, 2, -1])], 1), ROWS
    ),
    "gather_nd_index": Entry(
        lambda: [nn.Linear(16, 12)],
        lambda layer, x, index: paddle.gather_nd(layer(x), index),
        {**ROWS, "index": Input((None, 2), "int64", 2)},
    ),
    "bool_input": Entry(
        lambda: [nn.Linear(16, 12)],
        lambda layer, x, keep: layer(x) * keep.astype("float32").unsqueeze(-1),
        {**ROWS, "keep": Input((None,), "bool")},
    ),
    "nms": Entry(
        lambda: [nn.Linear(4, 4)],
        lambda layer, x, scores: paddle.vision.ops.nms(layer(x), 0.5, scores),
        {"x": Input((None, 4)), "scores": Input((None,))},
        refused=r"pd_op\.nms",
    ),
}
