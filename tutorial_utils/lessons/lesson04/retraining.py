"""Lesson 04: remedies that change the weights of the classifier or the transformer, each by a training of seconds.

- `decay_stream` for `stream_scaled`: the transformer whose residual stream overflows FP16.
- `train_quantized` for weights on so few levels that rounding the trained ones (`round_weights`) ruins the network.
- `prune_two_of_four` sets half of the weights to 0.

What is trained here is kept in the cache.
"""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from onnx import numpy_helper

from tutorial_utils.base import paths, sealed_files
from tutorial_utils.base.errors import ExportError
from tutorial_utils.debug import tensor_errors
from tutorial_utils.measure import deployment, quality
from tutorial_utils.model import classifier, data, networks, onnx_file, trained
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

nn = paddle.nn

STREAM_FACTOR = 2.0**13  # as of `patients`
EPOCHS = 2  # of the classifier; the transformer, which has five times the data, sees every second sentence once
_RATES = {"quick": 1e-3, "transformer": 3e-3}  # learning rates
# Raise this by one whenever a training below, or `classifier.train`, gives other weights: the cache finds them by it.
RECIPE = 2
BATCH = 64


@dataclass(frozen=True)
class Retrained:
    """A network after a training, in evaluation mode, and the seconds that it took, also when read from the cache."""

    model: nn.Layer
    seconds: float


def network(name: str = "quick") -> nn.Layer:
    """Return a new copy of a trained network: "quick", the classifier, or "transformer"."""
    return trained.load_or_train(name).model


def stream_scaled() -> nn.Layer:
    """Return the transformer with its residual stream larger by `STREAM_FACTOR`.

    Each LayerNorm takes the factor out again, but for its epsilon, which is small beside either stream.
    """
    model = network("transformer")
    with paddle.no_grad():
        for parameter in _stream_writers(model):
            parameter.set_value(parameter * STREAM_FACTOR)
    return model


def decay_stream(decay: float) -> Retrained:
    """Train `stream_scaled` on, with weight decay on the parameters that write to the residual stream.

    The loss doesn't resist: LayerNorm takes every scale out again.

    Args:
        decay: Coefficient of the decay; a step multiplies the parameters by 1 minus learning rate times decay.
    """

    def train() -> nn.Layer:
        model = stream_scaled()
        decayed = {parameter.name for parameter in _stream_writers(model)}
        options = {"weight_decay": decay, "apply_decay_param_fun": lambda name: name in decayed}
        _fit(model, _RATES["transformer"], "transformer", **options)
        return model

    return _cached(f"stream-{decay}", train, "transformer")


def _stream_writers(model: nn.Layer) -> list[paddle.Tensor]:
    written = [model.tokens.weight, model.positions.weight]
    for layer in model.layers:
        written += [*layer.attention_output.parameters(), *layer.contract.parameters()]
    return written


def round_weights(model: nn.Layer, bits: int) -> nn.Layer:
    """Round the weights of convolutions and linear layers in place, each layer with one scale, and return the network.

    There are 2 bits or more: 3 leave the seven levels -3 to 3.
    """
    levels = 2 ** (bits - 1) - 1
    with paddle.no_grad():
        for layer in _layers(model, (nn.Conv2D, nn.Linear)):
            weight = layer.weight.numpy()
            scale = np.abs(weight).max() / levels
            layer.weight.set_value(np.rint(weight / scale) * scale)
    return model


def train_quantized(bits: int, quantized: bool = True, name: str = "quick") -> Retrained:
    """Train a network on with the rounding in every step (quantization-aware training), and round its weights.

    `paddle.quantization.QAT` rounds in the forward pass the weights of convolutions and linear layers, as
    `round_weights` does, and their inputs to 8 bits. The gradient passes the rounding as if it weren't there
    (straight-through estimator, https://arxiv.org/abs/1308.3432). The weights go into ONNX by `write_onnx` and
    `quantization.to_int8`, since `QAT.convert` of Paddle 3.3.1 fails, see `paddle_conversion`.

    Args:
        bits: Bits of the weights.
        quantized: False for the same training without rounding, for comparison. The weights are rounded after it, too.
        name: Of the network.
    """

    def train() -> nn.Layer:
        model = network(name)
        rounding = _with_rounding(model, bits) if quantized else model
        _fit(rounding, _RATES[name], name)
        weights = rounding.state_dict()  # holds the quantizers' state, too
        model.set_state_dict({name: weights[name] for name in model.state_dict()})
        return round_weights(model, bits)

    return _cached(f"rounded-{bits}-{quantized}", train, name)


