"""The article's first program: one ResNet-50 in three predictors of Paddle 2.6, each timed by one call; and its export.

These are its calls with its arguments, in its order, so that the two can be compared line by line. Three things differ:
weights are random instead of trained, the images are given, and warm calls are timed after the article's cold ones.
Needs Paddle 2.6 for GPUs and TensorRT 8.6; `article` runs it. By hand:

    python article_predictors.py save FOLDER              # writes model.pdmodel and model.pdiparams
    python article_predictors.py predict FOLDER NAME ...  # names of `PREDICTORS`; reads images.npy, writes NAME.npy
    python article_predictors.py export FOLDER            # writes model.onnx, with which the article's second begins

Each step prints a line of JSON. What the libraries log goes to stderr.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.inference as paddle_infer
from paddle import nn

PREDICTORS: dict[str, dict[str, Any]] = {
    "gpu": {"use_trt": False},
    "trt_fp32": {"precision": paddle_infer.PrecisionType.Float32},
    "trt_fp16": {"precision": paddle_infer.PrecisionType.Half},
    "cpu": {"use_gpu": False, "use_trt": False},  # the article has no such row
}


class Classifier(nn.Layer):
    """Paddle's ResNet-50 for ImageNet, its last layer replaced by dropout and a linear layer for 10 classes."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        *backbone, last = paddle.vision.models.resnet50(pretrained=False).children()
        self.features = nn.Sequential(*backbone)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last.weight.shape[0], num_classes))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, 10]``."""
        return self.classifier(paddle.flatten(self.features(x), 1))


def save(folder: Path) -> None:
    """Write the network as a static program. On the CPU: the wheel may have no kernels for this GPU."""
    paddle.set_device("cpu")
    paddle.seed(0)
    model = Classifier()
    model.eval()
    spec = paddle.static.InputSpec(shape=[None, 3, 32, 32], dtype="float32")
    paddle.jit.save(model, str(folder / "model"), input_spec=[spec])


def create_predictor(
    folder: Path,
    use_gpu: bool = True,
    use_trt: bool = True,
    precision: paddle_infer.PrecisionType = paddle_infer.PrecisionType.Float32,
) -> paddle_infer.Predictor:
    """Make a predictor with the article's options. With TensorRT, the engine is built here."""
    config = paddle_infer.Config(str(folder / "model.pdmodel"), str(folder / "model.pdiparams"))
    if use_gpu:
        config.enable_use_gpu(1 << 32, 0, precision)
    if use_trt:
        config.enable_tensorrt_engine(
            workspace_size=1 << 32, max_batch_size=64, min_subgraph_size=3, precision_mode=precision
        )
        smallest, largest, usual = ({"x": [batch, 3, 32, 32]} for batch in (1, 64, 1))
        config.set_trt_dynamic_shape_info(smallest, largest, usual)
    return paddle_infer.create_predictor(config)


def get_io_handles(predictor: paddle_infer.Predictor) -> tuple[paddle_infer.Tensor, paddle_infer.Tensor]:
    """Return the handles of the first input and of the first output."""
    return (
        predictor.get_input_handle(predictor.get_input_names()[0]),
        predictor.get_output_handle(predictor.get_output_names()[0]),
    )


def run_inference(
    predictor: paddle_infer.Predictor, input_handle: paddle_infer.Tensor, output_handle: paddle_infer.Tensor,
    images: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Run once, from numpy to numpy: what the article times."""
    input_handle.copy_from_cpu(images)
    predictor.run()
    return output_handle.copy_to_cpu()


def predict(folder: Path, names: list[str]) -> None:
    """Make and call one predictor after the other, as the article does; then time warm calls of all in turn."""
    images = np.load(folder / "images.npy")
    calls = {}
    for name in names:
        print(f"######## {name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        predictor = create_predictor(folder, **PREDICTORS[name])
        calls[name] = functools.partial(run_inference, predictor, *get_io_handles(predictor), images)
        created = time.perf_counter()
        logits = calls[name]()
        called = time.perf_counter()
        np.save(folder / f"{name}.npy", logits)
        times = {"create_s": round(created - started, 3), "first_ms": round(1e3 * (called - created), 3)}
        print(json.dumps({"name": name, **times}), flush=True)
    from tutorial_utils.measure import timing  # the article's program ends above

    warm = timing.measure_in_turn(calls, batch=len(images), max_calls=200)
    print(json.dumps({"warm": timing.to_plain(warm)}), flush=True)


def export(folder: Path) -> None:
    """Convert the static program to ONNX with paddle2onnx, which Paddle calls. On the CPU, as `save`."""
    paddle.set_device("cpu")
    model = paddle.jit.load(str(folder / "model"))
    spec = [paddle.static.InputSpec(shape=[None, 3, 32, 32], dtype="float32", name="x")]
    answers = os.dup(1)
    os.dup2(2, 1)  # paddle2onnx logs to stdout
    print("######## export", file=sys.stderr, flush=True)
    started = time.perf_counter()
    paddle.onnx.export(model, str(folder / "model"), input_spec=spec, opset_version=15)
    seconds = time.perf_counter() - started
    os.dup2(answers, 1)
    print(json.dumps({"seconds": round(seconds, 2)}), flush=True)


if __name__ == "__main__":
    step, folder, *names = sys.argv[1:]
    if step == "save":
        save(Path(folder))
    elif step == "predict":
        predict(Path(folder), names)
    else:
        export(Path(folder))