def _with_rounding(model: nn.Layer, bits: int) -> nn.Layer:
    from paddle.quantization import QAT, QuantConfig
    from paddle.quantization.quanters import FakeQuanterWithAbsMaxObserver

    config = QuantConfig(activation=None, weight=None)
    activation = FakeQuanterWithAbsMaxObserver(moving_rate=0.9)
    weight = FakeQuanterWithAbsMaxObserver(moving_rate=0.9, bit_length=bits)
    config.add_type_config([nn.Conv2D, nn.Linear], activation=activation, weight=weight)
    model.train()  # QAT refuses networks in evaluation mode
    return QAT(config).quantize(model)


def paddle_conversion() -> str:
    """Let Paddle make the network for deployment from one that was trained with rounding; return what came of it."""
    from paddle.quantization import QAT, QuantConfig

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Paddle's remarks about its own calls
            QAT(QuantConfig(activation=None, weight=None)).convert(_with_rounding(network(), bits=8))
    except Exception as error:  # whatever Paddle raises is the answer
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return "converted"


def prune_two_of_four(retrain: bool = True, name: str = "quick") -> Retrained:
    """Set half of the weights of the classifier's convolutions or the transformer's linear layers to 0, and train on.

    The two smallest of every four neighbours along the input channels go: the pattern 2:4, with which sparse tensor
    cores compute. The first convolution is left alone: it has 3 input channels, too few for it.

    Args:
        retrain: Train the other weights after pruning.
        name: Of the network.
    """

    def train() -> nn.Layer:
        model = network(name)
        masks = {}
        for layer in _layers(model, nn.Conv2D if name == "quick" else nn.Linear):
            # [out, in, height, width] of a convolution, [in, out] of a linear layer
            weight = layer.weight.numpy() if name == "quick" else layer.weight.numpy().T
            if weight.shape[1] % 4 == 0:
                mask = two_of_four(weight)
                masks[layer.weight.name] = (mask if name == "quick" else mask.T).astype(np.float32)
        _apply(model, masks)
        if retrain:
            _fit(model, _RATES[name], name, after_step=lambda: _apply(model, masks))
        return model

    return _cached(f"pruned-24-{retrain}", train, name)


def two_of_four(weight: np.ndarray) -> np.ndarray:
    """Return a mask of the two largest magnitudes of each four input channels: bool, ``[out, in, ...]``."""
    out_channels, _, *size = weight.shape
    fours = np.abs(weight).reshape(out_channels, -1, 4, *size)
    mask = np.ones(fours.shape, bool)
    np.put_along_axis(mask, np.argsort(fours, axis=2, kind="stable")[:, :, :2], False, axis=2)
    return mask.reshape(weight.shape)


def _apply(model: nn.Layer, masks: Mapping[str, np.ndarray]) -> None:
    with paddle.no_grad():
        for parameter in model.parameters():
            if parameter.name in masks:
                parameter.set_value(parameter.numpy() * masks[parameter.name])


def _layers(model: nn.Layer, kind: type | tuple[type, ...]) -> list[nn.Layer]:
    return [layer for layer in model.sublayers() if isinstance(layer, kind)]


def _fit(model: nn.Layer, learning_rate: float, name: str = "quick", **options: Any) -> None:
    """Train in place, and leave the network in evaluation mode."""
    dataset, epochs = data.load(trained.DATASETS[name], "train"), EPOCHS
    if name == "transformer":
        dataset = data.Dataset(dataset.name, dataset.inputs[::2], dataset.labels[::2], dataset.class_names)
        epochs = max(1, EPOCHS // 2)
    classifier.train(model, dataset, epochs, BATCH, learning_rate, progress=False, **options)
    if name == "quick":
        model.train()
        _measure_statistics(model, dataset.images)
        model.eval()


def _measure_statistics(model: nn.Layer, images: np.ndarray) -> None:
    """Give the batch norms the mean statistics of all batches: a running mean is still far off after so few steps."""
    norms = _layers(model, nn.BatchNorm2D)
    usual = [norm._momentum for norm in norms]  # Paddle has no public access to it after construction
    with paddle.no_grad():
        for index, start in enumerate(range(0, len(images), BATCH)):
            for norm in norms:
                norm._momentum = index / (index + 1)
            model(paddle.to_tensor(images[start : start + BATCH]))
    for norm, momentum in zip(norms, usual, strict=True):
        norm._momentum = momentum


def _cached(name: str, train: Callable[[], nn.Layer], start_from: str = "quick") -> Retrained:
    """Return what an earlier call trained by today's recipe from today's network, or train."""
    start = network(start_from)
    hasher = blake3(str(RECIPE).encode())
    for value in start.state_dict().values():
        hasher.update(value.numpy().tobytes())
    path = paths.cache_dir("models") / f"retrained-{name}-{hasher.hexdigest(length=8)}.npz"
    with sealed_files.filling([path], path.with_suffix(".lock")) as missing:
        if missing:
            began = time.perf_counter()
            arrays = {key: value.numpy() for key, value in train().state_dict().items()}
            seconds = time.perf_counter() - began
            with paths.replacing(path) as temporary:
                np.savez(temporary, seconds=seconds, **arrays)
    with np.load(path) as stored:
        start.set_state_dict({key: stored[key] for key in stored.files if key != "seconds"})
        return Retrained(start, float(stored["seconds"]))


_PARAMETER = re.compile(r"(conv2d|batch_norm2d|linear|embedding|layer_norm)_(\d+)\.([wb]_\d)")


def write_onnx(model: nn.Layer, onnx_path: str | Path, name: str = "quick") -> Path:
    """Write a network as FP32 ONNX, and return the path: the trained one's file, with this network's weights.

    An export takes seconds, this doesn't. Paddle numbers the layers of a process, so the names in the file and those of
    the network have the same order and other numbers. Batch norms are folded into the convolutions, as TensorRT does
    too, so that the file's weights are those that an engine stores.

    Raises:
        ExportError: The network has other weights than the file.
    """
    exported = onnx_file.load((networks.quick if name == "quick" else networks.transformer)(("fp32",))["fp32"])
    tensors = {tensor.name: tensor for tensor in exported.graph.initializer}
    arrays = {value.name: value.numpy() for value in model.state_dict().values()}
    in_file, in_network = _numbered_from_0(tensors), _numbered_from_0(arrays)
    shapes = {key: tuple(tensors[name].dims) for key, name in in_file.items()}
    if shapes != {key: arrays[name].shape for key, name in in_network.items()}:
        what = "a quick classifier" if name == "quick" else "the transformer"
        raise ExportError(f"The network isn't {what}.", "Export it with export.to_onnx.")
    for key, name in in_file.items():
        tensors[name].CopyFrom(numpy_helper.from_array(arrays[in_network[key]], name))
    return onnx_file.save(onnx_file.folded(exported), onnx_path)


def _numbered_from_0(names: Iterable[str]) -> dict[tuple[str, int, str], str]:
    parts = [found for name in names if (found := _PARAMETER.fullmatch(name))]
    first = {kind: min(int(found[2]) for found in parts if found[1] == kind) for kind in {found[1] for found in parts}}
    return {(found[1], int(found[2]) - first[found[1]], found[3]): found[0] for found in parts}


@dataclass(frozen=True)
class Health:
    """What FP16 does to a classifier."""

    finite: bool  # whether all logits are finite with weights and tensors stored in FP16
    accuracy: float  # fraction of right answers in FP32
    accuracy_fp16: float  # the same in FP16; NaN is no answer


def examine(onnx_path: str | Path, test_set: data.Dataset) -> Health:
    """Run an FP32 classifier with one input as it is, and in FP16 as a GPU rounds it, on all test images."""
    graph = onnx_file.load(onnx_path).graph
    feeds, logits = {graph.input[0].name: test_set.inputs}, graph.output[0].name
    exact = tensor_errors.all_outputs(onnx_path, feeds)[logits]
    half = tensor_errors.all_outputs(onnx_path, feeds, stored_as="fp16")[logits]
    finite = np.isfinite(half).all(axis=1)
    return Health(
        finite=bool(finite.all()),
        accuracy=float(np.mean(exact.argmax(axis=1) == test_set.labels)),
        accuracy_fp16=float(np.mean(finite & (half.argmax(axis=1) == test_set.labels))),
    )


def accuracy_of(onnx_path: str | Path, test_set: data.Dataset) -> float:
    """Return the fraction of right answers that ONNX Runtime gives with a network's file, as the file is."""
    with OnnxRuntimeRunner(onnx_path) as runner:
        logits = deployment.predict(runner, test_set.inputs, BATCH)
    return quality.classification_metrics(test_set.labels, logits).accuracy
